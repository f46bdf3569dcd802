package etcdstore

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Picture is this agent's copy of what is wanted and what is observed, a moment behind the store. Run keeps it. Its messages
// are shared: nobody changes them. Safe for concurrent use.
type Picture struct {
	mu sync.RWMutex
	// incarnation in which revisions count, and the revision up to which everything is here; nothing yet where that is 0.
	incarnation string
	revision    int64
	desired     map[nounKey]proto.Message
	unclaimed   map[nounKey]bool
	// log is what goes up, in the order in which it was written; a row without a message is dead. at and gone are where
	// observed nouns and tombstones stand in it.
	log      []Change
	at, gone map[nounKey]int
	dead     int
}

// reported is hinted at when the picture has something new to report.
const reported Space = "reported"

type nounKey struct{ kind, id string }

func newPicture() *Picture { return &Picture{} }

// Picture is the agent's, empty until Run has read the store.
func (s *Store) Picture() *Picture { return s.picture }

// pictureLoop keeps the picture until ctx ends, or a value does not decode.
func (s *Store) pictureLoop(ctx context.Context) error {
	err := s.Follow(ctx, func(b Batch) error {
		if s.picture.apply(b) {
			s.hints.tell(reported)
		}
		return nil
	}, inPicture...)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// apply takes over what the store tells, and returns whether there is something new to report.
func (p *Picture) apply(b Batch) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Reset {
		p.desired, p.unclaimed = map[nounKey]proto.Message{}, map[nounKey]bool{}
		p.log, p.at, p.gone, p.dead = nil, map[nounKey]int{}, map[nounKey]int{}, 0
		// A snapshot comes by key.
		slices.SortStableFunc(b.Changes, func(a, b Change) int { return cmp.Compare(a.Revision, b.Revision) })
		news = true
	}
	for _, c := range b.Changes {
		key := nounKey{c.Kind, c.ID}
		switch c.Space {
		case Desired:
			setOrDelete(p.desired, key, c.Message, c.Message != nil)
		case Unclaimed:
			setOrDelete(p.unclaimed, key, true, c.Message != nil)
		case Observed:
			news = p.report(p.at, key, c) || news
		case tombstones:
			news = p.report(p.gone, key, c) || news
		}
	}
	p.revision, p.incarnation = b.Revision, b.Incarnation
	return news
}

// report puts a change at the end of the log, in place of the one before of the same key.
func (p *Picture) report(at map[nounKey]int, key nounKey, c Change) bool {
	if i, ok := at[key]; ok {
		p.log[i] = Change{Revision: p.log[i].Revision}
		p.dead++
	}
	if c.Message == nil {
		delete(at, key)
		return false
	}
	at[key] = len(p.log)
	p.log = append(p.log, c)
	if p.dead > len(p.log)/2 && p.dead > maxObserved {
		p.tidy()
	}
	return true
}

// tidy takes dead rows out of the log. Each has cost its making only, so that the log is never twice what lives.
func (p *Picture) tidy() {
	p.log = slices.DeleteFunc(p.log, func(c Change) bool { return c.Message == nil })
	p.dead = 0
	for i, c := range p.log {
		if c.Space == Observed {
			p.at[nounKey{c.Kind, c.ID}] = i
		} else {
			p.gone[nounKey{c.Kind, c.ID}] = i
		}
	}
}

// since is what is to be reported that was written after a revision, the oldest first: whole revisions, at most limit
// rows, or those of one revision where it alone has more; and whether there is more. p.mu is held.
func (p *Picture) since(after int64, limit int) (rows []Change, more bool) {
	first, _ := slices.BinarySearchFunc(p.log, after+1, func(c Change, r int64) int { return cmp.Compare(c.Revision, r) })
	whole := 0 // rows of revisions before the last row's
	for _, c := range p.log[first:] {
		if c.Message == nil {
			continue
		}
		if n := len(rows); n > 0 && c.Revision > rows[n-1].Revision {
			if n >= limit {
				return rows, true
			}
			whole = n
		}
		if len(rows) >= limit && whole > 0 {
			return rows[:whole], true
		}
		rows = append(rows, c)
	}
	return rows, false
}

// Nouns tells fn each noun of a kind that is wanted, with what is observed of it, or nil. fn changes neither, and keeps
// the picture waiting.
func (p *Picture) Nouns(kind string, fn func(desired, observed proto.Message)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for key, desired := range p.desired {
		if key.kind != kind {
			continue
		}
		var observed proto.Message
		if i, ok := p.at[key]; ok {
			observed = p.log[i].Message
		}
		fn(desired, observed)
	}
}

// mourned are the tombstones written after a revision and up to another, as far as the picture goes, which is to the
// revision that is returned.
func (p *Picture) mourned(incarnation string, after, through int64) (dead []Change, upTo int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.incarnation != incarnation {
		return nil, after
	}
	for _, i := range p.gone {
		if c := p.log[i]; c.Revision > after && c.Revision <= through {
			dead = append(dead, c)
		}
	}
	return dead, max(after, min(through, p.revision))
}

func setOrDelete[V any](m map[nounKey]V, key nounKey, v V, in bool) {
	if in {
		m[key] = v
	} else {
		delete(m, key)
	}
}

// objectOf is a change as it goes up the link.
func objectOf(c Change) *linkv1.Object {
	o := &linkv1.Object{Revision: uint64(c.Revision)}
	switch m := c.Message.(type) {
	case *apiv1.Zone:
		o.Noun = &linkv1.Object_Zone{Zone: m}
	case *apiv1.Cluster:
		o.Noun = &linkv1.Object_Cluster{Cluster: m}
	case *apiv1.Host:
		o.Noun = &linkv1.Object_Host{Host: m}
	case *apiv1.VM:
		o.Noun = &linkv1.Object_Vm{Vm: m}
	case *apiv1.Reservation:
		o.Noun = &linkv1.Object_Reservation{Reservation: m}
	case *linkv1.Tombstone:
		o.Noun = &linkv1.Object_Tombstone{Tombstone: m}
	}
	return o
}
