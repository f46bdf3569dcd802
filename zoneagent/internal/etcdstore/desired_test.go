package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func object(revision uint64, noun proto.Message) *linkv1.Object {
	o := &linkv1.Object{Revision: revision}
	switch n := noun.(type) {
	case *apiv1.VM:
		o.Noun = &linkv1.Object_Vm{Vm: n}
	case *apiv1.Zone:
		o.Noun = &linkv1.Object_Zone{Zone: n}
	case *linkv1.Tombstone:
		o.Noun = &linkv1.Object_Tombstone{Tombstone: n}
	}
	return o
}

func at(id string, epoch, index uint64) *apiv1.VM {
	return &apiv1.VM{Id: id, Name: id, Generation: &apiv1.Generation{Epoch: epoch, Index: index}}
}

func gone(id string, epoch, index uint64) *linkv1.Tombstone {
	return &linkv1.Tombstone{Noun: &apiv1.Reference{Kind: "vm", Id: id}, Generation: &apiv1.Generation{Epoch: epoch, Index: index}}
}

func TestObjectsAndCursorComeTogether(t *testing.T) {
	a := newZone(t).one()
	sink := a.DesiredSink(a.own(UplinkName))
	if p := must(sink.Point(t.Context())); p.GetEpoch() != 0 || p.GetRevision() != 0 {
		t.Errorf("before the first sync the zone stands at %v", p)
	}
	first := &linkv1.StateChunk{Epoch: 1, Through: 5, Full: true, Objects: []*linkv1.Object{
		object(3, &apiv1.Zone{Id: "z"}), object(5, at("vm-1", 1, 5)),
	}}
	if err := sink.Commit(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if c := must(a.Cursor(t.Context())); !c.GetSyncing() || c.GetPoint().GetRevision() != 5 {
		t.Errorf("in the middle of a full sync the cursor is %v", c)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 1, After: 5, Through: 7, Full: true, End: true,
		Objects: []*linkv1.Object{object(6, at("vm-2", 1, 6)), object(7, gone("vm-1", 1, 7))}}); err != nil {
		t.Fatal(err)
	}
	if c := must(a.Cursor(t.Context())); c.GetSyncing() || c.GetPoint().GetRevision() != 7 {
		t.Errorf("after its end marker the cursor is %v", c)
	}
	if _, err := a.Get(t.Context(), Desired, "vm", "vm-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tombstone left the object: %v", err)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 1, After: 5, Through: 7, End: true}); err != nil {
		t.Errorf("a chunk that came twice: %v", err)
	}
}

func TestWhatDoesNotFollowIsRefused(t *testing.T) {
	a := newZone(t).one()
	sink := a.DesiredSink(a.own(UplinkName))
	if err := sink.BeginEpoch(t.Context(), 5, []byte("id-of-epoch-five")); err != nil {
		t.Fatal(err)
	}
	if p := must(sink.Point(t.Context())); p.GetEpoch() != 5 || p.GetRevision() != 0 {
		t.Errorf("a new epoch begins at %v", p)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 5, Through: 10, Full: true, End: true}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chunk *linkv1.StateChunk
		want  error
	}{
		"gap":                          {&linkv1.StateChunk{Epoch: 5, After: 11, Through: 12}, ErrGap},
		"older epoch":                  {&linkv1.StateChunk{Epoch: 4, After: 10, Through: 12}, ErrOldEpoch},
		"older epoch in full":          {&linkv1.StateChunk{Epoch: 4, Through: 12, Full: true}, ErrOldEpoch},
		"newer epoch in the middle":    {&linkv1.StateChunk{Epoch: 6, After: 10, Through: 12}, ErrGap},
		"revisions that do not ascend": {&linkv1.StateChunk{Epoch: 5, After: 10, Through: 12, Objects: []*linkv1.Object{object(12, at("a", 5, 12)), object(11, at("b", 5, 11))}}, ErrGap},
	} {
		if err := sink.Commit(t.Context(), c.chunk); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sink.BeginEpoch(t.Context(), 5, []byte("another-identity")); !errors.Is(err, ErrQuarantine) {
		t.Errorf("known epoch, other id: %v", err)
	}
	if err := sink.BeginEpoch(t.Context(), 4, []byte("x")); !errors.Is(err, ErrOldEpoch) {
		t.Errorf("older epoch: %v", err)
	}
	if err := sink.BeginEpoch(t.Context(), 6, []byte("id-of-epoch-six!")); err != nil {
		t.Errorf("newer epoch: %v", err)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 6, Through: 2, Full: true, End: true}); err != nil {
		t.Fatal(err)
	}
	if c := must(a.Cursor(t.Context())); c.GetPoint().GetEpoch() != 6 || c.GetPoint().GetRevision() != 2 || string(c.GetEpochId()) != "id-of-epoch-six!" {
		t.Errorf("cursor is %v", c)
	}
}

