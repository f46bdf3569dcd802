package fsm_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// by says who acts: a user in a session, an administrator with the key that createAdministrator gives, or the bearer of a token.
func (p *plane) by(id string, c *commandv1.Command) *commandv1.Command {
	p.Helper()
	c.Origin = &commandv1.Origin{ActorId: id}
	if name, ok := strings.CutPrefix(id, "u-"); ok {
		c.Origin.SessionId = p.inSession(name)
	} else if name, ok := strings.CutPrefix(id, "a-"); ok {
		c.Origin.Strength, c.Origin.Key = apiv1.Session_CERTIFICATE, "SHA256:"+name
	}
	return c
}

func (p *plane) reset(by, user string) *commandv1.Command { return p.by("u-"+by, resetPassword(user)) }

// takeAuthenticator enrols one for a user, and takes it away by another's hand.
func takeAuthenticator(p *plane, by_, user string) {
	p.accept(p.by("u-cho", resetPassword(user)))
	p.accept(&commandv1.Command{Body: &commandv1.Command_EnrollAuthenticator{EnrollAuthenticator: &commandv1.EnrollAuthenticator{
		UserId: "u-" + user, SealedAuthenticator: []byte("s"), Until: timestamppb.New(start.Add(time.Hour)), Shown: p.proof(user, "enrol")}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_ConfirmAuthenticator{ConfirmAuthenticator: &commandv1.ConfirmAuthenticator{
		UserId: "u-" + user, Shown: p.proof(user, "confirm")}}})
	p.accept(p.by("u-"+by_, &commandv1.Command{Body: &commandv1.Command_RemoveAuthenticator{RemoveAuthenticator: &commandv1.RemoveAuthenticator{UserId: "u-" + user}}}))
}

// administratorOf is one that somebody made a certificate for, and who it is said to be.
func (p *plane) administratorOf(maker, user string) *commandv1.Command {
	c := p.by("u-"+maker, createAdministrator("x", start.Add(time.Hour)))
	m := c.GetCreateAdministrator().GetAdministrator()
	if user != "" {
		m.User, m.UserId = user, "u-"+user
	}
	return c
}

func (p *plane) tokenOfService(name, maker string) *commandv1.Command {
	c := p.by("u-"+maker, createToken(name))
	m := c.GetCreateAccessToken().GetAccessToken()
	m.Project, m.ProjectId, m.User, m.UserId = "", "", "ci", "u-ci"
	return c
}

// TestNobodyDecidesByTheHandOfAnother: ann asks and bob decides, after what happened before.
func TestNobodyDecidesByTheHandOfAnother(t *testing.T) {
	for about, c := range map[string]struct {
		before  func(*plane)
		refused bool
	}{
		"nothing": {before: func(*plane) {}},
		"somebody with no part in it gave bob's password": {before: func(p *plane) { p.accept(p.reset("cho", "bob")) }},
		"ann gave bob's password":                         {func(p *plane) { p.accept(p.reset("ann", "bob")) }, true},
		"and bob has chosen another": {func(p *plane) {
			p.accept(p.reset("ann", "bob"))
			p.accept(p.logIn("bob", "one"))
			p.accept(p.changePassword("bob", "one"))
		}, true},
		"and bob has given himself one": {func(p *plane) { p.accept(p.reset("ann", "bob")); p.accept(p.reset("bob", "bob")) }, true},
		"and cho has given another":     {before: func(p *plane) { p.accept(p.reset("ann", "bob")); p.accept(p.reset("cho", "bob")) }},
		"and cho has, by ann's hand": {func(p *plane) {
			p.accept(p.reset("ann", "bob"))
			p.accept(p.reset("ann", "cho"))
			p.accept(p.reset("cho", "bob"))
		}, true},
		"ann took bob's authenticator away": {func(p *plane) { takeAuthenticator(p, "ann", "bob") }, true},
		"cho took it away":                  {before: func(p *plane) { takeAuthenticator(p, "cho", "bob") }},
		"ann gave it by a certificate that says it is ann": {func(p *plane) {
			p.accept(p.administratorOf("cho", "ann"))
			p.accept(p.by("a-x", resetPassword("bob")))
		}, true},
		"ann gave it by a certificate of her making that says it is dan": {func(p *plane) {
			p.accept(p.administratorOf("ann", "dan"))
			p.accept(p.by("a-x", resetPassword("bob")))
		}, true},
		"cho, with no part in it, gave both their passwords": {before: func(p *plane) { p.accept(p.reset("cho", "bob")); p.accept(p.reset("cho", "ann")) }},
		"bob gave ann's password":                            {func(p *plane) { p.accept(p.reset("bob", "ann")) }, true},
	} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.accept(sealingKey("key-1", ""))
			c.before(p)
			p.submitted("r", "review")
			vote := p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil)
			if !c.refused {
				p.accept(vote)
				return
			}
			p.refuse(problem.Forbidden, vote)
			p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_DENY, nil))
			if got := p.request("r").GetDecisions(); len(got) != 0 {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestWhoCouldHaveWrittenARequestNeverDecidesOnIt, whatever becomes of the account afterwards.
func TestWhoCouldHaveWrittenARequestNeverDecidesOnIt(t *testing.T) {
	p := staffed(t)
	p.accept(p.reset("bob", "ann"))
	p.draft("r", nil)
	p.accept(p.reset("cho", "ann")) // bob is out, and has written
	p.accept(p.submission("r", "review"))
	p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	p.refuse(problem.Forbidden, p.vote("r", "cho", "review", apiv1.Decision_APPROVE, nil)) // could have submitted it
	p.approve("r", "dan", "review")
}

func TestNobodyWhoseAccountAPartyHasHeldDecidesThroughADelegateEither(t *testing.T) {
	p := staffed(t)
	p.accept(p.reset("ann", "bob"))
	p.submitted("r", "review")
	p.accept(p.delegation("g", "bob", "cho", time.Hour))
	p.refuse(problem.Forbidden, p.vote("r", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
		in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
	}))
}

