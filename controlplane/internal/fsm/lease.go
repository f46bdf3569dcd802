package fsm

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const day = 24 * 3600

// inSeconds is so many days.
func inSeconds(days uint32) int64 { return int64(days) * day }

// after is a time so many seconds later.
func after(t *timestamppb.Timestamp, seconds int64) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: t.GetSeconds() + seconds, Nanos: t.GetNanos()}
}

func latest(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if later(a, b) {
		return a
	}
	return b
}

// grantLease gives a VM that a request makes the lease that was asked for; none where it has no end.
func (c *command) grantLease(m *apiv1.Request, vm *apiv1.VM) error {
	if m.GetLeaseDays() == 0 {
		return nil
	}
	ask := m.GetSpecification().GetCreate()
	o, err := c.tx.Offerings.Version(ask.GetOfferingId(), ask.GetOfferingVersion())
	if err != nil && !missing(err) {
		return err
	}
	return c.tx.Leases.Put(c.leaseOf(vm, &apiv1.Lease{Id: c.nextID(), Request: m.GetName(), Days: m.GetLeaseDays(), Terms: o.GetLease()}))
}

// leaseOf fills in what is the VM's. It begins when the VM can be used.
func (c *command) leaseOf(vm *apiv1.VM, m *apiv1.Lease) *apiv1.Lease {
	m.Vm, m.VmId, m.Project, m.ProjectId, m.Zone, m.ZoneId = vm.GetName(), vm.GetId(), vm.GetProject(), vm.GetProjectId(), vm.GetZone(), vm.GetZoneId()
	m.State, m.CreatedAt, m.Terms = apiv1.Lease_PENDING, c.now, request.Terms(m.GetTerms())
	return m
}