func TestAnOlderGenerationIsNotTaken(t *testing.T) {
	a := newZone(t).one()
	sink := a.DesiredSink(a.own(UplinkName))
	commit := func(c *linkv1.StateChunk) {
		t.Helper()
		if err := sink.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	commit(&linkv1.StateChunk{Epoch: 1, Through: 50, Full: true, End: true, Objects: []*linkv1.Object{
		object(40, at("kept", 1, 40)), object(50, at("changed", 1, 50))}})
	// The control plane was restored from a backup: it has forgotten revision 50.
	commit(&linkv1.StateChunk{Epoch: 2, Through: 45, Full: true, End: true, Objects: []*linkv1.Object{
		object(40, at("kept", 1, 40)), object(41, at("changed", 1, 30)), object(42, gone("changed", 1, 31))}})
	got := must(a.Get(t.Context(), Desired, "vm", "changed"))
	if g := got.Message.(*apiv1.VM).GetGeneration(); g.GetIndex() != 50 {
		t.Errorf("generation is %v", g)
	}
	if b := must(a.Snapshot(t.Context(), Unclaimed)); len(b.Changes) != 0 {
		t.Errorf("what the sync named is unclaimed: %v", b.Changes)
	}
	commit(&linkv1.StateChunk{Epoch: 2, After: 45, Through: 46, Objects: []*linkv1.Object{object(46, at("changed", 2, 46))}})
	got = must(a.Get(t.Context(), Desired, "vm", "changed"))
	if g := got.Message.(*apiv1.VM).GetGeneration(); g.GetEpoch() != 2 {
		t.Errorf("generation is %v", g)
	}
}

// P4: absence is never an instruction.
func TestWhatAFullSyncDoesNotNameIsKeptAndReported(t *testing.T) {
	a := newZone(t).one()
	own := a.own(UplinkName)
	sink := a.DesiredSink(own)
	var all []*linkv1.Object
	for i := range 100 {
		all = append(all, object(uint64(i+1), at(fmt.Sprintf("vm-%d", i), 1, uint64(i+1))))
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 1, Through: 100, Full: true, End: true, Objects: all}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 2, Through: 10, Full: true, End: true, Objects: all[:10]}); err != nil {
		t.Fatal(err)
	}
	if b := must(a.Snapshot(t.Context(), Desired)); len(b.Changes) != 100 {
		t.Errorf("%d of 100 objects are left", len(b.Changes))
	}
	if b := must(a.Snapshot(t.Context(), Unclaimed)); len(b.Changes) != 90 {
		t.Errorf("%d are unclaimed", len(b.Changes))
	}
	life, _ := a.Incarnation()
	entries := a.journal(life.GetId(), zoneStream)
	if len(entries) != 1 || entries[0].GetEvent().GetType() != "zone.unclaimed" {
		t.Errorf("journal of the zone is %v", entries)
	}
	if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: 2, After: 10, Through: 12, Objects: []*linkv1.Object{
		object(11, at("vm-50", 2, 11)), object(12, gone("vm-60", 2, 12))}}); err != nil {
		t.Fatal(err)
	}
	if b := must(a.Snapshot(t.Context(), Unclaimed)); len(b.Changes) != 88 {
		t.Errorf("%d are unclaimed after two were named", len(b.Changes))
	}
	if _, err := a.Get(t.Context(), Desired, "vm", "vm-60"); !errors.Is(err, ErrNotFound) {
		t.Error("a tombstone does not delete what is unclaimed")
	}
}

