package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var offeringColumns = []column[*apiv1.Offering]{
	{head: "NAME", value: (*apiv1.Offering).GetName},
	{head: "VERSION", value: versionOf},
	{head: "STATE", value: func(m *apiv1.Offering) string { return lower(m.GetState()) }, state: true},
	{head: "IMAGE", value: (*apiv1.Offering).GetImage},
	{head: "A_MONTH", value: priceOf},
	{head: "ZONES", value: func(m *apiv1.Offering) string { return strings.Join(m.GetZones(), ",") }},
	{head: "TITLE", value: func(m *apiv1.Offering) string { return inLanguage(m.GetTitle()) }, text: true},
	{head: "CATEGORY", value: (*apiv1.Offering).GetCategory, wide: true},
	{head: "POLICY", value: (*apiv1.Offering).GetApprovalPolicy, wide: true},
	{head: "ID", value: (*apiv1.Offering).GetId, wide: true},
	{head: "PUBLISHED", value: func(m *apiv1.Offering) string { return ago(m.GetPublishedAt()) }, wide: true},
}

// versionOf says which version this is, and which one is being written: 2, or 2 (3 is being written).
func versionOf(m *apiv1.Offering) string {
	v := strconv.Itoa(int(m.GetVersion()))
	if m.GetNextVersion() != 0 {
		v += fmt.Sprintf(" (%d is being written)", m.GetNextVersion())
	}
	return v
}

// priceOf is what the flavors cost a month, from the least to the most.
func priceOf(m *apiv1.Offering) string {
	var prices []string
	for _, f := range m.GetFlavors() {
		if cost, err := catalog.MonthlyCost(m, f, 1); err == nil && cost != nil {
			prices = append(prices, f.GetFlavor()+" "+catalog.Price(cost))
		}
	}
	return strings.Join(prices, ", ")
}

func (a *app) offeringNoun() noun[*apiv1.Offering] {
	return noun[*apiv1.Offering]{
		name: "catalog", plural: "offerings", short: "Offerings: what can be asked for, and at what price", in: []string{}, filter: "state=published", columns: offeringColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Offering, string, error) {
			r, err := c.Offerings.ListOfferings(ctx, &apiv1.ListOfferingsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetOfferings(), r.GetNextPageToken(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Offering], error), error) {
			s, err := c.Offerings.WatchOfferings(ctx, &apiv1.WatchOfferingsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchOfferingsResponse) change[*apiv1.Offering] {
				return change[*apiv1.Offering]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOffering()}
			})
		},
		make: "Begin an offering, which nobody can ask for until it is published",
	}
}

func (a *app) catalog() *cobra.Command {
	n := a.offeringNoun()
	verbs := written(a, n, func(ctx context.Context, c *client.Client, m *apiv1.Offering) (*apiv1.Operation, error) {
		r, err := c.Offerings.CreateOffering(ctx, &apiv1.CreateOfferingRequest{Offering: m})
		return r.GetOperation(), err
	}, func(ctx context.Context, c *client.Client, m *apiv1.Offering, mask *fieldmaskpb.FieldMask) (*apiv1.Offering, error) {
		r, err := c.Offerings.UpdateOffering(ctx, &apiv1.UpdateOfferingRequest{Offering: m, UpdateMask: mask})
		return r.GetOffering(), err
	})
	cmd := command(a, n, append(verbs, a.showOffering(), a.offeringVersions(), a.previewOffering(), a.deleteOffering(),
		a.onOffering("publish", "Make what was written a version that can be asked for, and that never changes", func(ctx context.Context, c *client.Client, name string) (*apiv1.Offering, error) {
			r, err := c.Offerings.PublishOffering(ctx, &apiv1.PublishOfferingRequest{Offering: name})
			return r.GetOffering(), err
		}),
		a.onOffering("retire", "Take an offering out of the catalogue; what was made with it stays", func(ctx context.Context, c *client.Client, name string) (*apiv1.Offering, error) {
			r, err := c.Offerings.RetireOffering(ctx, &apiv1.RetireOfferingRequest{Offering: name})
			return r.GetOffering(), err
		}))...)
	cmd.Aliases = append(cmd.Aliases, "offering")
	return cmd
}

// onOffering is a verb that changes one offering and shows it.
func (a *app) onOffering(verb, short string, do func(context.Context, *client.Client, string) (*apiv1.Offering, error)) *cobra.Command {
	var etag string
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Args: oneArgument}
	etagFlag(cmd, &etag)
	a.completeArguments(cmd, "catalog", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			m, err := do(ifMatch(ctx, etag), c, args[0])
			if err != nil {
				return err
			}
			return printOne(a, m, offeringColumns)
		})
	}
	return cmd
}

