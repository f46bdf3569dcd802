package cli

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// updateRequest changes a draft, or what was returned for correction.
func (a *app) updateRequest() *cobra.Command {
	var d draftFlags
	cmd := &cobra.Command{
		Use: "update REQUEST", Short: "Change a draft, or what was returned for correction", Args: oneArgument,
		Long: `Change a draft, or what was returned for correction: what the flags or the file say, and no other. Then submit it: naru request submit.
Of the form, fields that are not given stay as they are. Whoever changes a request has helped write it, and does not decide on it.`,
		Example: `  naru request update r-7 --quantity 1 --reason 'one is enough'
  naru request update r-7 --field service_name=shop
  naru request update r-7 -f request.yaml`,
	}
	f := cmd.Flags()
	f.StringVarP(&d.file, "file", "f", "", "the fields to change as YAML or JSON, as show -o yaml has them; - is standard input")
	changes := pflag.NewFlagSet("changes", pflag.ContinueOnError)
	d.describe(changes)
	changes.StringVar(&d.zone, "zone", "", "where")
	f.AddFlagSet(changes)
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given := map[string]bool{}
		changes.VisitAll(func(f *pflag.Flag) {
			if f.Changed {
				given[f.Name] = true
			}
		})
		switch {
		case d.file != "" && len(given) > 0:
			return usagef("what to change is said by flags or by --file, not by both")
		case d.file == "" && len(given) == 0:
			return usagef("nothing to change was given: --file, or flags such as --reason and --quantity")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Requests.GetRequest(ctx, &apiv1.GetRequestRequest{Request: args[0]})
			if err != nil {
				return err
			}
			m, paths := &apiv1.Request{}, []string(nil)
			if d.file != "" {
				paths, err = a.readFile(d.file, m)
			} else {
				m, paths, err = a.revised(r.GetRequest(), &d, given)
			}
			if err != nil {
				return err
			}
			m.Id = r.GetRequest().GetId()
			out, err := c.Requests.UpdateRequest(ifMatch(ctx, r.GetRequest().GetRevision()), &apiv1.UpdateRequestRequest{Request: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
			if err != nil {
				return err
			}
			return printOne(a, out.GetRequest(), requestColumns)
		})
	}
	return cmd
}

// revised is a request with what the given flags change of it, and the fields that they change.
func (a *app) revised(was *apiv1.Request, d *draftFlags, given map[string]bool) (m *apiv1.Request, paths []string, err error) {
	m = &apiv1.Request{Title: d.title, Reason: d.reason, OnBehalfOf: d.onBehalfOf, Zone: d.zone, LeaseDays: d.lease, Specification: proto.CloneOf(was.GetSpecification())}
	if err := d.times(m); err != nil {
		return nil, nil, err
	}
	for flag, field := range map[string]string{"title": "title", "reason": "reason", "on-behalf-of": "on_behalf_of", "zone": "zone", "lease-days": "lease_days",
		"start": "desired_start", "decide-by": "decide_by", "carry-out-by": "carry_out_by"} {
		if given[flag] {
			paths = append(paths, field)
		}
	}
	ask := m.GetSpecification().GetCreate()
	if ask == nil {
		ask = &apiv1.CreateVMs{}
	}
	before := proto.CloneOf(ask)
	for flag, set := range map[string]func() error{
		"offering": func() error { ask.Offering, ask.OfferingVersion = d.offering, 0; return nil },
		"flavor":   func() error { ask.Flavor = d.flavor; return nil },
		"cluster":  func() error { ask.Cluster = d.cluster; return nil },
		"name":     func() error { ask.NamePattern = d.name; return nil },
		"quantity": func() error { ask.Quantity = d.quantity; return nil },
		"without":  func() error { ask.WithoutSoftware = d.without; return nil },
		"ssh-key":  func() (err error) { ask.SshKeys, err = a.keysOf(d.keys); return err },
		"field":    func() (err error) { ask.Form, err = filledIn(ask.GetForm(), d.form); return err },
	} {
		if !given[flag] {
			continue
		}
		if was.GetSpecification().GetCreate() == nil {
			if flag == "flavor" && was.GetSpecification().GetResize() != nil {
				m.GetSpecification().GetResize().Flavor = d.flavor
				continue
			}
			return nil, nil, usagef("--%s is of requests for VMs; request %s asks for something else", flag, was.GetName())
		}
		if err := set(); err != nil {
			return nil, nil, err
		}
	}
	if !proto.Equal(before, ask) || !proto.Equal(was.GetSpecification(), m.GetSpecification()) {
		paths = append(paths, "specification")
	}
	return m, paths, nil
}

// filledIn is a form in which some fields are filled in anew.
func filledIn(form string, fields []string) (string, error) {
	text, err := formOf(fields)
	if err != nil || form == "" {
		return text, err
	}
	var all, more map[string]any
	if err := json.Unmarshal([]byte(form), &all); err != nil {
		return text, nil // what is no form is replaced
	}
	if err := json.Unmarshal([]byte(text), &more); err != nil {
		return "", err
	}
	maps.Copy(all, more)
	b, err := json.Marshal(all)
	return string(b), err
}

// keysOf are SSH keys, given as they are or as @FILE.
func (a *app) keysOf(given []string) (keys []string, err error) {
	for _, k := range given {
		key, err := a.argument(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, strings.TrimSpace(key))
	}
	return keys, nil
}

// times reads when something is not to begin before, and when it is to be decided and begun by.
func (d *draftFlags) times(m *apiv1.Request) error {
	for _, x := range []struct {
		flag, text string
		to         **timestamppb.Timestamp
	}{{"start", d.start, &m.DesiredStart}, {"decide-by", d.decideBy, &m.DecideBy}, {"carry-out-by", d.carryOutBy, &m.CarryOutBy}} {
		if x.text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, x.text)
		if err != nil {
			return usagef("--%s %s: write it as 2026-12-01T09:00:00+09:00", x.flag, x.text)
		}
		*x.to = timestamppb.New(t)
	}
	return nil
}
