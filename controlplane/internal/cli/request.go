package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var requestColumns = []column[*apiv1.Request]{
	{head: "NAME", value: (*apiv1.Request).GetName},
	{head: "KIND", value: func(m *apiv1.Request) string { return lower(m.GetKind()) }},
	{head: "TITLE", value: (*apiv1.Request).GetTitle, text: true},
	{head: "REQUESTER", value: (*apiv1.Request).GetRequester},
	{head: "PROJECT", value: (*apiv1.Request).GetProject},
	{head: "ZONE", value: (*apiv1.Request).GetZone},
	{head: "APPROVAL", value: func(m *apiv1.Request) string { return lower(m.GetApproval()) }, state: true},
	{head: "FULFILMENT", value: func(m *apiv1.Request) string { return lower(m.GetFulfilment()) }, state: true},
	{head: "WAITS FOR", value: waitsFor, text: true, wide: true},
	{head: "SUBMITTED", value: func(m *apiv1.Request) string { return local(m.GetSubmittedAt()) }, wide: true},
	{head: "ID", value: (*apiv1.Request).GetId, wide: true},
}

// waitsFor says what a request waits for.
func waitsFor(m *apiv1.Request) string {
	var out []string
	for _, s := range m.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN {
			out = append(out, cmp.Or(s.GetStuck(), s.GetName()))
		}
	}
	if len(out) == 0 {
		return m.GetFulfilmentReason()
	}
	return strings.Join(out, ", ")
}

func (a *app) requestNoun() noun[*apiv1.Request] {
	return noun[*apiv1.Request]{
		name: "request", plural: "requests", short: "Requests: what was asked for, who decides, and what came of it", in: []string{"project"}, filter: "approval=in_review",
		history: true, columns: requestColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Request, string, error) {
			r, err := c.Requests.ListRequests(ctx, &apiv1.ListRequestsRequest{Project: q.project, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetRequests(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Request, error) {
			r, err := c.Requests.GetRequest(ctx, &apiv1.GetRequestRequest{Request: name})
			return r.GetRequest(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Request], error), error) {
			s, err := c.Requests.WatchRequests(ctx, &apiv1.WatchRequestsRequest{After: after, Project: q.project, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchRequestsResponse) change[*apiv1.Request] {
				return change[*apiv1.Request]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetRequest()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.Requests.DeleteRequest(ctx, &apiv1.DeleteRequestRequest{Request: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) request() *cobra.Command {
	one := func(verb, short string, flags func(*pflag.FlagSet), call func(context.Context, *client.Client, string) (*apiv1.Request, error)) *cobra.Command {
		cmd := &cobra.Command{Use: verb + " REQUEST", Short: short, Args: oneArgument}
		if flags != nil {
			flags(cmd.Flags())
		}
		a.completeArguments(cmd, "request", 1, &scope{})
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				m, err := call(ctx, c, args[0])
				if err != nil {
					return err
				}
				return printOne(a, m, requestColumns)
			})
		}
		return cmd
	}
	var reason string
	return command(a, a.requestNoun(), a.createRequest(), a.waitRequest(), a.comment(),
		one("submit", "Submit a draft, or what was returned", nil, func(ctx context.Context, c *client.Client, name string) (*apiv1.Request, error) {
			r, err := c.Requests.SubmitRequest(ctx, &apiv1.SubmitRequestRequest{Request: name})
			return r.GetRequest(), err
		}),
		one("withdraw", "End a request that is not carried out yet", func(f *pflag.FlagSet) { f.StringVar(&reason, "reason", "", "why; it stays in the record") },
			func(ctx context.Context, c *client.Client, name string) (*apiv1.Request, error) {
				r, err := c.Requests.WithdrawRequest(ctx, &apiv1.WithdrawRequestRequest{Request: name, Reason: reason})
				return r.GetRequest(), err
			}),
		one("copy", "Make a new draft of a request", nil, func(ctx context.Context, c *client.Client, name string) (*apiv1.Request, error) {
			r, err := c.Requests.CopyRequest(ctx, &apiv1.CopyRequestRequest{Request: name})
			return r.GetRequest(), err
		}),
		one("retry", "Carry out again what failed of an approved request", nil, func(ctx context.Context, c *client.Client, name string) (*apiv1.Request, error) {
			r, err := c.Requests.RetryRequest(ctx, &apiv1.RetryRequestRequest{Request: name})
			return r.GetRequest(), err
		}),
	)
}

func (a *app) comment() *cobra.Command {
	var text string
	cmd := &cobra.Command{Use: "comment REQUEST --text TEXT", Short: "Say something of a request", Args: oneArgument}
	cmd.Flags().StringVar(&text, "text", "", "what to say, or @FILE")
	cmd.MarkFlagRequired("text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			said, err := a.argument(text)
			if err != nil {
				return err
			}
			_, err = c.Requests.CommentRequest(ctx, &apiv1.CommentRequestRequest{Request: args[0], Text: said})
			return err
		})
	}
	return cmd
}

// draftFlags are what `request create` takes.
type draftFlags struct {
	file, title, reason, onBehalfOf, offering, flavor, cluster, name, start, vm, power, roleCluster, changeType string
	quantity, lease                                                                                             uint32
	keys, form, without                                                                                         []string
	force, draft                                                                                                bool
	scope
}

func (a *app) createRequest() *cobra.Command {
	var d draftFlags
	var w waiting
	cmd := &cobra.Command{
		Use: "create", Short: "Ask for something; --draft keeps it without submitting", Args: noArguments,
		Example: `  naru request create --offering web-server --zone business --quantity 2 --name 'web-##' --field host_name=shop --reason 'the old ones are full'
  naru request create --power stop --vm web-1 --reason maintenance
  naru request create -f request.json`,
	}
	a.scopeFlags(cmd, []string{"project", "zone"}, &d.scope)
	f := cmd.Flags()
	f.StringVarP(&d.file, "file", "f", "", "the whole request as JSON, as show -o json has it; - is standard input")
	f.StringVar(&d.title, "title", "", "one line")
	f.StringVar(&d.reason, "reason", "", "why")
	f.StringVar(&d.onBehalfOf, "on-behalf-of", "", "`user` for whom it is")
	f.StringVar(&d.offering, "offering", "", "what is asked for, of the catalogue")
	f.StringVar(&d.flavor, "flavor", "", "one of the offering's")
	f.StringVar(&d.cluster, "cluster", "", "in this cluster; without it the control plane chooses")
	f.StringVar(&d.name, "name", "", "name of the VM; a run of # stands for its number: web-##")
	f.Uint32Var(&d.quantity, "quantity", 1, "how many")
	f.Uint32Var(&d.lease, "lease-days", 0, "how long; 0: as the offering says")
	f.StringArrayVar(&d.keys, "ssh-key", nil, "a line of an authorized_keys file, or @FILE; may be given again")
	f.StringArrayVar(&d.form, "field", nil, "`NAME=VALUE` of the offering's form; may be given again")
	f.StringArrayVar(&d.without, "without", nil, "optional `software` to leave out")
	f.StringVar(&d.start, "start", "", "not before this time: 2026-12-01T09:00:00+09:00")
	f.StringVar(&d.vm, "vm", "", "with --power: the VM")
	f.StringVar(&d.power, "power", "", "start, stop or reboot a VM")
	f.BoolVar(&d.force, "force", false, "with --power: cut the power at once")
	f.StringVar(&d.roleCluster, "role-cluster", "", "whom the change concerns: infrastructure, operations, partner, release, security, service, support")
	f.StringVar(&d.changeType, "change-type", "", "standard, normal or emergency")
	f.BoolVar(&d.draft, "draft", false, "keep it as a draft")
	w.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("draft", "wait")
	a.completeWith(cmd, "power", []string{"start", "stop", "reboot"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		limit := shortLimit
		if w.wait {
			limit = requestLimit
		}
		return a.run(cmd, limit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"project", "zone"}, &d.scope)
			m, err := a.draftOf(&d)
			if err != nil {
				return err
			}
			r, err := c.Requests.CreateRequest(ctx, &apiv1.CreateRequestRequest{Request: m, Submit: !d.draft})
			if err != nil {
				return err
			}
			return a.finishRequest(ctx, c, r.GetRequest(), w)
		})
	}
	return cmd
}

