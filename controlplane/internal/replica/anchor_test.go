package replica

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// puppet speaks to one follower as its leader, message by message.
type puppet struct {
	t        *testing.T
	n        *node
	trans    *raft.InmemTransport
	header   raft.RPCHeader
	all      raft.Configuration
	commands map[uint64][]byte
}

func newPuppet(t *testing.T, e *ether, n *node) *puppet {
	_, trans := raft.NewInmemTransportWithTimeout("puppet:1", time.Second)
	p := &puppet{t: t, n: n, trans: trans, commands: map[uint64][]byte{},
		header: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("puppet"), Addr: []byte("puppet:1")},
		all: raft.Configuration{Servers: []raft.Server{{ID: "puppet", Address: "puppet:1"},
			{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.address), Suffrage: raft.Nonvoter}}},
	}
	p.connect(e)
	return p
}

func (p *puppet) connect(e *ether) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p.trans.Connect(raft.ServerAddress(p.n.address), e.nodes[p.n.address].trans)
}

// entry is the same one whenever it is asked for.
func (p *puppet) entry(index, term uint64) *raft.Log {
	data, ok := p.commands[index]
	if !ok {
		cmd := put(fmt.Sprint("key ", index%5), fmt.Sprint(index))
		check(p.t, ensureID(cmd))
		cmd.Stamp = timestamppb.Now()
		var err error
		data, err = proto.Marshal(cmd)
		check(p.t, err)
		p.commands[index] = data
	}
	return &raft.Log{Index: index, Term: term, Data: data}
}

func (p *puppet) append(term, previous, previousTerm, last, committed uint64) bool {
	args := &raft.AppendEntriesRequest{RPCHeader: p.header, Term: term, PrevLogEntry: previous, PrevLogTerm: previousTerm, LeaderCommitIndex: committed}
	for i := previous + 1; i <= last; i++ {
		args.Entries = append(args.Entries, p.entry(i, term))
	}
	var resp raft.AppendEntriesResponse
	check(p.t, p.trans.AppendEntries(raft.ServerID(p.n.id), raft.ServerAddress(p.n.address), args, &resp))
	return resp.Success
}

func (p *puppet) snapshot(term, index, entryTerm uint64) bool {
	l := newLedger()
	l.state.Index, l.state.Term = index, entryTerm
	raw, err := json.Marshal(l.state)
	check(p.t, err)
	args := &raft.InstallSnapshotRequest{RPCHeader: p.header, SnapshotVersion: 1, Term: term, Leader: p.header.Addr, LastLogIndex: index, LastLogTerm: entryTerm,
		Configuration: raft.EncodeConfiguration(p.all), ConfigurationIndex: 1, Size: int64(len(raw))}
	var resp raft.InstallSnapshotResponse
	check(p.t, p.trans.InstallSnapshot(raft.ServerID(p.n.id), raft.ServerAddress(p.n.address), args, &resp, bytes.NewReader(raw)))
	return resp.Success
}

func (p *puppet) applied(index uint64) {
	p.t.Helper()
	check(p.t, p.n.progress.wait(p.t.Context(), index))
}

func withPuppet(t *testing.T, test func(t *testing.T, e *ether, p *puppet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		s := &site{t: t, weave: e.weave, tune: func(c *Config) { c.Tuning.HeartbeatTimeout, c.Tuning.ElectionTimeout = time.Hour, time.Hour }}
		defer s.close()
		n := s.add("server-1")
		n.start()
		test(t, e, newPuppet(t, e, n))
	})
}

// The leader has sent a snapshot and entries behind it, and the follower is killed before it answers for those. The leader
// sends them again.
func TestP17EntriesBehindASnapshotAreTakenAgainAfterAStart(t *testing.T) {
	withPuppet(t, func(t *testing.T, e *ether, p *puppet) {
		if !p.snapshot(3, 106, 2) || !p.append(3, 106, 2, 112, 106) {
			t.Fatal("a new follower takes neither snapshot nor entries")
		}
		p.n.crash()
		p.n.start()
		p.connect(e)
		if !p.append(3, 106, 2, 115, 112) {
			t.Fatal("the entry with which the snapshot ends is not known after a start")
		}
		p.applied(112)
		if p.append(3, 105, 2, 106, 112) {
			t.Error("an entry inside the snapshot was looked up")
		}
	})
}

// A snapshot comes to a follower that has entries behind it, of the same history or of another one.
func TestP17ASnapshotThatEndsInsideTheLogLeavesWhatIsBehind(t *testing.T) {
	for name, ownTerm := range map[string]uint64{"of the same history": 3, "of another history": 2} {
		t.Run(name, func(t *testing.T) {
			withPuppet(t, func(t *testing.T, e *ether, p *puppet) {
				if !p.snapshot(2, 50, 1) || !p.append(ownTerm, 50, 1, 80, 50) {
					t.Fatal("a new follower takes neither snapshot nor entries")
				}
				clear(p.commands) // another leader has other ones
				if !p.snapshot(4, 70, 3) {
					t.Fatal("the second snapshot was not taken")
				}
				p.applied(70)
				for round := range 3 {
					if !p.append(4, 70, 3, 90, 90) {
						t.Fatalf("round %d: what follows the snapshot is refused", round)
					}
				}
				p.applied(90)
				p.n.crash()
				p.n.start()
				p.connect(e)
				if !p.append(4, 90, 4, 95, 95) {
					t.Fatal("after a start the log does not go on")
				}
				p.applied(95)
				var entry raft.Log
				for i := uint64(71); i <= 95; i++ {
					check(t, p.n.log.GetLog(i, &entry))
					if entry.Term != 4 {
						t.Fatalf("entry %d is of term %d", i, entry.Term)
					}
				}
			})
		})
	}
}

func TestTheAnchorAnswersForOneEntryOnly(t *testing.T) {
	inner := raft.NewInmemStore()
	l := &anchoredLog{LogStore: inner}
	l.anchor(10, 3)
	check(t, l.StoreLogs([]*raft.Log{{Index: 11, Term: 3}, {Index: 12, Term: 4}}))
	var got raft.Log
	if err := l.GetLog(10, &got); err != nil || got.Index != 10 || got.Term != 3 || got.Type != raft.LogNoop {
		t.Errorf("the anchor: %+v, %v", got, err)
	}
	for _, index := range []uint64{0, 1, 9, 13} {
		if err := l.GetLog(index, &got); err != raft.ErrLogNotFound {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	l.anchor(1, 1)
	if err := l.GetLog(1, &got); err != raft.ErrLogNotFound {
		t.Errorf("the first entry of all, which is sent on: %v", err)
	}
	l.replaced(11, 3)
	check(t, l.DeleteRange(11, 12))
	if err := l.GetLog(12, &got); err != nil || got.Term != 4 {
		t.Errorf("the entry behind the snapshot: %+v, %v", got, err)
	}
	check(t, l.DeleteRange(12, 12)) // and this one the leader has removed
	if err := l.GetLog(12, &got); err != raft.ErrLogNotFound {
		t.Errorf("an entry that was removed: %+v, %v", got, err)
	}
}
