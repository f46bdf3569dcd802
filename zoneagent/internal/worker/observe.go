package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// absencesBelieved is how many rounds in a row must miss a VM before it is said to be missing.
const absencesBelieved = 2

// round is what one look at a host has found.
type round struct {
	began     time.Time
	inventory *hypervisor.Inventory // nil: not asked this time
	vms       []hypervisor.Observation
	counters  hypervisor.HostCounters
	err       error
}

// rounds looks at a host again and again until ctx ends, at intervals that differ by chance, so that hosts that were
// opened together are not looked at together for ever.
func (t *Term) rounds(ctx context.Context, h *host, handle hypervisor.Host) {
	every := t.limits.ObserveEvery
	asked := time.Time{}
	for ctx.Err() == nil {
		r := t.look(ctx, handle, time.Since(asked) >= t.limits.InventoryEvery)
		pause := every*9/10 + rand.N(every/5)
		if !errors.Is(r.err, errLost) { // otherwise nothing could be asked, and nothing is said of the host
			if r.inventory != nil {
				asked = r.began
			}
			if r.err != nil {
				asked = time.Time{}
				pause /= 4 // whether it is silent is to be known soon
			}
			t.w.metrics.round(r)
			t.tell(func() {
				if h.handle == handle {
					t.looked(h, r)
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// look asks a host once; what fails is tried once more before it is believed.
func (t *Term) look(ctx context.Context, handle hypervisor.Host, whole bool) (r round) {
	f := t.fence
	f.calls, f.timeout = t.w.looks, t.limits.ObserveTimeout
	for range 2 {
		r = round{began: time.Now()}
		r.err = f.call(ctx, func(ctx context.Context) (err error) {
			if whole {
				inventory, err := handle.Inventory(ctx)
				if err != nil {
					return err
				}
				r.inventory = &inventory
			}
			if r.vms, err = handle.ObserveAll(ctx); err != nil {
				return err
			}
			r.counters, err = handle.Sample(ctx)
			return err
		})
		if r.err == nil || ctx.Err() != nil || errors.Is(r.err, errLost) {
			return r
		}
	}
	return r
}

// looked takes over what a round has found.
func (t *Term) looked(h *host, r round) {
	if r.err != nil {
		t.silent(h, r.err)
		return
	}
	if i := r.inventory; i != nil && (!proto.Equal(i.Total, h.total) || i.Version != h.version) {
		h.total, h.version = i.Total, i.Version
		t.dirty[h.id], t.outdated = true, true
	}
	if r.inventory != nil {
		t.watchCertificate(h, r.inventory.CertificateEnds)
	}
	t.answered(h)
	t.survey(h, r)
	sampling, here := t.w.cfg.Samples != nil, 0
	for _, o := range r.vms {
		m := t.zone.machines[o.VMID]
		if m == nil || m.is.GetHostId() != h.id {
			t.meetStranger(h, o)
			continue
		}
		here++
		if s := t.sampleVM(h, m, o); s != nil && sampling {
			t.samples.vms = append(t.samples.vms, s)
		}
		m.absences = 0
		t.sight(m, o, r.began)
	}
	if s := t.sampleHost(h, r.counters); s != nil && sampling {
		t.samples.hosts = append(t.samples.hosts, s)
	}
	if here < len(t.zone.on[h.id]) {
		t.miss(h, r)
	}
}

// miss notes the VMs of a host that a round has not found.
func (t *Term) miss(h *host, r round) {
	found := make(map[string]bool, len(r.vms))
	for _, o := range r.vms {
		found[o.VMID] = true
	}
	for id, m := range t.zone.on[h.id] {
		if !found[id] {
			m.absences++
			t.sight(m, hypervisor.Missing(id), r.began)
		}
	}
}

// survey tells the ledger what a host has: once in each incarnation of the store, and when it has a VM that is wanted
// and has no host yet.
func (t *Term) survey(h *host, r round) {
	if r.began.Before(t.zone.since) || h.unsettled(t.zone.incarnation, r.began) {
		return
	}
	news := h.surveyed != t.zone.incarnation
	var homeless []string
	for _, o := range r.vms {
		m := t.zone.machines[o.VMID]
		news = news || m != nil && m.wanted != nil && m.is.GetHostId() == "" && !m.ended
		if m == nil || m.is.GetHostId() == "" {
			homeless = append(homeless, o.VMID)
		}
	}
	if !news || h.surveying {
		return
	}
	vms := make(map[string]netip.Addr, len(r.vms))
	for _, o := range r.vms {
		vms[o.VMID] = netip.Addr{}
	}
	h.surveying = true
	life, handle := t.zone.incarnation, h.handle
	f := t.fence
	f.calls, f.timeout = t.w.looks, t.limits.ObserveTimeout
	t.job(func() func() {
		var err error
		for _, id := range homeless {
			if err = f.call(t.ctx, func(ctx context.Context) (err error) {
				vms[id], err = handle.Address(ctx, id)
				return err
			}); err != nil {
				break
			}
		}
		return func() {
			h.surveying = false
			if err != nil || life != t.zone.incarnation {
				return // the next round asks again
			}
			h.surveyed = life
			t.ledger.Survey(life, h.id, vms)
		}
	})
}

// sight notes what a round saw of a VM. A round that began before the last word on the VM says nothing new.
func (t *Term) sight(m *machine, o hypervisor.Observation, began time.Time) {
	if m.busy || began.Before(m.spoken) {
		m.absences = 0
		return
	}
	m.seen, m.sighted = o, true
	t.due[m.id] = true
}

// meetStranger tells of a VM that is on a host and should not be: nobody knows it, or it should be on another. It is
// counted and told once, and never touched.
func (t *Term) meetStranger(h *host, o hypervisor.Observation) {
	m := t.zone.machines[o.VMID]
	switch {
	case t.strange[o.VMID], m != nil && (m.busy || m.ended):
		return
	case m != nil && m.wanted != nil && m.is.GetHostId() == "":
		return // the ledger takes it over
	}
	t.strange[o.VMID] = true
	message := "host " + h.name() + " has VM " + o.VMID + ", which nobody here knows"
	kind := "host.unknown_vm"
	if m != nil && m.is.GetHostId() != "" {
		message, kind = "VM "+o.VMID+" was found on host "+h.name()+"; it belongs on "+m.is.GetHost(), "host.misplaced_vm"
	}
	t.log.Warn("a VM was found where it should not be", "host", h.name(), "vm", o.VMID, "power", o.Power)
	e := t.event(kind, apiv1.Event_WARNING, &apiv1.Reference{Kind: "host", Id: h.id, Name: h.name()}, "", message)
	t.commit(func(tx Tx) { tx.Journal(e) }, func(_ int64, err error) {
		if err != nil {
			delete(t.strange, o.VMID)
		}
	})
}

// absorb writes what has changed of a VM behind our back: its host's reach, and, while there is no work on it, its
// power. It returns whether there was something to write.
func (t *Term) absorb(m *machine) bool {
	h := t.hosts[m.is.GetHostId()]
	if h == nil || !h.health.known {
		return false
	}
	drifts := m.work == nil && m.sighted && h.available() &&
		(m.seen.Power != m.is.GetPower() || m.seen.Ready && m.is.GetUsableAt() == nil) &&
		(m.seen.Power != apiv1.VM_MISSING || m.absences >= absencesBelieved && !t.zone.behind)
	if !drifts && h.freshness() == m.is.GetHostFreshness() {
		return false
	}
	vm := proto.CloneOf(m.is)
	vm.HostFreshness = h.freshness()
	r := &record{noun: vm}
	if drifts {
		t.drift(m, vm, r)
	}
	t.write(m, r)
	return true
}

// vanished tells whether nobody has a VM any more but this store, which was put back: its host does not know it, and the
// control plane has ended it. That says so, or, having told all that is wanted, does not name a VM of its present epoch: it
// forgets one only when the zone has told that it is gone. In a later epoch it may have forgotten it: then the VM is kept.
func (t *Term) vanished(m *machine) bool {
	if t.zone.syncing || t.zone.behind || m.seen.Power != apiv1.VM_MISSING || m.absences < absencesBelieved || !t.hosts[m.is.GetHostId()].available() {
		return false
	}
	return m.wanted == nil && !m.kept || m.kept && m.wanted.GetGeneration().GetEpoch() == t.zone.epoch
}

// drift takes over the power that was seen of a VM that nobody works on, with the state that follows from it.
func (t *Term) drift(m *machine, vm *apiv1.VM, r *record) {
	power, host := m.seen.Power, vm.GetHost()
	tell := func(kind string, severity apiv1.Event_Severity, message string) {
		r.entries = append(r.entries, t.eventOf(m, kind, severity, message))
	}
	if m.seen.Ready && vm.GetUsableAt() == nil {
		vm.UsableAt = stamp(time.Now())
		tell("vm.usable", apiv1.Event_INFO, "it can be used, at "+vm.GetAddress())
	}
	if power == vm.GetPower() {
		return
	}
	setPower(vm, power)
	if !built(vm) && vm.GetState() == apiv1.VM_ERROR && vm.GetUsableAt() == nil {
		return // it was never whole; its error says more than its power
	}
	was := vm.GetState()
	switch power {
	case apiv1.VM_ON:
		vm.State, vm.Error = apiv1.VM_RUNNING, nil
		if was != vm.State {
			tell("vm.started", apiv1.Event_WARNING, "it was found on, on "+host+": it was not switched on from here")
		}
	case apiv1.VM_OFF:
		if vm.State, vm.Error = apiv1.VM_STOPPED, nil; m.wanted.GetDesiredState() == apiv1.VM_TRASHED {
			vm.State = apiv1.VM_TRASHED
		}
		if was != vm.State {
			tell("vm.stopped", apiv1.Event_WARNING, "it was found off, on "+host+": it was not switched off from here")
		}
	case apiv1.VM_PAUSED:
		tell("vm.paused", apiv1.Event_WARNING, "it was found paused, on "+host)
	case apiv1.VM_MISSING:
		vm.State, vm.Error = apiv1.VM_ERROR, lostProblem(vm)
		tell("vm.missing", apiv1.Event_ERROR, "host "+host+" does not know it any more")
	}
}

func setPower(vm *apiv1.VM, power apiv1.VM_Power) {
	if vm.GetPower() != power {
		vm.Power, vm.PowerChangedAt = power, stamp(time.Now())
	}
}
