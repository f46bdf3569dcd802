package service_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// office is a world with an offering, a policy of two stages, and people.
type office struct {
	*servicetest.World
	site       *servicetest.Site
	users      map[string]*apiv1.User
	controller *requests.Controller
	now        time.Time
}

func newOffice(t testing.TB, stages ...*apiv1.StageTemplate) *office {
	t.Helper()
	o := &office{World: servicetest.New(t), users: map[string]*apiv1.User{}, now: time.Now()}
	o.site = o.NewSite(2)
	o.Connect(o.site.Business.GetId(), true)
	o.Roles()
	for _, name := range []string{"ann", "bob", "cho", "dan"} {
		o.users[name] = o.User(name, apiv1.User_PERSON)
	}
	o.Bind("b-ann", "user", o.users["ann"], apiv1.RoleBinding_PROJECT, "web")
	o.Bind("b-bob", "reviewer", o.users["bob"], apiv1.RoleBinding_PROJECT, "web")
	o.Bind("b-cho", "zone-administrator", o.users["cho"], apiv1.RoleBinding_ZONE, "business")
	if stages == nil {
		stages = []*apiv1.StageTemplate{
			{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT}, Rule: apiv1.StageTemplate_ANY},
			{Name: "approval", Sequence: 2, Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_DESTINATION}, Rule: apiv1.StageTemplate_ANY},
		}
	}
	o.policy("two-steps", stages...)
	image, flavor := o.image("tiny"), o.flavor("s1")
	offering := &apiv1.Offering{
		Id: "o-web", Name: "web-server", Image: "tiny", ImageId: image.GetId(), ImageSha256: image.GetSha256(), Currency: "KRW", MonthlyPrice: "10000",
		Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", FlavorId: flavor.GetId(), MonthlyPrice: "5000", Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10}}},
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateOffering{CreateOffering: &commandv1.CreateOffering{Offering: offering}}})
	o.Do(&commandv1.Command{Body: &commandv1.Command_PublishOffering{PublishOffering: &commandv1.PublishOffering{Offering: offering}}})
	o.lead()
	return o
}

// lead begins the controller that carries requests on.
func (o *office) lead() {
	o.controller = requests.New(requests.Config{Reader: o.DB, Proposer: clocked{o}, Chooser: o.Chooser, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now }})
}

// clocked proposes by the office's clock, as a leader does by its own.
type clocked struct{ *office }

func (c clocked) Propose(ctx context.Context, in *commandv1.Command) (*commandv1.Result, error) {
	in.Stamp = timestamppb.New(c.now)
	return c.World.Propose(ctx, in)
}

func (o *office) policy(name string, stages ...*apiv1.StageTemplate) {
	o.Helper()
	o.Do(&commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{
		ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "p-" + name, Name: name, Enabled: true, Stages: stages}}}})
}

func (o *office) image(name string) (m *apiv1.Image) {
	o.Helper()
	o.View(func(tx *state.Tx) (err error) { m, err = tx.Images.ByName(name, nil); return err })
	return m
}

func (o *office) flavor(name string) (m *apiv1.Flavor) {
	o.Helper()
	o.View(func(tx *state.Tx) (err error) { m, err = tx.Flavors.ByName(name, nil); return err })
	return m
}

// ask is what ann usually asks for: two web servers.
func ask() *apiv1.Request {
	return &apiv1.Request{
		Title: "two web servers", Reason: "the old ones are full", Project: "web", Zone: "business",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web-server", Quantity: 2, NamePattern: "web-##"}}},
	}
}

func (o *office) submit(who string, m *apiv1.Request) (*apiv1.Request, error) {
	o.Helper()
	r, err := o.As(o.users[who]).Requests.CreateRequest(context.Background(), &apiv1.CreateRequestRequest{Request: m, Submit: true})
	return r.GetRequest(), err
}

func (o *office) show(who, name string) *apiv1.Request {
	o.Helper()
	r, err := o.As(o.users[who]).Requests.GetRequest(context.Background(), &apiv1.GetRequestRequest{Request: name})
	if err != nil {
		o.Fatal(err)
	}
	return r.GetRequest()
}

