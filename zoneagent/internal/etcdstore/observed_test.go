package etcdstore

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// since asks the source once the agent's picture has caught up with the store.
func (r *running) since(o *ObservedSource, after *linkv1.StateAckPoint, limit int) *linkv1.StateChunk {
	r.t.Helper()
	at := must(r.client.Put(r.t.Context(), r.keys.of(Desired, "zone", "marker"), "")).Header.Revision
	eventually(r.t, "the picture catches up", func() bool {
		r.picture.mu.RLock()
		defer r.picture.mu.RUnlock()
		return r.picture.revision >= at
	})
	return must(o.Since(r.t.Context(), after, limit))
}

// modelReceiver is the control plane's side of observed state.
type modelReceiver struct {
	point   *linkv1.StateAckPoint
	held    map[string]*apiv1.VM
	syncing map[string]bool
}

// take applies a chunk as the control plane does: absence says nothing, a tombstone deletes.
func (m *modelReceiver) take(c *linkv1.StateChunk) error {
	begins := c.GetFull() && c.GetAfter() == 0
	if !begins && (m.point.GetIncarnation() != c.GetIncarnation() || m.point.GetRevision() != c.GetAfter()) {
		return fmt.Errorf("chunk after %d of %s, receiver at %v", c.GetAfter(), c.GetIncarnation(), m.point)
	}
	if begins {
		m.syncing = map[string]bool{}
	}
	last := c.GetAfter()
	for _, o := range c.GetObjects() {
		if o.GetRevision() < last || o.GetRevision() > c.GetThrough() {
			return fmt.Errorf("object of revision %d in chunk %d to %d", o.GetRevision(), c.GetAfter(), c.GetThrough())
		}
		last = o.GetRevision()
		if d := o.GetTombstone(); d != nil {
			delete(m.held, d.GetNoun().GetId())
			continue
		}
		m.held[o.GetVm().GetId()] = o.GetVm()
	}
	m.point = &linkv1.StateAckPoint{Incarnation: c.GetIncarnation(), Revision: c.GetThrough()}
	return nil
}

func TestObservedStateGoesUpInWholeRevisions(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	source := a.ObservedSource(link)
	for i := range 5 {
		tx := a.Begin(own)
		for j := range 3 {
			tx.PutObserved(vm(fmt.Sprintf("vm-%d-%d", i, j)))
		}
		a.commit(tx)
	}
	m := &modelReceiver{point: &linkv1.StateAckPoint{}, held: map[string]*apiv1.VM{}}
	sizes := []int{}
	for {
		c := a.since(source, m.point, 7)
		if (c.GetAfter() == 0) != (len(sizes) == 0) {
			t.Errorf("chunk %d comes after %d", len(sizes), c.GetAfter())
		}
		sizes = append(sizes, len(c.GetObjects()))
		if err := m.take(c); err != nil {
			t.Fatal(err)
		}
		if c.GetEnd() {
			break
		}
	}
	if len(m.held) != 15 || fmt.Sprint(sizes) != "[6 6 3]" {
		t.Errorf("%d objects came in chunks of %v", len(m.held), sizes)
	}
	if c := a.since(source, m.point, 7); c != nil {
		t.Errorf("nothing is new, and the chunk is %v", c)
	}
	tx := a.Begin(own)
	for j := range 100 {
		tx.PutObserved(vm(fmt.Sprintf("many-%d", j)))
	}
	a.commit(tx)
	if c := a.since(source, m.point, 10); len(c.GetObjects()) != 100 || c.GetFull() {
		t.Errorf("a revision of 100 objects came as %d, full %v", len(c.GetObjects()), c.GetFull())
	}
	for _, p := range []*linkv1.StateAckPoint{
		{Incarnation: "another", Revision: 3}, {Incarnation: m.point.GetIncarnation(), Revision: 1 << 40},
	} {
		if c := a.since(source, p, 10); !c.GetFull() || c.GetAfter() != 0 {
			t.Errorf("a point of another life or ahead: full %v after %d", c.GetFull(), c.GetAfter())
		}
	}
}

