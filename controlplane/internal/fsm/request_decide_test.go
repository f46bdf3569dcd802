package fsm_test

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestP6NobodyDecidesWhoMustNot(t *testing.T) {
	p := staffed(t)
	p.draft("r", func(m *apiv1.Request) { m.OnBehalfOf, m.OnBehalfOfId = "bob", "u-bob" })
	edited := p.request("r")
	edited.Title = "two web servers"
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: edited, ExpectedRevision: edited.GetRevision(), By: who("cho")}}})
	p.accept(p.submission("r", "review"))
	for _, name := range []string{"ann", "bob", "cho"} { // asked, gains, wrote
		p.refuse(problem.Forbidden, p.vote("r", name, "review", apiv1.Decision_APPROVE, nil))
		p.accept(p.delegation("g-"+name, name, "dan", time.Hour))
		p.refuse(problem.Forbidden, p.vote("r", "dan", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
			in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = name, "u-"+name, "g-"+name
		}))
	}
	p.refuse(problem.TokenInvalid, p.vote("r", "ci", "review", apiv1.Decision_APPROVE, nil))
	dan := p.vote("r", "dan", "review", apiv1.Decision_APPROVE, nil)
	p.accept(createAdministrator("root", start.Add(24*time.Hour)))
	for what, origin := range map[string]*commandv1.Origin{"nobody": nil, "an administrator's certificate": {ActorId: "a-root", Strength: apiv1.Session_CERTIFICATE, Key: "SHA256:root"},
		"another user": {ActorId: "u-ann", SessionId: p.inSession("ann")}} {
		forged := proto.CloneOf(dan)
		forged.Origin = origin
		if got := p.refuse(problem.Forbidden, forged); got == nil {
			t.Errorf("%s decided as dan", what)
		}
	}
	p.refuse(problem.Conflict, p.vote("r", "dan", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) { in.Decision.SeenHash = bytes.Repeat([]byte{1}, 32) }))
	p.refuse(problem.Conflict, p.vote("r", "dan", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) { in.GroupIds = []string{"g-left"} }))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-dan", Reason: "left"}}})
	p.refuse(problem.TokenInvalid, dan)
	if m := p.request("r"); len(m.GetDecisions()) != 0 || m.GetApproval() != apiv1.Request_SUBMITTED {
		t.Errorf("%v", m)
	}
}

func TestP6WhomTheStageExcludesDecidesForNobodyAndNobodyForThem(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	in := p.submission("r", "review")
	m := in.GetSubmitRequest().GetRequest()
	m.Stages[0].Excluded = []string{"cho"}
	if err := request.Freeze(m); err != nil {
		t.Fatal(err)
	}
	p.accept(in)
	p.refuse(problem.Forbidden, p.vote("r", "cho", "review", apiv1.Decision_APPROVE, nil))
	for _, d := range [][2]string{{"bob", "cho"}, {"cho", "dan"}} {
		p.accept(p.delegation("g-"+d[0], d[0], d[1], time.Hour))
		p.refuse(problem.Forbidden, p.vote("r", d[1], "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
			in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = d[0], "u-"+d[0], "g-"+d[0]
		}))
	}
	p.approve("r", "dan", "review")
}

func (p *plane) delegation(id, from, to string, length time.Duration) *commandv1.Command {
	p.Helper()
	now := p.now
	return &commandv1.Command{Actor: "user:" + from, Origin: &commandv1.Origin{ActorId: "u-" + from, SessionId: p.inSession(from)}, Body: &commandv1.Command_CreateDelegation{CreateDelegation: &commandv1.CreateDelegation{
		Delegation: &apiv1.Delegation{Id: id, FromUser: from, FromUserId: "u-" + from, ToUser: to, ToUserId: "u-" + to, EndsAt: timestamppb.New(now.Add(length))}}}}
}

func TestADelegateDecidesWhileTheDelegationHoldsAndBothAreShown(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review", "approval")
	for2bob := func(in *commandv1.DecideRequest) {
		in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
	}
	p.refuse(problem.Forbidden, p.vote("r", "cho", "review", apiv1.Decision_APPROVE, for2bob))
	forged := p.delegation("g", "bob", "cho", time.Hour)
	forged.Origin.ActorId, forged.Origin.SessionId = "u-cho", p.inSession("cho") // nobody helps themselves to another's decisions
	p.refuse(problem.Forbidden, forged)
	later := p.delegation("g", "bob", "cho", 2*time.Hour)
	later.GetCreateDelegation().GetDelegation().StartsAt = timestamppb.New(p.now.Add(time.Hour))
	p.accept(later)
	p.refuse(problem.Forbidden, p.vote("r", "cho", "review", apiv1.Decision_APPROVE, for2bob))
	p.now = p.now.Add(time.Hour)
	p.refuse(problem.Forbidden, p.vote("r", "dan", "review", apiv1.Decision_APPROVE, for2bob))
	p.accept(p.vote("r", "cho", "review", apiv1.Decision_APPROVE, for2bob))
	d := p.request("r").GetDecisions()[0]
	if d.GetActor() != "cho" || d.GetActingFor() != "bob" || d.GetStrength() != apiv1.Session_TWO_FACTORS {
		t.Errorf("%v", d)
	}
	for _, name := range []string{"bob", "cho"} { // both have counted
		p.refuse(problem.WrongState, p.vote("r", name, "approval", apiv1.Decision_APPROVE, nil))
	}
	p.now = p.now.Add(2 * time.Hour)
	p.submitted("r2", "review")
	p.refuse(problem.Forbidden, p.vote("r2", "cho", "review", apiv1.Decision_APPROVE, for2bob))
}