func (o *office) decide(who, name string, v apiv1.Decision_Verdict, change func(*apiv1.DecideRequestRequest)) error {
	o.Helper()
	in := &apiv1.DecideRequestRequest{Request: name, Verdict: v, Comment: "seen", SeenHash: o.show("ann", name).GetFrozenHash()}
	if change != nil {
		change(in)
	}
	_, err := o.As(o.users[who]).Requests.DecideRequest(context.Background(), in)
	return err
}

func (o *office) waiting(who string) (names []string) {
	o.Helper()
	r, err := o.As(o.users[who]).Requests.ListApprovals(context.Background(), &apiv1.ListApprovalsRequest{})
	if err != nil {
		o.Fatal(err)
	}
	for _, m := range r.GetRequests() {
		names = append(names, m.GetName())
	}
	return names
}

func (o *office) turn() {
	o.Helper()
	if err := o.controller.Turn(context.Background()); err != nil {
		o.Fatal(err)
	}
}

func (o *office) vms() (all []*apiv1.VM) {
	o.Helper()
	o.View(func(tx *state.Tx) error {
		for m, err := range tx.VMs.All(nil) {
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	return all
}

func TestWhatIsAskedForIsPricedReviewedApprovedAndMadeOnce(t *testing.T) {
	o := newOffice(t)
	m, err := o.submit("ann", ask())
	if err != nil {
		t.Fatal(err)
	}
	if m.GetName() != "r-1" || m.GetRequester() != "ann" || m.GetMonthlyCost().GetAmount() != "30000" || m.GetAmount().GetCores() != 2 || m.GetPolicy() != "two-steps" ||
		len(m.GetParts()) != 2 || m.GetParts()[1].GetName() != "web-02" || len(m.GetFrozenHash()) != 32 {
		t.Fatalf("%v", m)
	}
	if got := m.GetStages()[0].GetApprovers(); !slices.Equal(got, []string{"bob"}) || m.GetStages()[1].GetState() != apiv1.Stage_WAITING {
		t.Errorf("%v", m.GetStages())
	}
	if !slices.Equal(o.waiting("bob"), []string{"r-1"}) || o.waiting("cho") != nil || o.waiting("ann") != nil {
		t.Error("it waits for the wrong people")
	}
	if err := o.decide("cho", "r-1", apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.Forbidden) {
		t.Errorf("cho decided before the turn: %v", err)
	}
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, func(in *apiv1.DecideRequestRequest) { in.SeenHash = make([]byte, 32) }); !problem.Is(err, problem.WrongState) {
		t.Errorf("what was not shown was approved: %v", err)
	}
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if len(o.vms()) != 0 {
		t.Fatal("it was made before it was approved")
	}
	if o.waiting("bob") != nil || !slices.Equal(o.waiting("cho"), []string{"r-1"}) {
		t.Error("what is decided stays in a queue, or does not come into the next")
	}
	if err := o.decide("cho", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.says(apiv1.Reservation_HELD)
	o.turn()
	o.turn()
	other := requests.New(requests.Config{Reader: o.DB, Proposer: o.World, Chooser: o.Chooser, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	for range 3 { // the next leader, and the one after
		o.turn()
		if err := other.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	vms := o.vms()
	if len(vms) != 2 || vms[0].GetName() != "web-01" || vms[0].GetSize().GetMemoryMib() != 1024 || vms[0].GetClusterId() != o.site.Kvm.GetId() {
		t.Fatalf("%v", vms)
	}
	for _, vm := range vms {
		if got := o.show("ann", "r-1").GetFulfilment(); got != apiv1.Request_EXECUTING {
			t.Fatalf("it is %v while %s is built", got, vm.GetName())
		}
		o.Do(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
			OperationId: vm.GetOperation(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "usable"}}})
	}
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_DONE || m.GetFulfilledAt() == nil || slices.Contains(m.GetActions(), "withdraw") {
		t.Errorf("%v", m)
	}
}

// An answer that was lost on the way is asked for again with the same key.
func TestP2WhatIsAskedForTwiceWithOneKeyIsOneRequest(t *testing.T) {
	o := newOffice(t)
	ann := o.As(o.users["ann"]).Requests
	made := with(t.Context(), "idempotency-key", "made")
	for range 2 {
		r, err := ann.CreateRequest(made, &apiv1.CreateRequestRequest{Request: ask(), Submit: true})
		if err != nil || r.GetRequest().GetName() != "r-1" || r.GetRequest().GetApproval() != apiv1.Request_SUBMITTED {
			t.Fatalf("%v, %v", r.GetRequest(), err)
		}
	}
	draft, err := ann.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()})
	if err != nil {
		t.Fatal(err)
	}
	submitted := with(t.Context(), "idempotency-key", "submitted")
	for range 2 {
		r, err := ann.SubmitRequest(submitted, &apiv1.SubmitRequestRequest{Request: draft.GetRequest().GetName()})
		if err != nil || r.GetRequest().GetApproval() != apiv1.Request_SUBMITTED {
			t.Fatalf("%v, %v", r.GetRequest(), err)
		}
	}
	if _, err := ann.SubmitRequest(t.Context(), &apiv1.SubmitRequestRequest{Request: draft.GetRequest().GetName()}); !problem.Is(err, problem.WrongState) {
		t.Errorf("what is submitted was submitted again: %v", err)
	}
}

func TestWhatNobodyCouldApproveIsRefusedWithTheReason(t *testing.T) {
	who := &apiv1.Eligibility{Users: []string{"bob"}}
	o := newOffice(t, &apiv1.StageTemplate{Name: "one", Sequence: 1, Eligible: who, Rule: apiv1.StageTemplate_ANY}, &apiv1.StageTemplate{Name: "two", Sequence: 2, Eligible: who, Rule: apiv1.StageTemplate_ANY})
	_, err := o.submit("ann", ask())
	if !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "everybody decides once") {
		t.Errorf("%v", err)
	}
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_DRAFT {
		t.Errorf("%v", m)
	}
	p, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: ask()})
	if err != nil || p.GetProblem().GetCode() != string(problem.WrongState) || p.GetRequest().GetMonthlyCost().GetAmount() != "30000" && p.GetRequest().GetRequester() != "ann" {
		t.Errorf("%v, %v", p, err)
	}
}

