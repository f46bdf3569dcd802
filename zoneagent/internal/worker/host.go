package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// host is what the loop knows of one host.
type host struct {
	id         string
	wanted     *apiv1.Host // nil: the control plane does not name it
	known      *apiv1.Host // as it was last wanted in this cluster
	reported   *apiv1.Host // as observed, and as this term has written it
	allocation *zonev1.Allocation
	allocated  int64 // revision of the allocation

	opened *apiv1.Host // the noun that handle was opened with
	handle hypervisor.Host
	stop   context.CancelFunc // ends its rounds

	health    health
	total     *apiv1.Resources
	version   string
	warned    warning // of its certificate
	counters  hypervisor.HostCounters
	places    int             // VMs that are being built or started
	queue     map[string]bool // VMs that wait for a place
	surveyed  string          // the incarnation in which the ledger was told what it has
	surveying bool
	// Calls that change something, under way: how many in each incarnation of the store, and when the last one returned
	// that was begun in an incarnation that is over. What it did, a round that began before does not tell.
	calls map[string]int
	upset time.Time
}

func (t *Term) host(id string) *host {
	h := t.hosts[id]
	if h == nil {
		h = &host{id: id, queue: map[string]bool{}, calls: map[string]int{}}
		t.hosts[id] = h
	}
	return h
}

// ours tells whether the host is the cluster's, or was until the control plane stopped naming it.
func (h *host) ours(cluster string) bool {
	if h.wanted != nil {
		return h.wanted.GetClusterId() == cluster
	}
	return h.known != nil
}

func (h *host) name() string {
	for _, noun := range []*apiv1.Host{h.wanted, h.known, h.reported} {
		if noun.GetName() != "" {
			return noun.GetName()
		}
	}
	return h.id
}

func (h *host) allocate(a *zonev1.Allocation, revision int64) {
	h.allocation, h.allocated = a, revision
	if a == nil {
		h.allocated = 0
	}
}

// settleHost opens a host of the cluster, opens it anew when the way to it has changed, and lets go of one that is
// another cluster's. One that is not named any more while it has VMs is kept open, so that they can be seen.
func (t *Term) settleHost(id string) {
	h := t.host(id) // a VM may say that it is on a host of which nothing else is known
	if h.wanted.GetClusterId() == t.cluster {
		h.known = h.wanted
	} else if h.wanted != nil {
		h.known = nil
	}
	switch {
	case !h.ours(t.cluster), h.wanted == nil && len(t.zone.on[id]) == 0:
		h.close(t.log)
		h.known = nil
		if h.wanted == nil && h.reported == nil && h.allocation == nil && len(t.zone.on[id]) == 0 {
			delete(t.hosts, id)
		}
	case t.zone.noun == nil || h.wanted == nil:
	case h.handle == nil || !sameWay(h.opened, h.wanted):
		t.open(h)
	}
}

func sameWay(a, b *apiv1.Host) bool {
	return a.GetEndpoint() == b.GetEndpoint() && proto.Equal(a.GetCapacity(), b.GetCapacity())
}

func noDriver(word string) error {
	return hypervisor.Fatal(fmt.Errorf("hypervisor %q: this agent has no such driver", word))
}

// open begins to observe a host. A driver that cannot even read its endpoint makes it down, with the reason.
func (t *Term) open(h *host) {
	h.close(t.log)
	h.opened = h.wanted
	word := t.zone.noun.GetHypervisor()
	driver := t.w.cfg.Drivers[word]
	err := noDriver(word)
	if driver != nil {
		h.handle, err = driver.Open(t.ctx, h.wanted)
	}
	if err != nil {
		h.handle = nil
		t.toHealth(h, apiv1.Host_DOWN, err.Error())
		return
	}
	if h.reported != nil && !h.health.known {
		h.health = healthOf(h.reported)
		h.total, h.version = h.reported.GetTotal(), h.reported.GetHypervisorVersion()
	}
	ctx, stop := context.WithCancel(t.ctx)
	h.stop = stop
	handle := h.handle
	t.jobs.Go(func() { t.rounds(ctx, h, handle) })
}

// close ends the rounds and the handle. VMs run on.
func (h *host) close(log *slog.Logger) {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
	if h.handle != nil {
		if err := h.handle.Close(); err != nil {
			log.Info("a host's handle did not close well", "host", h.name(), "error", err)
		}
		h.handle = nil
	}
}

// called notes a call that changes something; the function that it returns is called by the loop when it has returned.
func (t *Term) called(h *host) (returned func()) {
	life := t.zone.incarnation
	h.calls[life]++
	return func() {
		if h.calls[life]--; h.calls[life] == 0 {
			delete(h.calls, life)
		}
		if life != t.zone.incarnation {
			h.upset = time.Now()
		}
	}
}

// unsettled tells whether what a round that began then saw can be changed yet by a call of an earlier incarnation.
func (h *host) unsettled(incarnation string, began time.Time) bool {
	for life := range h.calls {
		if life != incarnation {
			return true
		}
	}
	return !began.After(h.upset)
}

// lost tells whether an administrator has declared the host gone for good. It is looked at all the same, and nothing on it
// is touched.
func (h *host) lost() bool { return h != nil && h.wanted.GetLoss() != nil }

// available tells whether the host can be worked with.
func (h *host) available() bool {
	return h != nil && !h.lost() && h.handle != nil && h.health.level == apiv1.Host_AVAILABLE
}

// takePlace gives a machine a place among the VMs that are built on the host, or, where there is none, in the queue.
func (h *host) takePlace(m *machine, limit int) bool {
	if m.place != nil {
		return true
	}
	if h.places >= limit {
		h.queue[m.id] = true
		return false
	}
	delete(h.queue, m.id)
	h.places++
	m.place = h
	return true
}

// givePlace gives a machine's place back, and has those look again that wait for one.
func (t *Term) givePlace(m *machine) {
	h := m.place
	if h == nil {
		return
	}
	m.place = nil
	h.places--
	for id := range h.queue {
		t.due[id] = true
	}
}
