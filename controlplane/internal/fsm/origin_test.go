package fsm_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// callers is a plane on which ann has a session, ci a token and kim's certificate is recorded.
func callers(t *testing.T) *plane {
	p := staffed(t)
	p.accept(createAdministrator("other", start.AddDate(1, 0, 0)))
	p.accept(p.administratorOf("cho", "dan"))
	p.accept(p.tokenOfService("ci", "cho"))
	p.inSession("ann")
	return p
}

// write changes the state as no command does.
func (p *plane) write(fn func(*state.Tx) error) {
	p.Helper()
	if err := p.db.Update(fn); err != nil {
		p.Fatal(err)
	}
}

// disabled is a user who is disabled, and whose credentials stand, as they did before disabling ended them.
func (p *plane) disabled(name string) {
	p.Helper()
	p.write(func(tx *state.Tx) error {
		u := get(p, tx.Users, "u-"+name)
		u.Disabled = true
		return tx.Users.Put(u)
	})
}

// TestNothingIsDoneForACredentialThatHasEnded, of each kind and with each kind of command, whatever the server knew that was called. What
// remains of it is the refusal in the record. A kind that is added is refused too, unless it is said here that it is not.
func TestNothingIsDoneForACredentialThatHasEnded(t *testing.T) {
	session := &commandv1.Origin{ActorId: "u-ann", SessionId: "s-ann", Strength: apiv1.Session_PASSWORD}
	token := &commandv1.Origin{ActorId: "t-ci"}
	certificate := &commandv1.Origin{ActorId: "a-x", Strength: apiv1.Session_CERTIFICATE, Key: "SHA256:x"}
	// What nobody calls for, or is how one logs in.
	spared := []string{"noop", "bootstrap", "begin_session", "begin_provider_session"}
	for about, x := range map[string]struct {
		origin *commandv1.Origin
		end    func(*plane)
		code   problem.Code
	}{
		"a session that was revoked": {session, func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: "u-ann"}}})
		}, problem.TokenInvalid},
		"a session that is over":         {session, func(p *plane) { p.now = p.now.AddDate(1, 1, 0) }, problem.TokenExpired},
		"a session of somebody else":     {&commandv1.Origin{ActorId: "u-bob", SessionId: "s-ann"}, nil, problem.TokenInvalid},
		"a session of one who left":      {session, func(p *plane) { p.accept(disableUser("ann")) }, problem.TokenInvalid},
		"a session of one who is gone":   {session, func(p *plane) { p.accept(deletion("user", "u-ann", "")) }, problem.TokenInvalid},
		"a session that was left over":   {session, func(p *plane) { p.disabled("ann") }, problem.Revoked},
		"a token that was deleted":       {token, func(p *plane) { p.accept(deletion("access-token", "t-ci", "")) }, problem.TokenInvalid},
		"a token that is over":           {token, func(p *plane) { p.now = p.now.AddDate(0, 7, 0) }, problem.TokenExpired},
		"a token that was left over":     {token, func(p *plane) { p.disabled("ci") }, problem.Revoked},
		"a certificate that was revoked": {certificate, func(p *plane) { p.accept(deleteAdministrator("x")) }, problem.Revoked},
		"a certificate for an old key": {certificate, func(p *plane) {
			p.accept(renewAdministrator("x", "SHA256:another", start.AddDate(1, 0, 0)))
		}, problem.Revoked},
		"a certificate of one who left":     {certificate, func(p *plane) { p.accept(disableUser("dan")) }, problem.Revoked},
		"a certificate that was left over":  {certificate, func(p *plane) { p.disabled("dan") }, problem.Revoked},
		"what says that it is a user's own": {&commandv1.Origin{ActorId: "u-ann"}, nil, problem.TokenInvalid},
	} {
		t.Run(about, func(t *testing.T) {
			p := callers(t)
			if x.end != nil {
				lives := createZone("lab")
				lives.Origin = proto.CloneOf(x.origin)
				p.accept(lives)
				x.end(p)
			}
			from := len(p.audit(0))
			for _, member := range members() {
				name, c := string(member.Name()), blank(member)
				c.Actor, c.Origin = "caller", proto.CloneOf(x.origin)
				if slices.Contains(spared, name) {
					if r := p.apply(c); r.GetProblem().GetCode() == string(x.code) {
						t.Errorf("%s asks for a credential", name)
					}
					continue
				}
				p.refuse(x.code, c)
			}
			for _, e := range p.audit(from) {
				if e.GetOutcome() != apiv1.AuditEntry_REFUSED {
					t.Errorf("it left %v", e)
				}
			}
		})
	}
}

// TestThatSomebodyWasRefusedIsWrittenOfAnybody, and what was read only of those who may.
func TestThatSomebodyWasRefusedIsWrittenOfAnybody(t *testing.T) {
	p := callers(t)
	told := func(o apiv1.AuditEntry_Outcome) *commandv1.Command {
		return &commandv1.Command{Actor: "user:ann", Origin: &commandv1.Origin{ActorId: "u-ann", SessionId: "s-ann"},
			Body: &commandv1.Command_RecordAudit{RecordAudit: &commandv1.RecordAudit{Entry: &apiv1.AuditEntry{Action: "audit.list", Outcome: o, ProblemCode: "FORBIDDEN"}}}}
	}
	p.accept(told(apiv1.AuditEntry_READ))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: "s-ann"}}})
	p.refuse(problem.TokenInvalid, told(apiv1.AuditEntry_READ))
	p.accept(told(apiv1.AuditEntry_REFUSED))
}

// TestARefusalOfACredentialThatHasEndedIsInTheRecord with who it was, what they wanted, and why not.
func TestARefusalOfACredentialThatHasEndedIsInTheRecord(t *testing.T) {
	p := callers(t)
	p.accept(createVM(1))
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: "s-ann"}}})
	from := len(p.audit(0))
	stop := desire(1, apiv1.VM_STOPPED, "op-stop")
	stop.GetSetVmDesired().Kind = "vm.stop"
	stop.Actor, stop.Origin = "user:ann", &commandv1.Origin{ActorId: "u-ann", SessionId: "s-ann", ZoneId: "z-business"}
	p.refuse(problem.TokenInvalid, stop)
	got := p.audit(from)
	if len(got) != 1 || got[0].GetOutcome() != apiv1.AuditEntry_REFUSED || got[0].GetProblemCode() != "TOKEN_INVALID" || got[0].GetActor() != "user:ann" ||
		got[0].GetAction() != "vm.stop" || got[0].GetSessionId() != "s-ann" || got[0].GetViaZone() != "business" {
		t.Errorf("the record says %v", got)
	}
}
