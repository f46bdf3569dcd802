package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAFederationIsBootstrappedOnce(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		if err := s.nodes[0].Bootstrap(); !problem.Is(err, problem.WrongState) {
			t.Errorf("bootstrapped again: %v", err)
		}
	})
}

func TestAServerJoinsThroughAnyOtherAndGetsEverything(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for i := range 50 {
			s.must(s.nodes[i%3], put(fmt.Sprint(i), "early"))
		}
		fourth := s.add("server-4")
		fourth.start()
		// It knows only a follower; that one names the leader.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		check(t, fourth.AskAdmission(ctx, addresses(s.follower()), &apiv1.Server{Id: fourth.id, PeerAddress: fourth.address}))
		s.must(fourth, put("through", "the new one"))
		s.alike()
		if servers, err := fourth.Servers(t.Context()); err != nil || len(servers) != 4 || !servers[3].GetVoter() {
			t.Errorf("%v, %v", servers, err)
		}
		check(t, fourth.AskAdmission(ctx, addresses(s.leader()), &apiv1.Server{Id: fourth.id, PeerAddress: fourth.address}))
	})
}

func TestAServerCannotBeAdmittedByAnother(t *testing.T) {
	inMemory(t, 2, nil, func(t *testing.T, s *site, _ *ether) {
		leader := s.leader()
		_, err := service{Replica: leader.Replica}.Admit(withCaller(t.Context(), "server-2"), admitRequest("server-9", "server-9:1"))
		if !problem.Is(err, problem.Forbidden) {
			t.Errorf("got %v", err)
		}
		if len(leader.members()) != 2 {
			t.Errorf("members: %v", leader.members())
		}
	})
}

func TestAServerThatCannotBeReachedGetsNoVoteAndStopsNobody(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.nodes[0]
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := n.AddVoter(ctx, "server-2", "server-2:1"); !problem.Is(err, problem.Unavailable) {
			t.Errorf("got %v", err)
		}
		s.must(n, put("still", "alone"))
		if n.isVoter("server-2") {
			t.Error("a server that was never seen has a vote")
		}
		s.removed(n, "server-2")
		for name, err := range map[string]error{
			"no port": n.AddVoter(ctx, "server-2", "server-2"), "no id": n.AddVoter(ctx, "", "server-2:1"),
		} {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := n.AddVoter(ctx, "server-2", n.address); !problem.Is(err, problem.Conflict) {
			t.Errorf("an address that is another's: %v", err)
		}
	})
}

// TestARemovedServerEndsAndSaysWhy for every pair of who is asked and who is to go.
func TestARemovedServerEndsAndSaysWhy(t *testing.T) {
	for _, who := range []string{"the leader", "a follower", "the other follower"} {
		for _, asked := range []string{"the leader", "a follower"} {
			t.Run(who+" by "+asked, func(t *testing.T) {
				inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
					leader := s.leader()
					followers := s.except(leader)
					servers := map[string]*node{"the leader": leader, "a follower": followers[0], "the other follower": followers[1]}
					gone := servers[who]
					s.removed(servers[asked], gone.id)
					if err := <-gone.ended; !errors.Is(err, ErrRemoved) {
						t.Fatalf("it ended with %v", err)
					}
					gone.Replica = nil
					if got := s.leader().ledger.get("then"); got != "removed "+gone.id {
						t.Errorf("the command behind the removal left %q", got)
					}
					s.must(s.leader(), put("k", "without it"))
					if n := len(s.leader().members()); n != 2 {
						t.Errorf("%d servers are left", n)
					}
				})
			})
		}
	}
}

func TestARecordOfAServerThatTakesNoPartNeedsOnlyTheCommand(t *testing.T) {
	inMemory(t, 2, nil, func(t *testing.T, s *site, _ *ether) {
		s.removed(s.follower(), "server-9")
		if n := len(s.leader().members()); n != 2 {
			t.Errorf("%d servers are left", n)
		}
	})
}

func TestNoServerIsRemovedWithoutWhichThereIsNoMajority(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		dead, living := s.except(s.leader())[0], s.except(s.leader())[1]
		e.separate(addresses(dead), addresses(s.except(dead)...))
		_, err := s.leader().RemoveServer(t.Context(), living.id, put("then", "never"))
		if !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), dead.id) {
			t.Fatalf("got %v", err)
		}
		s.must(s.leader(), put("k", "still written"))
		s.removed(s.leader(), dead.id)
		s.must(s.leader(), put("k", "still written"))
	})
}

func TestAServerRemovedWhileItWasAwayIsToldWhenItComesBack(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		gone := s.follower()
		e.separate(addresses(gone), addresses(s.except(gone)...))
		s.removed(s.leader(), gone.id)
		s.must(s.leader(), put("k", "v"))
		pause(t.Context(), 5*time.Second)
		select {
		case err := <-gone.ended:
			t.Fatalf("cut off, it cannot know: %v", err)
		default:
		}
		e.heal()
		if err := <-gone.ended; !errors.Is(err, ErrRemoved) {
			t.Fatalf("it ended with %v", err)
		}
		gone.Replica = nil
		s.must(s.leader(), put("k", "undisturbed"))
	})
}

