package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func admitRequest(id, address string) *commandv1.AdmitRequest {
	return &commandv1.AdmitRequest{Server: serverMessage(id, address)}
}

func TestOnlyTheLeaderRunsWhatOnlyOneMayAndItEndsWithTheTerm(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		ctx, cancel := context.WithCancel(t.Context())
		var running, runs atomic.Int32
		var loops sync.WaitGroup
		for _, n := range s.nodes {
			loops.Go(func() {
				check(t, n.WhileLeader(ctx, func(ctx context.Context) error {
					runs.Add(1)
					if running.Add(1) > 1 && n.Leader().Self {
						l := s.leader()
						if l != n {
							t.Errorf("%s and %s both run it", n.id, l.id)
						}
					}
					<-ctx.Done()
					running.Add(-1)
					return ctx.Err()
				}))
			})
		}
		for range 4 {
			old := s.leader()
			pause(t.Context(), time.Second)
			if running.Load() != 1 {
				t.Fatalf("%d run it", running.Load())
			}
			e.separate(addresses(old), addresses(s.except(old)...))
			pause(t.Context(), 2*time.Second)
			e.heal()
			pause(t.Context(), time.Second)
		}
		if runs.Load() < 4 {
			t.Errorf("%d terms, %d runs", 4, runs.Load())
		}
		cancel()
		loops.Wait()
	})
}

func TestWhileLeaderReturnsTheErrorOfWhatItRuns(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		broken := errors.New("broken")
		if err := s.nodes[0].WhileLeader(t.Context(), func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		runs := 0
		check(t, s.nodes[0].WhileLeader(ctx, func(context.Context) error { runs++; return nil }))
		if runs != 1 {
			t.Errorf("ran %d times in one term", runs)
		}
	})
}

func TestALeaderServesOnlyWhenItHasAppliedWhatWasCommittedBefore(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for i := range 20 {
			s.must(s.leader(), put("k", fmt.Sprint(i)))
		}
		old := s.leader()
		// Whoever is elected next needs a while for its first entries.
		release := make(chan struct{})
		for _, n := range s.except(old) {
			n.ledger.mu.Lock()
			n.ledger.before = func([]Entry) error { <-release; return nil }
			n.ledger.mu.Unlock()
		}
		s.must(old, put("k", "last"))
		old.crash()
		pause(t.Context(), 1500*time.Millisecond)
		for _, n := range s.running() {
			if n.Leader().Self {
				t.Errorf("%s serves and has not applied the last entry", n.id)
			}
		}
		close(release)
		check(t, s.leader().ReadIndex(t.Context()))
		if got := s.leader().ledger.get("k"); got != "last" {
			t.Errorf("the new leader reads %q", got)
		}
	})
}

func TestALeaderThatStopsHandsOverFirst(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		rest := s.except(old)
		began := time.Now()
		check(t, old.stop())
		s.must(rest[0], put("k", "v"))
		if d := time.Since(began); d > quick.HeartbeatTimeout {
			t.Errorf("the next write took %v: longer than the least that an election needs to begin", d)
		}
	})
}

func TestP1AReplyThatIsLostDoesNotCarryACommandOutTwice(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		for range 10 {
			leader, follower := s.leader(), s.follower()
			cmd := put("k", "v")
			// The request gets through, the reply does not; another leader is asked then.
			leader.ledger.mu.Lock()
			leader.ledger.after = func([]Entry) {
				e.silence(leader.address, follower.address)
			}
			leader.ledger.mu.Unlock()
			done := make(chan error, 1)
			go func() {
				_, err := follower.Propose(t.Context(), cmd)
				done <- err
			}()
			pause(t.Context(), 100*time.Millisecond)
			leader.ledger.mu.Lock()
			leader.ledger.after = nil
			leader.ledger.mu.Unlock()
			e.separate(addresses(leader), addresses(s.except(leader)...))
			pause(t.Context(), time.Second)
			e.heal()
			check(t, <-done)
			s.alike()
			if n := follower.ledger.times(cmd.GetId()); n != 1 {
				t.Fatalf("carried out %d times", n)
			}
		}
	})
}

func TestTheSameCommandProposedTwiceHasOneResult(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		first := put("k", "v")
		one := s.must(s.leader(), first)
		again := put("k", "v")
		again.Id = first.GetId()
		two := s.must(s.follower(), again)
		if one.GetIndex() != two.GetIndex() || s.leader().ledger.times(first.GetId()) != 1 {
			t.Errorf("%v, then %v", one, two)
		}
	})
}

