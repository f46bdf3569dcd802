package schedule

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/placement"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// book is what the term knows of the zone: the picture of its cluster, who waits for a host, and the revisions that
// the next transaction is to compare.
type book struct {
	cluster  string
	picture  *placement.Picture
	pool     *pool
	noun     *apiv1.Cluster
	zone     *apiv1.Zone // nil while the control plane has not said what it is
	desired  map[string]*apiv1.VM
	observed map[string]seen[*apiv1.VM]
	hosts    map[string]*host
	// leases are the addresses taken in the zone, by whatever cluster.
	leases      map[string]seen[*zonev1.AddressLease]
	unclaimed   map[string]bool // VMs and hosts that a full sync did not name; they are kept as they are
	syncing     bool
	told        bool   // the snapshot has come
	incarnation string // in which revisions count
	// forgetful: hosts may have VMs that the store knows nothing of. Nothing is placed on one before it was asked.
	forgetful bool

	waiting map[string]bool // VMs to be placed, refused or ended
	sizes   map[string]bool // VMs on hosts of which another amount is to be taken for them
	// gone are VMs that this term has ended, with the generation that asked for it, until the control plane forgets them.
	gone map[string]*apiv1.Generation
	// surveyed are hosts that told what they have; found are VMs that were found where the store knows nothing of them,
	// with those hosts: their room is taken from then on.
	surveyed map[string]bool
	found    map[string][]string
	had      map[string]netip.Addr // addresses that VMs were found with
	// unknown are VMs that nobody says any more what they are, by the host they are on.
	unknown map[string]map[string]bool

	// reserved are the reservations that are wanted of the cluster, holds what it has of them; rooms is of how many units of each
	// the picture may have room, asks those to be answered.
	reserved map[string]*apiv1.Reservation
	holds    map[string]seen[*apiv1.Reservation]
	rooms    map[string]int
	asks     map[string]bool
}

// seen is a value with the revision that wrote it. Older news of it is passed over: what this term has committed is
// known before the store tells it. A value that was deleted stays, as nil, until the store has told that.
type seen[M any] struct {
	value    M
	revision int64
}

type host struct {
	desired, observed *apiv1.Host
	allocation        seen[*zonev1.Allocation]
	placed            bool // in the picture
}

func newBook(cluster string, p *pool) *book {
	b := &book{cluster: cluster, pool: p}
	b.reset()
	return b
}

func (b *book) reset() {
	b.picture = placement.New()
	b.noun, b.zone = nil, nil
	b.desired, b.observed = map[string]*apiv1.VM{}, map[string]seen[*apiv1.VM]{}
	b.hosts, b.leases = map[string]*host{}, map[string]seen[*zonev1.AddressLease]{}
	b.unclaimed, b.waiting, b.gone = map[string]bool{}, map[string]bool{}, map[string]*apiv1.Generation{}
	b.unknown, b.surveyed, b.found = map[string]map[string]bool{}, map[string]bool{}, map[string][]string{}
	b.had = map[string]netip.Addr{}
	b.reserved, b.holds = map[string]*apiv1.Reservation{}, map[string]seen[*apiv1.Reservation]{}
	b.rooms, b.asks, b.sizes = map[string]int{}, map[string]bool{}, map[string]bool{}
	b.syncing, b.told = false, false
	if b.pool != nil {
		b.pool.reset()
	}
}