// createLease gives a VM that has none a lease.
func (c *command) createLease(in *commandv1.CreateLease) (*commandv1.Result, error) {
	m := in.GetLease()
	vm, err := stored(c.tx.VMs, "VM", m.GetVmId(), "")
	if err != nil {
		return nil, err
	}
	switch _, err := c.tx.Leases.Get(m.GetId()); {
	case m.GetId() == "" || m.GetDays() == 0:
		return nil, invalid("a lease without id or days cannot be given")
	case err == nil:
		return nil, problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another lease", m.GetId())
	case !missing(err):
		return nil, err
	case !request.Whole(vm):
		return nil, request.NotWhole(vm)
	case vm.GetDesiredState() == apiv1.VM_DELETED:
		return nil, problem.Newf(problem.WrongState, "", "VM %s is being deleted", vm.GetName())
	case vm.GetDesiredState() == apiv1.VM_TRASHED:
		return nil, inTrash(vm)
	}
	if was, err := c.tx.LeaseOf(vm.GetId()); err == nil && was.GetState() != apiv1.Lease_ENDED {
		return nil, problem.Newf(problem.WrongState, "Have it extended by a request, or shorten it: naru lease shorten "+vm.GetName()+".", "VM %s has a lease already", vm.GetName())
	} else if err != nil && !missing(err) {
		return nil, err
	}
	if longest := m.GetTerms().GetLongestDays(); longest > 0 && m.GetDays() > longest {
		return nil, problem.Newf(problem.Invalid, "Give it fewer days.", "the lease is of %d days, and the longest is %d", m.GetDays(), longest).With("days", "is more than the longest")
	}
	m = c.leaseOf(vm, m)
	if err := c.tx.Leases.Put(m); err != nil {
		return nil, err
	}
	op, err := c.done("lease.create", referenceLease(m), where(m))
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

func referenceLease(m *apiv1.Lease) *apiv1.Reference {
	return &apiv1.Reference{Kind: "lease", Id: m.GetId(), Name: m.GetVm()}
}

// passLease takes the next step of a lease, which has to be due. Each step is reckoned from when the one before was carried
// out, so that a clock that jumps, or a time without a leader, shortens neither the warning nor the grace; by the clock as
// it is, so that one that was ahead and was set right makes what begins since no longer.
func (c *command) passLease(in *commandv1.PassLease) (*commandv1.Result, error) {
	m, err := c.tx.Leases.Get(in.GetLeaseId())
	if err != nil {
		return nil, orNotFound(err, "lease", in.GetLeaseId())
	}
	if in.GetExpectedRevision() == "" || m.GetRevision() != in.GetExpectedRevision() {
		return nil, problem.Newf(problem.Conflict, "Try again.", "the lease of VM %s is at revision %s, not %s", m.GetVm(), m.GetRevision(), in.GetExpectedRevision())
	}
	vm, err := c.tx.VMs.Get(m.GetVmId())
	if err != nil {
		return nil, orNotFound(err, "VM", m.GetVm())
	}
	notDue := problem.Newf(problem.WrongState, "", "that step of the lease of VM %s is not due", m.GetVm())
	var op *apiv1.Operation
	switch in.GetStep() {
	case commandv1.PassLease_START:
		if m.GetState() != apiv1.Lease_PENDING || vm.GetUsableAt() == nil {
			return nil, notDue
		}
		m.StartsAt, m.ExpiresAt = c.clock, after(c.clock, inSeconds(m.GetDays()))
		if longest := m.GetTerms().GetLongestDays(); longest > 0 {
			m.LongestUntil = after(c.clock, inSeconds(longest))
		}
		goesOn(m, c.clock)
		err = c.tellOfLease(apiv1.Event_INFO, "lease.started", m, m.GetExpiresAt(), "begins, and ends on "+dayOf(m.GetExpiresAt()))
	case commandv1.PassLease_WARN:
		if m.GetState() != apiv1.Lease_ACTIVE || later(m.GetWarnAt(), c.clock) {
			return nil, notDue
		}
		span := m.GetExpiresAt().GetSeconds() - m.GetWarnAt().GetSeconds()
		m.State, m.WarnedAt, m.ExpiresAt = apiv1.Lease_WARNED, c.now, latest(m.GetExpiresAt(), after(c.clock, span))
		err = c.tellOfLease(apiv1.Event_WARNING, "lease.ends-soon", m, m.GetExpiresAt(), "ends on "+dayOf(m.GetExpiresAt())+"; ask for more time: naru lease extend "+m.GetVm())
	case commandv1.PassLease_EXPIRE:
		if m.GetState() != apiv1.Lease_WARNED || later(m.GetExpiresAt(), c.clock) || setAside(vm) {
			return nil, notDue
		}
		m.WasRunning = vm.GetDesiredState() == apiv1.VM_RUNNING
		op, err = begun(c.setVMDesired(&commandv1.SetVMDesired{VmId: vm.GetId(), Desired: apiv1.VM_STOPPED, OperationId: in.GetOperationId(), Kind: "vm.stop", Deadline: in.GetDeadline()}))
		if err != nil {
			return nil, err
		}
		m.State, m.ReclaimAt = apiv1.Lease_EXPIRED, after(c.clock, inSeconds(request.Terms(m.GetTerms()).GetGraceDays()))
		err = c.tellOfLease(apiv1.Event_WARNING, "lease.expired", m, m.GetReclaimAt(), "is over: the VM is stopped, and goes to the trash on "+dayOf(m.GetReclaimAt()))
	case commandv1.PassLease_TRASH:
		if m.GetState() != apiv1.Lease_EXPIRED || later(m.GetReclaimAt(), c.clock) || setAside(vm) {
			return nil, notDue
		}
		set := &commandv1.SetVMDesired{VmId: vm.GetId(), Desired: apiv1.VM_TRASHED, OperationId: in.GetOperationId(), Kind: "vm.trash", Deadline: in.GetDeadline()}
		if vm.GetState() != apiv1.VM_RUNNING && vm.GetState() != apiv1.VM_STOPPED {
			return nil, problem.Newf(problem.WrongState, "Repair it, or delete it: naru vm delete "+vm.GetName()+".",
				"VM %s is %s, and the trash takes what runs or stands", vm.GetName(), strings.ToLower(vm.GetState().String()))
		}
		m.DeleteAt = after(c.clock, inSeconds(request.Terms(m.GetTerms()).GetTrashDays()))
		set.DeleteAt = m.GetDeleteAt()
		if op, err = begun(c.setVMDesired(set)); err != nil {
			return nil, err
		}
		m.State = apiv1.Lease_TRASHED
		err = c.tellOfLease(apiv1.Event_WARNING, "lease.trashed", m, m.GetDeleteAt(), "is over, and its grace too: the VM is in the trash, and is deleted on "+dayOf(m.GetDeleteAt()))
	default:
		return nil, invalid("a lease passes by START, WARN, EXPIRE or TRASH")
	}
	if err != nil {
		return nil, err
	}
	if err := c.keepLease(m); err != nil {
		return nil, err
	}
	return made(m, op)
}

// setAside reports whether a VM is in the trash, or being deleted, by somebody's word: then its lease has nothing to do with it.
func setAside(vm *apiv1.VM) bool {
	return vm.GetDesiredState() == apiv1.VM_TRASHED || vm.GetDesiredState() == apiv1.VM_DELETED
}

// goesOn makes a lease whose end was set one that goes on, and of which people are warned in time.
func goesOn(m *apiv1.Lease, clock *timestamppb.Timestamp) {
	m.State, m.WarnedAt, m.ReclaimAt, m.DeleteAt, m.WasRunning = apiv1.Lease_ACTIVE, nil, nil, nil, false
	m.WarnAt = latest(clock, after(m.GetExpiresAt(), -inSeconds(request.Terms(m.GetTerms()).GetWarnDays())))
}

// keepLease stores a lease, and its end with its VM.
func (c *command) keepLease(m *apiv1.Lease) error {
	if err := c.tx.Leases.Put(m); err != nil {
		return err
	}
	vm, err := c.tx.VMs.Get(m.GetVmId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	vm.ExpiresAt = m.GetExpiresAt()
	return c.tx.VMs.Put(vm)
}

func dayOf(t *timestamppb.Timestamp) string { return t.AsTime().Format("2006-01-02 15:04 UTC") }

// stamp is a time as programs read it (RFC 3339).
func stamp(t *timestamppb.Timestamp) string { return t.AsTime().Format("2006-01-02T15:04:05Z") }

// tellOfLease stores an event about a VM's lease, and tells those who asked for the VM; until is when what follows does.
func (c *command) tellOfLease(severity apiv1.Event_Severity, kind string, m *apiv1.Lease, until *timestamppb.Timestamp, what string) error {
	vm := &apiv1.Reference{Kind: "vm", Id: m.GetVmId(), Name: m.GetVm()}
	if err := c.tell(severity, kind, where(m), vm, "the lease of VM "+m.GetVm()+" "+what); err != nil {
		return err
	}
	var people []string
	if m.GetRequest() != "" {
		r, err := c.tx.Requests.ByName(m.GetRequest(), nil)
		if err != nil && !missing(err) {
			return err
		}
		people = slices.DeleteFunc([]string{r.GetRequesterId(), r.GetOnBehalfOfId()}, func(id string) bool { return id == "" || id == c.by })
	}
	return c.notify(news{topic: kind, about: vm, at: where(m), parameters: []*apiv1.Notification_Parameter{parameter("until", stamp(until))}}, people...)
}

// beginExtend gives a VM's lease more time, within its longest; one that is stopped for its lease comes back.
func (c *command) beginExtend(r *apiv1.Request, ask *apiv1.ExtendLease, at *commandv1.CarryOutRequest_Part, deadline *timestamppb.Timestamp) (*apiv1.Operation, error) {
	m, err := c.tx.LeaseOf(ask.GetVmId())
	if missing(err) || err == nil && m.GetState() != apiv1.Lease_ACTIVE && m.GetState() != apiv1.Lease_WARNED && m.GetState() != apiv1.Lease_EXPIRED {
		return nil, problem.Newf(problem.WrongState, "naru lease show "+ask.GetVm()+" says how far it is.", "VM %s has no lease that could be extended now", ask.GetVm())
	}
	if err != nil {
		return nil, err
	}
	end := after(latest(m.GetExpiresAt(), c.clock), int64(ask.GetDays())*day)
	if m.GetLongestUntil() != nil && later(end, m.GetLongestUntil()) {
		end = m.GetLongestUntil()
	}
	if !later(end, m.GetExpiresAt()) || !later(end, c.clock) {
		return nil, problem.Newf(problem.WrongState, "Make another VM.", "the lease of VM %s lasts no longer than until %s", m.GetVm(), dayOf(m.GetLongestUntil()))
	}
	back := m.GetState() == apiv1.Lease_EXPIRED && m.GetWasRunning()
	m.ExpiresAt = end
	if len(m.GetExtensions()) < 256 {
		m.Extensions = append(m.GetExtensions(), r.GetName())
	}
	goesOn(m, c.clock)
	if err := c.tellOfLease(apiv1.Event_INFO, "lease.extended", m, m.GetExpiresAt(), "is extended by request "+r.GetName()+", until "+dayOf(end)); err != nil {
		return nil, err
	}
	if err := c.keepLease(m); err != nil {
		return nil, err
	}
	if back {
		return begun(c.setVMDesired(&commandv1.SetVMDesired{VmId: m.GetVmId(), Desired: apiv1.VM_RUNNING, OperationId: at.GetOperationId(), Kind: "vm.start", Deadline: deadline}))
	}
	op, err := c.open(at.GetOperationId(), "lease.extend", &apiv1.Reference{Kind: "vm", Id: m.GetVmId(), Name: m.GetVm()}, where(m), nil)
	if err != nil {
		return nil, err
	}
	return op, c.finish(op, nil)
}

// leaseAllows refuses to run a VM whose lease is over. What is taken out of the trash is stopped, and has its grace again.
func (c *command) leaseAllows(vm *apiv1.VM, in *commandv1.SetVMDesired) error {
	if in.GetDesired() != apiv1.VM_RUNNING && !in.GetUntrash() {
		return nil
	}
	m, err := c.tx.LeaseOf(vm.GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case in.GetDesired() == apiv1.VM_RUNNING && m.GetState() == apiv1.Lease_EXPIRED:
		return problem.Newf(problem.WrongState, "Ask for more time: naru lease extend "+vm.GetName()+".", "the lease of VM %s ended on %s", vm.GetName(), dayOf(m.GetExpiresAt()))
	case in.GetUntrash() && (m.GetState() == apiv1.Lease_TRASHED || m.GetState() == apiv1.Lease_EXPIRED):
		m.State, m.DeleteAt = apiv1.Lease_EXPIRED, nil
		m.ReclaimAt = latest(m.GetReclaimAt(), after(c.clock, inSeconds(request.Terms(m.GetTerms()).GetGraceDays())))
		return c.tx.Leases.Put(m)
	case in.GetUntrash() && m.GetState() == apiv1.Lease_WARNED:
		m.ExpiresAt = latest(m.GetExpiresAt(), after(c.clock, inSeconds(request.Terms(m.GetTerms()).GetGraceDays())))
		vm.ExpiresAt = m.GetExpiresAt()
		return c.tx.Leases.Put(m)
	}
	return nil
}

// endLease ends the lease of a VM that is gone. It stays to be read for a while.
func (c *command) endLease(vmID string) error {
	m, err := c.tx.LeaseOf(vmID)
	if missing(err) || err == nil && m.GetState() == apiv1.Lease_ENDED {
		return nil
	}
	if err != nil {
		return err
	}
	m.State, m.EndedAt = apiv1.Lease_ENDED, c.now
	return c.tx.Leases.Put(m)
}