func TestConcurrentCommandsShareTransactions(t *testing.T) {
	s := newSite(t, 1, newEther().weave, nil)
	defer s.close()
	n := s.nodes[0]
	before := n.ledger.batches
	var clients sync.WaitGroup
	for i := range 64 {
		clients.Go(func() {
			for j := range 20 {
				s.must(n, put(fmt.Sprint(i), fmt.Sprint(j)))
			}
		})
	}
	clients.Wait()
	if batches := n.ledger.batches - before; batches > 64*20/2 {
		t.Errorf("%d commands took %d transactions", 64*20, batches)
	}
}

func TestConcurrentReadsShareTheirRounds(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		for _, n := range []*node{s.leader(), s.follower()} {
			leader := s.leader()
			before := valueOf(t, leader.metrics.readRounds)
			var clients sync.WaitGroup
			for range 200 {
				clients.Go(func() { check(t, n.ReadIndex(t.Context())) })
			}
			clients.Wait()
			if rounds := valueOf(t, leader.metrics.readRounds) - before; rounds < 1 || rounds > 20 {
				t.Errorf("200 reads through %s took %v rounds", n.id, rounds)
			}
		}
	})
}

// A process that was paused finds answers to what it sent before. They say nothing about who leads now.
func TestAnswersToOldMessagesConfirmNoLeader(t *testing.T) {
	c := raft.Configuration{Servers: []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d", Suffrage: raft.Nonvoter}}}
	w := newWitnesses()
	sent := w.sending()
	question := w.ask()
	w.confirmed("b", 3, sent)
	if w.majority(c, "a", 3, question) {
		t.Error("an answer to a message sent before the question counts")
	}
	w.confirmed("d", 3, w.sending())
	if w.majority(c, "a", 3, question) {
		t.Error("a server without a vote counts")
	}
	w.confirmed("b", 2, w.sending())
	if w.majority(c, "a", 3, question) {
		t.Error("an answer of another term counts")
	}
	w.confirmed("c", 3, w.sending())
	if !w.majority(c, "a", 3, question) {
		t.Error("two of three are no majority")
	}
	if w.majority(c, "x", 3, question) {
		t.Error("a leader without a vote counts itself")
	}
	if w.majority(c, "a", 3, w.ask()) {
		t.Error("an answer counts for a later question")
	}
}

// The whole of it. The leader is held up like a paused process: its disk keeps it from noticing that time passes, and the
// answers to what it sent are under way. It is replaced. Then all goes on at once, in the order in which Raft's own check
// takes it for the leader.
func TestAReplacedLeaderReadsNothingOnTheStrengthOfLateAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		late := &lateness{gates: map[[2]string]chan struct{}{}}
		disks := map[string]*slowDisk{}
		s := newSite(t, 3, func(c *Config, x func(string) (string, bool), m *metrics) (fabric, error) {
			f, err := e.weave(c, x, m)
			return lateFabric{f, late, c.Address}, err
		}, func(c *Config) {
			disks[c.ServerID] = &slowDisk{VFS: fs.New()}
			c.files, c.Tuning.StallTimeout = disks[c.ServerID], time.Hour
		})
		defer s.close()
		old := s.leader()
		rest := s.except(old)
		s.must(old, put("k", "old"))
		late.hold(old.address, rest[0].address)
		late.hold(old.address, rest[1].address)
		pause(t.Context(), 50*time.Millisecond) // a heartbeat to each is answered, and the answers are held up

		disks[old.id].stall.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var clients sync.WaitGroup
		clients.Go(func() { _, _ = old.Propose(ctx, put("other", "value")) })
		synctest.Wait()
		e.separate(addresses(old), addresses(rest...))
		for !rest[0].Leader().Self && !rest[1].Leader().Self {
			pause(t.Context(), 5*time.Millisecond)
		}
		s.must(rest[0], put("k", "new"))
		if !old.Leader().Self {
			t.Error("the old leader has noticed: this shows nothing")
		}

		clients.Go(func() {
			if err := old.ReadIndex(ctx); err == nil && old.ledger.get("k") != "new" {
				t.Errorf("a linearizable read returned %q after \"new\" was acknowledged", old.ledger.get("k"))
			}
		})
		synctest.Wait()
		late.release(old.address, rest[0].address) // it was heard of lately, so the lease is good
		synctest.Wait()
		disks[old.id].stall.Store(false)
		pause(t.Context(), 5*time.Millisecond)
		late.release(old.address, rest[1].address) // and here comes the majority
		clients.Wait()
		e.heal()
	})
}

