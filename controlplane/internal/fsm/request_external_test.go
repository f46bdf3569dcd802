package fsm_test

import (
	"bytes"
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

// withSystem is a plane beside which another system stands: its service desk asks, and change decides; dr stands by. Each has a token
// that eve made.
func withSystem(t tb) *plane {
	p := staffed(t)
	for name, kind := range map[string]apiv1.User_Kind{"desk": apiv1.User_SERVICE, "change": apiv1.User_SERVICE, "dr": apiv1.User_SERVICE, "eve": apiv1.User_PERSON} {
		u := &apiv1.User{Id: "u-" + name, Name: name, Kind: kind, Organization: "home", OrganizationId: "o-home"}
		p.accept(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: u}}})
		if kind == apiv1.User_SERVICE {
			p.token(name, nil)
		}
	}
	return p
}

// token gives a service a token of a year, as it is changed.
func (p *plane) token(service string, change func(*apiv1.AccessToken)) {
	p.Helper()
	t := &apiv1.AccessToken{Id: "t-" + service, Name: service, User: service, UserId: "u-" + service, SecretHash: digest("t-" + service), CreatedById: "u-eve",
		ExpiresAt: timestamppb.New(p.now.AddDate(1, 0, 0))}
	if change != nil {
		change(t)
	}
	if err := p.db.Update(func(tx *state.Tx) error { return tx.AccessTokens.Put(t) }); err != nil {
		p.Fatal(err)
	}
}

// external submits what was drafted, with a stage itsm in which change decides, behind one of people where that is named.
func (p *plane) external(id, review string, change func(*commandv1.SubmitRequest)) *commandv1.Command {
	p.Helper()
	stages := []string{"itsm"}
	if review != "" {
		stages = []string{review, "itsm"}
	}
	in := p.submission(id, stages...)
	m := in.GetSubmitRequest().GetRequest()
	s := m.GetStages()[len(stages)-1]
	s.External, s.Sequence, s.Eligible, s.EscalateTo = true, 0, &apiv1.Eligibility{Users: []string{"change"}}, &apiv1.Eligibility{Users: []string{"dr"}}
	m.Authority = request.AuthorityOf(m.GetStages())
	in.GetSubmitRequest().By = &commandv1.Person{Id: m.GetRequesterId(), Name: m.GetRequester()}
	if change != nil {
		change(in.GetSubmitRequest())
	}
	if err := request.Freeze(m); err != nil {
		p.Fatal(err)
	}
	return in
}

// said is what a service says of a decision that Hong took in the other system.
func (p *plane) said(id, service, stage string, change func(*commandv1.Command)) *commandv1.Command {
	p.Helper()
	c := p.vote(id, service, stage, apiv1.Decision_APPROVE, nil)
	d := c.GetDecideRequest().GetDecision()
	d.ExternalApprover, d.ExternalRef = "Hong", "CHG-7"
	c.Actor, c.Origin = "token:"+service, &commandv1.Origin{ActorId: "t-" + service}
	if change != nil {
		change(c)
	}
	return c
}

func TestAnotherSystemDecidesInItsStageOnceAndIsInTheRecord(t *testing.T) {
	p := withSystem(t)
	p.draft("r", nil)
	p.accept(p.external("r", "review", nil))
	word := p.said("r", "change", "itsm", nil)
	p.accept(word)
	d := p.request("r").GetDecisions()[0]
	if d.GetActor() != "change" || d.GetExternalApprover() != "Hong" || d.GetExternalRef() != "CHG-7" || d.GetStrength() != apiv1.Session_STRENGTH_UNSPECIFIED {
		t.Errorf("%v", d)
	}
	p.refuse(problem.WrongState, p.said("r", "change", "itsm", nil))
	if m := p.request("r"); m.GetApproval() != apiv1.Request_IN_REVIEW || m.GetAuthority() != apiv1.Authority_BOTH {
		t.Fatalf("%v", m)
	}
	p.approve("r", "bob", "review")
	if m := p.request("r"); m.GetApproval() != apiv1.Request_APPROVED || request.Verify(m) != nil {
		t.Errorf("%v", m)
	}
}

