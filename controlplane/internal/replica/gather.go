package replica

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// groupsAtOnce is how many groups of entries are on their way through the log: one that is applied, and one that is written meanwhile.
	groupsAtOnce = 2
	// gatherMost is how long an entry waits for those before it, whatever becomes of them.
	gatherMost = 20 * time.Millisecond
)

// gatherer puts the leader's entries into the log in groups. Raft applies together what came together; entries that come while others
// are applied would else be written, and applied, each by itself. So what comes while groupsAtOnce groups are on their way waits, and
// goes as one group once the first entry of one of them is answered. An entry that finds nothing on its way goes at once.
type gatherer struct {
	put func(raft.Log, time.Duration)

	mu      sync.Mutex
	open    int    // groups on their way
	waiting *group // nil: none
}

// group are entries that go together.
type group struct {
	entries []entry
	over    sync.Once
}

type entry struct {
	data  []byte
	until time.Time // when whoever sends it gives up
}

// enter puts an entry into the log, at once or with the next group. Whoever has the answer, or gives up, calls leave.
func (g *gatherer) enter(data []byte, patience time.Duration) (leave func()) {
	own, at := g.join(entry{data, time.Now().Add(patience)})
	if own {
		at.put(g.put)
	}
	return func() { at.over.Do(g.ended) }
}

// join returns the group with which an entry goes, and whether it is that entry's to put it into the log, since it goes at once.
func (g *gatherer) join(e entry) (own bool, at *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch at = g.waiting; {
	case at != nil:
		at.entries = append(at.entries, e)
		return false, at
	case g.open < groupsAtOnce:
		g.open++
		return true, &group{entries: []entry{e}}
	}
	at = &group{entries: []entry{e}}
	g.waiting = at
	time.AfterFunc(gatherMost, func() { g.release(at) })
	return false, at
}

// ended lets the next group go, since one has come through.
func (g *gatherer) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.waiting != nil && g.open < groupsAtOnce {
		g.send()
	}
}

// release lets a group go that has waited long enough.
func (g *gatherer) release(late *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == late {
		g.send()
	}
}

// send lets the group go that waits; g.mu is held. Putting blocks where the log takes no more, so nobody waits for it.
func (g *gatherer) send() {
	next := g.waiting
	g.waiting = nil
	g.open++
	go next.put(g.put)
}

func (g *group) put(put func(raft.Log, time.Duration)) {
	for _, e := range g.entries {
		if left := time.Until(e.until); left > 0 {
			put(raft.Log{Data: e.data}, left)
		}
	}
}
