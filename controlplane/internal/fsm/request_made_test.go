package fsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// submittedAtOnce makes a request of a wish and submits it, in one command.
func (p *plane) submittedAtOnce(id string, change func(*apiv1.Request), stages ...string) *commandv1.Command {
	p.Helper()
	draft := wish(id, change)
	draft.Approval = apiv1.Request_DRAFT
	return &commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{
		Request: wish(id, change), Submit: p.submissionOf(draft, stages...).GetSubmitRequest()}}}
}

// did are the actions of the log about requests.
func (p *plane) did() (actions []string) {
	for _, e := range p.audit(0) {
		if strings.HasPrefix(e.GetAction(), "request.") {
			actions = append(actions, e.GetAction()+" "+e.GetTarget().GetName()+" "+e.GetProject()+" "+e.GetZone())
		}
	}
	return actions
}

func TestARequestThatIsSubmittedAsItIsMadeIsWhatItWouldBeInTwoCommands(t *testing.T) {
	one, two := staffed(t), staffed(t)
	for _, p := range []*plane{one, two} {
		p.accept(shopMay(vms(2)))
	}
	one.accept(one.submittedAtOnce("r", nil, "review", "approval"))
	two.now = one.now
	two.submitted("r", "review", "approval")
	is, want := one.request("r"), two.request("r")
	for _, m := range []*apiv1.Request{is, want} {
		m.Revision, m.CreatedAt, m.SubmittedAt, m.CountedAt = "", nil, nil, nil
		for _, s := range m.GetStages() {
			s.OpenedAt = nil
		}
	}
	if is.GetApproval() != apiv1.Request_SUBMITTED || !proto.Equal(is, want) {
		t.Errorf("in one command\n%v\nin two\n%v", is, want)
	}
	if !slices.Equal(one.did(), two.did()) || len(one.did()) != 2 {
		t.Errorf("the log says %v of one command, and %v of two", one.did(), two.did())
	}
	if a, b := one.notices(), two.notices(); len(a) != 1 || len(b) != 1 {
		t.Errorf("who decides is told %v and %v", a, b)
	}
	one.approve("r", "bob", "review")
	one.approve("r", "cho", "approval")
	if m := one.request("r"); m.GetApproval() != apiv1.Request_APPROVED {
		t.Errorf("decided on what was seen, it is %v", m)
	}
	one.refuse(problem.QuotaExceeded, createVM(1)) // it holds what it asks for
}

func TestOfARequestWhoseSubmissionIsRefusedNothingIsKept(t *testing.T) {
	p := staffed(t)
	p.accept(shopMay(vms(1)))
	byAnn := func(c *commandv1.Command) *commandv1.Command {
		c.Actor, c.Origin = "user:ann", &commandv1.Origin{ActorId: "u-ann", SessionId: p.inSession("ann")}
		return c
	}
	p.refuse(problem.QuotaExceeded, byAnn(p.submittedAtOnce("r", nil, "review")))
	p.refuse(problem.WrongState, byAnn(p.submittedAtOnce("r", func(m *apiv1.Request) { m.ChangeType = apiv1.ChangeType_EMERGENCY })))
	p.view(func(tx *state.Tx) {
		if _, err := tx.Requests.Get("r"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("there is something of it: %v", err)
		}
	})
	if len(p.notices()) != 0 {
		t.Errorf("people are told %v", p.notices())
	}
	if did := p.did(); len(did) != 2 || strings.Count(strings.Join(did, " "), "request.submit") != 2 {
		t.Errorf("the log says %v", did)
	}
}

func TestWhatIsKnownUnderANumberIsNotSubmittedAgain(t *testing.T) {
	p := staffed(t)
	numbered := func(m *apiv1.Request) { m.ExternalRef, m.SentSha256 = "CHG-1", digest("a") }
	first := p.accept(p.submittedAtOnce("r", numbered, "review"))
	again := p.accept(p.submittedAtOnce("s", numbered, "review"))
	if string(first.GetNoun()) != string(again.GetNoun()) {
		t.Errorf("under one number come %s and %s", first.GetNoun(), again.GetNoun())
	}
	p.view(func(tx *state.Tx) {
		if own, err := tx.RequestsOf("u-ann"); err != nil || own.Asked != 1 || own.Written != 0 {
			t.Errorf("ann has %v, %v", own, err)
		}
	})
	if did := p.did(); len(did) != 3 || strings.Count(strings.Join(did, " "), "request.submit") != 1 {
		t.Errorf("the log says %v", did)
	}
}