func TestP6NoWordOfAnotherSystemCountsThatMustNot(t *testing.T) {
	of := func(change func(*apiv1.Decision)) func(*commandv1.Command) {
		return func(c *commandv1.Command) { change(c.GetDecideRequest().GetDecision()) }
	}
	for about, c := range map[string]struct {
		before func(*plane)
		say    func(*plane) *commandv1.Command
		code   problem.Code
	}{
		"a person in a stage of another system": {nil, func(p *plane) *commandv1.Command {
			return p.vote("r", "bob", "itsm", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
				in.Decision.ExternalApprover, in.Decision.ExternalRef = "Hong", "CHG-7"
			})
		}, problem.Forbidden},
		"a service that the stage does not name": {nil, func(p *plane) *commandv1.Command { return p.said("r", "dr", "itsm", nil) }, problem.Forbidden},
		"a service in a stage of people":         {nil, func(p *plane) *commandv1.Command { return p.said("r", "change", "review", nil) }, problem.Forbidden},
		"a number in a stage of people": {nil, func(p *plane) *commandv1.Command {
			return p.vote("r", "bob", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) { in.Decision.ExternalRef = "CHG-7" })
		}, problem.Invalid},
		"nobody there": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = " " }))
		}, problem.Invalid},
		"no number": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalRef = "" }))
		}, problem.Invalid},
		"of what was not shown": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.SeenHash = bytes.Repeat([]byte{1}, 32) }))
		}, problem.Conflict},
		"who asked": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "Ann " }))
		}, problem.Forbidden},
		"who asked, by what she is called": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "앤" }))
		}, problem.Forbidden},
		"who asked, by her address": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "ANN@example.org" }))
		}, problem.Forbidden},
		"for whom it is": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "dan" }))
		}, problem.Forbidden},
		"who has decided here": {func(p *plane) { p.approve("r", "bob", "review") }, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "bob" }))
		}, problem.WrongState},
		"who has decided there, here": {func(p *plane) {
			p.accept(p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "bob" })))
		}, func(p *plane) *commandv1.Command { return p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil) }, problem.WrongState},
		"who has decided here, by their address": {func(p *plane) { p.approve("r", "bob", "review") }, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "BOB@example.org" }))
		}, problem.WrongState},
		"in whose place somebody has decided here, by what they are called": {func(p *plane) {
			p.accept(p.delegation("g", "bob", "cho", time.Hour))
			p.accept(p.vote("r", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
				in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
			}))
		}, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "밥" }))
		}, problem.WrongState},
		"who has decided there by their address, here": {func(p *plane) {
			p.accept(p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "bob@example.org" })))
		}, func(p *plane) *commandv1.Command { return p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil) }, problem.WrongState},
		"for whom has decided there by what they are called, here": {func(p *plane) {
			p.accept(p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = " 밥" })))
			p.accept(p.delegation("g", "bob", "cho", time.Hour))
		}, func(p *plane) *commandv1.Command {
			return p.vote("r", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
				in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
			})
		}, problem.WrongState},
		"whom the policy excludes": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "CHO" }))
		}, problem.Forbidden},
		"whom the policy excludes, by their address": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "cho@example.org" }))
		}, problem.Forbidden},
		"whom the policy excludes, and of whom no more is known here": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ExternalApprover = "Kang" }))
		}, problem.Forbidden},
		"in somebody's place": {func(p *plane) { p.accept(p.delegation("g", "bob", "cho", time.Hour)) }, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", of(func(d *apiv1.Decision) { d.ActingFor, d.ActingForId, d.Delegation = "bob", "u-bob", "g" }))
		}, problem.Forbidden},
		"by a token that she who asks made": {func(p *plane) { p.token("change", func(t *apiv1.AccessToken) { t.CreatedById = "u-ann" }) },
			func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.Forbidden},
		"by a token that has ended": {func(p *plane) { p.now = p.now.AddDate(2, 0, 0) },
			func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.TokenExpired},
		"by a token that is gone": {func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteAccessToken{DeleteAccessToken: &commandv1.DeleteNoun{Id: "t-change"}}})
		}, func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.TokenInvalid},
		"by another service's token": {nil, func(p *plane) *commandv1.Command {
			return p.said("r", "change", "itsm", func(c *commandv1.Command) { c.Origin.ActorId = "t-desk" })
		}, problem.TokenInvalid},
		"by a token of another project": {func(p *plane) {
			p.token("change", func(t *apiv1.AccessToken) { t.Project, t.ProjectId = "other", "p-other" })
		},
			func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.Forbidden},
		"by a token of a zone's edge, elsewhere": {func(p *plane) {
			p.token("change", func(t *apiv1.AccessToken) { t.Zone, t.ZoneId = "business", "z-business" })
		},
			func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.Forbidden},
		"a service that is disabled": {func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-change", Reason: "replaced"}}})
		}, func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.TokenInvalid}, // its tokens end with it
		"after the withdrawal": {func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("ann")}}})
		}, func(p *plane) *commandv1.Command { return p.said("r", "change", "itsm", nil) }, problem.WrongState},
	} {
		t.Run(about, func(t *testing.T) {
			p := withSystem(t)
			if err := p.db.Update(func(tx *state.Tx) error {
				for name, title := range map[string]string{"ann": "앤", "bob": "밥", "cho": "초"} {
					m := get(p, tx.Users, "u-"+name)
					m.Title, m.Email = title, name+"@example.org"
					if err := tx.Users.Put(m); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			p.draft("r", func(m *apiv1.Request) { m.OnBehalfOf, m.OnBehalfOfId = "dan", "u-dan" })
			p.accept(p.external("r", "review", func(in *commandv1.SubmitRequest) { in.Request.Stages[1].Excluded = []string{"cho", "kang"} }))
			if c.before != nil {
				c.before(p)
			}
			before := len(p.request("r").GetDecisions())
			p.refuse(c.code, c.say(p))
			if m := p.request("r"); len(m.GetDecisions()) != before || m.GetApproval() == apiv1.Request_APPROVED {
				t.Errorf("it counts: %v", m)
			}
		})
	}
}

// TestP6TheServiceThatAsksDecidesNothing: another system has two, and whoever made the token by which it asks has decided nothing either.
func TestP6TheServiceThatAsksDecidesNothing(t *testing.T) {
	p := withSystem(t)
	for _, service := range []string{"change", "desk"} {
		p.draft("r-"+service, func(m *apiv1.Request) { m.Requester, m.RequesterId = service, "u-"+service })
		p.accept(p.external("r-"+service, "", nil))
	}
	p.refuse(problem.Forbidden, p.said("r-change", "change", "itsm", nil))
	p.refuse(problem.Forbidden, p.said("r-desk", "change", "itsm", func(c *commandv1.Command) { c.GetDecideRequest().GetDecision().ExternalApprover = "eve" }))
	p.accept(p.said("r-desk", "change", "itsm", nil))
	if m := p.request("r-desk"); m.GetApproval() != apiv1.Request_APPROVED || m.GetAuthority() != apiv1.Authority_ITSM {
		t.Errorf("%v", m)
	}
}

func TestAServiceThatStandsByDecidesOnceTheStageIsEscalated(t *testing.T) {
	p := withSystem(t)
	p.draft("r", nil)
	p.accept(p.external("r", "", nil))
	p.refuse(problem.Forbidden, p.said("r", "dr", "itsm", nil))
	p.accept(&commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: "r", What: commandv1.PassRequest_ESCALATE, Stage: "itsm", Reason: "change is disabled"}}})
	p.accept(p.said("r", "dr", "itsm", nil))
}

