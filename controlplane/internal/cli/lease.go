package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var leaseColumns = []column[*apiv1.Lease]{
	{head: "VM", value: (*apiv1.Lease).GetVm},
	{head: "STATE", value: func(m *apiv1.Lease) string { return lower(m.GetState()) }, state: true},
	{head: "EXPIRES", value: func(m *apiv1.Lease) string { return local(m.GetExpiresAt()) }},
	{head: "NEXT", value: nextOfLease},
	{head: "PROJECT", value: (*apiv1.Lease).GetProject},
	{head: "ZONE", value: (*apiv1.Lease).GetZone},
	{head: "REQUEST", value: (*apiv1.Lease).GetRequest},
	{head: "EXTENSIONS", value: func(m *apiv1.Lease) string { return strconv.Itoa(len(m.GetExtensions())) }, wide: true},
	{head: "LONGEST", value: func(m *apiv1.Lease) string { return local(m.GetLongestUntil()) }, wide: true},
	{head: "ID", value: (*apiv1.Lease).GetId, wide: true},
}

// nextOfLease is what becomes of the VM next, and when.
func nextOfLease(m *apiv1.Lease) string {
	switch m.GetState() {
	case apiv1.Lease_PENDING:
		return "begins when it can be used"
	case apiv1.Lease_ACTIVE:
		return "warned " + local(m.GetWarnAt())
	case apiv1.Lease_WARNED:
		return "stopped " + local(m.GetExpiresAt())
	case apiv1.Lease_EXPIRED:
		return "trashed " + local(m.GetReclaimAt())
	case apiv1.Lease_TRASHED:
		return "deleted " + local(m.GetDeleteAt())
	}
	return "-"
}

func (a *app) leaseNoun() noun[*apiv1.Lease] {
	return noun[*apiv1.Lease]{
		name: "lease", plural: "leases", short: "How long VMs last", in: []string{"project"}, filter: "state=warned", columns: leaseColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Lease, string, error) {
			r, err := c.Leases.ListLeases(ctx, &apiv1.ListLeasesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token, Project: q.project})
			return r.GetLeases(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Lease, error) {
			r, err := c.Leases.GetLease(ctx, &apiv1.GetLeaseRequest{Lease: name, Project: s.project})
			return r.GetLease(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Lease], error), error) {
			s, err := c.Leases.WatchLeases(ctx, &apiv1.WatchLeasesRequest{After: after, Filter: q.filter, Project: q.project})
			return client.Changes(s, err, func(m *apiv1.WatchLeasesResponse) change[*apiv1.Lease] {
				return change[*apiv1.Lease]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetLease()}
			})
		},
	}
}

func (a *app) lease() *cobra.Command {
	return command(a, a.leaseNoun(), a.createLease(), a.extendLease(), a.shortenLease())
}

func (a *app) createLease() *cobra.Command {
	m := &apiv1.Lease{Terms: &apiv1.LeaseTerms{}}
	cmd := a.action("vm", "create", "Give a VM that has none a lease", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		m.Vm, m.Project = name, s.project
		r, err := c.Leases.CreateLease(ctx, &apiv1.CreateLeaseRequest{Lease: m})
		return r.GetOperation(), err
	})
	cmd.Use, cmd.Example = "create VM", "  naru lease create web-1 --project web --days 90"
	f := cmd.Flags()
	f.Uint32Var(&m.Days, "days", 0, "how long it lasts, from now or from when it can be used")
	f.Uint32Var(&m.Terms.LongestDays, "longest-days", 0, "the longest, extensions included; 0: no bound")
	f.Uint32Var(&m.Terms.WarnDays, "warn-days", 0, "people are warned so many days before; 0: 7")
	f.Uint32Var(&m.Terms.GraceDays, "grace-days", 0, "it stands stopped so many days; 0: 7")
	f.Uint32Var(&m.Terms.TrashDays, "trash-days", 0, "the trash keeps it so many days; 0: 14")
	_ = cmd.MarkFlagRequired("days")
	return cmd
}

// extendLease asks for more time.
func (a *app) extendLease() *cobra.Command {
	var s scope
	var w waiting
	ask := &apiv1.ExtendLease{}
	m := &apiv1.Request{Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Extend{Extend: ask}}}
	cmd := &cobra.Command{Use: "extend VM", Short: "Ask for more time", Args: oneArgument, Example: "  naru lease extend web-1 --days 30 --reason 'the tender goes on'"}
	a.scopeFlags(cmd, []string{"project"}, &s)
	a.completeArguments(cmd, "vm", 1, &s)
	cmd.Flags().Uint32Var(&ask.Days, "days", 0, "so many days more")
	cmd.Flags().StringVar(&m.Reason, "reason", "", "why; approvers read it")
	w.flags(cmd)
	_ = cmd.MarkFlagRequired("days")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		limit := shortLimit
		if w.wait {
			limit = requestLimit
		}
		return a.run(cmd, limit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"project"}, &s)
			ask.Vm, m.Project = args[0], s.project
			r, err := c.Requests.CreateRequest(ctx, &apiv1.CreateRequestRequest{Request: m, Submit: true})
			if err != nil {
				return err
			}
			return a.finishRequest(ctx, c, r.GetRequest(), w)
		})
	}
	return cmd
}

func (a *app) shortenLease() *cobra.Command {
	return a.shorten("vm", "Make a lease end earlier", "  naru lease shorten web-1 --until 2026-12-31T18:00:00+09:00 --reason 'not needed'", []string{"project"},
		func(ctx context.Context, c *client.Client, name string, s scope, until *timestamppb.Timestamp, reason string) error {
			r, err := c.Leases.ShortenLease(ctx, &apiv1.ShortenLeaseRequest{Lease: name, Project: s.project, ExpiresAt: until, Reason: reason})
			if err != nil {
				return err
			}
			return printOne(a, r.GetLease(), leaseColumns)
		})
}