// P17: the agent is killed between the parts of a chunk that is larger than one transaction.
func TestAChunkThatIsCutShortIsTakenUpWhereItWas(t *testing.T) {
	z := newZone(t)
	z.one()
	small := z.config(2, 1)
	small.Member, small.MaxOps = nil, 16
	b := z.idle(small)
	var all []*linkv1.Object
	for i := range 60 {
		all = append(all, object(uint64(i/3+1), at(fmt.Sprintf("vm-%02d", i), 1, uint64(i/3+1))))
	}
	chunk := &linkv1.StateChunk{Epoch: 1, Through: 20, Full: true, End: true, Objects: all}

	for kills := 0; ; kills++ {
		own := b.own(UplinkName)
		sink := b.DesiredSink(own)
		point := must(sink.Point(t.Context()))
		if point.GetRevision() == 20 {
			if kills < 2 {
				t.Errorf("only %d kills", kills)
			}
			break
		}
		rest := &linkv1.StateChunk{Epoch: 1, After: point.GetRevision(), Through: 20, Full: true, End: true}
		for _, o := range chunk.GetObjects() {
			if o.GetRevision() > point.GetRevision() {
				rest.Objects = append(rest.Objects, o)
			}
		}
		sound := b.client.KV
		b.client.KV = &dyingKV{KV: sound, n: 1 + kills, own: own}
		err := sink.Commit(t.Context(), rest)
		b.client.KV = sound
		held := map[string]bool{}
		for _, c := range must(b.Snapshot(t.Context(), Desired)).Changes {
			held[c.ID] = true
		}
		now := must(b.Cursor(t.Context()))
		for _, o := range all {
			if o.GetRevision() <= now.GetPoint().GetRevision() && !held[o.GetVm().GetId()] {
				t.Fatalf("cursor at %d, %s of revision %d is not there (%v)", now.GetPoint().GetRevision(), o.GetVm().GetId(), o.GetRevision(), err)
			}
		}
		if err := own.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b := must(b.Snapshot(t.Context(), Desired, Unclaimed)); len(b.Changes) != 60 {
		t.Errorf("%d objects", len(b.Changes))
	}
}

// dyingKV lets n transactions through; then its owner dies.
type dyingKV struct {
	clientv3.KV
	n   int
	own *Ownership
}

func (k *dyingKV) Txn(ctx context.Context) clientv3.Txn {
	if k.n--; k.n < 0 {
		k.own.lose(errors.New("killed"))
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return k.KV.Txn(ctx)
	}
	return k.KV.Txn(ctx)
}

// The sink against a model: whatever the control plane sends, in whatever pieces, the zone converges to what the plane
// holds, deletes only by tombstone, and never goes back in generation.
func TestDesiredStateConvergesToThePlanes(t *testing.T) {
	a := newZone(t).one()
	rapid.Check(t, func(r *rapid.T) {
		own := a.own(UplinkName)
		defer func() {
			if err := own.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := a.client.Delete(t.Context(), a.keys.prefix+"desired", prefixed("")); err != nil {
				t.Fatal(err)
			}
			for _, s := range []Space{Desired, Unclaimed, Cursor, syncing} {
				_, _ = a.client.Delete(t.Context(), a.keys.of(s), prefixed(""))
			}
		}()
		p := &modelPlane{epoch: 1, held: map[string]row{}}
		sink := a.DesiredSink(own)
		everHeld, deleted := map[string]bool{}, map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"change", "change", "delete", "send", "send", "resync", "restore"}).Draw(r, "step") {
			case "change":
				id := fmt.Sprintf("vm-%d", rapid.IntRange(0, 9).Draw(r, "vm"))
				p.put(id)
			case "delete":
				id := fmt.Sprintf("vm-%d", rapid.IntRange(0, 9).Draw(r, "vm"))
				p.delete(id)
			case "send":
				p.send(r, t, sink, false, rapid.IntRange(1, 5).Draw(r, "chunks"), everHeld, deleted)
			case "resync":
				p.send(r, t, sink, true, rapid.IntRange(1, 5).Draw(r, "chunks"), everHeld, deleted)
			case "restore":
				p.restore()
			}
		}
		p.settle(r, t, sink, everHeld, deleted)

		desired, unclaimed := map[string]*apiv1.VM{}, map[string]bool{}
		for _, c := range must(a.Snapshot(t.Context(), Desired, Unclaimed)).Changes {
			if c.Space == Desired {
				desired[c.ID] = c.Message.(*apiv1.VM)
			} else {
				unclaimed[c.ID] = true
			}
		}
		for id, row := range p.held {
			have := desired[id]
			if row.tombstone {
				continue
			}
			if have == nil {
				r.Fatalf("%s is not there", id)
			}
			if older(have.GetGeneration(), row.generation(p.epoch)) || unclaimed[id] {
				r.Fatalf("%s: have %v, the plane has %v; unclaimed: %v", id, have.GetGeneration(), row, unclaimed[id])
			}
		}
		for id := range desired {
			if row, ok := p.held[id]; (!ok) != unclaimed[id] && !row.tombstone {
				r.Fatalf("%s: held by the plane: %v, unclaimed: %v", id, ok, unclaimed[id])
			}
		}
		for id := range everHeld {
			if desired[id] == nil && !deleted[id] {
				r.Fatalf("%s was never deleted and is gone", id)
			}
		}
	})
}