// TestWhoMadeATokenOfAServiceDoesNotDecideOnWhatTheServiceAsksFor, even where the token has been taken away since.
func TestWhoMadeATokenOfAServiceDoesNotDecideOnWhatTheServiceAsksFor(t *testing.T) {
	p := staffed(t)
	p.accept(p.tokenOfService("bobs", "bob"))
	p.draft("r", func(m *apiv1.Request) { m.Requester, m.RequesterId = "ci", "u-ci" })
	p.accept(deletion("access-token", "t-bobs", ""))
	p.accept(p.tokenOfService("chos", "cho"))
	submit := p.submission("r", "review")
	submit.GetSubmitRequest().By = who("ci")
	p.accept(submit)
	for _, name := range []string{"bob", "cho"} {
		p.refuse(problem.Forbidden, p.vote("r", name, "review", apiv1.Decision_APPROVE, nil))
	}
	p.approve("r", "dan", "review")
}

// TestWhoMadeATokenByATokenOfTheirsIsFoundThoughThatIsGone: bob has the service's in hand, whichever way he made it.
func TestWhoMadeATokenByATokenOfTheirsIsFoundThoughThatIsGone(t *testing.T) {
	p := staffed(t)
	p.accept(p.tokenOfService("first", "bob"))
	second := p.tokenOfService("second", "bob")
	p.accept(p.by("t-first", second))
	p.draft("r", func(m *apiv1.Request) { m.Requester, m.RequesterId = "ci", "u-ci" })
	p.accept(deletion("access-token", "t-first", ""))
	submit := p.submission("r", "review")
	submit.GetSubmitRequest().By = who("ci")
	p.accept(submit)
	p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	p.approve("r", "cho", "review")
}

// TestP6WhatAPolicyLetsThroughIsNotThatOfItsAuthor, whatever a proposer says.
func TestP6WhatAPolicyLetsThroughIsNotThatOfItsAuthor(t *testing.T) {
	for author, want := range map[string]bool{"ann": false, "dan": true} {
		for _, atOnce := range []bool{false, true} {
			p := staffed(t)
			p.accept(p.by("u-"+author, &commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{
				ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "p", Name: "lax"}}}}))
			p.draft("r", func(m *apiv1.Request) { m.ChangeType = apiv1.ChangeType_EMERGENCY })
			submit := p.submission("r", "review")
			in := submit.GetSubmitRequest()
			in.Request.Policy, in.Request.PolicyVersion = "lax", 1
			if in.AtOnce = atOnce; !atOnce {
				in.Automatic = "small"
			}
			if err := request.Freeze(in.GetRequest()); err != nil {
				t.Fatal(err)
			}
			if want {
				p.accept(submit)
			} else {
				p.refuse(problem.Conflict, submit)
			}
		}
	}
}
