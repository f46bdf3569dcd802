package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	{head: "CHANGE", value: func(m *apiv1.Request) string { return lower(m.GetChangeType()) }},
	{head: "INTAKE", value: func(m *apiv1.Request) string { return lower(m.GetIntake()) }},
	{head: "VM", value: vmsOf, wide: true},
	{head: "AUTHORITY", value: func(m *apiv1.Request) string { return lower(m.GetAuthority()) }, wide: true},
	{head: "WAITS FOR", value: waitsFor, text: true, wide: true},
	{head: "SUBMITTED", value: func(m *apiv1.Request) string { return local(m.GetSubmittedAt()) }, wide: true},
	{head: "ID", value: (*apiv1.Request).GetId, wide: true},
}

// vmsOf names the VMs that a request is about.
func vmsOf(m *apiv1.Request) string {
	if m.GetKind() == apiv1.RequestKind_ACCESS || m.GetKind() == apiv1.RequestKind_CROSS_ZONE {
		return ""
	}
	var names []string
	for _, p := range m.GetParts() {
		names = append(names, p.GetName())
	}
	return strings.Join(names, ",")
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
	var mine bool
	return noun[*apiv1.Request]{
		name: "request", plural: "requests", short: "Requests: what was asked for, who decides, and what came of it", in: []string{"project"}, filter: "approval=in_review",
		history: true, columns: requestColumns,
		narrow: func(f *pflag.FlagSet) {
			f.BoolVar(&mine, "mine", false, "only what you asked for, or what was asked for you")
		},
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Request, string, error) {
			r, err := c.Requests.ListRequests(ctx, &apiv1.ListRequestsRequest{Mine: mine, Project: q.project, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
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
	return command(a, a.requestNoun(), a.createRequest(), a.updateRequest(), a.waitRequest(), a.comment(), a.comments(), a.attach(), a.detach(), a.attachment(),
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

// draftFlags are what `request create` takes.
type draftFlags struct {
	file, title, reason, onBehalfOf, offering, flavor, cluster, name, start, power, snapshot, restore, roleCluster, changeType string
	quantity, lease, keepDays                                                                                                  uint32
	keys, form, without, vms                                                                                                   []string
	force, draft, resize, untrash, reclaim, mayStop, crossing, inZone                                                          bool
	access, from, decideBy, carryOutBy, intake, externalRef                                                                    string
	permissions                                                                                                                []string
	days                                                                                                                       uint32
	scope
}

// describe adds the flags that say what is asked for, and why.
func (d *draftFlags) describe(f *pflag.FlagSet) {
	f.StringVar(&d.title, "title", "", "one line")
	f.StringVar(&d.reason, "reason", "", "why")
	f.StringVar(&d.onBehalfOf, "on-behalf-of", "", "`user` for whom it is")
	f.StringVar(&d.offering, "offering", "", "what is asked for, of the catalogue")
	f.StringVar(&d.flavor, "flavor", "", "one of the offering's; with --resize, the new one")
	f.StringVar(&d.cluster, "cluster", "", "in this cluster; without it the control plane chooses")
	f.StringVar(&d.name, "name", "", "name of the VM; a run of # stands for its number: web-##")
	f.Uint32Var(&d.quantity, "quantity", 0, "how many; 0: one")
	f.Uint32Var(&d.lease, "lease-days", 0, "how long; 0: as the offering says")
	f.StringArrayVar(&d.keys, "ssh-key", nil, "a line of an authorized_keys file, or @FILE; may be given again")
	f.StringArrayVar(&d.form, "field", nil, "`NAME=VALUE` of the offering's form; may be given again")
	f.StringArrayVar(&d.without, "without", nil, "optional `software` to leave out")
	f.StringVar(&d.start, "start", "", "not before this time: 2026-12-01T09:00:00+09:00")
	f.StringVar(&d.decideBy, "decide-by", "", "it expires if it is not decided by this time")
	f.StringVar(&d.carryOutBy, "carry-out-by", "", "it lapses if it is approved and not begun by this time")
}

func (a *app) createRequest() *cobra.Command {
	var d draftFlags
	var w waiting
	cmd := &cobra.Command{
		Use: "create", Short: "Ask for something; --draft keeps it without submitting", Args: noArguments,
		Long: `Ask for something. In a terminal, what a request for VMs lacks is asked for: offering, zone, flavor, the offering's form, name,
quantity and reason. Then it shows what that costs and who decides, and asks whether to submit it.`,
		Example: `  naru request create --offering web-server --zone business --quantity 2 --name 'web-##' --field service_name=shop --reason 'the old ones are full'
  naru request create --power stop --vm web-1 --reason maintenance
  naru request create --resize --vm web-1 --flavor large --may-stop --reason 'it is slow'
  naru request create --snapshot before-update --vm web-1 --may-stop
  naru request create --restore before-update --vm web-1 --may-stop
  naru request create --reclaim --vm web-1 --vm web-2 --keep-days 14
  naru request create --untrash --vm web-1
  naru request create --access project-operator --days 3 --reason 'on call this weekend'
  naru request create --crossing --from internet --zone business --permission vm.start --permission vm.stop --days 30
  naru request create --intake itsm --external-ref INC-12 --power reboot --vm web-1 --reason 'it hangs'
  naru request create -f request.yaml`,
	}
	a.scopeFlags(cmd, []string{"project", "zone"}, &d.scope)
	f := cmd.Flags()
	f.StringVarP(&d.file, "file", "f", "", "the whole request as YAML or JSON, as show -o yaml has it; - is standard input")
	d.describe(f)
	f.StringArrayVar(&d.vms, "vm", nil, "`VM` to which something is done; with --reclaim it may be given again")
	f.StringVar(&d.power, "power", "", "start, stop or reboot a VM")
	f.BoolVar(&d.resize, "resize", false, "give a VM another --flavor")
	f.StringVar(&d.snapshot, "snapshot", "", "take a snapshot of a VM by this `name`")
	f.StringVar(&d.restore, "restore", "", "put the disk of a VM back to this `snapshot`")
	f.BoolVar(&d.reclaim, "reclaim", false, "put VMs into the trash")
	f.Uint32Var(&d.keepDays, "keep-days", 0, "with --reclaim: how long they stay there; 0: 7")
	f.BoolVar(&d.untrash, "untrash", false, "take a VM out of the trash")
	f.StringVar(&d.access, "access", "", "have this `role` in the project for --days")
	f.BoolVar(&d.inZone, "in-zone", false, "with --access: in the --zone instead")
	f.BoolVar(&d.crossing, "crossing", false, "let the project's people change things in --zone from another zone for --days")
	f.StringVar(&d.from, "from", "", "with --crossing: that other `zone`; at its edge it can be left out")
	f.StringArrayVar(&d.permissions, "permission", nil, "with --crossing: vm.start, snapshot.*; may be given again")
	f.Uint32Var(&d.days, "days", 0, "with --access and --crossing: how long, 366 at most")
	mayStopFlag(cmd, &d.mayStop)
	f.BoolVar(&d.force, "force", false, "with --power: cut the power at once")
	f.StringVar(&d.roleCluster, "role-cluster", "", "whom the change concerns: infrastructure, operations, partner, release, security, service, support")
	f.StringVar(&d.changeType, "change-type", "", "standard, normal or emergency")
	f.StringVar(&d.intake, "intake", "", "how it came in: portal, api or, by a service's token, itsm")
	f.StringVar(&d.externalRef, "external-ref", "", "the `number` it has elsewhere; the same one again is the same request")
	f.BoolVar(&d.draft, "draft", false, "keep it as a draft")
	w.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("draft", "wait")
	cmd.MarkFlagsMutuallyExclusive("offering", "power", "resize", "snapshot", "restore", "reclaim", "untrash", "access", "crossing")
	a.completeNames(cmd, "access", "role")
	a.completeNames(cmd, "from", "zone")
	a.completeNames(cmd, "vm", "vm")
	a.completeWith(cmd, "power", []string{"start", "stop", "reboot"})
	a.completeWith(cmd, "intake", []string{"portal", "api", "itsm"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		limit := shortLimit
		switch {
		case w.wait:
			limit = requestLimit
		case d.isOpen() && a.typist():
			limit = noLimit // people type slowly
		}
		return a.run(cmd, limit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"project", "zone"}, &d.scope)
			if d.isOpen() && a.typist() {
				if goOn, err := a.walk(ctx, c, &d); err != nil || !goOn {
					return err
				}
			}
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
		m := &apiv1.Request{}
		_, err := a.readFile(d.file, m)
		return m, err
	}
	m := &apiv1.Request{
		Title: d.title, Reason: d.reason, OnBehalfOf: d.onBehalfOf, Project: d.project, Zone: d.zone, LeaseDays: d.lease,
		RoleCluster: apiv1.Request_RoleCluster(apiv1.Request_RoleCluster_value[strings.ToUpper(d.roleCluster)]),
		ChangeType:  apiv1.ChangeType_Value(apiv1.ChangeType_Value_value[strings.ToUpper(d.changeType)]),
		Intake:      apiv1.Intake_Value(apiv1.Intake_Value_value[strings.ToUpper(d.intake)]), ExternalRef: d.externalRef,
	}
	switch {
	case d.intake != "" && m.GetIntake() == 0:
		return nil, usagef("--intake %s: it is portal, api or itsm", d.intake)
	case d.roleCluster != "" && m.GetRoleCluster() == 0:
		return nil, usagef("--role-cluster %s: it is infrastructure, operations, partner, release, security, service or support", d.roleCluster)
	case d.changeType != "" && m.GetChangeType() == 0:
		return nil, usagef("--change-type %s: it is standard, normal or emergency", d.changeType)
	}
	err := d.times(m)
	if err != nil {
		return nil, err
	}
	switch {
	case d.access != "":
		ask := &apiv1.AccessForTime{Role: d.access, Days: d.days, Scope: apiv1.RoleBinding_PROJECT}
		if d.inZone {
			ask.Scope = apiv1.RoleBinding_ZONE
		} else {
			m.Zone = ""
		}
		m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_AccessForTime{AccessForTime: ask}}
		return m, nil
	case d.crossing:
		m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_CrossZone{CrossZone: &apiv1.CrossZone{SourceZone: d.from, Permissions: d.permissions, Days: d.days}}}
		return m, nil
	case d.offering == "":
		m.Zone = "" // that of the VMs
		m.Specification, err = d.ofVMs()
		return m, err
	}
	form, err := formOf(d.form)
	if err != nil {
		return nil, err
	}
	ask := &apiv1.CreateVMs{Offering: d.offering, Flavor: d.flavor, Cluster: d.cluster, Quantity: d.quantity, NamePattern: d.name, Form: form, WithoutSoftware: d.without}
	if ask.SshKeys, err = a.keysOf(d.keys); err != nil {
		return nil, err
	}
	m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: ask}}
	return m, nil
}

// isOpen reports whether something is left open of a request for VMs of an offering.
func (d *draftFlags) isOpen() bool {
	ofVMs := d.power != "" || d.resize || d.snapshot != "" || d.restore != "" || d.reclaim || d.untrash || d.access != "" || d.crossing
	return d.file == "" && !ofVMs && (d.offering == "" || d.name == "" || d.reason == "")
}

// ofVMs is what is asked of VMs that are there.
func (d *draftFlags) ofVMs() (*apiv1.RequestSpecification, error) {
	what := &apiv1.RequestSpecification{}
	if d.reclaim {
		what.What = &apiv1.RequestSpecification_Reclaim{Reclaim: &apiv1.ReclaimVMs{Vms: d.vms, KeepDays: d.keepDays}}
		if len(d.vms) == 0 {
			return nil, usagef("--reclaim goes with --vm")
		}
		return what, nil
	}
	vm := ""
	if len(d.vms) > 0 {
		vm = d.vms[0]
	}
	verb := apiv1.PowerVM_Verb(apiv1.PowerVM_Verb_value[strings.ToUpper(d.power)])
	switch {
	case d.power != "" && verb == 0:
		return nil, usagef("--power is start, stop or reboot")
	case d.power != "":
		what.What = &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: vm, Verb: verb, Force: d.force}}
	case d.resize && d.flavor == "":
		return nil, usagef("--resize goes with --flavor")
	case d.resize:
		what.What = &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{Vm: vm, Flavor: d.flavor, MayStop: d.mayStop}}
	case d.snapshot != "":
		what.What = &apiv1.RequestSpecification_Snapshot{Snapshot: &apiv1.SnapshotVM{Vm: vm, Name: d.snapshot, MayStop: d.mayStop}}
	case d.restore != "" || d.untrash:
		what.What = &apiv1.RequestSpecification_Restore{Restore: &apiv1.RestoreVM{Vm: vm, Snapshot: d.restore, MayStop: d.mayStop}}
	default:
		return nil, usagef("say what to ask for: --offering; or --power, --resize, --snapshot, --restore, --reclaim or --untrash, with --vm; or --access or --crossing")
	}
	if len(d.vms) != 1 {
		return nil, usagef("say of which VM: --vm, once")
	}
	return what, nil
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
		if _, twice := out[name]; twice {
			return "", usagef("--field %s is given twice; say which value is meant", name)
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
