package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// courierRest is how long a follower is left alone that did not take the news.
const courierRest = time.Second

// couriers tell followers that wait for it what is committed. Raft tells them with the next entries, or else after the
// commit timeout; a follower that has sent a command on, or asked for a read, would wait as long.
//
// What they send is what Raft would: an append without entries, behind the last entry that was applied here, which is
// committed.
type couriers struct {
	transport raft.Transport
	self      raft.ServerID
	members   func() []raft.Server
	spawn     func(func()) bool

	fresh chan struct{} // there may be news for somebody

	mu          sync.Mutex
	index, term uint64 // the last entry that was applied here
	followers   map[raft.ServerID]*follower
}

// follower is what is known of one.
type follower struct {
	has    uint64 // the last entry that it has acknowledged
	told   uint64 // up to which entry it was told, or is being told, what is committed
	wanted uint64 // up to which entry it wants to be told
	busy   bool   // a courier is on the way
}

func newCouriers(t raft.Transport, self string, members func() []raft.Server, spawn func(func()) bool) *couriers {
	return &couriers{transport: t, self: raft.ServerID(self), members: members, spawn: spawn, fresh: make(chan struct{}, 1),
		followers: map[raft.ServerID]*follower{}}
}

// follower returns what is known of id. Called under mu.
func (c *couriers) follower(id raft.ServerID) *follower {
	f, ok := c.followers[id]
	if !ok {
		f = &follower{}
		c.followers[id] = f
	}
	return f
}

// applied notes that an entry was applied here.
func (c *couriers) applied(index, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.term = index, term
}

// wanted notes that a follower waits for an entry that was applied here.
func (c *couriers) wanted(by string, index uint64) {
	c.mu.Lock()
	f := c.follower(raft.ServerID(by))
	f.wanted = max(f.wanted, index)
	late := f.news(c.index)
	c.mu.Unlock()
	if late {
		c.wake()
	}
}

// sent notes that a message of Raft's is on its way, and brings the news.
func (c *couriers) sent(to raft.ServerID, args *raft.AppendEntriesRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.follower(to)
	f.told = max(f.told, args.LeaderCommitIndex)
}

// answered notes what a follower has acknowledged.
func (c *couriers) answered(by raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if !resp.Success {
		return
	}
	has := args.PrevLogEntry
	if n := len(args.Entries); n > 0 {
		has = args.Entries[n-1].Index
	}
	c.mu.Lock()
	f := c.follower(by)
	f.has = max(f.has, has)
	late := f.news(c.index)
	c.mu.Unlock()
	if late {
		c.wake()
	}
}

// news reports whether the follower does not know what it wants to know, and has the last applied entry, index, so that it
// can be told.
func (f *follower) news(index uint64) bool { return !f.busy && f.told < f.wanted && index <= f.has }

func (c *couriers) wake() {
	select {
	case c.fresh <- struct{}{}:
	default:
	}
}

// run sends couriers for the leader of term, until ctx ends.
func (c *couriers) run(ctx context.Context, term uint64) {
	c.mu.Lock()
	clear(c.followers) // they may have lost what they had in another term
	c.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.fresh:
		}
		for _, m := range c.members() {
			if m.ID != c.self && c.hire(m.ID) && !c.spawn(func() { c.ride(ctx, term, m) }) {
				return
			}
		}
	}
}

// hire reports whether there is news for a follower, and nobody on the way to it.
func (c *couriers) hire(id raft.ServerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.follower(id)
	if !f.news(c.index) {
		return false
	}
	f.busy = true
	return true
}

// ride brings a follower the news.
func (c *couriers) ride(ctx context.Context, term uint64, to raft.Server) {
	c.mu.Lock()
	index, entryTerm := c.index, c.term
	c.mu.Unlock()
	address := c.transport.EncodePeer(c.self, c.transport.LocalAddr())
	args := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.self), Addr: address},
		Term:      term, PrevLogEntry: index, PrevLogTerm: entryTerm, LeaderCommitIndex: index,
	}
	c.sent(to.ID, args)
	var resp raft.AppendEntriesResponse
	if err := c.transport.AppendEntries(to.ID, to.Address, args, &resp); err != nil || !resp.Success {
		pause(ctx, courierRest) // Raft goes on telling it
	}
	c.mu.Lock()
	f := c.follower(to.ID)
	f.busy = false
	more := f.news(c.index)
	c.mu.Unlock()
	if more {
		c.wake()
	}
}