func TestOfTwoApproversAtTheSameInstantOneIsTooLate(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	votes := []fsm.Entry{p.entry(p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil)), p.entry(p.vote("r", "cho", "review", apiv1.Decision_DENY, nil))}
	results, err := p.machine.Apply(votes)
	if err != nil || results[0].GetProblem() != nil || results[1].GetProblem().GetCode() != string(problem.WrongState) {
		t.Fatalf("%v, %v", results, err)
	}
	if m := p.request("r"); m.GetApproval() != apiv1.Request_APPROVED || len(m.GetDecisions()) != 1 {
		t.Errorf("%v", m)
	}
}

func TestAStepUpIsOfTheVerySessionAndFresh(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	in := p.submission("r", "review")
	in.GetSubmitRequest().GetRequest().GetStages()[0].StepUp = true
	p.accept(in)
	vote := p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil)
	p.refuse(problem.Forbidden, vote)
	session := func(user string, until time.Duration) {
		if err := p.db.Update(func(tx *state.Tx) error {
			return tx.Sessions.Put(&apiv1.Session{Id: "s", UserId: "u-" + user, SecretHash: []byte{1}, ExpiresAt: timestamppb.New(p.now.Add(24 * time.Hour)), SteppedUpUntil: timestamppb.New(p.now.Add(until))})
		}); err != nil {
			t.Fatal(err)
		}
	}
	session("cho", time.Hour)
	p.refuse(problem.Forbidden, vote) // in another session of bob's
	vote.Origin.SessionId = "s"
	p.refuse(problem.TokenInvalid, vote)
	session("bob", -time.Second)
	p.refuse(problem.Forbidden, vote)
	session("bob", time.Hour)
	p.accept(vote)
}

// TestP6ADecisionIsMadeInASessionThatHoldsThen: what was ended between the look and the deed decides nothing.
func TestP6ADecisionIsMadeInASessionThatHoldsThen(t *testing.T) {
	for about, end := range map[string]func(*plane){
		"ended": func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: "u-bob"}}})
		},
		"of another user": func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: "s-bob"}}})
		},
		"over": func(p *plane) { p.now = p.now.AddDate(2, 0, 0) },
		"of one who has to choose a password": func(p *plane) {
			if err := p.db.Update(func(tx *state.Tx) error {
				s := get(p, tx.Sessions, "s-bob")
				s.MustChangePassword = true
				return tx.Sessions.Put(s)
			}); err != nil {
				p.Fatal(err)
			}
		},
	} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.submitted("r", "review")
			vote, give := p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil), p.delegation("g", "bob", "cho", 10*365*24*time.Hour)
			give.GetCreateDelegation().GetDelegation().StartsAt = timestamppb.New(p.now.AddDate(9, 6, 0))
			if end(p); about == "of another user" {
				vote.Origin.SessionId, give.Origin.SessionId = p.inSession("cho"), "s-cho"
			}
			want := map[string]problem.Code{"over": problem.TokenExpired, "of one who has to choose a password": problem.Forbidden}[about]
			if want == "" {
				want = problem.TokenInvalid
			}
			p.refuse(want, vote)
			p.refuse(want, give)
			if len(p.request("r").GetDecisions()) != 0 {
				t.Error("it counts")
			}
		})
	}
}

// TestP6NobodyDecidesForOneWhoHasNoWayInAnyMore: the delegation is kept, and holds again when they do.
func TestP6NobodyDecidesForOneWhoHasNoWayInAnyMore(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.accept(p.delegation("g", "bob", "cho", time.Hour))
	vote := func() *commandv1.Command {
		return p.vote("r", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
			in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
		})
	}
	away := func(at *timestamppb.Timestamp) {
		if err := p.db.Update(func(tx *state.Tx) error {
			m, err := tx.Users.Get("u-bob")
			if m.GoneAt = at; err == nil {
				err = tx.Users.Put(m)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	away(timestamppb.New(p.now))
	p.refuse(problem.Forbidden, vote())
	p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	p.refuse(problem.Forbidden, p.delegation("g2", "dan", "bob", time.Hour))
	away(nil)
	p.accept(vote())
}
