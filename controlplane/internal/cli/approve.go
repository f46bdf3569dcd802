package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// approve shows what waits for the caller, or one request as it was frozen, and takes the decision on it.
func (a *app) approve() *cobra.Command {
	var yes, deny, back bool
	var comment, stage, actingFor, approver, ref string
	cmd := &cobra.Command{
		Use: "approve [REQUEST]", Short: "Show what waits for your decision, or decide on one request", Args: arguments(0, 1),
		Long: `Without a REQUEST it lists what waits for your decision. With one it shows what is asked for, and asks. The decision holds for exactly
what was shown: where the request has changed meanwhile, it is refused.

In a stage that another system decides in, its service says what was decided there, with its token: --external-approver and
--external-ref.`,
	}
	f := cmd.Flags()
	f.BoolVar(&yes, "yes", false, "approve without being asked")
	f.BoolVar(&deny, "deny", false, "deny; takes --comment")
	f.BoolVar(&back, "return", false, "return for correction; takes --comment")
	f.StringVar(&comment, "comment", "", "it stays in the record")
	f.StringVar(&stage, "stage", "", "the stage, where you may decide in several")
	f.StringVar(&actingFor, "for", "", "`user` in whose place, by delegation")
	f.StringVar(&approver, "external-approver", "", "of a stage that another system decides in: who decided there")
	f.StringVar(&ref, "external-ref", "", "and the `number` that the decision has there")
	cmd.MarkFlagsRequiredTogether("external-approver", "external-ref")
	cmd.MarkFlagsMutuallyExclusive("yes", "deny", "return")
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			if len(args) == 0 {
				return a.listApprovals(ctx, c)
			}
			r, err := c.Requests.GetRequest(ctx, &apiv1.GetRequestRequest{Request: args[0]})
			if err != nil {
				return err
			}
			m := r.GetRequest()
			if err := a.showFrozen(m); err != nil {
				return err
			}
			a.showTitles(ctx, c, m.GetSpecification().GetCreate())
			if err := a.showComments(ctx, c, m); err != nil {
				return err
			}
			verdict := apiv1.Decision_APPROVE
			switch {
			case deny:
				verdict = apiv1.Decision_DENY
			case back:
				verdict = apiv1.Decision_RETURN
			case !yes && !slices.Contains(m.GetActions(), "decide"):
				fmt.Fprintln(a.err, printable("There is nothing for you to decide in request "+m.GetName()+" now: it is "+lower(m.GetApproval())+"."))
				return nil
			case !yes && !a.confirm(ctx, "Approve request "+m.GetName()+"? [y/N] "):
				fmt.Fprintln(a.err, "Nothing was decided. To deny or return it: --deny or --return, with --comment.")
				return nil
			}
			d, err := c.Requests.DecideRequest(ctx, &apiv1.DecideRequestRequest{
				Request: m.GetId(), Stage: stage, Verdict: verdict, Comment: comment, SeenHash: m.GetFrozenHash(), ActingFor: actingFor,
				ExternalApprover: approver, ExternalRef: ref,
			})
			if err != nil {
				return err
			}
			return printOne(a, d.GetRequest(), requestColumns)
		})
	}
	return cmd
}

func (a *app) listApprovals(ctx context.Context, c *client.Client) error {
	var all []*apiv1.Request
	for token := ""; ; {
		r, err := c.Requests.ListApprovals(ctx, &apiv1.ListApprovalsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return err
		}
		all = append(all, r.GetRequests()...)
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	return printList(a, requestColumns, all)
}

// showFrozen shows what approvers decide on: the frozen bytes themselves, whose hash the decision carries.
func (a *app) showFrozen(m *apiv1.Request) error {
	frozen := &apiv1.Request{}
	if len(m.GetFrozen()) == 0 && len(m.GetFrozenHash()) > 0 {
		return problem.Newf(problem.Forbidden, "Log in in the control network, or at the edge of zone "+m.GetZone()+", and decide there.",
			"zone %s does not let all that is asked for in request %s be shown at this edge, and nobody decides on what they do not see", m.GetZone(), m.GetName())
	}
	sum := sha256.Sum256(m.GetFrozen())
	if len(m.GetFrozen()) == 0 || !bytes.Equal(sum[:], m.GetFrozenHash()) || proto.Unmarshal(m.GetFrozen(), frozen) != nil {
		return problem.Newf(problem.WrongState, "naru request show "+m.GetName()+" says how far it is.", "request %s is not frozen: there is nothing to decide on", m.GetName())
	}
	if unread(frozen.ProtoReflect()) {
		return problem.Newf(problem.Unsupported, "Use a naru of the server's version; naru version says which this one is.",
			"request %s says something that this naru does not know, and nobody decides on what they do not see", m.GetName())
	}
	line := a.aside
	askedFor(line, m.GetName(), frozen)
	for _, text := range roomOf(m) {
		line("room", "%s", text)
	}
	for _, text := range standsOn(m) {
		line("stands on", "%s", text)
	}
	for _, q := range m.GetQuotas() { // what it holds is counted already
		line("then left", "%s", share(q))
	}
	if m.GetAdds() != nil && len(m.GetQuotas()) == 0 {
		line("then left", "no quota limits project %s there", m.GetProject())
	}
	for _, s := range m.GetStages() {
		said := titled(s.GetName(), s.GetTitle()) + ": " + lower(s.GetState())
		if s.GetState() == apiv1.Stage_OPEN {
			said += fmt.Sprintf(", takes %d of %s", s.GetNeeded(), strings.Join(s.GetApprovers(), ", "))
		}
		if s.GetExternal() {
			said += ", in another system"
		}
		if s.GetDueAt() != nil {
			said += ", due " + local(s.GetDueAt())
		}
		line("stage", "%s", said)
	}
	for _, d := range m.GetDecisions() {
		said := lower(d.GetVerdict()) + " by " + d.GetActor()
		if d.GetActingFor() != "" {
			said += " for " + d.GetActingFor()
		}
		said += decidedThere(d) + ", " + local(d.GetAt())
		if d.GetVoid() {
			said += " (void)"
		}
		line("decided", "%s: %s%s", d.GetStage(), said, because(d.GetComment()))
	}
	line("hash", "%x", m.GetFrozenHash())
	return nil
}

// aside writes a line of what is shown to people beside what they ask for: what it is of, and what is said of that.
func (a *app) aside(of, format string, args ...any) {
	if text := printable(fmt.Sprintf(format, args...)); strings.TrimSpace(text) != "" {
		fmt.Fprintf(a.err, "%-14s %s\n", of, text)
	}
}

// decidedThere says who took a decision in another system, and its number there; nothing of one that was taken here.
func decidedThere(d *apiv1.Decision) string {
	if d.GetExternalRef() == "" {
		return ""
	}
	return ", as " + d.GetExternalApprover() + " decided there, " + d.GetExternalRef()
}

// unread reports whether a message has fields that this program does not know: it is of a newer version then.
func unread(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) > 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				found = found || unread(v.List().Get(i).Message())
			}
		default:
			found = found || unread(v.Message())
		}
		return !found
	})
	return found
}