// A session may cut one revision in two: then through stays at after.
func TestARevisionThatComesInTwoChunksIsTakenWhole(t *testing.T) {
	a := newZone(t).one()
	sink := a.DesiredSink(a.own(UplinkName))
	for i, c := range []*linkv1.StateChunk{
		{Epoch: 1, After: 0, Through: 0, Full: true, Objects: []*linkv1.Object{object(4, at("a", 1, 4)), object(4, at("b", 1, 4))}},
		{Epoch: 1, After: 0, Through: 6, Full: true, Objects: []*linkv1.Object{object(4, at("c", 1, 4)), object(6, at("d", 1, 6))}},
		{Epoch: 1, After: 6, Through: 6, Full: true, Objects: []*linkv1.Object{object(7, at("e", 1, 7))}},
		{Epoch: 1, After: 6, Through: 7, Full: true, End: true, Objects: []*linkv1.Object{object(7, at("f", 1, 7))}},
	} {
		if err := sink.Commit(t.Context(), c); err != nil {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	b := must(a.Snapshot(t.Context(), Desired, Unclaimed))
	if len(b.Changes) != 6 {
		t.Errorf("after it there is %v", b.Changes)
	}
	if p := must(sink.Point(t.Context())); p.GetRevision() != 7 {
		t.Errorf("the zone stands at %v", p)
	}
}

// countedKV counts requests.
type countedKV struct {
	clientv3.KV
	n atomic.Int64
}

func (k *countedKV) Txn(ctx context.Context) clientv3.Txn {
	k.n.Add(1)
	return k.KV.Txn(ctx)
}

func (k *countedKV) Get(ctx context.Context, key string, o ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	k.n.Add(1)
	return k.KV.Get(ctx, key, o...)
}

// While the picture shows nothing of what comes, which is as late as it can be: each chunk costs one request, and what the
// sink has taken in just now is known to it.
func TestWhatAChunkFindsIsKnownWithoutAsking(t *testing.T) {
	z := newZone(t)
	a := z.idle(z.config(1))
	sink := a.DesiredSink(a.own(UplinkName))
	commit := func(c *linkv1.StateChunk) {
		t.Helper()
		if err := sink.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	commit(&linkv1.StateChunk{Epoch: 1, Through: 5, Full: true, End: true, Objects: []*linkv1.Object{object(5, at("old", 1, 5))}})
	all := must(a.Snapshot(t.Context(), inPicture...))
	a.picture.apply(all)
	counted := &countedKV{KV: a.client.KV}
	a.client.KV = counted
	defer func() { a.client.KV = counted.KV }()
	const chunks = 20
	for i := range uint64(chunks) {
		commit(&linkv1.StateChunk{Epoch: 1, After: 5 + i, Through: 6 + i, End: true, Objects: []*linkv1.Object{object(6+i, at("new", 1, 6+i))}})
	}
	if n := counted.n.Load(); n > chunks+1 {
		t.Errorf("%d chunks cost %d requests", chunks, n)
	}
	commit(&linkv1.StateChunk{Epoch: 1, After: 25, Through: 27, End: true, Objects: []*linkv1.Object{
		object(26, at("new", 1, 7)), object(27, at("old", 1, 4))}})
	for id, want := range map[string]uint64{"new": 25, "old": 5} {
		if g := must(a.Get(t.Context(), Desired, "vm", id)).Message.(*apiv1.VM).GetGeneration(); g.GetIndex() != want {
			t.Errorf("an older generation of %s was taken: %v", id, g)
		}
	}
	commit(&linkv1.StateChunk{Epoch: 1, After: 27, Through: 28, End: true, Objects: []*linkv1.Object{object(28, gone("new", 1, 28))}})
	commit(&linkv1.StateChunk{Epoch: 1, After: 28, Through: 29, End: true, Objects: []*linkv1.Object{object(29, at("new", 1, 29))}})
	if _, err := a.Get(t.Context(), Desired, "vm", "new"); err != nil {
		t.Errorf("made anew after it was deleted: %v", err)
	}
}
