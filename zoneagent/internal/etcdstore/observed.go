package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// ObservedSource sends up what the zone observes, out of the agent's Picture: what a look costs depends on what is new
// only. It is one session's, and one goroutine asks it.
//
// VMs go up with what was wanted of them, too, in a full sync, and as long as the control plane does not name them: it may
// have been restored from a backup that is older than they are, and adopts them.
type ObservedSource struct {
	store     *Store
	own       *Ownership
	changed   <-chan struct{}
	full      bool  // a full sync is under way
	forgotten int64 // up to this revision tombstones were forgotten
}

// ObservedSource is the uplink owner's.
func (s *Store) ObservedSource(own *Ownership) *ObservedSource {
	return &ObservedSource{store: s, own: own, changed: s.hints.subscribe(own.Lost(), reported)}
}

// Changed holds a hint when there may be something new.
func (o *ObservedSource) Changed() <-chan struct{} { return o.changed }

// Since is the chunk after a point, nil where nothing is new: objects and tombstones in ascending revision, at most
// limit (and 128), but never part of a revision, so that one revision's objects may go beyond limit. A point of another
// incarnation, revision 0 or one that lies ahead of the store begins a full sync. One that lies ahead of the picture only
// waits for it.
func (o *ObservedSource) Since(ctx context.Context, after *linkv1.StateAckPoint, limit int) (*linkv1.StateChunk, error) {
	now, err := o.store.life(ctx)
	if err != nil {
		return nil, err
	}
	from := int64(after.GetRevision())
	if after.GetIncarnation() != now.incarnation.GetId() {
		from = 0
	}
	p := o.store.picture
	if ahead, err := o.ahead(ctx, from); err != nil {
		return nil, err
	} else if ahead {
		from = 0
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.incarnation != now.incarnation.GetId() || from > p.revision {
		return nil, nil
	}
	changes, more := p.since(from, min(max(limit, 1), maxObserved))
	if len(changes) == 0 && from > 0 {
		return nil, nil
	}
	o.full = from == 0 || o.full
	c := &linkv1.StateChunk{
		Incarnation: p.incarnation, After: uint64(from), Through: uint64(p.revision), Full: from == 0, End: !more,
	}
	for _, row := range changes {
		c.Objects = append(c.Objects, o.whole(objectOf(row)))
	}
	if more {
		c.Through = uint64(changes[len(changes)-1].Revision)
	}
	o.full = o.full && more
	return c, nil
}

// ahead tells whether a point lies ahead of the store itself.
func (o *ObservedSource) ahead(ctx context.Context, point int64) (bool, error) {
	p := o.store.picture
	p.mu.RLock()
	known := point <= p.revision
	p.mu.RUnlock()
	if known {
		return false, nil
	}
	resp, err := o.store.get(ctx, o.store.keys.of(incarnation))
	if err != nil {
		return false, fmt.Errorf("read the store's revision: %w", err)
	}
	return point > resp.Header.GetRevision(), nil
}

// whole returns an object with what was wanted of it, where it is a VM that the control plane may not know. The picture's
// lock is held.
func (o *ObservedSource) whole(row *linkv1.Object) *linkv1.Object {
	is, key := row.GetVm(), nounKey{"vm", row.GetVm().GetId()}
	wanted, ok := o.store.picture.desired[key].(*apiv1.VM)
	if is == nil || !ok || !o.full && !o.store.picture.unclaimed[key] {
		return row
	}
	vm := proto.CloneOf(wanted)
	schema.MergeObserved(vm, is)
	row.Noun = &linkv1.Object_Vm{Vm: vm}
	return row
}

// Acknowledged forgets tombstones that the control plane has committed. One that was written again meanwhile is kept with
// those beside it, for the next session.
func (o *ObservedSource) Acknowledged(ctx context.Context, p *linkv1.StateAckPoint) error {
	now, err := o.store.life(ctx)
	if err != nil {
		return err
	}
	if p.GetIncarnation() != now.incarnation.GetId() {
		return nil
	}
	dead, upTo := o.store.picture.mourned(p.GetIncarnation(), o.forgotten, int64(p.GetRevision()))
	for len(dead) > 0 {
		t := o.store.Begin(o.own)
		for len(dead) > 0 && t.Room() > 0 {
			t.Require(tombstones, dead[0].Kind, dead[0].ID, dead[0].Revision)
			t.del(t.keys().of(tombstones, dead[0].Kind, dead[0].ID))
			dead = dead[1:]
		}
		if _, err := t.Commit(ctx); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("forget acknowledged tombstones: %w", err)
		}
	}
	o.forgotten = upTo
	return nil
}