func (a *app) showOffering() *cobra.Command {
	var version uint32
	cmd := &cobra.Command{Use: "show NAME", Aliases: []string{"get"}, Short: "Show all of one offering, by name or id", Args: oneArgument}
	cmd.Flags().Uint32Var(&version, "version", 0, "a version; 0: the one that can be asked for")
	a.completeArguments(cmd, "catalog", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Offerings.GetOffering(ctx, &apiv1.GetOfferingRequest{Offering: args[0], Version: version})
			if err != nil {
				return err
			}
			if a.output == "table" {
				return a.describe(r.GetOffering())
			}
			return printOne(a, r.GetOffering(), offeringColumns)
		})
	}
	return cmd
}

func (a *app) offeringVersions() *cobra.Command {
	cmd := &cobra.Command{Use: "versions NAME", Short: "List the versions of an offering, the newest first", Args: oneArgument}
	a.completeArguments(cmd, "catalog", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			var all []*apiv1.Offering
			for token := ""; ; {
				r, err := c.Offerings.ListOfferingVersions(ctx, &apiv1.ListOfferingVersionsRequest{Offering: args[0], PageSize: 1000, PageToken: token})
				if err != nil {
					return err
				}
				all = append(all, r.GetOfferings()...)
				if token = r.GetNextPageToken(); token == "" {
					return printList(a, offeringColumns, all)
				}
			}
		})
	}
	return cmd
}

func (a *app) deleteOffering() *cobra.Command {
	var version uint32
	var w waiting
	var etag string
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete an offering that was never published, or the version that is being written", Args: oneArgument,
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "only this version, which is being written")
	etagFlag(cmd, &etag)
	w.flags(cmd)
	a.completeArguments(cmd, "catalog", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			r, err := c.Offerings.DeleteOffering(ifMatch(ctx, etag), &apiv1.DeleteOfferingRequest{Offering: args[0], Version: version})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	a.asks(cmd, deletes("offering", "offerings"))
	return cmd
}

func (a *app) previewOffering() *cobra.Command {
	req := &apiv1.PreviewOfferingRequest{}
	var form string
	cmd := &cobra.Command{
		Use: "preview NAME", Short: "Show what asking for an offering would come to: the price, and what the guest would be given", Args: oneArgument,
		Example: `  naru catalog preview web --flavor s1 --quantity 3 --zone business --form '{"service_name":"minwon"}'`,
	}
	f := cmd.Flags()
	f.Uint32Var(&req.Version, "version", 0, "a version; 0: the one that can be asked for")
	f.StringVar(&req.Flavor, "flavor", "", "one of the offering's; may be left out where it has only one")
	f.StringVar(&req.Zone, "zone", "", "where it is to run")
	f.Uint32Var(&req.Quantity, "quantity", 1, "how many")
	f.Uint32Var(&req.LeaseDays, "lease-days", 0, "how long; 0: as the offering says")
	f.StringVar(&form, "form", "", "what is filled into the form: a JSON object, or @FILE")
	f.StringSliceVar(&req.WithoutSoftware, "without", nil, "optional software to leave out")
	a.completeArguments(cmd, "catalog", 1, &scope{})
	a.completeNames(cmd, "flavor", "flavor")
	a.completeNames(cmd, "zone", "zone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) (err error) {
			req.Offering = args[0]
			if req.Form, err = a.argument(form); err != nil {
				return err
			}
			r, err := c.Offerings.PreviewOffering(ctx, req)
			if err != nil {
				return err
			}
			if a.documents() {
				return a.message(r)
			}
			lines := [][2]string{
				{"version", strconv.Itoa(int(r.GetVersion()))}, {"a month", catalog.Price(r.GetMonthlyCost())},
				{"in all", fmt.Sprintf("%d cores, %d MiB memory, %d GiB disk", r.GetAmount().GetCores(), r.GetAmount().GetMemoryMib(), r.GetAmount().GetDiskGib())},
				{"lease", "no end"},
			}
			if r.GetLeaseDays() > 0 {
				lines[3][1] = fmt.Sprintf("%d days", r.GetLeaseDays())
			}
			for _, l := range lines {
				fmt.Fprintf(a.out, "%-8s %s\n", l[0], printable(l[1]))
			}
			for line := range strings.Lines(r.GetUserData()) {
				fmt.Fprintln(a.out, printable(strings.TrimRight(line, "\n")))
			}
			return nil
		})
	}
	return cmd
}