// TestWhatNoVMMayBeIsRefusedAtTheSubmission: no broker would let such a VM pass, nor a list that has it.
func TestWhatNoVMMayBeIsRefusedAtTheSubmission(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{Name: "one", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	for _, name := range []string{"", "../../etc", "a 1", "😀", "A-1", "-1", "web-", "web_1", "##", "a\nb", strings.Repeat("a", 64)} {
		bad := ask()
		bad.GetSpecification().GetCreate().NamePattern = name
		if _, err := o.submit("ann", bad); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).String(), "name_pattern") {
			t.Errorf("%q: %v", name, err)
		}
	}
	bad := ask()
	bad.GetSpecification().GetCreate().SshKeys = []string{"ssh-ed25519 AAAA ann\nssh-ed25519 BBBB eve"}
	if _, err := o.submit("ann", bad); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).String(), "ssh_keys") {
		t.Errorf("two keys as one: %v", err)
	}
}

func TestWhereTheLastOneWhoCouldApproveIsGoneItIsShownAndEscalated(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{
		Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY,
		DueHours: 8, OnDue: apiv1.StageTemplate_ESCALATE, EscalateTo: &apiv1.Eligibility{Users: []string{"dan"}},
	})
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-bob", Reason: "left"}}})
	o.turn()
	s := o.show("ann", "r-1").GetStages()[0]
	if s.GetEscalatedAt() == nil || !slices.Equal(s.GetApprovers(), []string{"dan"}) {
		t.Fatalf("%v", s)
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-dan", Reason: "left"}}})
	o.now = o.now.Add(time.Hour)
	o.turn()
	if s := o.show("ann", "r-1").GetStages()[0]; s.GetStuck() == "" {
		t.Errorf("%v", s)
	}
	o.now = o.now.AddDate(0, 1, 0)
	o.turn()
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_SUBMITTED {
		t.Errorf("time made it %v", m.GetApproval())
	}
}

