package fsm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// staffed is a plane on which ann asks, bob, cho and dan decide, and ci is a program.
func staffed(t tb) *plane {
	p := furnished(t)
	for _, name := range []string{"ann", "bob", "cho", "dan", "ci"} {
		kind := apiv1.User_PERSON
		if name == "ci" {
			kind = apiv1.User_SERVICE
		}
		p.accept(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
			Id: "u-" + name, Name: name, Kind: kind, Organization: "home", OrganizationId: "o-home"}}}})
	}
	return p
}

func who(name string) *commandv1.Person { return &commandv1.Person{Id: "u-" + name, Name: name} }

// wish is what ann asks for: two VMs.
func wish(id string, change func(*apiv1.Request)) *apiv1.Request {
	m := &apiv1.Request{
		Id: id, Kind: apiv1.RequestKind_CREATE, Requester: "ann", RequesterId: "u-ann", Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web", Quantity: 2, NamePattern: "web-#"}}},
	}
	if change != nil {
		change(m)
	}
	return m
}

// draft makes one of a wish.
func (p *plane) draft(id string, change func(*apiv1.Request)) *apiv1.Request {
	p.Helper()
	m := wish(id, change)
	r := p.accept(&commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: m}}})
	out := &apiv1.Request{}
	if err := proto.Unmarshal(r.GetNoun(), out); err != nil {
		p.Fatal(err)
	}
	return out
}

func (p *plane) request(id string) *apiv1.Request {
	p.Helper()
	var m *apiv1.Request
	p.view(func(tx *state.Tx) { m = get(p, tx.Requests, id) })
	return m
}

// submission of a request as it stands, with a stage for each name, one after the other.
func (p *plane) submission(id string, stages ...string) *commandv1.Command {
	p.Helper()
	return p.submissionOf(p.request(id), stages...)
}

// submissionOf is the submission of m, which need not be kept yet.
func (p *plane) submissionOf(m *apiv1.Request, stages ...string) *commandv1.Command {
	p.Helper()
	m = proto.CloneOf(m)
	for i := range 2 {
		m.Parts = append(m.Parts[:i:i], &apiv1.Part{Name: fmt.Sprintf("web-%d", i+1), VmId: fmt.Sprintf("vm-%d", i+1)})
	}
	m.Stages = nil
	for i, s := range stages {
		m.Stages = append(m.Stages, &apiv1.Stage{Name: s, Sequence: uint32(i), Needed: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob", "cho", "dan"}}})
	}
	if err := request.Freeze(m); err != nil {
		p.Fatal(err)
	}
	return &commandv1.Command{Body: &commandv1.Command_SubmitRequest{SubmitRequest: &commandv1.SubmitRequest{Request: m, ExpectedRevision: m.GetRevision(), By: who("ann")}}}
}

func (p *plane) submitted(id string, stages ...string) {
	p.Helper()
	p.draft(id, nil)
	p.accept(p.submission(id, stages...))
}

// inSession is a session of somebody, which lasts.
func (p *plane) inSession(name string) string {
	p.Helper()
	id := "s-" + name
	if err := p.db.Update(func(tx *state.Tx) error {
		return tx.Sessions.Put(&apiv1.Session{Id: id, User: name, UserId: "u-" + name, SecretHash: digest(id), ExpiresAt: timestamppb.New(p.now.AddDate(1, 0, 0))})
	}); err != nil {
		p.Fatal(err)
	}
	return id
}

// vote is a decision of somebody on a request as it stands.
func (p *plane) vote(id, name, stage string, v apiv1.Decision_Verdict, change func(*commandv1.DecideRequest)) *commandv1.Command {
	p.Helper()
	in := &commandv1.DecideRequest{RequestId: id, Decision: &apiv1.Decision{
		Id: fmt.Sprint("d-", p.made), Stage: stage, Actor: name, ActorId: "u-" + name, Verdict: v, Comment: "seen", SeenHash: p.request(id).GetFrozenHash()}}
	if change != nil {
		change(in)
	}
	return &commandv1.Command{Actor: "user:" + name, Origin: &commandv1.Origin{ActorId: "u-" + name, SessionId: p.inSession(name), Strength: apiv1.Session_TWO_FACTORS},
		Body: &commandv1.Command_DecideRequest{DecideRequest: in}}
}

func (p *plane) approve(id, name, stage string) {
	p.Helper()
	p.accept(p.vote(id, name, stage, apiv1.Decision_APPROVE, nil))
}

// carryOut begins all parts of a request as it stands.
func (p *plane) carryOut(id, attempt string, parts ...uint32) *commandv1.Command {
	p.Helper()
	in := &commandv1.CarryOutRequest{RequestId: id, ExpectedRevision: p.request(id).GetRevision(), Vm: web(0), Deadline: timestamppb.New(p.now.Add(time.Hour))}
	in.Vm.Id, in.Vm.Name = "", ""
	for _, i := range parts {
		in.Parts = append(in.Parts, &commandv1.CarryOutRequest_Part{Index: i, VmId: fmt.Sprintf("vm-%d", i+1), OperationId: fmt.Sprintf("op-%s-%d", attempt, i), Cluster: "kvm", ClusterId: "c-kvm"})
	}
	return &commandv1.Command{Actor: "request", Body: &commandv1.Command_CarryOutRequest{CarryOutRequest: in}}
}

func (p *plane) end(operation string, o apiv1.ResolveOperationRequest_Outcome) {
	p.Helper()
	p.accept(resolve(operation, o))
}

func (p *plane) vms() (n int) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		for _, err := range tx.VMs.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			n++
		}
	})
	return n
}

