package replica

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
)

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
