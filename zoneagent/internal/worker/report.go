package worker

import (
	"cmp"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// reportedAtOnce bounds the nouns of one transaction.
const reportedAtOnce = 100

// unreported tells whether nouns of hosts or of the cluster may have to be written.
func (t *Term) unreported() bool { return t.outdated || len(t.dirty) > 0 }

// gatherFor is how long a change of health waits for others: a fleet that is first seen, or lost, is so together.
const gatherFor = 20 * time.Millisecond

// flush writes what has changed of hosts and of the cluster, a while after the last time: allocations change with every
// placement. A change of health waits for a moment only.
func (t *Term) flush() {
	now := time.Now()
	if !t.unreported() || t.writing || now.Before(t.flushes) {
		return
	}
	t.flushes = now.Add(t.limits.ReportEvery)
	var changed, dead []*host
	nouns := map[string]*apiv1.Host{}
	for id := range t.dirty {
		if len(changed)+len(dead) == reportedAtOnce {
			break
		}
		delete(t.dirty, id)
		h := t.hosts[id]
		switch {
		case h == nil:
		case t.forsaken(h):
			dead = append(dead, h)
		case h.ours(t.cluster) && h.health.known:
			if noun := t.nounOf(h); !proto.Equal(noun, h.reported) {
				changed = append(changed, h)
				nouns[id] = noun
			}
		}
	}
	cluster := t.changedCluster(now)
	if len(t.dirty) > 0 {
		t.flushes = now // the rest follows at once
	} else if t.outdated {
		t.flushes = t.totals
	}
	if len(changed)+len(dead) == 0 && cluster == nil {
		return
	}
	t.writing = true
	t.commit(func(tx Tx) {
		for _, h := range changed {
			tx.PutObserved(nouns[h.id])
			tx.Journal(t.healthEvents(h, nouns[h.id])...)
		}
		for _, h := range dead {
			// Only what the control plane really does not name: should it name the host again, this conflicts.
			tx.Require(etcdstore.Desired, "host", h.id, 0)
			tx.Tombstone(&apiv1.Reference{Kind: "host", Id: h.id, Name: h.name()}, nil)
			if h.allocated > 0 {
				tx.DeleteAllocation(h.id, h.allocated)
			}
		}
		if cluster != nil {
			tx.PutObserved(cluster)
		}
	}, func(_ int64, err error) {
		t.writing = false
		if err != nil {
			t.log.Info("hosts could not be reported and are tried again", "error", err)
			for _, h := range append(changed, dead...) {
				t.dirty[h.id] = true
			}
			t.outdated = true
			return
		}
		for _, h := range changed {
			h.reported = nouns[h.id]
		}
		if cluster != nil {
			t.zone.reported = cluster
		}
	})
}

// changedCluster is the cluster's noun where it is to be written. It sums over all hosts, and is made as often as they are
// reported at most, however many transactions that takes.
func (t *Term) changedCluster(now time.Time) *apiv1.Cluster {
	if !t.outdated || now.Before(t.totals) {
		return nil
	}
	t.outdated, t.totals = false, now.Add(t.limits.ReportEvery)
	cluster := t.clusterNoun()
	if proto.Equal(cluster, t.zone.reported) {
		return nil
	}
	return cluster
}

// forsaken tells whether a host that was reported is named by nobody and has no VM: what is observed of it goes.
func (t *Term) forsaken(h *host) bool {
	return h.wanted == nil && !t.zone.syncing && len(t.zone.on[h.id]) == 0 && (h.reported != nil || h.allocation != nil)
}

// nounOf is what is observed of a host.
func (t *Term) nounOf(h *host) *apiv1.Host {
	noun := &apiv1.Host{
		Id: h.id, Name: h.name(), Health: h.health.level, HealthReason: h.health.reason, HealthChangedAt: stamp(h.health.changed),
		Freshness: h.freshness(), Total: h.total, HypervisorVersion: h.version,
		Allocated: h.allocation.GetUsed(), VmCount: h.allocation.GetVmCount(),
	}
	if noun.Allocated == nil {
		noun.Allocated = &apiv1.Resources{}
	}
	if h.wanted == nil {
		noun.HealthReason = "the control plane does not name it any more; it has VMs, and none is touched"
	}
	return noun
}

// healthEvents tells that a host's health has changed for good or bad; that it is suspect is not worth an event.
func (t *Term) healthEvents(h *host, now *apiv1.Host) []*linkv1.JournalEntry {
	if h.reported.GetHealth() == now.GetHealth() {
		return nil
	}
	target := reference("host", now)
	switch now.GetHealth() {
	case apiv1.Host_DOWN:
		return []*linkv1.JournalEntry{t.event("host.down", apiv1.Event_ERROR, target, "", "it does not answer: "+now.GetHealthReason())}
	case apiv1.Host_DEGRADED:
		return []*linkv1.JournalEntry{t.event("host.degraded", apiv1.Event_WARNING, target, "", now.GetHealthReason())}
	case apiv1.Host_FENCED:
		return []*linkv1.JournalEntry{t.event("host.fenced", apiv1.Event_WARNING, target, "", now.GetHealthReason())}
	case apiv1.Host_AVAILABLE:
		if h.reported.GetHealth() != apiv1.Host_SUSPECT {
			return []*linkv1.JournalEntry{t.event("host.available", apiv1.Event_INFO, target, "", "it answers")}
		}
	}
	return nil
}

// count sets the gauges, as often as each host is observed.
func (t *Term) count() {
	if time.Since(t.counted) < t.limits.ObserveEvery {
		return
	}
	t.counted = time.Now()
	levels, working := map[apiv1.Host_Health]int{}, 0
	for _, h := range t.hosts {
		if h.ours(t.cluster) {
			levels[h.health.level]++
		}
	}
	for _, m := range t.zone.machines {
		if m.works() {
			working++
		}
	}
	t.w.metrics.count(t.cluster, levels, working, len(t.strange))
}

// clusterNoun is what is observed of the cluster; nil while the control plane does not name it.
func (t *Term) clusterNoun() *apiv1.Cluster {
	z := &t.zone
	if z.noun == nil {
		return nil
	}
	noun := &apiv1.Cluster{
		Id: z.noun.GetId(), Name: z.noun.GetName(), Owner: t.w.cfg.Agent,
	}
	var total, allocated sum
	for _, h := range t.hosts {
		if h.wanted.GetClusterId() == t.cluster {
			noun.HostCount++
			total.add(h.total, z.noun.GetCpuOvercommitPercent(), z.noun.GetMemoryOvercommitPercent())
			allocated.add(h.allocation.GetUsed(), 100, 100)
		}
	}
	noun.Total, noun.Allocated = total.resources(), allocated.resources()
	return noun
}

// sum is of what many hosts have.
type sum struct{ cores, memory, disk uint64 }

// add adds what a host has, of which so much of a hundred is given out; 0 stands for all of it.
func (s *sum) add(r *apiv1.Resources, cores, memory uint32) {
	s.cores += uint64(r.GetCores()) * uint64(cmp.Or(cores, 100)) / 100
	s.memory += uint64(r.GetMemoryMib()) * uint64(cmp.Or(memory, 100)) / 100
	s.disk += uint64(r.GetDiskGib())
}

// mostCores is what a noun's cores may say; see the rules of apiv1.Resources.
const mostCores = 1 << 30

// resources is the sum, as far as a noun can say it.
func (s *sum) resources() *apiv1.Resources {
	return &apiv1.Resources{
		Cores:     uint32(min(s.cores, mostCores)),
		MemoryMib: uint32(min(s.memory, math.MaxUint32)),
		DiskGib:   uint32(min(s.disk, math.MaxUint32)),
	}
}
