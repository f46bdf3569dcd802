package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// deed is what came of one step.
type deed struct {
	// passed are the steps of the chain that were made in the same moment before it, and are not recorded yet.
	passed []move
	move   move
	seen   hypervisor.Observation
	err    error
	// size and kept are what the VM has in the end; nil where that was not asked.
	size *apiv1.Resources
	kept *apiv1.VM_Snapshots
}

// moment is within which steps of the chain are recorded together.
const moment = 100 * time.Millisecond

// do makes steps until one is not of the chain, is its last, fails, or the moment is over. It runs beside the loop.
func (t *Term) do(h hypervisor.Host, v view, machine hypervisor.Machine) deed {
	var passed []move
	for began := time.Now(); ; {
		d := t.step(h, v, machine)
		d.passed = passed
		if d.err != nil || !d.move.chained() || d.move == start || time.Since(began) >= moment {
			return d
		}
		passed = append(passed, d.move)
		v.work = reached(v.work, nameOf(d.move))
	}
}

// step looks at the VM, decides, and makes one step.
func (t *Term) step(h hypervisor.Host, v view, machine hypervisor.Machine) (d deed) {
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
	id, bits, errand := machine.VM.GetId(), hypervisor.ImageOf(machine.VM), v.wanted.GetErrand()
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
	case resize:
		long(func(ctx context.Context) error { return h.EnsureSize(ctx, machine) })
	case keep:
		long(func(ctx context.Context) error {
			return h.EnsureSnapshot(ctx, id, hypervisor.Snapshot{ID: errand.GetSnapshotId(), Name: errand.GetSnapshot()})
		})
	case restore:
		long(func(ctx context.Context) error { return h.EnsureRestored(ctx, machine, errand.GetSnapshotId()) })
	case drop:
		long(func(ctx context.Context) error { return h.EnsureNoSnapshot(ctx, id, errand.GetSnapshotId()) })
	case runs, silent, stopped:
		if errand != nil || unknown(v.is) {
			d.size, d.kept, d.err = t.lookAtDisk(h, id)
		}
	}
	t.w.metrics.step(d, time.Since(began))
	return d
}

// did records what came of a step.
func (t *Term) did(m *machine, v view, d deed) {
	switch {
	case m.is == nil || m.work == nil:
		return // the store was put back to before the work began: there is nothing to be recorded of it
	case len(d.passed) > 0 && (d.err != nil || !d.move.chained()):
		t.didPass(m, v, d)
		return
	case errors.Is(d.err, hypervisor.ErrNeedsOff) && !m.mustBeOff:
		m.mustBeOff = true // it is due, and goes on from there
		return
	case d.err != nil:
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
		t.depart(m, v.wanted, t.departing(m, v, "removed from "+v.is.GetHost())...)
	case resize, keep, restore, drop:
		w := reached(v.work, nameOf(d.move))
		w.ErrandDone = true
		t.record(m, v, d, w, report(v.work.GetOperationId(), nameOf(d.move), apiv1.Operation_Step_DONE, errandDone(v), 60)...)
	case needsOff:
		t.fail(m, problem.Newf(problem.WrongState, "Stop the VM first, or allow that it is stopped for that.",
			"VM %s is on, and has to be off for it.", v.wanted.GetName()).Problem)
	case unfit:
		t.fail(m, problem.Newf(problem.WrongState, "Delete the VM and make it anew.", "VM %s was never whole.", v.wanted.GetName()).Problem)
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

// recordStep records a step of the chain, and those that it has passed before.
func (t *Term) recordStep(m *machine, v view, d deed, message string) {
	t.record(m, v, d, reached(v.work, nameOf(d.move)), append(passing(v.work, d.passed, ""), passing(v.work, []move{d.move}, message)...)...)
}

// passing tells of steps of the chain that were made.
func passing(w *zonev1.Work, made []move, message string) (entries []*linkv1.JournalEntry) {
	for _, s := range chain {
		if slices.Contains(made, s.move) {
			entries = append(entries, report(w.GetOperationId(), s.name, apiv1.Operation_Step_DONE, message, s.progress)...)
		}
	}
	return entries
}

// didPass records the steps that were passed before one that ends otherwise, and then takes that one.
func (t *Term) didPass(m *machine, v view, d deed) {
	w := reached(v.work, nameOf(d.passed[len(d.passed)-1]))
	t.write(m, &record{work: w, entries: passing(v.work, d.passed, ""), then: func() {
		v.work, d.passed = w, nil
		t.did(m, v, d)
	}})
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
	case errors.Is(d.err, hypervisor.ErrNoSnapshot):
		t.fail(m, problem.Newf(problem.NotFound, "naru snapshot list shows which there are.",
			"VM %s has no snapshot %s on host %s.", m.wanted.GetName(), m.wanted.GetErrand().GetSnapshot(), m.is.GetHost()).Problem)
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

func nameOf(mv move) string {
	for _, s := range chain {
		if s.move == mv {
			return s.name
		}
	}
	for _, e := range errands {
		if e.move == mv {
			return e.name
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

// errandDone says what was done to a VM once.
func errandDone(v view) string {
	e := v.wanted.GetErrand()
	switch e.GetKind() {
	case apiv1.VM_Errand_RESIZE:
		size := v.wanted.GetSize()
		return fmt.Sprintf("cores %d, memory %d MiB, disk %d GiB", size.GetCores(), size.GetMemoryMib(), size.GetDiskGib())
	case apiv1.VM_Errand_RESTORE:
		return "to " + e.GetSnapshot()
	}
	return e.GetSnapshot()
}

// unknown tells whether the store does not know what a VM has on its host.
func unknown(is *apiv1.VM) bool { return is.GetActual() == nil || is.GetSnapshots() == nil }

// lookAtDisk asks a host what a VM has there. It runs beside the loop.
func (t *Term) lookAtDisk(h hypervisor.Host, id string) (size *apiv1.Resources, kept *apiv1.VM_Snapshots, err error) {
	err = t.fence.call(t.ctx, func(ctx context.Context) (err error) {
		size, err = h.Size(ctx, id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var all []hypervisor.Snapshot
	err = t.fence.call(t.ctx, func(ctx context.Context) (err error) {
		all, err = h.Snapshots(ctx, id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	kept = &apiv1.VM_Snapshots{}
	for _, one := range all[:min(len(all), mostSnapshots)] {
		kept.Items = append(kept.Items, &apiv1.VM_Snapshots_Item{Id: one.ID, Name: one.Name, TakenAt: stamp(one.TakenAt)})
	}
	return size, kept, nil
}

// mostSnapshots is how many a VM's noun has room for; see the rules of apiv1.VM.
const mostSnapshots = 32

// has notes what was seen of a VM's disk.
func has(vm *apiv1.VM, size *apiv1.Resources, kept *apiv1.VM_Snapshots) {
	if size == nil || kept == nil {
		return
	}
	was := map[string]*apiv1.VM_Snapshots_Item{}
	for _, item := range vm.GetSnapshots().GetItems() {
		was[item.GetId()] = item
	}
	for i, item := range kept.GetItems() {
		if item.DiskGib = size.GetDiskGib(); was[item.GetId()] != nil {
			kept.Items[i] = was[item.GetId()] // as it was when it was taken
		}
	}
	vm.Actual, vm.Snapshots = size, kept
}