func TestAnApprovedRequestMakesItsVMsOnceAndIsDoneWhenAllAreUsable(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review", "approval")
	if m := p.request("r"); m.GetName() != "r-1" || m.GetApproval() != apiv1.Request_SUBMITTED || m.GetStages()[0].GetState() != apiv1.Stage_OPEN {
		t.Fatalf("%v", m)
	}
	p.refuse(problem.WrongState, p.carryOut("r", "a", 0, 1))
	p.refuse(problem.WrongState, p.vote("r", "bob", "approval", apiv1.Decision_APPROVE, nil))
	p.approve("r", "bob", "review")
	p.refuse(problem.WrongState, p.vote("r", "bob", "approval", apiv1.Decision_APPROVE, nil))
	p.approve("r", "cho", "approval")
	p.refuse(problem.Invalid, p.carryOut("r", "a", 0))
	again := p.carryOut("r", "b", 0, 1)
	once := p.carryOut("r", "a", 0, 1)
	once.Id = commandID(p.now, 1<<20)
	first := p.accept(once)
	if repeated := p.apply(once); !proto.Equal(stripIndex(first), stripIndex(repeated)) {
		t.Errorf("the same command again came to %v", repeated)
	}
	p.refuse(problem.Conflict, again)
	p.refuse(problem.WrongState, p.carryOut("r", "c", 0, 1))
	if n := p.vms(); n != 2 {
		t.Fatalf("there are %d VMs", n)
	}
	p.end("op-a-0", apiv1.ResolveOperationRequest_SUCCEED)
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_EXECUTING {
		t.Fatalf("with one of two it is %v", m.GetFulfilment())
	}
	p.end("op-a-1", apiv1.ResolveOperationRequest_SUCCEED)
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_DONE || m.GetFulfilledAt() == nil || len(m.GetResults()) != 2 {
		t.Fatalf("%v", m)
	}
	p.refuse(problem.WrongState, &commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("ann")}}})
}

func stripIndex(r *commandv1.Result) *commandv1.Result {
	r = proto.CloneOf(r)
	r.Index = 0
	return r
}

func TestP2TheNextLeaderDoesNotCarryOutWhatWasCarriedOut(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.approve("r", "bob", "review")
	// Both leaders saw it approved; the first one's command is in the log when it dies.
	first, second := p.carryOut("r", "a", 0, 1), p.carryOut("r", "b", 0, 1)
	p.accept(first)
	other := empty(t)
	if err := other.machine.Restore(bytes.NewReader(p.snapshot())); err != nil {
		t.Fatal(err)
	}
	other.offset, other.made, other.now = uint64(len(p.log)), p.made, p.now
	other.refuse(problem.Conflict, second)
	if n := other.vms(); n != 2 {
		t.Errorf("there are %d VMs", n)
	}
	second.GetCarryOutRequest().ExpectedRevision = other.request("r").GetRevision()
	other.refuse(problem.WrongState, second)
}

