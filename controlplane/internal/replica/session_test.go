package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TestP12NothingIsDoneInASessionThatWasRevokedThroughAServerThatHasNotHeardOfIt: one of three is behind, and would let bob in.
func TestP12NothingIsDoneInASessionThatWasRevokedThroughAServerThatHasNotHeardOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBureau(t, true)
		defer b.outlive()
		defer func() {
			for _, n := range b.running() {
				b.kill(n)
			}
		}()
		b.furnish()
		behind := b.follower()
		check(t, behind.ReadIndex(t.Context()))
		as := func(name, flavor string) *commandv1.Command {
			c := createFlavor(flavor)
			c.Actor, c.Origin = "user:"+name, &commandv1.Origin{ActorId: "u-" + name, SessionId: "s-" + name}
			return c
		}
		b.must(behind, as("bob", "before"))

		<-b.turns[behind.id]
		b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: "u-bob"}}})
		check(t, b.databases[behind.id].View(t.Context(), func(tx *state.Tx) error {
			_, err := tx.Sessions.Get("s-bob")
			return err // it still has the session
		}))
		bob, cho := make(chan error, 1), make(chan error, 1)
		for name, ended := range map[string]chan error{"bob": bob, "cho": cho} {
			go func() {
				_, err := behind.Propose(t.Context(), as(name, "of-"+name))
				ended <- err
			}()
		}
		pause(t.Context(), 5*time.Second)
		b.turns[behind.id] <- struct{}{}
		if err := <-bob; !problem.Is(err, problem.TokenInvalid) {
			t.Errorf("in the session that was revoked: %v", err)
		}
		check(t, <-cho)
		for _, n := range b.nodes {
			check(t, n.ReadIndex(t.Context()))
			check(t, b.databases[n.id].View(t.Context(), func(tx *state.Tx) error {
				if _, err := tx.Flavors.ByName("of-bob", nil); err == nil {
					t.Errorf("%s has what the session asked for after it was revoked", n.id)
				}
				_, err := tx.Flavors.ByName("of-cho", nil)
				return err
			}))
		}
		b.sameEverywhere()
	})
}
