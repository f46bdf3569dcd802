package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

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
			if err := a.showComments(ctx, c, m); err != nil {
				return err
			}
			verdict := apiv1.Decision_APPROVE
			switch {
			case deny:
				verdict = apiv1.Decision_DENY
			case back:
				verdict = apiv1.Decision_RETURN
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
	line := func(name, format string, args ...any) {
		if text := printable(fmt.Sprintf(format, args...)); strings.TrimSpace(text) != "" {
			fmt.Fprintf(a.err, "%-14s %s\n", name, text)
		}
	}
	line("request", "%s  %s", m.GetName(), frozen.GetTitle())
	who := frozen.GetRequester()
	if frozen.GetOnBehalfOf() != "" {
		who += " for " + frozen.GetOnBehalfOf()
	}
	line("asked by", "%s", who)
	line("written also by", "%s", strings.Join(frozen.GetContributors(), ", "))
	line("project", "%s (%s)", frozen.GetProject(), frozen.GetOrganization())
	where := frozen.GetZone()
	if from := frozen.GetSourceZone(); from != "" && from != where {
		where += ", asked for in " + from
	}
	line("zone", "%s, %s", where, lower(frozen.GetGrade()))
	line("change", "%s %s", lower(frozen.GetChangeType()), lower(frozen.GetRoleCluster()))
	line("reason", "%s", frozen.GetReason())
	if ask := frozen.GetSpecification().GetCreate(); ask != nil {
		line("what", "%d of %s (version %d), flavor %s, named %s", ask.GetQuantity(), ask.GetOffering(), ask.GetOfferingVersion(), ask.GetFlavor(), ask.GetNamePattern())
		line("form", "%s", ask.GetForm())
		line("without", "%s", strings.Join(ask.GetWithoutSoftware(), ", "))
	}
	for _, text := range askedOfVMs(frozen.GetSpecification()) {
		line("what", "%s", text)
	}
	if ask := frozen.GetSpecification().GetExtend(); ask != nil {
		line("what", "%d days more of VM %s", ask.GetDays(), ask.GetVm())
	}
	if x := frozen.GetAmount(); x != nil {
		line("takes", "%s", sizeOf(x))
	}
	if x := frozen.GetMonthlyCost(); x.GetAmount() != "" {
		line("costs a month", "%s %s", x.GetAmount(), x.GetCurrency())
	}
	for _, text := range roomOf(m) {
		line("room", "%s", text)
	}
	for _, q := range m.GetQuotas() { // what it holds is counted already
		line("then left", "%s", share(q))
	}
	if frozen.GetLeaseDays() > 0 {
		line("lasts", "%d days", frozen.GetLeaseDays())
	}
	for _, x := range frozen.GetFiles() {
		line("file", "%s, %d bytes, sha256 %x", x.GetFile(), x.GetSize(), x.GetSha256())
	}
	line("policy", "%s (version %d)", frozen.GetPolicy(), frozen.GetPolicyVersion())
	for _, why := range frozen.GetPolicyTrace() {
		line("", "%s", why)
	}
	if frozen.GetAuthority() != 0 {
		line("authority", "%s", lower(frozen.GetAuthority()))
	}
	for _, s := range m.GetStages() {
		said := s.GetName() + ": " + lower(s.GetState())
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
		if d.GetExternalRef() != "" {
			said += ", as " + d.GetExternalApprover() + " decided there, " + d.GetExternalRef()
		}
		if d.GetVoid() {
			said += " (void)"
		}
		line("decided", "%s: %s, %s", d.GetStage(), said, d.GetComment())
	}
	line("hash", "%x", m.GetFrozenHash())
	return nil
}

// showComments shows what was said of a request besides: it is not what is decided on, and may say why one should not.
func (a *app) showComments(ctx context.Context, c *client.Client, m *apiv1.Request) error {
	if m.GetComments() == 0 {
		return nil
	}
	all, err := commentsOf(ctx, c, m.GetId())
	for _, said := range all {
		if said.GetText() != "" {
			fmt.Fprintf(a.err, "%-14s %s\n", "comment", printable(said.GetAuthor()+", "+local(said.GetAt())+": "+said.GetText()))
		}
	}
	return err
}

// roomOf says whether there is room for what is asked for.
func roomOf(m *apiv1.Request) (said []string) {
	if m.GetFulfilment() == apiv1.Request_RESERVING {
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
	return said
}

// askedOfVMs says what is asked of VMs that are there.
func askedOfVMs(what *apiv1.RequestSpecification) []string {
	stop := func(may bool) string {
		if may {
			return "; it may be stopped for that"
		}
		return ""
	}
	switch what := what.GetWhat().(type) {
	case *apiv1.RequestSpecification_Power:
		return []string{lower(what.Power.GetVerb()) + " VM " + what.Power.GetVm()}
	case *apiv1.RequestSpecification_Resize:
		ask := what.Resize
		return []string{"resize VM " + ask.GetVm() + " to flavor " + ask.GetFlavor() + stop(ask.GetMayStop()), "from " + sizeOf(ask.GetSizeBefore()) + " to " + sizeOf(ask.GetSize())}
	case *apiv1.RequestSpecification_Snapshot:
		return []string{"take snapshot " + what.Snapshot.GetName() + " of VM " + what.Snapshot.GetVm() + stop(what.Snapshot.GetMayStop())}
	case *apiv1.RequestSpecification_Restore:
		if ask := what.Restore; ask.GetSnapshotId() != "" {
			return []string{"put the disk of VM " + ask.GetVm() + " back to snapshot " + ask.GetSnapshot() + stop(ask.GetMayStop()), "what was written to it since is lost"}
		}
		return []string{"take VM " + what.Restore.GetVm() + " out of the trash"}
	case *apiv1.RequestSpecification_Reclaim:
		return []string{fmt.Sprintf("put %s into the trash, and delete them for good after %d days", strings.Join(what.Reclaim.GetVms(), ", "), what.Reclaim.GetKeepDays())}
	case *apiv1.RequestSpecification_AccessForTime:
		ask := what.AccessForTime
		said := []string{fmt.Sprintf("the role %s in the %s, for %d days", ask.GetRole(), lower(ask.GetScope()), ask.GetDays()), "it permits " + strings.Join(ask.GetPermissions(), ", ")}
		if ask.GetCondition() != "" {
			said = append(said, "where "+ask.GetCondition())
		}
		if ask.GetAtEdges() {
			said = append(said, "at zones' edges too")
		}
		return said
	case *apiv1.RequestSpecification_CrossZone:
		ask := what.CrossZone
		return []string{fmt.Sprintf("let the project's people change from zone %s what they have in the zone, for %d days", ask.GetSourceZone(), ask.GetDays()), "by " + strings.Join(ask.GetPermissions(), ", ")}
	}
	return nil
}

func sizeOf(x *apiv1.Resources) string {
	return fmt.Sprintf("%d cores, %d MiB, %d GiB", x.GetCores(), x.GetMemoryMib(), x.GetDiskGib())
}