func TestOnlyWhatFailedIsTriedAgain(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.approve("r", "bob", "review")
	p.accept(p.carryOut("r", "a", 0, 1))
	p.end("op-a-0", apiv1.ResolveOperationRequest_SUCCEED)
	p.end("op-a-1", apiv1.ResolveOperationRequest_FAIL)
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_FAILED || m.GetFulfilmentReason() == "" || p.events()["request.failed"] != 1 {
		t.Fatalf("%v", m)
	}
	generation := p.vm(1).GetGeneration()
	p.accept(&commandv1.Command{Body: &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: "r"}}})
	p.refuse(problem.Invalid, p.carryOut("r", "b", 0, 1))
	p.accept(p.carryOut("r", "c", 1))
	if !proto.Equal(p.vm(1).GetGeneration(), generation) || p.vms() != 2 {
		t.Error("what was usable was wanted anew")
	}
	p.end("op-c-1", apiv1.ResolveOperationRequest_SUCCEED)
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_DONE || len(m.GetOperations()) != 3 {
		t.Errorf("%v", m)
	}
}

func TestAChangedSpecificationVoidsApprovalsAndTheRecordShowsBoth(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review", "approval")
	seen := p.request("r").GetFrozenHash()
	p.approve("r", "bob", "review")
	p.accept(p.vote("r", "cho", "approval", apiv1.Decision_RETURN, nil))
	m := p.request("r")
	m.GetSpecification().GetCreate().Quantity = 2
	m.Reason = "more of it"
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: m, ExpectedRevision: m.GetRevision(), By: who("ann")}}})
	p.accept(p.submission("r", "review", "approval"))
	p.refuse(problem.Conflict, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) { in.Decision.SeenHash = seen }))
	p.approve("r", "bob", "review")
	m = p.request("r")
	if len(m.GetDecisions()) != 3 || !m.GetDecisions()[0].GetVoid() || m.GetDecisions()[2].GetVoid() || m.GetRound() != 2 {
		t.Errorf("%v", m.GetDecisions())
	}
	if err := request.Verify(m); err != nil {
		t.Error(err)
	}
}

func TestP2ARequestThatArrivesTwiceFromAnotherSystemIsOne(t *testing.T) {
	p := staffed(t)
	itsm := func(m *apiv1.Request) { m.Intake, m.ExternalRef = apiv1.Intake_ITSM, "CHG-7" }
	first, second := p.draft("r", itsm), p.draft("r-other", itsm)
	if first.GetId() != second.GetId() || p.request("r-other") != nil {
		t.Errorf("%v and %v", first, second)
	}
	if third := p.draft("r-third", func(m *apiv1.Request) { itsm(m); m.Requester, m.RequesterId = "bob", "u-bob" }); third.GetId() != "r-third" {
		t.Error("another requester's number is not the same")
	}
}

func TestAnApprovalAfterTheWithdrawalIsRefused(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.refuse(problem.Forbidden, &commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("bob")}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("ann")}}})
	p.refuse(problem.WrongState, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	p.refuse(problem.WrongState, p.carryOut("r", "a", 0, 1))
}

func TestTheHistoryOfARequestOutlivesWhatItMadeAndWhoAsked(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.approve("r", "bob", "review")
	p.accept(p.carryOut("r", "a", 0, 1))
	for i := range 2 {
		p.end(fmt.Sprintf("op-a-%d", i), apiv1.ResolveOperationRequest_SUCCEED)
		p.accept(desire(i+1, apiv1.VM_DELETED, fmt.Sprintf("op-del-%d", i)))
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: "r",
		Comment: &apiv1.Comment{Id: "c", Author: "ann", AuthorId: "u-ann", Text: "thanks"}}}})
	before := p.request("r")
	for _, name := range []string{"ann", "bob"} {
		p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-" + name}}})
	}
	years := timestamppb.New(p.now.Add(10 * 365 * 24 * time.Hour))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: years, OperationsBefore: years, EventsBefore: years}}})
	if m := p.request("r"); !proto.Equal(m, before) || m.GetDecisions()[0].GetActor() != "bob" || m.GetRequester() != "ann" {
		t.Errorf("%v became %v", before, m)
	}
	p.refuse(problem.WrongState, &commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: "r"}}})
}

