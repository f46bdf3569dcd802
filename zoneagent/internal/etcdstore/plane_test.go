package etcdstore

import (
	"cmp"
	"maps"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func prefixed(string) clientv3.OpOption { return clientv3.WithPrefix() }

// modelPlane is the control plane as a zone sees it: a table of rows by revision, an epoch, and one backup.
type modelPlane struct {
	epoch, revision uint64
	held            map[string]row
	backup          map[string]row
	backedUp        uint64
}

type row struct {
	revision  uint64
	epoch     uint64
	tombstone bool
}

func (w row) generation(uint64) *apiv1.Generation {
	return &apiv1.Generation{Epoch: w.epoch, Index: w.revision}
}

func (p *modelPlane) put(id string) {
	p.revision++
	p.held[id] = row{revision: p.revision, epoch: p.epoch}
}

func (p *modelPlane) delete(id string) {
	if _, ok := p.held[id]; !ok {
		return
	}
	p.revision++
	p.held[id] = row{revision: p.revision, epoch: p.epoch, tombstone: true}
	if p.backup == nil {
		p.backup, p.backedUp = maps.Clone(p.held), p.revision
	}
}

// restore goes back to the backup, in a new epoch. Revisions go on from the backup's.
func (p *modelPlane) restore() {
	if p.backup == nil {
		p.backup, p.backedUp = map[string]row{}, 0
	}
	p.epoch++
	p.held, p.revision = maps.Clone(p.backup), p.backedUp
}

// send sends some chunks from where the zone stands, some of them twice.
func (p *modelPlane) send(r *rapid.T, t *testing.T, sink *DesiredSink, full bool, chunks int, everHeld, deleted map[string]bool) {
	point := must(sink.Point(t.Context()))
	after := point.GetRevision()
	full = full || point.GetEpoch() != p.epoch || after == 0
	if full {
		after = 0
	}
	for range chunks {
		c := p.chunk(after, rapid.IntRange(1, 4).Draw(r, "size"), full)
		if c == nil {
			return
		}
		for range rapid.IntRange(1, 2).Draw(r, "times") {
			if err := sink.Commit(t.Context(), c); err != nil {
				r.Fatalf("chunk %v: %v", c, err)
			}
		}
		for _, o := range c.GetObjects() {
			if d := o.GetTombstone(); d != nil {
				deleted[d.GetNoun().GetId()] = true
			} else {
				everHeld[o.GetVm().GetId()] = true
			}
		}
		after = c.GetThrough()
		if c.GetEnd() {
			return
		}
	}
}

// settle sends until the zone has everything.
func (p *modelPlane) settle(r *rapid.T, t *testing.T, sink *DesiredSink, everHeld, deleted map[string]bool) {
	p.put("last")
	for {
		cursor := must(sink.store.Cursor(t.Context()))
		if cursor.GetPoint().GetEpoch() == p.epoch && cursor.GetPoint().GetRevision() == p.revision && !cursor.GetSyncing() {
			return
		}
		p.send(r, t, sink, false, 100, everHeld, deleted)
	}
}

// chunk is what follows on a revision; nil where nothing does.
func (p *modelPlane) chunk(after uint64, size int, full bool) *linkv1.StateChunk {
	if after == p.revision && after != 0 {
		return nil
	}
	ids := slices.DeleteFunc(slices.Collect(maps.Keys(p.held)), func(id string) bool { return p.held[id].revision <= after })
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(p.held[a].revision, p.held[b].revision) })
	c := &linkv1.StateChunk{Epoch: p.epoch, After: after, Through: p.revision, Full: full, End: len(ids) <= size}
	for _, id := range ids[:min(size, len(ids))] {
		w := p.held[id]
		o := &linkv1.Object{Revision: w.revision, Noun: &linkv1.Object_Vm{Vm: at(id, w.epoch, w.revision)}}
		if w.tombstone {
			o.Noun = &linkv1.Object_Tombstone{Tombstone: gone(id, w.epoch, w.revision)}
		}
		c.Objects = append(c.Objects, o)
		if !c.GetEnd() {
			c.Through = w.revision
		}
	}
	return c
}
