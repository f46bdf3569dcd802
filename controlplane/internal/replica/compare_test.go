package replica

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/naru-project/naru/controlplane/internal/state"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// realSite is n servers with the real state, in memory.
func realSite(t *testing.T, n int, test func(t *testing.T, s *site, databases map[string]*state.DB)) {
	t.Helper()
	realSiteTuned(t, n, func(*Config) {}, test)
}

func realSiteTuned(t *testing.T, n int, tune func(*Config), test func(t *testing.T, s *site, databases map[string]*state.DB)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		databases := map[string]*state.DB{}
		s := &site{t: t, weave: newEther().weave, tune: func(c *Config) {
			if old := databases[c.ServerID]; old != nil {
				check(t, old.Close())
			}
			m, db := openMachine(t, c.Dir, c.ServerID)
			databases[c.ServerID] = db
			c.Machine = realMachine{m}
			c.Tuning = Tuning{CommitTimeout: 500 * time.Millisecond} // minutes pass here, and heartbeats take time
			tune(c)
		}}
		defer func() {
			s.close()
			s.outlive()
			for _, db := range databases {
				check(t, db.Close())
			}
		}()
		for i := range n {
			n := s.add(fmt.Sprintf("server-%d", i+1))
			n.start()
			if i == 0 {
				check(t, n.Bootstrap())
				s.must(n, bootstrapCommand())
			} else {
				s.admit(n)
			}
		}
		test(t, s, databases)
	})
}

// tamper changes one byte of what a server has stored, with nothing that shows it on that server itself.
func tamper(t *testing.T, n *node) {
	t.Helper()
	check(t, n.ReadIndex(t.Context()))
	c, err := sqlite.OpenConn(filepath.Join(n.dir, "state.db"), sqlite.OpenReadWrite)
	check(t, err)
	defer c.Close()
	check(t, sqlitex.ExecuteTransient(c, "UPDATE floors SET kept=kept+1", nil))
	if c.Changes() != 1 {
		t.Fatal("nothing was changed")
	}
}

func deleteFlavor(id string) *commandv1.Command {
	return &commandv1.Command{Actor: "test", Body: &commandv1.Command_DeleteFlavor{DeleteFlavor: &commandv1.DeleteNoun{Id: id}}}
}

// furnish stores something, so that there is what may differ.
func (s *site) furnish(n *node) {
	s.t.Helper()
	create := createFlavor("small")
	id := create.GetCreateFlavor().GetFlavor().GetId()
	s.must(n, create)
	s.must(n, deleteFlavor(id))
}

// events returns what the events of a type say.
func events(t *testing.T, db *state.DB, kind string) (said []string) {
	t.Helper()
	check(t, db.View(t.Context(), func(tx *state.Tx) error {
		for e, err := range tx.Events.All(nil) {
			if err != nil {
				return err
			}
			if e.GetType() == kind {
				said = append(said, e.GetMessage())
			}
		}
		return nil
	}))
	return said
}

func TestP23ServersThatAreAlikeAreComparedAndGoOn(t *testing.T) {
	realSite(t, 3, func(t *testing.T, s *site, databases map[string]*state.DB) {
		leader := s.leader()
		s.furnish(leader)
		pause(t.Context(), compareEvery+2*compareLook)
		if n := valueOf(t, leader.metrics.comparisons); n != 1 {
			t.Errorf("%v comparisons", n)
		}
		hash := leader.hashes.get()
		for _, n := range s.nodes {
			if own := n.hashes.get(); own.GetIndex() == 0 || !proto.Equal(own, hash) {
				t.Errorf("%s has %v, and the leader %v", n.id, own, hash)
			}
		}
		before := leader.Applied()
		pause(t.Context(), 2*compareEvery)
		if after := leader.Applied(); after != before {
			t.Errorf("while nothing changed the log went from entry %d to %d", before, after)
		}
		if said := events(t, databases[leader.id], "federation.diverged"); len(said) != 0 {
			t.Errorf("%q", said)
		}
	})
}

func TestP23AServerWhoseStateIsNotThatOfMostStopsForGoodAndTheOthersGoOn(t *testing.T) {
	for _, who := range []string{"a follower", "the leader"} {
		t.Run(who, func(t *testing.T) {
			realSite(t, 3, func(t *testing.T, s *site, databases map[string]*state.DB) {
				s.furnish(s.leader())
				wrong := s.leader()
				if who == "a follower" {
					wrong = s.follower()
				}
				tamper(t, wrong)
				err := <-wrong.ended
				own := wrong.hashes.get()
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at entry %d of the log its hash is %x and theirs is ", own.GetIndex(), own.GetSum())) ||
					!strings.Contains(err.Error(), "empty data folder") {
					t.Fatalf("it ended with %v", err)
				}
				wrong.Replica = nil
				if again := wrong.tryStart(); again == nil || again.Error() != err.Error() {
					t.Errorf("its next start: %v", again)
				}
				for _, n := range s.running() {
					s.must(n, createFlavor("through-"+n.id))
					if said := events(t, databases[n.id], "federation.diverged"); len(said) != 1 || !strings.Contains(said[0], wrong.id+" stops") {
						t.Errorf("%s tells %q", n.id, said)
					}
					if valueOf(t, n.metrics.diverged) != 1 {
						t.Errorf("the metric of %s does not say so", n.id)
					}
				}
				wrong.dir = t.TempDir() // the way out
				_, err = s.leader().RemoveServer(t.Context(), wrong.id, createFlavor("after-the-removal"))
				check(t, err)
				wrong.start()
				s.admit(wrong)
				s.must(wrong, createFlavor("through-the-new-one"))
			})
		})
	}
}

func TestP23WhereOneStandsAgainstOneBothAreToldAndNeitherStops(t *testing.T) {
	realSite(t, 2, func(t *testing.T, s *site, databases map[string]*state.DB) {
		s.furnish(s.leader())
		tamper(t, s.follower())
		pause(t.Context(), compareEvery+2*compareLook)
		for _, n := range s.running() {
			s.must(n, createFlavor("through-"+n.id))
			if said := events(t, databases[n.id], "federation.diverged"); len(said) != 1 || !strings.Contains(said[0], "none stops") {
				t.Errorf("%s tells %q", n.id, said)
			}
			if valueOf(t, n.metrics.diverged) != 1 {
				t.Errorf("the metric of %s does not say so", n.id)
			}
		}
	})
}

func TestOnlyMarksAndReportsAreHeeded(t *testing.T) {
	id := make([]byte, 16)
	for _, c := range []struct {
		command *commandv1.Command
		heeded  bool
	}{
		{&commandv1.Command{Id: id, Actor: "a", Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{Mark: true}}}, true},
		{&commandv1.Command{Id: id, Actor: "a", Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}}, false},
		{&commandv1.Command{Id: id, Body: &commandv1.Command_ReportDivergence{ReportDivergence: &commandv1.ReportDivergence{Index: 1}}}, true},
		{bootstrapCommand(), false},
		{createFlavor("small"), false},
	} {
		data, err := proto.Marshal(c.command)
		check(t, err)
		if got := heeded(&raft.Log{Type: raft.LogCommand, Data: data}); (got != nil) != c.heeded {
			t.Errorf("%v: %v", c.command, got)
		}
		if heeded(&raft.Log{Type: raft.LogNoop, Data: data}) != nil {
			t.Error("an entry of Raft's own was heeded")
		}
	}
	if heeded(&raft.Log{Type: raft.LogCommand, Data: []byte{0xff}}) != nil {
		t.Error("nonsense was heeded")
	}
}
