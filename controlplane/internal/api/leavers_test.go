package api_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/controller/leavers"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestWhoLeavesIsOutAndWhoMovesIsMoved asks both kinds of providers again, as the leader does.
func TestWhoLeavesIsOutAndWhoMovesIsMoved(t *testing.T) {
	f := newFederation(t, 1)
	ca := providertest.NewCA(t)
	slapd, dex := providertest.NewSlapd(t, ca), providertest.NewDex(t, ca, 600)
	ldap, oidc := slapd.Provider(ca), dex.Provider()
	ldap.CreateUsers, oidc.CreateUsers, ldap.Name = true, true, "directory"
	f.let(ldap, map[string]string{"cn=ops,ou=groups,dc=corp": "operators"})
	f.let(oidc, map[string]string{"ops": "operators"})
	later := time.Duration(0)
	c := leavers.New(leavers.Config{
		Reader: f.DB, Proposer: f, Providers: f.Asker, Seal: f.Service.Secrets.Seal, Unseal: f.Service.Secrets.Unseal, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(later) },
	})
	round := func() {
		t.Helper()
		f.check(nil, c.Round(t.Context()))
	}
	revision := func() (n uint64) {
		f.check(nil, f.DB.View(t.Context(), func(tx *state.Tx) error { n = tx.Meta().Revision; return nil }))
		return n
	}
	s, _, err := f.at("", nil).LogIn(t.Context(), "kim", &apiv1.Secrets{Password: kims, IdentityProvider: "directory"}, "")
	f.check(s, err)
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil || len(f.in("operators")) != 1 {
		t.Errorf("who is still there: %v, in %v", err, f.in("operators"))
	}
	before := revision()
	if round(); revision() != before {
		t.Error("a round in which nothing is new writes something down")
	}
	slapd.Stop()
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil {
		t.Errorf("while the directory does not answer: %v", err)
	}
	slapd.Start()
	slapd.Change("dn: cn=ops,ou=groups,dc=corp\nchangetype: modify\nreplace: member\nmember: uid=lee,ou=people,dc=corp\n")
	round()
	if _, err := whoAmI(t, f.at("", s)); err != nil || len(f.in("operators")) != 0 {
		t.Errorf("who is in no group any more: %v, in %v", err, f.in("operators"))
	}
	slapd.Change("dn: uid=kim,ou=people,dc=corp\nchangetype: modify\nreplace: employeeType\nemployeeType: left\n")
	round()
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("who has left: %v", err)
	}

	e, state, code := f.errand(f.at("", nil), dex, "kim@corp.example")
	if _, _, err := f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, ""); !problem.Is(err, problem.NameTaken) {
		t.Fatalf("dex's kim: %v", err)
	}
	e, state, code = f.errand(f.at("", nil), dex, "lee@corp.example")
	s, _, err = f.at("", nil).FinishProviderLogin(t.Context(), e, state, code, nil, "")
	f.check(s, err)
	dex.Order("groups lee@corp.example ops")
	round()
	if got := f.in("operators"); len(got) != 0 {
		t.Errorf("before it is time to ask: operators are %v", got)
	}
	later = 15 * time.Minute
	round()
	if got := f.in("operators"); !slices.Equal(got, []string{"lee by corp"}) {
		t.Errorf("who has moved: operators are %v", got)
	}
	dex.Order("forget lee@corp.example")
	later = 30 * time.Minute
	round()
	if _, err := whoAmI(t, f.at("", s)); !problem.Is(err, problem.TokenInvalid) || len(f.in("operators")) != 0 {
		t.Errorf("who has left: %v, in %v", err, f.in("operators"))
	}
}