func TestMoreThanAChunkCarriesComesInSeveral(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	const revisions, each = 7, 60
	for i := range revisions {
		tx := a.Begin(own)
		for j := range each {
			if j%3 == 0 {
				tx.Tombstone(&apiv1.Reference{Kind: "vm", Id: fmt.Sprintf("gone-%d-%d", i, j)}, nil)
			}
			tx.PutObserved(vm(fmt.Sprintf("vm-%d-%d", i, j)))
		}
		a.commit(tx)
	}
	source := a.ObservedSource(link)
	m := &modelReceiver{point: &linkv1.StateAckPoint{}, held: map[string]*apiv1.VM{}}
	objects := 0
	for end := false; !end; {
		c := a.since(source, m.point, 127)
		if n := len(c.GetObjects()); n > 127 {
			t.Fatalf("a chunk of %d objects", n)
		}
		objects += len(c.GetObjects())
		if err := m.take(c); err != nil {
			t.Fatal(err)
		}
		end = c.GetEnd()
	}
	if len(m.held) != revisions*each || objects != revisions*(each+each/3) {
		t.Errorf("%d objects came, %d are held", objects, len(m.held))
	}
}

func TestATombstoneIsKeptUntilItIsAcknowledged(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	source := a.ObservedSource(link)
	a.write(own, "vm-1", "vm-2")
	tx := a.Begin(own)
	tx.Tombstone(&apiv1.Reference{Kind: "vm", Id: "vm-1"}, &apiv1.Generation{Epoch: 1, Index: 4})
	a.commit(tx)
	if _, err := a.Get(t.Context(), Observed, "vm", "vm-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was observed stays: %v", err)
	}
	tombs := func() (n int, c *linkv1.StateChunk) {
		c = a.since(source, nil, 100)
		for _, o := range c.GetObjects() {
			if o.GetTombstone() != nil {
				n++
			}
		}
		return n, c
	}
	n, c := tombs()
	if n != 1 {
		t.Fatalf("%d tombstones", n)
	}
	life := c.GetIncarnation()
	for _, p := range []*linkv1.StateAckPoint{
		nil, {Incarnation: "another", Revision: c.GetThrough()}, {Incarnation: life, Revision: c.GetThrough() - 2},
	} {
		if err := source.Acknowledged(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if n, _ := tombs(); n != 1 {
			t.Fatalf("acknowledging %v took the tombstone away", p)
		}
	}
	if err := source.Acknowledged(t.Context(), &linkv1.StateAckPoint{Incarnation: life, Revision: c.GetThrough()}); err != nil {
		t.Fatal(err)
	}
	if n, _ := tombs(); n != 0 {
		t.Error("an acknowledged tombstone stays")
	}
}

