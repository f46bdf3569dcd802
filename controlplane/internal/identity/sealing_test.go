package identity

import (
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestSecretsOpenForTwoDaysAtMost seals to the key of one day, and opens on the days after.
func TestSecretsOpenForTwoDaysAtMost(t *testing.T) {
	s := newSite(t)
	is := sealed.For{Method: "/m", User: "kim", SecretHash: make([]byte, 32)}
	first, chain, signature, err := s.keeper.SealingKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, err := pki.Verify(chain, s.keeper.Root(), s.now, pki.RoleServer)
	if err != nil || !first.VouchedBy(server.Key, signature) || first.Until.Sub(s.now) > 2*day {
		t.Errorf("a server of the federation vouches for it until %v: %v, %v", first.Until, server, err)
	}
	typed, err := sealed.Secrets(first.Public, first.ID, is, &apiv1.Secrets{Password: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	for n, opens := range []bool{true, true, false} {
		got, err := s.keeper.OpenSecrets(t.Context(), is, typed)
		if opens && (err != nil || got.GetPassword() != "correct horse battery") || !opens && !problem.Is(err, problem.Conflict) {
			t.Errorf("after %d days: %v", n, err)
		}
		if _, err := s.keeper.OpenSecrets(t.Context(), sealed.For{Method: "/n", User: "kim", SecretHash: is.SecretHash}, typed); opens && !problem.Is(err, problem.Invalid) {
			t.Errorf("for another method: %v", err)
		}
		s.now = s.now.Add(day + time.Minute)
		s.lead()
		if next, _, _, err := s.keeper.SealingKey(t.Context()); err != nil || next.ID == first.ID {
			t.Errorf("after %d days it is still sealed to the first key (%v)", n+1, err)
		}
	}
	if n := len(s.world.ring.GetSealingKeys()); n != 2 {
		t.Errorf("%d keys are kept", n)
	}
}