func TestTimeExpiresAndLapsesAndNeverApproves(t *testing.T) {
	p := staffed(t)
	soon := timestamppb.New(p.now.Add(time.Hour))
	for _, id := range []string{"waits", "approved"} {
		p.draft(id, func(m *apiv1.Request) { m.DecideBy, m.CarryOutBy = soon, soon })
		p.accept(p.submission(id, "review"))
	}
	p.approve("approved", "bob", "review")
	pass := func(id string, what commandv1.PassRequest_What) *commandv1.Command {
		return &commandv1.Command{Actor: "request", Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: id, What: what}}}
	}
	p.refuse(problem.WrongState, pass("waits", commandv1.PassRequest_EXPIRE))
	p.refuse(problem.WrongState, pass("approved", commandv1.PassRequest_LAPSE))
	p.now = p.now.Add(time.Hour)
	p.refuse(problem.WrongState, p.vote("waits", "cho", "review", apiv1.Decision_APPROVE, nil))
	p.refuse(problem.WrongState, p.carryOut("approved", "a", 0, 1))
	p.accept(pass("waits", commandv1.PassRequest_EXPIRE))
	p.accept(pass("approved", commandv1.PassRequest_LAPSE))
	if a, b := p.request("waits"), p.request("approved"); a.GetApproval() != apiv1.Request_EXPIRED || b.GetFulfilment() != apiv1.Request_LAPSED || p.vms() != 0 {
		t.Errorf("%v, %v", a, b)
	}
}

func TestAFileIsPartOfWhatIsSeenAndWhoAddsItHelpedWrite(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	attach := &commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: "r", Content: []byte("plan"),
		Comment: &apiv1.Comment{Id: "c", Author: "bob", AuthorId: "u-bob", File: "plan.pdf"}}}}
	p.accept(attach)
	p.accept(p.submission("r", "review"))
	p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	frozen := &apiv1.Request{}
	if err := proto.Unmarshal(p.request("r").GetFrozen(), frozen); err != nil || len(frozen.GetFiles()) != 1 || frozen.GetFiles()[0].GetSize() != 4 {
		t.Errorf("%v, %v", frozen.GetFiles(), err)
	}
	attach.GetCommentRequest().GetComment().Id = "c2"
	p.refuse(problem.WrongState, attach) // once it is submitted
	attach.GetCommentRequest().GetComment().File, attach.GetCommentRequest().GetComment().Text = "", "a word"
	p.accept(attach)
	p.view(func(tx *state.Tx) {
		_, content, err := tx.Attachment("r", "c")
		if said, e := tx.Comments("r", "", 10); err != nil || e != nil || string(content) != "plan" || len(said) != 2 {
			t.Errorf("%q, %v, %v, %v", content, said, err, e)
		}
	})
}

func TestPowerByRequestIsDoneWhenTheZoneSaysSo(t *testing.T) {
	p := staffed(t)
	p.accept(createVM(1))
	p.draft("r", func(m *apiv1.Request) {
		m.Kind = apiv1.RequestKind_POWER
		m.Specification = &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: "web-1", VmId: "vm-1", Verb: apiv1.PowerVM_STOP}}}
	})
	in := p.submission("r", "review")
	in.GetSubmitRequest().GetRequest().Parts = in.GetSubmitRequest().GetRequest().GetParts()[:1]
	p.accept(in)
	p.approve("r", "bob", "review")
	p.accept(p.carryOut("r", "a", 0))
	if vm := p.vm(1); vm.GetDesiredState() != apiv1.VM_STOPPED || vm.GetOperation() != "op-a-0" {
		t.Fatalf("%v", vm)
	}
	p.end("op-a-0", apiv1.ResolveOperationRequest_SUCCEED)
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_DONE {
		t.Errorf("%v", m)
	}
}

// asRead is somebody as they are now.
func (p *plane) asRead(name string) (reads []*commandv1.Read) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		if m := get(p, tx.Users, "u-"+name); m != nil {
			reads = append(reads, &commandv1.Read{Noun: &apiv1.Reference{Kind: "user", Id: m.GetId(), Name: name}, Revision: m.GetRevision()})
		}
	})
	return reads
}

// givenUp lets an approved request fail, since it was orphaned for as long as that takes.
func (p *plane) givenUp(id string) {
	p.Helper()
	for _, what := range []commandv1.PassRequest_What{commandv1.PassRequest_ORPHAN, commandv1.PassRequest_FAIL} {
		p.accept(&commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: id, What: what, Reason: "ann is away", Reads: p.asRead("ann")}}})
		p.now = p.now.AddDate(0, 0, 7)
	}
}

