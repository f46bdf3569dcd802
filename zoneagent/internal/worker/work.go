package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
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
	case t.absorb(m):
	case rebooting:
		t.goOnRebooting(m)
	case m.works():
		t.work(m)
	case len(m.orders) > 0:
		t.takeUp(m, m.orders[0])
	}
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
	switch m.wanted.GetDesiredState() {
	case apiv1.VM_RUNNING:
		return apiv1.VM_STARTING
	case apiv1.VM_STOPPED:
		return apiv1.VM_STOPPING
	case apiv1.VM_DELETED:
		return apiv1.VM_DELETING
	}
	return apiv1.VM_TASK_UNSPECIFIED
}

// work takes the next step, if the host can be worked with and has a place.
func (t *Term) work(m *machine) {
	h := t.hosts[m.is.GetHostId()]
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
	}
	handle, network := h.handle, t.w.cfg.Network(t.zone.noun.GetName())
	t.job(func() func() {
		d := t.do(handle, v, machineOf(v.wanted, v.is, network))
		return func() {
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
		t.alarms.set(m, deadlineOf(m.work))
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

// deed is what came of one step.
type deed struct {
	move move
	seen hypervisor.Observation
	err  error
}

// do looks at the VM, decides, and makes one step. It runs beside the loop.
func (t *Term) do(h hypervisor.Host, v view, machine hypervisor.Machine) (d deed) {
	call := func(fn func(ctx context.Context) error) {
		if d.err == nil {
			d.err = t.fence.call(t.ctx, fn)
		}
	}
	long := func(fn func(ctx context.Context) error) {
		d.err = t.fence.until(t.ctx, max(time.Until(deadlineOf(v.work)), t.limits.CallTimeout), fn)
	}
	observe := func(ctx context.Context) (err error) {
		d.seen, err = h.Observe(ctx, v.wanted.GetId())
		return err
	}
	began := time.Now()
	if call(observe); d.err != nil {
		return d
	}
	v.seen = d.seen
	d.move = v.next()
	id, bits := machine.VM.GetId(), hypervisor.ImageOf(machine.VM)
	switch d.move {
	case image:
		long(func(ctx context.Context) error {
			return h.EnsureImage(ctx, bits, func() (io.ReadCloser, error) { return t.w.cfg.Images.Open(ctx, bits.SHA256) })
		})
	case disk:
		long(func(ctx context.Context) error { return h.EnsureDisk(ctx, machine) })
	case seed:
		call(func(ctx context.Context) error { return h.EnsureSeed(ctx, machine) })
	case define:
		call(func(ctx context.Context) error { return h.EnsureDefined(ctx, machine) })
	case start:
		call(func(ctx context.Context) error { return h.EnsureStarted(ctx, id) })
		call(observe)
	case askStop:
		call(func(ctx context.Context) error { return h.EnsureStopped(ctx, id, false) })
	case cutPower:
		call(func(ctx context.Context) error { return h.EnsureStopped(ctx, id, true) })
		call(observe)
	case remove:
		call(func(ctx context.Context) error { return h.EnsureGone(ctx, id) })
		call(observe)
	}
	t.w.metrics.step(d, time.Since(began))
	return d
}

// did records what came of a step.
func (t *Term) did(m *machine, v view, d deed) {
	if d.err != nil {
		t.didFail(m, d)
		return
	}
	m.failures, m.failure = 0, nil
	m.seen, m.sighted, m.absences = d.seen, true, 0
	switch d.move {
	case wait:
		t.pause(m, t.limits.PollEvery)
		t.record(m, v, d, nil)
	case image, disk, seed, define:
		t.recordStep(m, v, d, "")
	case start:
		m.starts++
		m.started = time.Now()
		t.pause(m, t.limits.PollEvery)
		if v.work.GetLastStep() == stepStart {
			t.record(m, v, d, nil)
			return
		}
		t.recordStep(m, v, d, "on "+v.is.GetHost())
	case askStop:
		m.asked = time.Now()
		t.pause(m, t.limits.PollEvery)
		t.record(m, v, d, reached(v.work, stepStop), report(v.work.GetOperationId(), stepStop, apiv1.Operation_Step_RUNNING,
			"the guest was asked to power off", 50)...)
	case cutPower:
		message := "the power was cut"
		t.pause(m, t.limits.PollEvery)
		if !v.asked.IsZero() {
			message = fmt.Sprintf("the guest did not power off in %s, and the power was cut", v.grace)
		}
		t.record(m, v, d, reached(v.work, stepStop), report(v.work.GetOperationId(), stepStop, apiv1.Operation_Step_RUNNING, message, 80)...)
	case remove:
		t.record(m, v, d, reached(v.work, stepGone))
	case runs, silent, stopped:
		t.finish(m, v, d)
	case gone:
		t.depart(m, v)
	case lost:
		t.fail(m, lostProblem(v.is))
	case flapping:
		t.fail(m, problem.Newf(problem.DriverFailed, "Look at the guest's console log; then start the VM again.",
			"VM %s was started %d times and powered itself off each time.", v.wanted.GetName(), v.starts).Problem)
	case late:
		t.failLate(m, errors.New("nothing failed, it took too long"))
	}
}

// reached is the work with another last step.
func reached(w *zonev1.Work, step string) *zonev1.Work {
	w = proto.CloneOf(w)
	w.LastStep, w.Attempts = step, 0
	return w
}

// recordStep records a step of the chain.
func (t *Term) recordStep(m *machine, v view, d deed, message string) {
	for _, s := range chain {
		if s.move == d.move {
			t.record(m, v, d, reached(v.work, s.name),
				report(v.work.GetOperationId(), s.name, apiv1.Operation_Step_DONE, message, s.progress)...)
		}
	}
}

// record writes the power that was seen, and how far the work has come; nothing where nothing has changed.
func (t *Term) record(m *machine, v view, d deed, w *zonev1.Work, entries ...*linkv1.JournalEntry) {
	r := &record{work: w, entries: entries}
	if vm := proto.CloneOf(m.is); vm.GetPower() != d.seen.Power {
		setPower(vm, d.seen.Power)
		r.noun = vm
	}
	if r.noun != nil || r.work != nil || len(r.entries) > 0 {
		t.write(m, r)
	}
}

// finish ends work that has reached what was wanted.
func (t *Term) finish(m *machine, v view, d deed) {
	t.givePlace(m)
	vm := proto.CloneOf(m.is)
	was := vm.GetState()
	setPower(vm, d.seen.Power)
	vm.Task, vm.Error, vm.Reached = apiv1.VM_TASK_UNSPECIFIED, nil, v.work.GetGeneration()
	r := &record{noun: vm, done: true, then: m.renew}
	step, message := stepUsable, "at "+vm.GetAddress()
	switch d.move {
	case stopped:
		vm.State, step, message = apiv1.VM_STOPPED, stepStop, "it is off"
		if was != vm.State {
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
	r.entries = append(r.entries, t.usage(m, was, vm.GetState())...)
	r.entries = append(r.entries, reportEnd(v.work.GetOperationId(), step, message, nil)...)
	t.w.metrics.finished.WithLabelValues(step).Inc()
	t.write(m, r)
}

// depart ends a VM of which its host has nothing any more.
func (t *Term) depart(m *machine, v view) {
	t.givePlace(m)
	m.busy = true
	entries := t.usage(m, v.is.GetState(), apiv1.VM_DELETED)
	entries = append(entries, t.eventOf(m, "vm.deleted", apiv1.Event_INFO, "it was removed from "+v.is.GetHost()))
	entries = append(entries, reportEnd(v.work.GetOperationId(), stepGone, "removed from "+v.is.GetHost(), nil)...)
	vm := v.wanted
	t.job(func() func() {
		err := t.ledger.Depart(t.ctx, vm, entries...)
		return func() {
			m.busy = false
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

// didFail takes a failed step: a fatal error, or one that the deadline does not leave time to mend, ends the work;
// any other is tried again, and told the first time.
func (t *Term) didFail(m *machine, d deed) {
	if errors.Is(d.err, errLost) || t.ctx.Err() != nil {
		// Nothing is known and nothing may be done: the term is about to end, or the ownership is confirmed anew.
		t.pause(m, t.limits.PollEvery)
		return
	}
	m.failure = d.err
	switch {
	case hypervisor.IsFatal(d.err):
		t.fail(m, problem.New(problem.DriverFailed, sentence(d.err), "Mend what is named, then ask again.").Problem)
	case overdue(m.work):
		t.failLate(m, d.err)
	default:
		m.failures++
		if m.failures > 1 {
			t.givePlace(m) // others may fare better
		}
		t.pause(m, backoff(m.failures, t.limits.RetryFirst, t.limits.RetryMost))
		t.log.Info("a step failed and is tried again", "vm", m.id, "step", nameOf(d.move), "failures", m.failures, "error", d.err)
		if m.failures == 1 && d.move != wait {
			w := proto.CloneOf(m.work)
			w.Attempts++
			t.write(m, &record{work: w, entries: report(w.GetOperationId(), nameOf(d.move), apiv1.Operation_Step_RUNNING,
				"tried again after: "+d.err.Error(), 0)})
		}
	}
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
	was := vm.GetState()
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
	r := &record{noun: vm, done: true, then: m.renew}
	r.entries = append(t.usage(m, was, vm.GetState()), t.eventOf(m, "vm.failed", apiv1.Event_ERROR, why.GetDetail()))
	r.entries = append(r.entries, reportEnd(m.work.GetOperationId(), m.work.GetLastStep(), "", why)...)
	t.w.metrics.gaveUp.WithLabelValues(why.GetCode()).Inc()
	t.log.Warn("work on a VM has failed", "vm", m.id, "operation", m.work.GetOperationId(), "problem", why.GetCode(), "detail", why.GetDetail())
	t.write(m, r)
}

func nameOf(mv move) string {
	for _, s := range chain {
		if s.move == mv {
			return s.name
		}
	}
	switch mv {
	case askStop, cutPower:
		return stepStop
	case remove:
		return stepGone
	}
	return "look"
}

// sentence makes a problem's detail of an error.
func sentence(err error) string {
	return clip(err.Error(), 4096) + "."
}