// lateness holds back answers on their way to one server from another.
type lateness struct {
	mu    sync.Mutex
	gates map[[2]string]chan struct{}
}

func (l *lateness) hold(to, from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gates[[2]string{to, from}] = make(chan struct{})
}

func (l *lateness) release(to, from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.gates[[2]string{to, from}])
	delete(l.gates, [2]string{to, from})
}

func (l *lateness) wait(to, from string) {
	l.mu.Lock()
	gate := l.gates[[2]string{to, from}]
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

type lateFabric struct {
	fabric
	late *lateness
	to   string
}

func (f lateFabric) transport() raftTransport {
	return lateTransport{f.fabric.transport(), f.late, f.to}
}

type lateTransport struct {
	raftTransport
	late *lateness
	to   string
}

func (l lateTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := l.raftTransport.AppendEntries(id, to, args, resp)
	l.late.wait(l.to, string(to))
	return err
}

func TestAFailedBatchStopsTheServerAndNothingIsAppliedAfterIt(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.leader()
		broken := errors.New("checksum mismatch in table vms")
		applied := n.Applied()
		n.ledger.mu.Lock()
		n.ledger.before = func([]Entry) error { return broken }
		n.ledger.mu.Unlock()
		cmd := put("k", "v")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Propose(ctx, cmd); !problem.Is(err, problem.Timeout) {
			t.Errorf("the caller was told %v", err)
		}
		if err := <-n.ended; !errors.Is(err, broken) {
			t.Errorf("the server ended with %v", err)
		}
		if index, _ := n.ledger.position(); index != applied {
			t.Errorf("the state went from entry %d to %d", applied, index)
		}
		n.Replica = nil
		s.must(s.leader(), put("others", "go on"))

		n.ledger.before = nil
		n.start()
		s.must(n, cmd) // the caller tries again
		s.alike()
		if times := n.ledger.times(cmd.GetId()); times != 1 {
			t.Errorf("carried out %d times", times)
		}
	})
}

func TestP19AStateThatCannotBeWrittenWaitsAndLosesNothing(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.nodes[0]
		var full atomic.Bool
		n.ledger.mu.Lock()
		n.ledger.before = func([]Entry) error {
			if full.Load() {
				return fmt.Errorf("write ledger: %w", syscall.ENOSPC)
			}
			return nil
		}
		n.ledger.mu.Unlock()
		full.Store(true)
		done := make(chan error, 1)
		go func() {
			_, err := n.Propose(t.Context(), put("k", "v"))
			done <- err
		}()
		pause(t.Context(), 5*time.Second)
		select {
		case err := <-done:
			t.Fatalf("answered %v while nothing could be written", err)
		default:
		}
		if valueOf(t, n.metrics.applyBlocked) != 1 {
			t.Error("the metric does not say so")
		}
		full.Store(false)
		check(t, <-done)
		if n.ledger.get("k") != "v" || valueOf(t, n.metrics.applyBlocked) != 0 {
			t.Error("it did not heal")
		}
	})
}

func TestP19P20ALeaderThatCannotApplyLetsAnotherLead(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		release := make(chan struct{})
		old.ledger.mu.Lock()
		old.ledger.before = func([]Entry) error { <-release; return nil }
		old.ledger.mu.Unlock()
		began := time.Now()
		s.must(s.except(old)[0], put("k", "v"))
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the hand-over took %v", d)
		}
		close(release)
		s.alike()
	})
}

func TestP20ALeaderWhoseDiskStallsLetsAnotherLead(t *testing.T) {
	disks := map[string]*slowDisk{}
	inMemory(t, 3, func(c *Config) {
		disks[c.ServerID] = &slowDisk{VFS: fs.New()}
		c.files = disks[c.ServerID]
	}, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		disks[old.id].stall.Store(true)
		began := time.Now()
		s.must(s.except(old)[0], put("k", "v"))
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the hand-over took %v", d)
		}
		pause(t.Context(), old.c.Tuning.StallTimeout/2)
		if l := old.Leader(); l.Self {
			t.Errorf("the server with the stalled disk still says that it leads: %+v", l)
		}
		pause(t.Context(), 10*time.Second)
		disks[old.id].stall.Store(false)
		pause(t.Context(), time.Second)
		s.must(old, put("k", "healed"))
		s.alike()
	})
}

