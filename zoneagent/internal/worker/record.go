package worker

import (
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// record is what is written of a VM at once.
type record struct {
	noun     *apiv1.VM    // nil: as it was
	work     *zonev1.Work // nil: as it was
	done     bool         // there is no more work
	consumed *order
	entries  []*linkv1.JournalEntry
	metered  bool // entries tell already of what the VM uses
	// then is run by the loop when it is durable.
	then func()
}

// write commits a record. A store that fails for a while is asked again, with the same record; where something has
// moved, the VM is looked at anew once the store has told what.
func (t *Term) write(m *machine, r *record) {
	m.busy, m.unwritten = true, nil
	if r.noun != nil && !r.metered {
		r.metered, r.entries = true, append(t.meter(m, r.noun, r.done || m.work == nil), r.entries...)
	}
	expected := m.revision
	if m.is == nil {
		expected = 0
	}
	t.commit(func(tx Tx) {
		tx.Require(etcdstore.Observed, "vm", m.id, expected)
		if r.noun != nil {
			tx.PutObserved(r.noun)
		}
		switch {
		case r.done:
			tx.DeleteWork(m.id)
		case r.work != nil:
			tx.PutWork(r.work)
		}
		if r.consumed != nil {
			tx.ConsumeOrder(r.consumed.id, r.consumed.revision)
		}
		tx.Journal(r.entries...)
	}, func(revision int64, err error) {
		m.busy, m.spoken = false, time.Now()
		t.due[m.id] = true
		switch {
		case err == nil:
			t.written(m, r, revision)
		case errors.Is(err, etcdstore.ErrConflict):
			t.log.Info("what was known of a VM has moved; it is looked at again", "vm", m.id, "error", err)
			m.stale = time.Now().Add(t.limits.RetryFirst)
		default:
			t.log.Warn("a VM's state cannot be written and is tried again", "vm", m.id, "error", err)
			m.unwritten = r
			t.pause(m, t.limits.RetryFirst)
		}
	})
}

func (t *Term) written(m *machine, r *record, revision int64) {
	if r.noun != nil && revision > m.revision {
		t.zone.see(m, r.noun, revision)
	}
	if (r.done || r.work != nil) && revision > m.worked {
		m.work, m.worked = r.work, revision
		if r.done {
			m.work = nil
		}
	}
	if c := r.consumed; c != nil {
		m.orders = slices.DeleteFunc(m.orders, func(o order) bool { return o.id == c.id })
	}
	if r.then != nil {
		r.then()
	}
}

// report tells a step of the work's operation; nothing where the work has none.
func report(operation, step string, state apiv1.Operation_Step_State, message string, progress uint32) []*linkv1.JournalEntry {
	return operationEntry(&linkv1.OperationReport{OperationId: operation, Progress: progress, Step: stepOf(step, state, message)})
}

// reportEnd tells the end of an operation.
func reportEnd(operation, step, message string, failed *apiv1.Problem) []*linkv1.JournalEntry {
	r := &linkv1.OperationReport{OperationId: operation, Done: true, Error: failed, Progress: 100, Step: stepOf(step, apiv1.Operation_Step_DONE, message)}
	if failed != nil {
		r.Progress, r.Step = 0, stepOf(step, apiv1.Operation_Step_FAILED, failed.GetDetail())
	}
	return operationEntry(r)
}

func operationEntry(r *linkv1.OperationReport) []*linkv1.JournalEntry {
	if r.GetOperationId() == "" {
		return nil
	}
	return []*linkv1.JournalEntry{{Time: stamp(time.Now()), Body: &linkv1.JournalEntry_Operation{Operation: r}}}
}

func stepOf(name string, state apiv1.Operation_Step_State, message string) *apiv1.Operation_Step {
	return &apiv1.Operation_Step{Name: name, State: state, Message: clip(message, 1024), At: stamp(time.Now())}
}

// clip bounds a text that a driver may have made long.
func clip(s string, most int) string {
	if len(s) > most {
		return s[:most-len("…")] + "…"
	}
	return s
}

func (t *Term) eventOf(m *machine, kind string, severity apiv1.Event_Severity, message string) *linkv1.JournalEntry {
	return t.event(kind, severity, reference("vm", m.is), m.wanted.GetProject(), message)
}

func (t *Term) event(kind string, severity apiv1.Event_Severity, target *apiv1.Reference, project, message string) *linkv1.JournalEntry {
	now := time.Now()
	return &linkv1.JournalEntry{Time: stamp(now), Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: uuid.Must(uuid.NewV7()).String(), Time: stamp(now), Severity: severity, Type: kind, Zone: t.w.cfg.Zone,
		Project: project, Target: target, Message: clip(message, 2048),
	}}}
}

func lostProblem(vm *apiv1.VM) *apiv1.Problem {
	return problem.Newf(problem.WrongState, "Look for the VM's disk on the host, or delete the VM and make it anew.",
		"Host %s does not know VM %s any more; it was not removed from here.", vm.GetHost(), vm.GetName()).Problem
}
