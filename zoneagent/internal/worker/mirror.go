package worker

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// spaces are what the mirror is kept from.
var spaces = []etcdstore.Space{
	etcdstore.Desired, etcdstore.Observed, etcdstore.Allocation, etcdstore.Work, etcdstore.Order, etcdstore.Unclaimed, etcdstore.Cursor,
}

// mirror is the zone as the store tells it, with what this term has committed meanwhile: news that is older than that
// is passed over.
type mirror struct {
	cluster     string
	incarnation string
	since       time.Time // when the incarnation was first told
	told        bool      // the snapshot has come
	syncing     bool
	behind      bool   // the store may know less than it knew: what is wanted, and what was begun, is not gone by
	epoch       uint64 // of the control plane that told what is wanted
	noun        *apiv1.Cluster
	reported    *apiv1.Cluster // as observed
	machines    map[string]*machine
	// on are the machines of each host.
	on map[string]map[string]*machine
}

func newMirror(cluster string) mirror {
	return mirror{cluster: cluster, machines: map[string]*machine{}, on: map[string]map[string]*machine{}}
}

func (z *mirror) machine(id string) *machine {
	m := z.machines[id]
	if m == nil {
		m = &machine{id: id}
		z.machines[id] = m
	}
	return m
}

// see notes what is observed of a VM; nil: nothing any more.
func (z *mirror) see(m *machine, vm *apiv1.VM, revision int64) {
	if was := m.is.GetHostId(); was != vm.GetHostId() {
		delete(z.on[was], m.id)
		if at := vm.GetHostId(); at != "" {
			if z.on[at] == nil {
				z.on[at] = map[string]*machine{}
			}
			z.on[at][m.id] = m
		}
	}
	m.is, m.revision = vm, revision
}

// applyBatch takes over what the store tells.
func (t *Term) applyBatch(b etcdstore.Batch) {
	z := &t.zone
	if b.Reset {
		t.forgetBefore(b)
	}
	for _, c := range b.Changes {
		switch c.Space {
		case etcdstore.Desired:
			t.applyDesired(c)
		case etcdstore.Observed:
			t.applyObserved(c)
		case etcdstore.Work:
			if m := z.machine(c.ID); c.Revision >= m.worked {
				m.work, _ = c.Message.(*zonev1.Work)
				m.worked = c.Revision
				t.dueOurs(m)
			}
		case etcdstore.Order:
			t.applyOrder(c)
		case etcdstore.Allocation:
			a, _ := c.Message.(*zonev1.Allocation)
			t.host(c.ID).allocate(a, c.Revision)
			t.touch(c.ID)
		case etcdstore.Unclaimed:
			if c.Kind == "vm" {
				z.machine(c.ID).kept = c.Message != nil
				t.due[c.ID] = true
			}
		case etcdstore.Cursor:
			cursor, _ := c.Message.(*zonev1.Cursor)
			syncing, behind, epoch := cursor.GetSyncing(), cursor.GetBehind(), cursor.GetPoint().GetEpoch()
			if !syncing && (z.syncing || z.behind != behind || z.epoch != epoch) {
				t.dueAll() // not with each chunk that moves the cursor on
			}
			z.syncing, z.behind, z.epoch = syncing, behind, epoch
		}
	}
	for id := range t.touched {
		t.settleHost(id)
	}
	clear(t.touched)
	if b.Reset {
		for _, m := range z.machines {
			m.ended = m.ended && m.is != nil
			t.prune(m)
		}
	}
}

// touch has a host looked at: how it is opened, and what is reported of it.
func (t *Term) touch(hostID string) {
	if hostID != "" {
		t.touched[hostID], t.dirty[hostID], t.outdated = true, true, true
	}
}