// slowDisk is a file system whose syncs take long while stall is set.
type slowDisk struct {
	types.VFS
	stall atomic.Bool
}

func (d *slowDisk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := d.VFS.Create(dir, name, size)
	return slowFile{f, d}, err
}

func (d *slowDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return slowFile{f, d}, err
}

type slowFile struct {
	types.WritableFile
	disk *slowDisk
}

func (f slowFile) Sync() error {
	for f.disk.stall.Load() {
		pause(context.Background(), time.Millisecond)
	}
	return f.WritableFile.Sync()
}

func TestACommandThatIsTooLargeOrHasAStrangeIdIsRefused(t *testing.T) {
	inMemory(t, 3, func(c *Config) { c.Tuning.CommandBytes = 1000 }, func(t *testing.T, s *site, _ *ether) {
		for _, n := range []*node{s.leader(), s.follower()} {
			if _, err := n.Propose(t.Context(), put("k", string(make([]byte, 1001)))); !problem.Is(err, problem.TooLarge) {
				t.Errorf("through %s: %v", n.id, err)
			}
			odd := put("k", "v")
			odd.Id = []byte("short")
			if _, err := n.Propose(t.Context(), odd); !problem.Is(err, problem.Invalid) {
				t.Errorf("through %s: %v", n.id, err)
			}
		}
	})
}

func TestACallerThatGoesAwayIsNotWaitedFor(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		e.separate(addresses(old), addresses(s.except(old)...))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := old.Propose(ctx, put("k", "v"))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !problem.Is(err, problem.Cancelled) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		e.heal()
	})
}

func TestWhatWaitsEndsWhenTheServerStops(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		old := s.leader()
		e.separate(addresses(old), addresses(s.except(old)...))
		errs := make(chan error, 2)
		go func() { _, err := old.Propose(t.Context(), put("k", "v")); errs <- err }()
		go func() { errs <- old.ReadIndex(t.Context()) }()
		synctest.Wait()
		old.crash()
		for range 2 {
			if err := <-errs; !errors.Is(err, errStopping) {
				t.Errorf("got %v", err)
			}
		}
		e.heal()
	})
}

// valueOf returns what a counter or gauge says.
func valueOf(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	check(t, m.Write(&out))
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// A follower that has sent a command on hears at once that it is committed, though the leader has nothing else to say.
func TestAFollowerIsToldAtOnceWhatItWaitsFor(t *testing.T) {
	inMemory(t, 3, func(c *Config) { c.Tuning.CommitTimeout = time.Second }, func(t *testing.T, s *site, _ *ether) {
		s.must(s.leader(), put("k", "before"))
		pause(t.Context(), 5*time.Second)
		for i := range 5 {
			began := time.Now()
			s.must(s.follower(), put("k", fmt.Sprint(i)))
			check(t, s.follower().ReadIndex(t.Context()))
			if d := time.Since(began); d > 20*time.Millisecond {
				t.Errorf("a command and a read through a follower took %v", d)
			}
			pause(t.Context(), 3*time.Second)
		}
	})
}

// What a courier says is no more than Raft would: a follower that lacks the entry does not take it for committed.
func TestACourierThatComesToAFollowerBehindIsTurnedAway(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, e *ether) {
		leader, behind := s.leader(), s.follower()
		s.must(leader, put("k", "first"))
		e.separate(addresses(behind), addresses(s.except(behind)...))
		s.must(leader, put("k", "second"))
		before, _ := behind.ledger.position()
		e.heal()
		_, term, _ := leader.leadership.watch()
		for _, m := range leader.members() {
			if string(m.ID) == behind.id {
				leader.couriers.ride(t.Context(), term, m)
			}
		}
		if after, _ := behind.ledger.position(); after > before && behind.ledger.get("k") != "second" {
			t.Errorf("the follower went from entry %d to %d and reads %q", before, after, behind.ledger.get("k"))
		}
		s.alike()
	})
}