// draftOf makes a request of the flags, or of a file.
func (a *app) draftOf(d *draftFlags) (*apiv1.Request, error) {
	if d.file != "" {
		text, err := a.argument("@" + d.file)
		if err != nil {
			return nil, err
		}
		m := &apiv1.Request{}
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			return nil, usagef("-f %s: %v", d.file, err)
		}
		return m, nil
	}
	m := &apiv1.Request{
		Title: d.title, Reason: d.reason, OnBehalfOf: d.onBehalfOf, Project: d.project, Zone: d.zone, LeaseDays: d.lease,
		RoleCluster: apiv1.Request_RoleCluster(apiv1.Request_RoleCluster_value[strings.ToUpper(d.roleCluster)]),
		ChangeType:  apiv1.ChangeType_Value(apiv1.ChangeType_Value_value[strings.ToUpper(d.changeType)]),
	}
	switch {
	case d.roleCluster != "" && m.GetRoleCluster() == 0:
		return nil, usagef("--role-cluster %s: it is infrastructure, operations, partner, release, security, service or support", d.roleCluster)
	case d.changeType != "" && m.GetChangeType() == 0:
		return nil, usagef("--change-type %s: it is standard, normal or emergency", d.changeType)
	case (d.offering == "") == (d.power == ""):
		return nil, usagef("say what to ask for: --offering, or --power with --vm")
	}
	if d.start != "" {
		t, err := time.Parse(time.RFC3339, d.start)
		if err != nil {
			return nil, usagef("--start %s: write it as 2026-12-01T09:00:00+09:00", d.start)
		}
		m.DesiredStart = timestamppb.New(t)
	}
	if d.power != "" {
		verb := apiv1.PowerVM_Verb(apiv1.PowerVM_Verb_value[strings.ToUpper(d.power)])
		if verb == 0 || d.vm == "" {
			return nil, usagef("--power is start, stop or reboot, and goes with --vm")
		}
		m.Zone = ""
		m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: d.vm, Verb: verb, Force: d.force}}}
		return m, nil
	}
	form, err := formOf(d.form)
	if err != nil {
		return nil, err
	}
	ask := &apiv1.CreateVMs{Offering: d.offering, Flavor: d.flavor, Cluster: d.cluster, Quantity: d.quantity, NamePattern: d.name, Form: form, WithoutSoftware: d.without}
	for _, k := range d.keys {
		key, err := a.argument(k)
		if err != nil {
			return nil, err
		}
		ask.SshKeys = append(ask.SshKeys, strings.TrimSpace(key))
	}
	m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: ask}}
	return m, nil
}

// formOf makes a JSON object of NAME=VALUE. What reads as a number, as true or as false is one; "…" makes it a text.
func formOf(fields []string) (string, error) {
	if len(fields) == 0 {
		return "", nil
	}
	out := map[string]any{}
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return "", usagef("--field %s: write it as NAME=VALUE", f)
		}
		var v any
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			v = value
		}
		out[name] = v
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("the form: %w", err)
	}
	return string(b), nil
}
