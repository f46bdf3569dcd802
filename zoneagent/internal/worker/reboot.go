package worker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// takeUp takes an order up, durably, before it is done: from then on nobody does it again. An order that cannot be
// done is consumed with the reason.
func (t *Term) takeUp(m *machine, o order) {
	if why := t.refuses(m, o); why != nil {
		t.refuse(m, o, why)
		return
	}
	if h := t.hosts[m.is.GetHostId()]; !h.available() || !m.sighted {
		// The host's next round tells; the order's deadline bounds it.
		if !t.tellDelay(m, h, o.GetOperationId()) {
			t.pause(m, t.limits.PollEvery)
		}
		return
	}
	vm := proto.CloneOf(m.is)
	vm.Task = apiv1.VM_REBOOTING
	deadline := o.GetDeadline()
	if deadline == nil {
		deadline = stamp(time.Now().Add(t.limits.OperationTimeout))
	}
	t.write(m, &record{
		noun: vm, consumed: &o,
		work: &zonev1.Work{
			VmId: m.id, Generation: m.is.GetReached(), OperationId: o.GetOperationId(), Deadline: deadline, LastStep: stepReboot,
		},
		entries: report(o.GetOperationId(), stepReboot, apiv1.Operation_Step_RUNNING, "on "+vm.GetHost(), 50),
		then:    func() { m.renew(); m.reboot, m.force = takenUp, o.GetForce() },
	})
}

// refuses returns why an order cannot be done, or nil.
func (t *Term) refuses(m *machine, o order) *apiv1.Problem {
	name := m.is.GetName()
	switch {
	case o.GetVerb() != linkv1.Order_REBOOT:
		return problem.Newf(problem.Unsupported, "Update the zone's agents.", "This agent does not know the order %s.", o.GetVerb()).Problem
	case m.kept:
		return problem.Newf(problem.Conflict, "Look at the VM again.", "The control plane does not name VM %s any more.", name).Problem
	case t.hosts[m.is.GetHostId()].lost():
		return lostHost(t.hosts[m.is.GetHostId()])
	case o.GetDeadline() != nil && time.Now().After(o.GetDeadline().AsTime()):
		return problem.Newf(problem.Timeout, "Ask again.", "The order to reboot %s came to be done after its deadline.", name).Problem
	case m.is.GetState() != apiv1.VM_RUNNING || m.sighted && m.seen.Power != apiv1.VM_ON:
		return problem.Newf(problem.WrongState, "Start the VM.", "VM %s is %s, its power %s.", name, m.is.GetState(), m.is.GetPower()).Problem
	}
	return nil
}

func (t *Term) refuse(m *machine, o order, why *apiv1.Problem) {
	t.write(m, &record{consumed: &o, entries: reportEnd(o.GetOperationId(), stepReboot, "", why)})
}

// refuseStrayOrders answers orders for a VM that is not there, if they came in this cluster's stream.
func (t *Term) refuseStrayOrders(m *machine) {
	for _, o := range m.orders {
		if o.stream == t.cluster && !m.ended {
			t.refuse(m, o, problem.Newf(problem.NotFound, "Look at the VM's state.", "VM %s is on no host of this cluster.", m.id).Problem)
			return
		}
	}
}

// goOnRebooting does what was taken up, once, and records it. What an owner before took up may have been done or not.
func (t *Term) goOnRebooting(m *machine) {
	h := t.hosts[m.is.GetHostId()]
	switch {
	case m.reboot == rebooted:
		t.endReboot(m)
	case m.reboot == notMine:
		m.reboot, m.outcome = rebooted, unknownReboot(m, "the agent that was to do it has ended meanwhile")
		t.endReboot(m)
	case !h.available():
		// It was taken up an instant ago; that the host went silent since is an answer.
		m.reboot, m.outcome = rebooted, problem.Newf(problem.Unavailable, "Ask again when the host is back.",
			"Host %s does not answer; nothing was done.", m.is.GetHost()).Problem
		t.endReboot(m)
	default:
		t.rebootNow(m, h.handle)
	}
}

func (t *Term) rebootNow(m *machine, h hypervisor.Host) {
	m.busy = true
	id, force := m.id, m.force
	t.job(func() func() {
		began := false
		err := t.fence.call(t.ctx, func(ctx context.Context) error {
			began = true
			return h.Reboot(ctx, id, force)
		})
		return func() {
			m.busy, m.spoken = false, time.Now()
			t.due[m.id] = true
			switch {
			case !began:
				// The ownership cannot be relied on: nothing was done, and if it is gone the next owner cannot know that.
				t.pause(m, t.limits.PollEvery)
			case err == nil:
				m.reboot, m.outcome = rebooted, nil
			case errors.Is(err, hypervisor.ErrNotRunning), errors.Is(err, hypervisor.ErrNotDefined):
				m.reboot, m.outcome = rebooted, problem.Newf(problem.WrongState, "Start the VM.", "VM %s does not run.", m.is.GetName()).Problem
			default:
				m.reboot, m.outcome = rebooted, unknownReboot(m, err.Error())
			}
		}
	})
}

func unknownReboot(m *machine, why string) *apiv1.Problem {
	return problem.Newf(problem.Unavailable, "Look at the guest's uptime, and ask again if it did not restart.",
		"Whether VM %s restarted is not known: %s.", m.is.GetName(), why).Problem
}

// endReboot ends the operation when its order is carried out. Nothing tells when a guest that restarts is back.
func (t *Term) endReboot(m *machine) {
	vm := proto.CloneOf(m.is)
	vm.Task = apiv1.VM_TASK_UNSPECIFIED
	r := &record{noun: vm, done: true, then: m.renew}
	told := "the guest was told to restart"
	if m.force {
		told = "the guest was reset"
	}
	if m.outcome == nil {
		r.entries = append(r.entries, t.eventOf(m, "vm.rebooted", apiv1.Event_INFO, told+", on "+vm.GetHost()))
	}
	r.entries = append(r.entries, reportEnd(m.work.GetOperationId(), stepReboot, told+" and is not awaited", m.outcome)...)
	t.write(m, r)
}