// showTitles shows what people call what is asked for, and what was filled into its form, where they may look into the
// catalogue: it is not what is decided on.
func (a *app) showTitles(ctx context.Context, c *client.Client, ask *apiv1.CreateVMs) {
	if ask == nil {
		return
	}
	r, err := c.Offerings.GetOffering(ctx, &apiv1.GetOfferingRequest{Offering: ask.GetOffering(), Version: ask.GetOfferingVersion()})
	if err != nil {
		return
	}
	a.aside("offering", "%s", titled(ask.GetOffering(), r.GetOffering().GetTitle()))
	fields, _ := readForm(r.GetOffering().GetForm())
	var filled map[string]any
	if json.Unmarshal([]byte(ask.GetForm()), &filled) != nil {
		return
	}
	for _, name := range fields.names() {
		if v, is := filled[name]; is {
			a.aside("", "%s: %v", fields.title(name), v)
		}
	}
}

// showComments shows what was said of a request besides: it is not what is decided on, and may say why one should not.
func (a *app) showComments(ctx context.Context, c *client.Client, m *apiv1.Request) error {
	if m.GetComments() == 0 {
		return nil
	}
	all, err := commentsOf(ctx, c, m.GetId())
	for _, said := range all {
		if said.GetText() != "" && said.GetFile() == "" { // files are part of what is decided on
			a.aside("comment", "%s, %s: %s", said.GetAuthor(), local(said.GetAt()), said.GetText())
		}
	}
	return err
}

// standsOn says where each VM of a request stands, as far as that is known.
func standsOn(m *apiv1.Request) (said []string) {
	for _, p := range m.GetParts() {
		if p.GetHost() != "" || p.GetCluster() != "" {
			said = append(said, fmt.Sprintf("%s of cluster %s in zone %s: %s", cmp.Or(p.GetHost(), "no host yet"), p.GetCluster(), m.GetZone(), p.GetName()))
		}
	}
	return said
}

// roomOf says whether there is room for what is asked for.
func roomOf(m *apiv1.Request) (said []string) {
	held := slices.ContainsFunc(m.GetHolds(), func(h *apiv1.Reservation) bool { return h.GetState() == apiv1.Reservation_HELD })
	if m.GetFulfilment() == apiv1.Request_RESERVING && !held {
		said = append(said, "not kept yet: "+m.GetFulfilmentReason())
	}
	for _, h := range m.GetHolds() {
		switch {
		case h.GetState() != apiv1.Reservation_HELD:
		case h.GetVm() != "":
			said = append(said, fmt.Sprintf("kept for VM %s to grow by %s, until %s", h.GetVm(), sizeOf(h.GetSize()), local(h.GetHoldUntil())))
		default:
			said = append(said, strings.ReplaceAll(fmt.Sprintf("kept for %d in cluster %s, until %s", h.GetQuantity(), h.GetCluster(), local(h.GetHoldUntil())), " in cluster ,", ","))
		}
	}
	if m.GetFit() != nil && m.GetFulfilment() != apiv1.Request_RESERVED && !held {
		said = append(said, fitOf(m.GetFit()))
	}
	return said
}

// fitOf says whether there would be room now, and why not.
func fitOf(m *apiv1.Fit) string {
	said := "whether there is room now is not known"
	switch m.GetAnswer() {
	case apiv1.Fit_YES:
		said = "there is room for all of it now"
		for _, c := range m.GetClusters() {
			if c.GetFree() != nil && c.GetLeft() != nil { // else they are not shown here
				said += fmt.Sprintf("; of the %s that are free in %s it leaves %s", sizeOf(c.GetFree()), "cluster "+cmp.Or(c.GetCluster(), "(not named here)"), sizeOf(c.GetLeft()))
			}
		}
		return said
	case apiv1.Fit_ANSWER_UNSPECIFIED:
		return "whether there is room now is not shown here"
	case apiv1.Fit_NO:
		said = "there is no room for all of it now"
	}
	if why := m.GetProblem().GetDetail(); why != "" {
		said += ": " + why
	}
	return said
}