// TestWhatIsApprovedFailsOnlyAfterItWasOrphanedForSevenDays, by this state's clock and nobody's word; what was withdrawn for another says why.
func TestWhatIsApprovedFailsOnlyAfterItWasOrphanedForSevenDays(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	pass := func(what commandv1.PassRequest_What) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: "r", ExpectedRevision: p.request("r").GetRevision(), What: what, Reason: "ann is away", Reads: p.asRead("ann")}}}
	}
	withdraw := func(since string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("dan"), Since: since}}}
	}
	p.refuse(problem.WrongState, pass(commandv1.PassRequest_ORPHAN)) // it is not approved
	p.approve("r", "bob", "review")
	p.refuse(problem.WrongState, pass(commandv1.PassRequest_FAIL))
	p.refuse(problem.Forbidden, withdraw(""))
	p.accept(pass(commandv1.PassRequest_ORPHAN))
	p.now = p.now.Add(4 * 24 * time.Hour)
	p.accept(pass(commandv1.PassRequest_ORPHAN)) // another reason does not begin it anew
	p.now = p.now.Add(3*24*time.Hour - time.Minute)
	p.refuse(problem.WrongState, pass(commandv1.PassRequest_FAIL))
	p.now = p.now.Add(2 * time.Minute)
	seen := pass(commandv1.PassRequest_FAIL)
	p.accept(disableUser("ann"))
	p.refuse(problem.Conflict, seen) // ann is not as she was when it was found that she is away
	restsOnNothing := pass(commandv1.PassRequest_FAIL)
	restsOnNothing.GetPassRequest().Reads = nil
	p.refuse(problem.Invalid, restsOnNothing)
	p.accept(pass(commandv1.PassRequest_FAIL))
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_FAILED || m.GetOrphanedAt() == nil {
		t.Errorf("%v", m)
	}
	p.accept(withdraw("ann, who asked for it, is disabled"))
	if m := p.request("r"); m.GetApproval() != apiv1.Request_CANCELLED || m.GetApprovalReason() != "withdrawn by dan, since ann, who asked for it, is disabled" {
		t.Errorf("%v", m)
	}
}

// TestWhatIsOrphanedBeginsAnewWhenItPasses, and at once where who asked is gone for good.
func TestWhatIsOrphanedBeginsAnewWhenItPasses(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.approve("r", "bob", "review")
	pass := func(what commandv1.PassRequest_What) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: "r", ExpectedRevision: p.request("r").GetRevision(), What: what, Reason: "ann is away"}}}
	}
	p.accept(pass(commandv1.PassRequest_ORPHAN))
	p.accept(pass(commandv1.PassRequest_WAIT))
	p.now = p.now.Add(8 * 24 * time.Hour)
	p.refuse(problem.WrongState, pass(commandv1.PassRequest_FAIL))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ann"}}})
	p.accept(pass(commandv1.PassRequest_FAIL))
}

// TestNothingIsCarriedOutForWhoIsAway, whether they asked for it or it is for them, whatever the proposer knew.
func TestNothingIsCarriedOutForWhoIsAway(t *testing.T) {
	for _, name := range []string{"ann", "cho"} {
		p := staffed(t)
		p.draft("r", func(m *apiv1.Request) { m.OnBehalfOf, m.OnBehalfOfId = "cho", "u-cho" })
		p.accept(p.submission("r", "review"))
		p.approve("r", "bob", "review")
		p.accept(disableUser(name))
		if r := p.refuse(problem.Forbidden, p.carryOut("r", "a", 0, 1)); !strings.Contains(r.GetDetail(), "user "+name+" is disabled") {
			t.Errorf("%v", r)
		}
		p.accept(enableUser(name))
		p.accept(p.carryOut("r", "b", 0, 1))
	}
}

// TestWhatRestsOnSomebodysRolesNoticesOneThatIsGivenAndOneThatIsTaken, by themselves and by a group.
func TestWhatRestsOnSomebodysRolesNoticesOneThatIsGivenAndOneThatIsTaken(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.approve("r", "bob", "review")
	p.accept(createRole("worker", "vm.read"))
	p.accept(createGroup("workers"))
	p.accept(give("b-group", "worker", "group:workers", "project:shop", never))
	rests := func() *commandv1.Command {
		c := p.carryOut("r", "a", 0, 1)
		p.view(func(tx *state.Tx) {
			var all []*apiv1.RoleBinding
			for b, err := range tx.RoleBindingsOf("u-ann") {
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, b)
			}
			c.GetCarryOutRequest().Reads = []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "role-bindings-of-user", Id: "u-ann", Name: "ann"}, Revision: state.RoleBindingsRevision(all)}}
		})
		return c
	}
	for _, change := range []*commandv1.Command{give("b-ann", "worker", "ann", "zone:business", never), enter("workers", "ann"), leave("workers", "ann"), take("b-ann")} {
		seen := rests()
		p.accept(change)
		p.refuse(problem.Conflict, seen)
	}
	seen := rests()
	p.accept(give("b-bob", "worker", "bob", "project:shop", never)) // another's are no matter
	p.accept(seen)
}
