package worker

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// consider decides what to do with a machine that is not busy, and begins it.
func (t *Term) consider(m *machine) {
	rebooting := m.works() && m.work.GetLastStep() == stepReboot
	switch now := time.Now(); {
	case now.Before(m.stale):
		t.alarms.set(m, m.stale)
	case m.begins() && !rebooting && m.unwritten == nil && !t.zone.syncing:
		t.begin(m)
	case now.Before(m.pause):
		t.alarms.set(m, m.pause)
	case m.unwritten != nil:
		t.write(m, m.unwritten)
	case m.ended || m.is == nil || !t.mine(m):
		t.refuseStrayOrders(m)
	case t.vanished(m):
		t.depart(m, cmp.Or(m.wanted, m.is), t.ending(m)...)
	case t.absorb(m):
	case t.zone.behind: // the end of the sync has all looked at again
	case t.meters(m):
	case rebooting:
		t.goOnRebooting(m)
	case m.works():
		t.work(m)
	case len(m.orders) > 0 && !t.zone.syncing:
		t.takeUp(m, m.orders[0])
	case m.work == nil && m.wanted != nil && built(m.is) && unknown(m.is) && m.sighted && m.seen.Power != apiv1.VM_MISSING:
		t.findOut(m)
	}
}

// findOut asks the host what a VM has there of which the store does not know it: it was found there, or what was done to it ended
// badly.
func (t *Term) findOut(m *machine) {
	h := t.hosts[m.is.GetHostId()]
	if !h.available() {
		return // the host's next round that goes well has it looked at again
	}
	m.busy = true
	handle := h.handle
	t.job(func() func() {
		size, kept, err := t.lookAtDisk(handle, m.id)
		return func() {
			m.busy = false
			t.due[m.id] = true
			if err != nil || size == nil || m.is == nil {
				t.pause(m, t.limits.RetryMost)
				return
			}
			vm := proto.CloneOf(m.is)
			has(vm, size, kept)
			t.write(m, &record{noun: vm})
		}
	})
}

// pause puts off what is tried with a machine.
func (t *Term) pause(m *machine, d time.Duration) {
	m.pause = time.Now().Add(d)
	t.alarms.set(m, m.pause)
}

// begin takes up what is newly wanted. What was under way gives way to it.
func (t *Term) begin(m *machine) {
	t.givePlace(m)
	last := stepPlaced
	r := &record{then: m.renew}
	if m.work != nil {
		last = m.work.GetLastStep()
		if old := m.work.GetOperationId(); old != m.wanted.GetOperation() {
			r.entries = reportEnd(old, last, "", problem.New(problem.Cancelled,
				"A newer request for the VM took this one's place.", "Look at the VM and its newest operation.").Problem)
		}
	}
	r.work = &zonev1.Work{
		VmId: m.id, Generation: m.wanted.GetGeneration(), OperationId: m.wanted.GetOperation(), LastStep: last,
		Deadline: stamp(time.Now().Add(t.limits.OperationTimeout)),
	}
	r.noun = proto.CloneOf(m.is)
	r.noun.Task = taskOf(m)
	t.write(m, r)
}

func taskOf(m *machine) apiv1.VM_Task {
	switch m.wanted.GetErrand().GetKind() {
	case apiv1.VM_Errand_RESIZE:
		return apiv1.VM_RESIZING
	case apiv1.VM_Errand_SNAPSHOT, apiv1.VM_Errand_DROP:
		return apiv1.VM_SNAPSHOTTING
	case apiv1.VM_Errand_RESTORE:
		return apiv1.VM_RESTORING
	}
	switch m.wanted.GetDesiredState() {
	case apiv1.VM_RUNNING:
		return apiv1.VM_STARTING
	case apiv1.VM_STOPPED, apiv1.VM_TRASHED:
		return apiv1.VM_STOPPING
	case apiv1.VM_DELETED:
		return apiv1.VM_DELETING
	}
	return apiv1.VM_TASK_UNSPECIFIED
}