func TestARequestWaitsForAZoneThatIsAwayAndLapsesInTime(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	m := ask()
	m.CarryOutBy = timestamppb.New(o.now.Add(24 * time.Hour))
	if _, err := o.submit("ann", m); err != nil {
		t.Fatal(err)
	}
	o.Connect(o.site.Business.GetId(), false)
	if err := o.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	o.turn()
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_APPROVED || !strings.Contains(m.GetFulfilmentReason(), "out of reach") || len(o.vms()) != 0 {
		t.Fatalf("%v", m)
	}
	o.now = o.now.Add(25 * time.Hour)
	o.turn()
	if m := o.show("ann", "r-1"); m.GetFulfilment() != apiv1.Request_LAPSED {
		t.Errorf("%v", m)
	}
}

func TestOneBadRequestHoldsUpNoOther(t *testing.T) {
	o := newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, Rule: apiv1.StageTemplate_ANY})
	for range 2 {
		if _, err := o.submit("ann", ask()); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"r-1", "r-2"} { // both want web-01
		if err := o.decide("bob", name, apiv1.Decision_APPROVE, nil); err != nil {
			t.Fatal(err)
		}
	}
	o.turn()
	o.turn()
	made, waits := o.show("ann", "r-1"), o.show("ann", "r-2")
	if made.GetFulfilment() != apiv1.Request_EXECUTING { // they were carried out side by side
		made, waits = waits, made
	}
	if made.GetFulfilment() != apiv1.Request_EXECUTING || waits.GetFulfilment() != apiv1.Request_NONE || !strings.Contains(waits.GetFulfilmentReason(), "web-01") {
		t.Errorf("%v\n%v", made, waits)
	}
}

func TestWhoHasNoPartInARequestDoesNotSeeIt(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.As(o.users["dan"]).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: "r-1"}); !problem.Is(err, problem.NotFound) {
		t.Errorf("dan saw it: %v", err)
	}
	if _, err := o.Admin().Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("a certificate asked: %v", err)
	}
	if _, err := o.Admin().Requests.DecideRequest(t.Context(), &apiv1.DecideRequestRequest{Request: "r-1", Verdict: apiv1.Decision_APPROVE, SeenHash: make([]byte, 32)}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("a certificate decided: %v", err)
	}
	mine, err := o.As(o.users["ann"]).Requests.ListRequests(t.Context(), &apiv1.ListRequestsRequest{Mine: true})
	if err != nil || len(mine.GetRequests()) != 1 {
		t.Errorf("%v, %v", mine, err)
	}
}

func TestAFileIsSeenByWhoSeesItsRequestAndByNobodyElse(t *testing.T) {
	o := newOffice(t)
	if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
		t.Fatal(err)
	}
	made, err := o.As(o.users["ann"]).Requests.AttachToRequest(t.Context(), &apiv1.AttachToRequestRequest{Request: "r-1", File: "plan.txt", Content: []byte("the plan")})
	if err != nil {
		t.Fatal(err)
	}
	get := &apiv1.GetAttachmentRequest{Request: "r-1", Comment: made.GetComment().GetId()}
	if r, err := o.As(o.users["bob"]).Requests.GetAttachment(t.Context(), get); err != nil || string(r.GetContent()) != "the plan" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := o.As(o.users["dan"]).Requests.GetAttachment(t.Context(), get); !problem.Is(err, problem.NotFound) {
		t.Errorf("dan saw it: %v", err)
	}
}