// apply takes over what the store tells.
func (b *book) apply(news etcdstore.Batch) {
	if news.Reset {
		b.begin(news)
	}
	vms, hosts, holds := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range news.Changes {
		if r, _ := c.Message.(*apiv1.Reservation); c.Kind == "reservation" {
			switch c.Space {
			case etcdstore.Desired:
				b.applyReserved(c.ID, r)
				holds[c.ID] = true
			case etcdstore.Observed:
				holds[c.ID] = b.applyHold(c.ID, r, c.Revision) || holds[c.ID]
			case etcdstore.Unclaimed:
				setOrDelete(b.unclaimed, c.ID, c.Message != nil)
				holds[c.ID] = true
			}
			continue
		}
		switch c.Space {
		case etcdstore.Desired:
			b.applyDesired(c, vms, hosts)
		case etcdstore.Observed:
			b.applyObserved(c, vms, hosts)
		case etcdstore.Allocation:
			a, _ := c.Message.(*zonev1.Allocation)
			if h := b.host(c.ID); c.Revision > h.allocation.revision {
				h.allocation = seen[*zonev1.Allocation]{a, c.Revision}
				if a == nil {
					h.allocation.revision = 0
				}
				hosts[c.ID] = true
			}
		case etcdstore.Address:
			lease, _ := c.Message.(*zonev1.AddressLease)
			b.applyLease(c.ID, lease, c.Revision)
		case etcdstore.Unclaimed:
			setOrDelete(b.unclaimed, c.ID, c.Message != nil)
			switch c.Kind {
			case "vm":
				vms[c.ID] = true
			case "host":
				b.host(c.ID)
				hosts[c.ID] = true
			}
		case etcdstore.Cursor:
			cursor, _ := c.Message.(*zonev1.Cursor)
			b.syncing = cursor.GetSyncing()
		}
	}
	joined := false
	for id := range hosts {
		joined = b.relateHost(id) || joined
	}
	for id := range vms {
		b.relate(id)
	}
	for id, news := range holds {
		if news {
			b.relateHold(id)
		}
	}
	if news.Reset {
		maps.DeleteFunc(b.gone, func(id string, _ *apiv1.Generation) bool { return b.desired[id] == nil })
	}
	if joined {
		for id, vm := range b.observed {
			if vm.value.GetHostId() != "" && b.desired[id] == nil {
				b.relate(id)
			}
		}
	}
	for id := range b.unknown {
		b.hold(id)
	}
}

// begin makes way for a snapshot. What was committed after it was read stays known: the store tells it later.
func (b *book) begin(news etcdstore.Batch) {
	old := *b
	b.reset()
	b.told, b.incarnation = true, news.Incarnation
	if old.incarnation != news.Incarnation {
		return
	}
	b.gone, b.surveyed, b.found, b.had = old.gone, old.surveyed, old.found, old.had
	for id, vm := range old.observed {
		if vm.revision > news.Revision {
			b.observed[id] = vm
		}
	}
	for address, lease := range old.leases {
		if lease.revision > news.Revision {
			b.lease(address, lease)
		}
	}
	for id, hold := range old.holds {
		if hold.revision > news.Revision {
			b.holds[id] = hold
			b.relateHold(id)
		}
	}
	for id, h := range old.hosts {
		if h.allocation.revision > news.Revision {
			b.host(id).allocation = h.allocation
		}
	}
}

func (b *book) applyDesired(c etcdstore.Change, vms, hosts map[string]bool) {
	switch c.Kind {
	case "zone":
		b.zone, _ = c.Message.(*apiv1.Zone)
	case "cluster":
		if c.ID == b.cluster {
			b.noun, _ = c.Message.(*apiv1.Cluster)
			if b.noun == nil {
				b.picture.RemoveCluster(c.ID)
			} else {
				b.picture.SetCluster(b.noun)
			}
		}
	case "host":
		noun, _ := c.Message.(*apiv1.Host)
		b.host(c.ID).desired = noun
		hosts[c.ID] = true
	case "vm":
		if vm, _ := c.Message.(*apiv1.VM); vm.GetClusterId() == b.cluster {
			b.desired[c.ID] = vm
		} else if vm == nil {
			delete(b.desired, c.ID)
			delete(b.gone, c.ID)
		}
		vms[c.ID] = true
	}
}

func (b *book) applyObserved(c etcdstore.Change, vms, hosts map[string]bool) {
	switch c.Kind {
	case "host":
		h := b.host(c.ID)
		was := h.observed
		h.observed, _ = c.Message.(*apiv1.Host)
		if was == nil || h.observed == nil || was.GetHealth() != h.observed.GetHealth() || !proto.Equal(was.GetTotal(), h.observed.GetTotal()) {
			hosts[c.ID] = true // the rest of what is reported decides nothing
		}
	case "vm":
		vm, _ := c.Message.(*apiv1.VM)
		if c.Revision <= b.observed[c.ID].revision {
			return
		}
		b.observed[c.ID] = seen[*apiv1.VM]{vm, c.Revision}
		if vm == nil {
			delete(b.observed, c.ID)
		}
		vms[c.ID] = true
	}
}

func (b *book) applyLease(address string, lease *zonev1.AddressLease, revision int64) {
	if revision < b.leases[address].revision {
		return
	}
	b.lease(address, seen[*zonev1.AddressLease]{lease, revision})
	if lease == nil {
		delete(b.leases, address)
	}
}