func TestTheLastServerCannotBeRemoved(t *testing.T) {
	inMemory(t, 2, nil, func(t *testing.T, s *site, _ *ether) {
		leader, follower := s.leader(), s.follower()
		s.removed(leader, follower.id)
		<-follower.ended
		follower.Replica = nil
		if _, err := leader.RemoveServer(t.Context(), leader.id, put("then", "never")); !problem.Is(err, problem.WrongState) {
			t.Errorf("the last one: %v", err)
		}
	})
}

// removed has a server removed by the one that is asked.
func (s *site) removed(asked *node, id string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := asked.RemoveServer(ctx, id, put("then", "removed "+id)); err != nil {
		s.t.Fatalf("%s has %s removed: %v", asked.id, id, err)
	}
}

func TestAFollowerFarBehindIsSentASnapshot(t *testing.T) {
	inMemory(t, 3, func(c *Config) { c.Tuning.TrailingEntries = 5 }, func(t *testing.T, s *site, _ *ether) {
		late := s.follower()
		late.crash()
		restored := false
		late.ledger.restored = func() { restored = true }
		for i := range 100 {
			s.must(s.leader(), put(fmt.Sprint(i), "v"))
		}
		for _, n := range s.running() {
			check(t, n.raft.Snapshot().Error())
		}
		late.start()
		s.must(late, put("caught", "up"))
		s.alike()
		if !restored {
			t.Error("no snapshot was sent")
		}
	})
}

func TestSnapshotsAreTakenByBytesAndCutTheLog(t *testing.T) {
	inMemory(t, 1, func(c *Config) { c.Tuning.SnapshotBytes, c.Tuning.TrailingEntries = 20_000, 5 }, func(t *testing.T, s *site, _ *ether) {
		n := s.nodes[0]
		for i := range 40 {
			s.must(n, put("k", string(bytes.Repeat([]byte{'x'}, 1000+i))))
			pause(t.Context(), 100*time.Millisecond)
		}
		pause(t.Context(), 2*snapshotInterval)
		first, err := n.log.FirstIndex()
		check(t, err)
		kept, err := mustSnapshots(t, n).List()
		check(t, err)
		if first < 10 || len(kept) == 0 {
			t.Errorf("40 kB were written, the log still begins at %d, snapshots: %v", first, kept)
		}
		before := kept[0].Index
		pause(t.Context(), time.Minute)
		if kept, err = mustSnapshots(t, n).List(); err != nil || kept[0].Index > before+20 {
			t.Errorf("snapshots without growth: %v, %v", kept, err)
		}
		// What was in the log before a start counts after it.
		check(t, n.stop())
		n.start()
		s.must(n, put("after", "start"))
		s.alike()
	})
}

func mustSnapshots(t *testing.T, n *node) *snapshotStore {
	t.Helper()
	store, err := openSnapshots(n.dir, logger{to: testLogger("reader")}, func(string, error) {})
	check(t, err)
	return store
}

func TestP24ABackupIsRestoredIntoAnEmptyServerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		s := newSite(t, 3, e.weave, nil)
		for i := range 30 {
			s.must(s.nodes[i%3], put(fmt.Sprint("key ", i), fmt.Sprint(i)))
		}
		var backup bytes.Buffer
		check(t, s.follower().ReadIndex(t.Context()))
		check(t, s.follower().BackUp(t.Context(), &backup))
		lost := s.nodes[0].ledger
		s.close()

		restored := &site{t: t, weave: newEther().weave}
		defer restored.close()
		n := restored.add("server-7")
		n.dir = t.TempDir() + "/new"
		offline := n.config()
		offline.Join, offline.Local = nil, nil // nobody is served
		check(t, Recover(offline, bytes.NewReader(backup.Bytes())))
		if err := Recover(n.config(), bytes.NewReader(backup.Bytes())); err == nil {
			t.Error("restored over what is there")
		}
		used := n.config()
		used.Machine = newLedger()
		if err := Recover(used, bytes.NewReader(backup.Bytes())); err == nil {
			t.Error("restored into a folder that has a log")
		}
		n.start()
		index, _ := lost.position()
		if result := restored.must(n, put("goes", "on")); result.GetIndex() <= index {
			t.Errorf("the log goes on at %d, and the backup ends with %d", result.GetIndex(), index)
		}
		for key, value := range lost.state.Values {
			if got := n.ledger.get(key); got != value {
				t.Errorf("%s is %q, and was %q", key, got, value)
			}
		}
		if len(n.members()) != 1 {
			t.Errorf("the restored federation has the servers %v", n.members())
		}
		second := restored.add("server-8")
		second.start()
		restored.admit(second)
		restored.must(second, put("and", "grows"))
		restored.alike()
		check(t, n.stop())
		n.start()
		restored.must(n, put("and", "starts again"))
	})
}

func TestABackupThatHoldsNothingOrIsCutShortIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, weave: newEther().weave}
		for name, backup := range map[string]string{"cut short": `{"Index": 5, "Ter`, "empty state": `{}`, "nothing": ``} {
			n := s.add(name)
			if err := Recover(n.config(), bytes.NewReader([]byte(backup))); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		n := s.add("interrupted")
		n.ledger.state.Index, n.ledger.state.Term = 40, 3 // the state was restored, and then the process was killed
		if err := n.tryStart(); err == nil {
			n.crash()
			t.Error("a recovery that was interrupted starts")
		}
	})
}

func TestABackupEndsWithItsContext(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.nodes[0].BackUp(ctx, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
