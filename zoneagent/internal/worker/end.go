package worker

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// finish ends work that has reached what was wanted.
func (t *Term) finish(m *machine, v view, d deed) {
	t.givePlace(m)
	vm := proto.CloneOf(m.is)
	was := vm.GetState()
	setPower(vm, d.seen.Power)
	vm.Task, vm.Error, vm.Reached = apiv1.VM_TASK_UNSPECIFIED, nil, v.work.GetGeneration()
	r := &record{noun: vm, done: true, then: m.renew}
	has(vm, d.size, d.kept)
	step, message := stepUsable, "at "+vm.GetAddress()
	switch d.move {
	case stopped:
		vm.State, step, message = apiv1.VM_STOPPED, stepStop, "it is off"
		if v.wanted.GetDesiredState() == apiv1.VM_TRASHED {
			vm.State = apiv1.VM_TRASHED
		}
		switch {
		case was == vm.State:
		case vm.State == apiv1.VM_TRASHED:
			r.entries = append(r.entries, t.eventOf(m, "vm.trashed", apiv1.Event_INFO, "it is in the trash; its disk and its address are kept"))
		case was == apiv1.VM_TRASHED:
			r.entries = append(r.entries, t.eventOf(m, "vm.untrashed", apiv1.Event_INFO, "it is out of the trash, and off"))
		default:
			r.entries = append(r.entries, t.eventOf(m, "vm.stopped", apiv1.Event_INFO, "it was powered off"))
		}
	case silent:
		vm.State = apiv1.VM_RUNNING
		message = "its power is on; no sign that it can be used came until the operation's deadline"
		r.entries = append(r.entries, t.eventOf(m, "vm.silent", apiv1.Event_WARNING, message))
	case runs:
		vm.State = apiv1.VM_RUNNING
		if vm.GetUsableAt() == nil {
			vm.UsableAt = stamp(time.Now())
			r.entries = append(r.entries, t.eventOf(m, "vm.usable", apiv1.Event_INFO, "it can be used, "+message))
		} else if was != vm.State {
			r.entries = append(r.entries, t.eventOf(m, "vm.started", apiv1.Event_INFO, "it was powered on"))
		}
	}
	if e, does := errands[v.wanted.GetErrand().GetKind()]; does {
		step, message = e.name, errandDone(v)
		r.entries = append(r.entries, t.eventOf(m, "vm."+errandWords[v.wanted.GetErrand().GetKind()], apiv1.Event_INFO, message))
	}
	r.entries = append(r.entries, reportEnd(v.work.GetOperationId(), step, message, nil)...)
	t.w.metrics.finished.WithLabelValues(step).Inc()
	t.write(m, r)
}

// errandWords end the types of events that tell of errands.
var errandWords = map[apiv1.VM_Errand_Kind]string{
	apiv1.VM_Errand_RESIZE: "resized", apiv1.VM_Errand_SNAPSHOT: "kept", apiv1.VM_Errand_RESTORE: "restored", apiv1.VM_Errand_DROP: "snapshot_removed",
}

// departing is what is told of a VM that departs because that is wanted.
func (t *Term) departing(m *machine, v view, how string) []*linkv1.JournalEntry {
	return append(t.ending(m), reportEnd(v.work.GetOperationId(), stepGone, how, nil)...)
}

// depart ends a VM of which its host has nothing any more, or which is given up with it. The control plane tells of it.
func (t *Term) depart(m *machine, vm *apiv1.VM, entries ...*linkv1.JournalEntry) {
	t.givePlace(m)
	m.busy = true
	t.job(func() func() {
		err := t.ledger.Depart(t.ctx, vm, entries...)
		return func() {
			m.busy = false
			t.due[m.id] = true
			if err != nil {
				t.log.Warn("a VM that is gone could not be taken off the books yet", "vm", m.id, "error", err)
				t.pause(m, t.limits.RetryFirst)
				return
			}
			m.ended = m.is != nil
			m.work = nil
			t.w.metrics.finished.WithLabelValues(stepGone).Inc()
		}
	})
}

func (t *Term) failLate(m *machine, last error) {
	if m.failure != nil {
		last = m.failure
	}
	t.fail(m, problem.Newf(problem.Timeout, "See that the host works, then ask again.",
		"The operation's deadline passed after step %s; last: %s", m.work.GetLastStep(), sentence(last)).Problem)
}

// fail ends work that cannot reach what was wanted. A VM that was never whole, or is half removed, is an ERROR; one that
// is whole stays what its power says.
func (t *Term) fail(m *machine, why *apiv1.Problem) {
	t.givePlace(m)
	vm := proto.CloneOf(m.is)
	if m.sighted {
		setPower(vm, m.seen.Power)
	}
	whole := built(vm) && m.wanted.GetDesiredState() != apiv1.VM_DELETED
	switch {
	case whole && vm.GetPower() == apiv1.VM_ON:
		vm.State, vm.Error = apiv1.VM_RUNNING, nil
	case whole && vm.GetPower() == apiv1.VM_OFF:
		vm.State, vm.Error = apiv1.VM_STOPPED, nil
	case whole && vm.GetPower() != apiv1.VM_MISSING:
	default:
		vm.State, vm.Error = apiv1.VM_ERROR, why
	}
	vm.Task, vm.Reached = apiv1.VM_TASK_UNSPECIFIED, m.work.GetGeneration()
	if m.wanted.GetErrand() != nil && whole {
		vm.Actual, vm.Snapshots = nil, nil // how far it came is looked at before anything rests on it
	}
	r := &record{noun: vm, done: true, then: m.renew}
	r.entries = append(r.entries, t.eventOf(m, "vm.failed", apiv1.Event_ERROR, why.GetDetail()))
	r.entries = append(r.entries, reportEnd(m.work.GetOperationId(), m.work.GetLastStep(), "", why)...)
	t.w.metrics.gaveUp.WithLabelValues(why.GetCode()).Inc()
	t.log.Warn("work on a VM has failed", "vm", m.id, "operation", m.work.GetOperationId(), "problem", why.GetCode(), "detail", why.GetDetail())
	t.write(m, r)
}

// sentence makes a problem's detail of an error.
func sentence(err error) string {
	return clip(err.Error(), 4096) + "."
}