// work takes the next step, if the host can be worked with and has a place.
func (t *Term) work(m *machine) {
	h := t.hosts[m.is.GetHostId()]
	if h.lost() {
		t.giveUpHost(m, h)
		return
	}
	if !h.available() {
		t.awaitHost(m, h)
		return
	}
	begun := m.work.GetLastStep() == stepStart
	if begun && time.Since(m.started) > t.limits.BootHold {
		t.givePlace(m)
	}
	if m.starting() && !begun && !h.takePlace(m, t.limits.BuildsPerHost) {
		if overdue(m.work) {
			t.failLate(m, errors.New("other VMs were being built on the host all the time"))
		} else {
			t.alarms.set(m, deadlineOf(m.work))
		}
		return
	}
	m.busy = true
	v := view{
		wanted: m.wanted, is: m.is, work: m.work, now: time.Now(), asked: m.asked, grace: t.limits.StopGrace, starts: m.starts,
		mustBeOff: m.mustBeOff,
	}
	handle, network, returned := h.handle, t.w.cfg.Network(t.zone.noun.GetName()), t.called(h)
	t.job(func() func() {
		d := t.do(handle, v, machineOf(v.wanted, v.is, network))
		return func() {
			returned()
			m.busy, m.spoken = false, time.Now()
			t.due[m.id] = true
			t.did(m, v, d)
		}
	})
}

func overdue(w *zonev1.Work) bool { return view{work: w, now: time.Now()}.late() }

// deadlineOf is just after the work's deadline; far away where it has none.
func deadlineOf(w *zonev1.Work) time.Time {
	if d := w.GetDeadline(); d != nil {
		return d.AsTime().Add(time.Millisecond)
	}
	return time.Now().Add(time.Hour)
}

// awaitHost does nothing to a VM whose host is silent, until its host is back or its time is up.
func (t *Term) awaitHost(m *machine, h *host) {
	t.givePlace(m)
	if !overdue(m.work) {
		if !t.tellDelay(m, h, m.work.GetOperationId()) {
			t.alarms.set(m, deadlineOf(m.work))
		}
		return
	}
	name, why := m.is.GetHost(), "it is not named any more"
	if h != nil && h.wanted != nil {
		why = fmt.Sprintf("it is %s", h.health.level)
		if h.health.reason != "" {
			why += ": " + h.health.reason
		}
	}
	t.fail(m, problem.Newf(problem.Unavailable, "See that the host and the way to it work, then ask again.",
		"Host %s could not be worked with until the operation's deadline; %s.", name, why).Problem)
}

// tellDelay tells in an operation, once, that it waits for a host which is known to be away. It reports whether it does.
func (t *Term) tellDelay(m *machine, h *host, operation string) bool {
	if h == nil || !h.away() || operation == "" || m.delayed == operation {
		return false
	}
	why := ""
	if h.health.reason != "" {
		why = " (" + h.health.reason + ")"
	}
	t.write(m, &record{
		entries: report(operation, stepDelayed, apiv1.Operation_Step_DONE,
			fmt.Sprintf("host %s is %s%s; it is carried out when the host is back", h.name(), strings.ToLower(h.health.level.String()), why), 0),
		then: func() { m.delayed = operation },
	})
	return true
}

// giveUpHost ends what is wanted of a VM whose host was declared lost, without a word to the host: it is deleted, or it
// cannot be.
func (t *Term) giveUpHost(m *machine, h *host) {
	if m.wanted.GetDesiredState() == apiv1.VM_DELETED {
		t.depart(m, m.wanted, t.departing(m, view{wanted: m.wanted, is: m.is, work: m.work}, "given up with host "+h.name()+", which was declared lost")...)
		return
	}
	t.fail(m, lostHost(h))
}

func lostHost(h *host) *apiv1.Problem {
	loss := h.wanted.GetLoss()
	return problem.Newf(problem.WrongState, "Delete the VM and make it anew; or, if the host is back, have an administrator declare it found.",
		"Host %s was declared lost by %s: %s", h.name(), loss.GetBy(), loss.GetReason()).Problem
}