// TestAChangedPolicyChangesNoRequestThatIsPending, and who changed it does not come by it to a decision on their own.
func TestAChangedPolicyChangesNoRequestThatIsPending(t *testing.T) {
	o := newOffice(t)
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	edited := &apiv1.ApprovalPolicy{Id: "p-two-steps", Name: "two-steps", Enabled: true, Stages: []*apiv1.StageTemplate{
		{Name: "anybody", Sequence: 1, Eligible: &apiv1.Eligibility{Users: []string{"ann", "dan"}}, Rule: apiv1.StageTemplate_ANY}}}
	o.Do(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: edited}}})
	second := ask()
	second.Specification.GetCreate().NamePattern = "db-##"
	if _, err := o.submit("ann", second); err != nil {
		t.Fatal(err)
	}
	before, after := o.show("ann", "r-1"), o.show("ann", "r-2")
	if before.GetPolicyVersion() != 1 || len(before.GetStages()) != 2 || after.GetPolicyVersion() != 2 || len(after.GetStages()) != 1 {
		t.Fatalf("%v\n%v", before, after)
	}
	if !slices.Equal(o.waiting("dan"), []string{"r-2"}) || !slices.Equal(o.waiting("bob"), []string{"r-1"}) || o.waiting("ann") != nil {
		t.Errorf("dan %v, bob %v, ann %v", o.waiting("dan"), o.waiting("bob"), o.waiting("ann"))
	}
	for _, name := range []string{"r-1", "r-2"} {
		if err := o.decide("ann", name, apiv1.Decision_APPROVE, nil); !problem.Is(err, problem.Forbidden) {
			t.Errorf("ann decided on %s: %v", name, err)
		}
	}
	o.Do(&commandv1.Command{Body: &commandv1.Command_DeleteApprovalPolicy{DeleteApprovalPolicy: &commandv1.DeleteNoun{Id: "p-two-steps"}}})
	for _, who := range []string{"bob", "cho"} {
		if err := o.decide(who, "r-1", apiv1.Decision_APPROVE, nil); err != nil {
			t.Fatal(err)
		}
	}
	if m := o.show("ann", "r-1"); m.GetApproval() != apiv1.Request_APPROVED {
		t.Errorf("%v", m)
	}
}

// TestWhoHasLostTheProjectSubmitsNothingInIt any more, and still sees and withdraws what they asked for.
func TestWhoHasLostTheProjectSubmitsNothingInIt(t *testing.T) {
	o := newOffice(t)
	if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
		t.Fatal(err)
	}
	o.Unbind("b-ann")
	if _, err := o.As(o.users["ann"]).Requests.SubmitRequest(t.Context(), &apiv1.SubmitRequestRequest{Request: "r-1"}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("it was submitted: %v", err)
	}
	if _, err := o.As(o.users["ann"]).Requests.WithdrawRequest(t.Context(), &apiv1.WithdrawRequestRequest{Request: "r-1"}); err != nil {
		t.Errorf("it was not withdrawn: %v", err)
	}
}

// TestARequestIsNotMovedWhereItsAuthorMayNotAsk although it is their own.
func TestARequestIsNotMovedWhereItsAuthorMayNotAsk(t *testing.T) {
	o := newOffice(t)
	if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
		t.Fatal(err)
	}
	o.Bind("b-ann-db", "auditor", o.users["ann"], apiv1.RoleBinding_PROJECT, "db") // she may look there
	_, err := o.As(o.users["ann"]).Requests.UpdateRequest(t.Context(), &apiv1.UpdateRequestRequest{
		Request: &apiv1.Request{Id: "r-1", Project: "db"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"project"}}})
	if !problem.Is(err, problem.Forbidden) {
		t.Errorf("%v", err)
	}
}

func TestADelegateSeesAndDecidesWhatWaitsForWhoDelegated(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.As(o.users["bob"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: "dan", EndsAt: timestamppb.New(time.Now().Add(time.Hour)), Reason: "holiday"}}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.waiting("dan"), []string{"r-1"}) {
		t.Fatal("the delegate's queue is empty")
	}
	if err := o.decide("dan", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	d := o.show("ann", "r-1").GetDecisions()[0]
	if d.GetActor() != "dan" || d.GetActingFor() != "bob" {
		t.Errorf("%v", d)
	}
	if o.waiting("bob") != nil {
		t.Error("what was decided in bob's place still waits for bob")
	}
}