func TestWhatLetsARequestThroughIsWhatItsPolicySays(t *testing.T) {
	for about, change := range map[string]func(*commandv1.SubmitRequest){
		"nothing said, and another system asked": func(in *commandv1.SubmitRequest) { in.Request.Authority = 0 },
		"people alone, and another system asked": func(in *commandv1.SubmitRequest) { in.Request.Authority = apiv1.Authority_LOCAL },
		"both, and nobody here asked":            func(in *commandv1.SubmitRequest) { in.Request.Authority = apiv1.Authority_BOTH },
		"another system, and people asked": func(in *commandv1.SubmitRequest) {
			in.Request.Stages[0].External = false
		},
		"another system, and by itself": func(in *commandv1.SubmitRequest) { in.Automatic = "small" },
		"across zones, without people of either": func(in *commandv1.SubmitRequest) {
			in.Request.SourceZone, in.Request.SourceZoneId = "internet", "z-internet"
			for _, at := range []apiv1.Eligibility_At{apiv1.Eligibility_SOURCE, apiv1.Eligibility_DESTINATION} {
				s := proto.CloneOf(in.Request.GetStages()[0])
				s.Name, s.Eligible.At = "itsm-"+at.String(), at
				in.Request.Stages = append(in.Request.Stages, s)
			}
		},
	} {
		t.Run(about, func(t *testing.T) {
			p := withSystem(t)
			p.draft("r", nil)
			p.refuse(problem.WrongState, p.external("r", "", change))
			if m := p.request("r"); m.GetApproval() != apiv1.Request_DRAFT {
				t.Errorf("%v", m)
			}
		})
	}
}

// TestNoNumberOfAnotherSystemIsCutOff: what is left of one is another one.
func TestNoNumberOfAnotherSystemIsCutOff(t *testing.T) {
	p := withSystem(t)
	p.draft("r", nil)
	p.accept(p.external("r", "review", func(in *commandv1.SubmitRequest) {
		s := in.Request.Stages[0]
		s.External, s.Eligible = true, &apiv1.Eligibility{Users: []string{"dr"}}
		in.Request.Authority = apiv1.Authority_ITSM
	}))
	long := "CHG-" + strings.Repeat("7", 124)
	for _, d := range [][3]string{{"dr", "review", long}, {"change", "itsm", long[:127] + "8"}} {
		p.accept(p.said("r", d[0], d[1], func(c *commandv1.Command) {
			c.GetDecideRequest().GetDecision().ExternalApprover, c.GetDecideRequest().GetDecision().ExternalRef = "of "+d[1], d[2]
		}))
	}
	told := ""
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Notifications.All(state.Scope{"topic": "request.approved"}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, is := range m.GetParameters() {
				if is.GetKey() == "decision_ref" {
					told = is.GetValue()
				}
			}
		}
	})
	if told != long {
		t.Errorf("%q", told)
	}
}
