package fsm_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// leaver is a plane on which dan has an administrator's certificate, and made tokens: of a project in a session, of a service with the
// certificate, and one more with the first of those. Others made what is theirs.
func leaver(t *testing.T) *plane {
	p := callers(t)
	token := func(by, name string) {
		t.Helper()
		p.accept(p.by(by, createToken(name)))
	}
	token("u-dan", "of-dan")
	bots := p.tokenOfService("bots", "dan")
	bots = p.by("a-x", bots)
	p.accept(bots)
	token("t-of-dan", "by-token")
	token("u-bob", "of-bob")
	token("a-other", "of-other")
	return p
}

func tokens(p *plane) (names []string) {
	p.view(func(tx *state.Tx) {
		for m, err := range tx.AccessTokens.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			names = append(names, m.GetName())
		}
	})
	slices.Sort(names)
	return names
}

// TestWhoLeavesKeepsNothing: neither certificate nor token of their making, disabled or deleted; and being let in again brings nothing back.
func TestWhoLeavesKeepsNothing(t *testing.T) {
	for about, end := range map[string]*commandv1.Command{"disabled": disableUser("dan"), "deleted": deletion("user", "u-dan", "")} {
		t.Run(about, func(t *testing.T) {
			p := leaver(t)
			from, events := len(p.audit(0)), p.events()
			r := p.accept(end)
			var ended []*apiv1.Reference
			if about == "disabled" {
				m := &apiv1.DisableUserResponse{}
				if err := proto.Unmarshal(r.GetNoun(), m); err != nil || !m.GetUser().GetDisabled() {
					t.Fatal(m, err)
				}
				ended = m.GetEnded()
			} else {
				m := &apiv1.DeleteUserResponse{}
				if err := proto.Unmarshal(r.GetNoun(), m); err != nil || m.GetOperation().GetKind() != "user.delete" {
					t.Fatal(m, err)
				}
				ended = m.GetEnded()
			}
			var names, entries []string
			for _, m := range ended {
				names = append(names, m.GetKind()+" "+m.GetName())
			}
			if want := []string{"administrator x", "access-token bots", "access-token by-token", "access-token of-dan"}; !slices.Equal(names, want) {
				t.Errorf("it says that %v ended, not %v", names, want)
			}
			if got := tokens(p); !slices.Equal(got, []string{"ci", "of-bob", "of-other"}) {
				t.Errorf("the tokens left are %v", got)
			}
			for _, e := range p.audit(from) {
				entries = append(entries, e.GetAction()+" "+e.GetTarget().GetName()+" "+e.GetProject())
				if e.GetOutcome() != apiv1.AuditEntry_DONE {
					t.Error(e)
				}
			}
			if want := []string{"administrator.delete x ", "access-token.delete bots ", "access-token.delete by-token shop", "access-token.delete of-dan shop"}; !slices.Equal(entries[1:], want) {
				t.Errorf("the record says %q, not %q", entries[1:], want)
			}
			after := p.events()
			if n := after["administrator.deleted"] - events["administrator.deleted"]; n != 1 {
				t.Errorf("%d events say that a certificate ended", n)
			}
			if n := after["access-token.deleted"] - events["access-token.deleted"]; n != 3 {
				t.Errorf("%d events say that a token ended", n)
			}
			if about == "disabled" {
				p.accept(enableUser("dan"))
				if got := tokens(p); len(got) != 3 {
					t.Errorf("with dan %v came back", got)
				}
				p.refuse(problem.NotFound, deleteAdministrator("x"))
			}
		})
	}
}

// TestACertificateThatWasDeletedBeforeLeavesNoTokenBehind: it is known whose it was.
func TestACertificateThatWasDeletedBeforeLeavesNoTokenBehind(t *testing.T) {
	p := leaver(t)
	p.accept(deleteAdministrator("x"))
	p.accept(deletion("access-token", "t-of-dan", ""))
	p.accept(disableUser("dan"))
	if got := tokens(p); !slices.Equal(got, []string{"ci", "of-bob", "of-other"}) {
		t.Errorf("the tokens left are %v", got)
	}
}

// TestWhatWasMadeByATokenOfBeforeIsItsMakersToo: that says by what it was made, and not yet by whom.
func TestWhatWasMadeByATokenOfBeforeIsItsMakersToo(t *testing.T) {
	p := leaver(t)
	if err := p.db.Update(func(tx *state.Tx) error {
		m := get(p, tx.AccessTokens, "t-of-dan")
		m.CreatedByUserId = ""
		return tx.AccessTokens.Put(m)
	}); err != nil {
		t.Fatal(err)
	}
	p.accept(p.by("t-of-dan", createToken("since")))
	p.accept(deletion("access-token", "t-of-dan", ""))
	p.accept(disableUser("dan"))
	if got := tokens(p); !slices.Equal(got, []string{"ci", "of-bob", "of-other"}) {
		t.Errorf("the tokens left are %v", got)
	}
}

// TestTheLastGoodCertificateIsNotTakenWithItsPerson; one that has ended, or is beside a good one, is.
func TestTheLastGoodCertificateIsNotTakenWithItsPerson(t *testing.T) {
	for about, end := range map[string]*commandv1.Command{"disabled": disableUser("dan"), "deleted": deletion("user", "u-dan", "")} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.accept(p.administratorOf("cho", "dan"))
			p.accept(p.by("u-dan", createToken("of-dan")))
			p.inSession("dan")
			why := p.refuse(problem.InUse, proto.CloneOf(end))
			if why.GetNext() == "" || len(tokens(p)) != 1 {
				t.Errorf("%v, and %v are left", why, tokens(p))
			}
			p.accept(createAdministrator("other", start.AddDate(1, 0, 0)))
			p.accept(proto.CloneOf(end))
			p.refuse(problem.InUse, deleteAdministrator("other"))
		})
	}
	p := staffed(t)
	p.accept(p.administratorOf("cho", "dan"))
	p.now = start.Add(2 * time.Hour)
	p.accept(disableUser("dan"))
}

// TestNobodyWhoIsDisabledGetsACertificate, whoever gives it.
func TestNobodyWhoIsDisabledGetsACertificate(t *testing.T) {
	p := callers(t)
	p.accept(disableUser("bob"))
	c := createAdministrator("bobs", start.AddDate(1, 0, 0))
	c.GetCreateAdministrator().Administrator.User, c.GetCreateAdministrator().Administrator.UserId = "bob", "u-bob"
	p.refuse(problem.WrongState, c)
	renew := renewAdministrator("x", "SHA256:x", start.AddDate(1, 0, 0))
	renew.GetRenewAdministrator().User, renew.GetRenewAdministrator().UserId = "bob", "u-bob"
	p.refuse(problem.WrongState, renew)
}
