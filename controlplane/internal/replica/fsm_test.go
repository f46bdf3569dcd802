package replica

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// realMachine is the control plane's own state machine, as the composition root hands it over.
type realMachine struct{ *fsm.Machine }

func (m realMachine) Apply(entries []Entry) ([]*commandv1.Result, error) {
	out := make([]fsm.Entry, len(entries))
	for i, e := range entries {
		out[i] = fsm.Entry(e)
	}
	return m.Machine.Apply(out)
}

func (m realMachine) Snapshot() (Snapshot, error) {
	s, err := m.Machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return realSnapshot{s}, nil
}

type realSnapshot struct{ *fsm.Snapshot }

func (s realSnapshot) Applied() (index, term uint64) { return s.Index, s.Term }

func openMachine(t testing.TB, dir, server string) (*fsm.Machine, *state.DB) {
	t.Helper()
	db, err := state.Open(filepath.Join(dir, "state.db"), state.Options{ServerID: server})
	check(t, err)
	return fsm.New(db), db
}

func bootstrapCommand() *commandv1.Command {
	id := uuid.New()
	return &commandv1.Command{Actor: "test", Body: &commandv1.Command_Bootstrap{Bootstrap: &commandv1.Bootstrap{
		Federation: "test.example", Epoch: 1, EpochId: id[:], Keyring: &commandv1.Keyring{},
		Server: &apiv1.Server{Id: uuid.NewString(), Name: "one"},
	}}}
}

func createFlavor(name string) *commandv1.Command {
	return &commandv1.Command{Actor: "test", Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{
		Flavor: &apiv1.Flavor{Id: uuid.Must(uuid.NewV7()).String(), Name: name, Cores: 1, MemoryMib: 512, DiskGib: 1},
	}}}
}

// P23 and P24 with the real state: leaders are killed, one server needs a snapshot, all end with the same hash, and a backup
// holds it.
func TestP23ServersWithTheRealStateMachineEndAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machines, databases := map[string]*fsm.Machine{}, map[string]*state.DB{}
		e := newEther()
		s := &site{t: t, weave: e.weave, tune: func(c *Config) {
			m, db := openMachine(t, c.Dir, c.ServerID)
			machines[c.ServerID], databases[c.ServerID] = m, db
			c.Machine = realMachine{m}
			c.Tuning.TrailingEntries = 10
		}}
		crash := func(n *node) {
			n.crash()
			check(t, databases[n.id].Close())
		}
		defer s.outlive()
		defer func() {
			for _, n := range s.running() {
				crash(n)
			}
		}()
		for i := range 3 {
			n := s.add(fmt.Sprintf("server-%d", i+1))
			n.start()
			if i == 0 {
				check(t, n.Bootstrap())
				s.must(n, bootstrapCommand())
			} else {
				s.admit(n)
			}
		}
		late := s.follower()
		crash(late)
		for i := range 60 {
			s.must(s.running()[i%2], createFlavor(fmt.Sprintf("f%d", i)))
		}
		if _, err := s.leader().Propose(t.Context(), createFlavor("f7")); !problem.Is(err, problem.NameTaken) {
			t.Errorf("a name that is taken: %v", err)
		}
		for _, n := range s.running() {
			check(t, n.raft.Snapshot().Error())
		}
		late.start()
		s.must(late, createFlavor("through-the-late-one"))
		old := s.leader()
		crash(old)
		s.must(s.running()[0], createFlavor("after-the-leader"))
		old.start()
		s.must(old, createFlavor("through-the-old-one"))

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for {
			check(t, ctx.Err())
			sums := map[[sha256.Size]byte]bool{}
			indexes := map[uint64]bool{}
			for _, n := range s.nodes {
				check(t, n.ReadIndex(ctx))
				index, sum, err := machines[n.id].StateHash()
				check(t, err)
				sums[sum], indexes[index] = true, true
			}
			if len(indexes) == 1 {
				if len(sums) != 1 {
					t.Errorf("%d different states at the same entry", len(sums))
				}
				break
			}
		}
		for _, n := range s.nodes {
			check(t, databases[n.id].View(t.Context(), func(tx *state.Tx) error {
				all, err := tx.Flavors.Count(nil, "")
				if all != 63 {
					t.Errorf("%s has %d flavors", n.id, all)
				}
				return err
			}))
		}
	})
}