// lease notes who has an address; nobody where the value is nil.
func (b *book) lease(address string, lease seen[*zonev1.AddressLease]) {
	b.leases[address] = lease
	if a, err := netip.ParseAddr(address); err == nil && b.pool != nil {
		b.pool.set(a, lease.value != nil)
	}
}

func (b *book) host(id string) *host {
	h := b.hosts[id]
	if h == nil {
		h = &host{}
		b.hosts[id] = h
	}
	return h
}

// relateHost brings a host of the cluster into the picture, and tells whether it is new there.
func (b *book) relateHost(id string) (joined bool) {
	h := b.hosts[id]
	if h.desired.GetClusterId() != b.cluster {
		h.placed = false
		b.picture.RemoveHost(id)
		if h.desired == nil && h.observed == nil && h.allocation.value == nil {
			delete(b.hosts, id)
		}
		return false
	}
	noun := proto.CloneOf(h.desired)
	if h.observed != nil && b.asked(id) {
		schema.MergeObserved(noun, h.observed)
	}
	if b.unclaimed[id] {
		noun.AdminState = apiv1.Host_CORDONED
	}
	b.picture.SetHost(noun)
	joined = !h.placed
	h.placed = true
	return joined
}

// relate settles what a VM is to the cluster: on a host, waiting for one, or nothing.
func (b *book) relate(id string) {
	wanted, is := b.desired[id], b.observed[id].value
	for _, on := range b.unknown {
		delete(on, id)
	}
	if is.GetHostId() != "" {
		delete(b.found, id)
		delete(b.had, id)
	}
	switch at, found := is.GetHostId(), b.foundOn(id); {
	case at == "" && wanted != nil && len(found) > 0:
		b.picture.Assign(wanted, found[0].GetId())
	case at == "":
		b.picture.Release(id)
	case wanted != nil:
		b.picture.Assign(taken(wanted, is), at)
	case b.hosts[at].in(b.cluster):
		b.picture.Assign(&apiv1.VM{Id: id, ClusterId: b.cluster}, at)
		if b.unknown[at] == nil {
			b.unknown[at] = map[string]bool{}
		}
		b.unknown[at][id] = true
	}
	setOrDelete(b.waiting, id, b.waits(id, wanted, is))
	size, _ := b.toAllocate(id)
	setOrDelete(b.sizes, id, size != nil)
}

func (h *host) in(cluster string) bool { return h != nil && h.desired.GetClusterId() == cluster }

// waits tells whether the scheduler has something to do for a VM: it is on no host, and what is wanted of it was not
// answered yet.
func (b *book) waits(id string, wanted, is *apiv1.VM) bool {
	if wanted == nil || is.GetHostId() != "" || b.unclaimed[id] {
		return false
	}
	answered, ended := b.gone[id]
	if !ended {
		answered = is.GetReached()
	}
	return is == nil && !ended || schema.CompareGenerations(answered, wanted.GetGeneration()) < 0
}

// hold keeps the room of VMs that nobody names any more: what is allocated on the host beyond those that are known.
func (b *book) hold(id string) {
	b.picture.Hold(id, nil)
	if len(b.unknown[id]) == 0 {
		delete(b.unknown, id)
		return
	}
	known, _ := b.picture.Used(id)
	b.picture.Hold(id, less(b.hosts[id].allocation.value.GetUsed(), known))
}

// oldest returns those who wait, in the order in which they were asked for: ids carry their time.
func (b *book) oldest() []string {
	ids := make([]string, 0, len(b.waiting))
	for id := range b.waiting {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, strings.Compare)
	return ids
}

// foundFirst returns those who wait, oldest first, but before all others those that were found on a host: the addresses
// that they have are not to be given out.
func (b *book) foundFirst() []string {
	var found, rest []string
	for _, id := range b.oldest() {
		if len(b.found[id]) > 0 {
			found = append(found, id)
		} else {
			rest = append(rest, id)
		}
	}
	return append(found, rest...)
}

// less is a without b, never below 0.
func less(a, b *apiv1.Resources) *apiv1.Resources {
	sub := func(a, b uint32) uint32 { return a - min(a, b) }
	return &apiv1.Resources{
		Cores:     sub(a.GetCores(), b.GetCores()),
		MemoryMib: sub(a.GetMemoryMib(), b.GetMemoryMib()),
		DiskGib:   sub(a.GetDiskGib(), b.GetDiskGib()),
	}
}

func setOrDelete(set map[string]bool, id string, in bool) {
	if in {
		set[id] = true
	} else {
		delete(set, id)
	}
}