// forgetBefore makes way for a snapshot: what it does not tell is not there, save what was committed after it was read.
func (t *Term) forgetBefore(b etcdstore.Batch) {
	z := &t.zone
	fresh := z.incarnation != b.Incarnation
	if fresh {
		z.since = time.Now()
	}
	z.told, z.incarnation, z.syncing, z.behind, z.epoch, z.noun = true, b.Incarnation, false, false, 0, nil
	for _, m := range z.machines {
		m.wanted, m.kept, m.orders = nil, false, nil
		if fresh {
			m.unwritten, m.ended = nil, false
		}
		if fresh || m.revision <= b.Revision {
			z.see(m, nil, 0)
		}
		if fresh || m.worked <= b.Revision {
			m.work, m.worked = nil, 0
		}
		t.due[m.id] = true
	}
	for id, h := range t.hosts {
		h.wanted, h.reported = nil, nil
		h.allocate(nil, 0)
		t.touch(id)
	}
}

func (t *Term) dueAll() {
	for id := range t.zone.machines {
		t.due[id] = true
	}
}

// dueOurs has a machine looked at, unless it is another cluster's, of which all is told here, too.
func (t *Term) dueOurs(m *machine) {
	if t.mine(m) || len(m.orders) > 0 {
		t.due[m.id] = true
	}
}

func (t *Term) applyDesired(c etcdstore.Change) {
	z := &t.zone
	switch c.Kind {
	case "cluster":
		if c.ID == z.cluster {
			z.noun, _ = c.Message.(*apiv1.Cluster)
			for id := range t.hosts {
				t.touch(id)
			}
		}
	case "host":
		h := t.host(c.ID)
		was := h.lost()
		h.wanted, _ = c.Message.(*apiv1.Host)
		t.touch(c.ID)
		if h.lost() != was {
			for id := range z.on[c.ID] {
				t.due[id] = true
			}
		}
	case "vm":
		vm, _ := c.Message.(*apiv1.VM)
		if vm.GetClusterId() != z.cluster {
			vm = nil
		}
		if m := z.machines[c.ID]; vm != nil || m != nil {
			m = z.machine(c.ID)
			// An older generation never undoes a newer one.
			if vm == nil || schema.CompareGenerations(vm.GetGeneration(), m.wanted.GetGeneration()) >= 0 {
				m.wanted = vm
			}
			t.due[c.ID] = true
			t.prune(m)
		}
	}
}

func (t *Term) applyObserved(c etcdstore.Change) {
	switch c.Kind {
	case "cluster":
		if c.ID == t.cluster {
			t.zone.reported, _ = c.Message.(*apiv1.Cluster)
		}
	case "host":
		h := t.host(c.ID)
		reported, _ := c.Message.(*apiv1.Host)
		if reported == nil || !proto.Equal(reported, h.reported) { // else it is what this term has written
			t.touch(c.ID)
		}
		h.reported = reported
	case "vm":
		m := t.zone.machine(c.ID)
		if c.Revision < m.revision {
			return
		}
		vm, _ := c.Message.(*apiv1.VM)
		if was := m.is.GetHostId(); was != vm.GetHostId() {
			t.touch(was)
			t.touch(vm.GetHostId())
		}
		t.zone.see(m, vm, c.Revision)
		m.stale = time.Time{}
		if vm == nil {
			m.ended = false
		}
		t.dueOurs(m)
		t.prune(m)
	}
}

func (t *Term) applyOrder(c etcdstore.Change) {
	if entry, ok := c.Message.(*linkv1.JournalEntry); ok {
		o := entry.GetOrder()
		m := t.zone.machine(o.GetVmId())
		m.orders = append(m.orders, order{id: c.ID, stream: c.Kind, revision: c.Revision, Order: o})
		t.due[m.id] = true
		return
	}
	for _, m := range t.zone.machines {
		m.orders = slices.DeleteFunc(m.orders, func(o order) bool { return o.id == c.ID })
	}
}

// prune forgets a machine of which nothing is left.
func (t *Term) prune(m *machine) {
	if m.wanted == nil && m.is == nil && m.work == nil && len(m.orders) == 0 && !m.busy && !m.kept {
		delete(t.zone.machines, m.id)
	}
}

// mine tells whether a machine is this cluster's: wanted in it, or not named any more and on a host of it.
func (t *Term) mine(m *machine) bool {
	if m.wanted != nil {
		return true
	}
	h := t.hosts[m.is.GetHostId()]
	return h != nil && h.ours(t.cluster)
}