// Whatever is written, deleted, sent in whatever pieces, acknowledged or not, compacted or begun anew: the receiver ends
// with what the zone observes.
func TestObservedStateConvergesAtTheReceiver(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	rapid.Check(t, func(r *rapid.T) {
		for _, s := range []Space{Observed, tombstones} {
			if _, err := a.client.Delete(t.Context(), a.keys.under(s), prefixed("")); err != nil {
				t.Fatal(err)
			}
		}
		source := a.ObservedSource(link)
		m := &modelReceiver{point: &linkv1.StateAckPoint{}, held: map[string]*apiv1.VM{}}
		truth := map[string]bool{}
		receive := func(limit int) bool {
			c := a.since(source, m.point, limit)
			if c == nil {
				return true
			}
			if err := m.take(c); err != nil {
				r.Fatal(err)
			}
			return c.GetEnd()
		}
		for range rapid.IntRange(1, 15).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "tombstone", "receive", "acknowledge", "compact", "reconnect", "forget"}).Draw(r, "step") {
			case "write":
				tx := a.Begin(own)
				for range rapid.IntRange(1, 6).Draw(r, "together") {
					id := fmt.Sprintf("vm-%d", rapid.IntRange(0, 9).Draw(r, "vm"))
					truth[id] = true
					tx.PutObserved(vm(id))
				}
				a.commit(tx)
			case "tombstone":
				id := fmt.Sprintf("vm-%d", rapid.IntRange(0, 9).Draw(r, "vm"))
				delete(truth, id)
				tx := a.Begin(own)
				tx.Tombstone(&apiv1.Reference{Kind: "vm", Id: id}, nil)
				a.commit(tx)
			case "receive":
				receive(rapid.IntRange(1, 5).Draw(r, "limit"))
			case "acknowledge":
				if err := source.Acknowledged(t.Context(), m.point); err != nil {
					r.Fatal(err)
				}
			case "compact":
				at := must(a.client.Get(t.Context(), "x")).Header.Revision
				_, _ = a.client.Compact(t.Context(), at)
			case "reconnect":
				source = a.ObservedSource(link)
			case "forget":
				// The receiver asks for a full sync; what it holds it keeps.
				m.point = &linkv1.StateAckPoint{}
			}
		}
		for !receive(4) {
		}
		for id := range truth {
			if m.held[id] == nil {
				r.Fatalf("%s did not come", id)
			}
		}
		for id := range m.held {
			if !truth[id] {
				r.Fatalf("%s is gone in the zone and held by the receiver", id)
			}
		}
	})
}

// P24: the control plane may have forgotten a VM, and is told all of it: in a full sync, and until it names it.
func TestAVMGoesUpWholeWhenTheControlPlaneMayNotKnowIt(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	sink, source := a.DesiredSink(link), a.ObservedSource(link)
	wanted := func(id string) *linkv1.Object {
		return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{
			Id: id, Name: id, ProjectId: "p-web", Size: &apiv1.Resources{Cores: 2}, Generation: &apiv1.Generation{Epoch: 3, Index: 1},
		}}}
	}
	whole := func(c *linkv1.StateChunk) (ids []string) {
		for _, o := range c.GetObjects() {
			if m := o.GetVm(); m.GetProjectId() == "p-web" && m.GetSize().GetCores() == 2 && m.GetState() == apiv1.VM_RUNNING {
				ids = append(ids, m.GetId())
			}
		}
		return ids
	}
	sync := func(epoch uint64, objects ...*linkv1.Object) {
		t.Helper()
		if err := sink.Commit(t.Context(), &linkv1.StateChunk{Epoch: epoch, Through: 1, Full: true, End: true, Objects: objects}); err != nil {
			t.Fatal(err)
		}
	}
	sync(3, wanted("known"), wanted("forgotten"))
	a.write(own, "known", "forgotten", "found")
	point := &linkv1.StateAckPoint{}
	var came []string
	for end := false; !end; {
		c := a.since(source, point, 1)
		came = append(came, whole(c)...)
		point, end = &linkv1.StateAckPoint{Incarnation: c.GetIncarnation(), Revision: c.GetThrough()}, c.GetEnd()
	}
	if fmt.Sprint(came) != "[known forgotten]" {
		t.Errorf("in a full sync came whole: %v", came)
	}
	again := func(what, want string) {
		t.Helper()
		a.write(own, "known", "forgotten")
		c := a.since(source, point, 100)
		point = &linkv1.StateAckPoint{Incarnation: c.GetIncarnation(), Revision: c.GetThrough()}
		if got := fmt.Sprint(whole(c)); got != want || len(c.GetObjects()) != 2 {
			t.Errorf("%s, of %d objects came whole: %s, want %s", what, len(c.GetObjects()), got, want)
		}
	}
	again("when both are named", "[]")
	sync(4, wanted("known"))
	again("in an epoch that does not name one", "[forgotten]")
	sync(5, wanted("known"), wanted("forgotten"))
	again("once it is named again", "[]")
}
