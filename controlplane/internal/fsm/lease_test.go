package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func lease(days uint32) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateLease{CreateLease: &commandv1.CreateLease{Lease: &apiv1.Lease{
		Id: "l", VmId: "vm-1", Days: days, Terms: &apiv1.LeaseTerms{LongestDays: 100, WarnDays: 5, GraceDays: 3, TrashDays: 2}}}}}
}

// leaseOf is the lease of VM 1.
func (p *plane) leaseOf() (m *apiv1.Lease) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if m, err = tx.LeaseOf("vm-1"); err != nil {
			p.Fatal(err)
		}
	})
	return m
}

// pass is a step of VM 1's lease as it is.
func (p *plane) pass(step commandv1.PassLease_Step) *commandv1.Command {
	p.Helper()
	m := p.leaseOf()
	return &commandv1.Command{Actor: "lease", Body: &commandv1.Command_PassLease{PassLease: &commandv1.PassLease{LeaseId: m.GetId(), ExpectedRevision: m.GetRevision(), Step: step,
		OperationId: fmt.Sprint("op-", step, p.made), Deadline: timestamppb.New(p.now.Add(time.Hour))}}}
}

// leased is a plane with VM 1, which can be used and has a lease of 30 days that has begun.
func leased(t tb) *plane {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(lease(30))
	p.refuse(problem.WrongState, p.pass(commandv1.PassLease_START))
	p.usable(1)
	p.accept(p.pass(commandv1.PassLease_START))
	return p
}

func TestALeaseBeginsWhenItsVMCanBeUsedAndTakesEachStepWhenItIsDue(t *testing.T) {
	p := leased(t)
	begun := p.now
	if m := p.leaseOf(); m.GetState() != apiv1.Lease_ACTIVE || !m.GetStartsAt().AsTime().Equal(begun) || !m.GetExpiresAt().AsTime().Equal(begun.Add(days(30))) || !p.vm(1).GetExpiresAt().AsTime().Equal(begun.Add(days(30))) {
		t.Fatalf("it began as %v", m)
	}
	for _, step := range []struct {
		take commandv1.PassLease_Step
		at   time.Duration
		is   apiv1.Lease_State
		vm   apiv1.VM_State
		told string
	}{
		{commandv1.PassLease_WARN, days(25), apiv1.Lease_WARNED, apiv1.VM_RUNNING, "lease.ends-soon"},
		{commandv1.PassLease_EXPIRE, days(30), apiv1.Lease_EXPIRED, apiv1.VM_STOPPED, "lease.expired"},
		{commandv1.PassLease_TRASH, days(33) + time.Second, apiv1.Lease_TRASHED, apiv1.VM_TRASHED, "lease.trashed"},
	} {
		p.now = begun.Add(step.at - 10*time.Second)
		p.refuse(problem.WrongState, p.pass(step.take))
		p.now = begun.Add(step.at + time.Second)
		again := p.pass(step.take)
		p.accept(p.pass(step.take))
		p.refuse(problem.Conflict, again)
		if m := p.leaseOf(); m.GetState() != step.is || p.vm(1).GetDesiredState() != step.vm || p.events()[step.told] != 1 {
			t.Fatalf("after %v: %v, the VM is wanted %v, told %v", step.take, m, p.vm(1).GetDesiredState(), p.events())
		}
		if step.is == apiv1.Lease_EXPIRED {
			if r := p.refuse(problem.WrongState, desire(1, apiv1.VM_RUNNING, "op-start")); !strings.Contains(r.GetDetail(), "lease of VM web-1 ended") {
				t.Errorf("started after its end: %v", r)
			}
		}
	}
	if got, want := p.vm(1).GetDeleteAt().AsTime(), p.now.Add(days(2)-time.Second); !got.Equal(want) {
		t.Errorf("it is deleted at %v, not %v", got, want)
	}
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	p.reports(tombstone(1))
	if m := p.leaseOf(); m.GetState() != apiv1.Lease_ENDED || m.GetEndedAt() == nil {
		t.Errorf("its VM is gone: %v", m)
	}
}

// TestNoJumpOfAClockSkipsTheWarningOrTheGrace: whatever the clock does, each step is at least its span after the one before.
func TestNoJumpOfAClockSkipsTheWarningOrTheGrace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := leased(rt)
		var at []time.Time
		for _, step := range []commandv1.PassLease_Step{commandv1.PassLease_WARN, commandv1.PassLease_EXPIRE, commandv1.PassLease_TRASH} {
			for tries := 0; ; tries++ {
				if r := p.apply(p.pass(step)); r.GetProblem() == nil {
					break
				} else if r.GetProblem().GetCode() != string(problem.WrongState) || tries > 100 {
					rt.Fatalf("%v: %v", step, r)
				}
				p.now = p.now.Add(days(rapid.SampledFrom([]int{1, 2, 7, 400}).Draw(rt, "jump")))
			}
			at = append(at, p.now)
		}
		if warning, grace := at[1].Sub(at[0]), at[2].Sub(at[1]); warning < days(5) || grace < days(3) {
			rt.Errorf("people had %v after the warning and %v after the stop", warning, grace)
		}
		if m := p.vm(1); m.GetDeleteAt().AsTime().Before(at[2].Add(days(2))) {
			rt.Errorf("the trash is emptied at %v, and it went there at %v", m.GetDeleteAt().AsTime(), at[2])
		}
	})
}

func TestALeaseIsShortenedButNotIntoThePastNorLengthened(t *testing.T) {
	p := leased(t)
	shorten := func(until time.Time) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_ShortenLease{ShortenLease: &commandv1.ShortenLease{LeaseId: "l", ExpiresAt: timestamppb.New(until), Reason: "cho: not needed"}}}
	}
	p.refuse(problem.Invalid, shorten(p.now.Add(-time.Hour)))
	p.refuse(problem.Invalid, shorten(p.now.Add(days(31))))
	p.accept(shorten(p.now.Add(days(2))))
	m := p.leaseOf()
	if m.GetShortened() != "cho: not needed" || !m.GetExpiresAt().AsTime().Equal(p.vm(1).GetExpiresAt().AsTime()) || m.GetWarnAt().AsTime().After(p.now) {
		t.Errorf("shortened: %v", m)
	}
	p.accept(p.pass(commandv1.PassLease_WARN))
	p.refuse(problem.WrongState, p.pass(commandv1.PassLease_EXPIRE))
	p.now = p.now.Add(days(3))
	p.accept(p.pass(commandv1.PassLease_EXPIRE))
}

func TestAnExtensionWithinTheLongestBringsAStoppedVMBack(t *testing.T) {
	p := staffed(t)
	p.accept(createVM(1))
	p.accept(lease(30))
	p.usable(1)
	p.accept(p.pass(commandv1.PassLease_START))
	begun := p.now
	extend := func(id string, n uint32) *commandv1.Command {
		p.draft(id, func(m *apiv1.Request) {
			m.Kind, m.Specification = apiv1.RequestKind_EXTEND, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Extend{
				Extend: &apiv1.ExtendLease{Vm: "web-1", VmId: "vm-1", Days: n}}}
		})
		p.accept(p.onePart(id))
		p.approve(id, "bob", "one")
		return p.carryOut(id, id, 0)
	}
	p.accept(extend("r", 10))
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_DONE || !p.leaseOf().GetExpiresAt().AsTime().Equal(begun.Add(days(40))) {
		t.Fatalf("extended: %v, %v", m.GetFulfilment(), p.leaseOf())
	}
	p.now = begun.Add(days(41))
	p.accept(p.pass(commandv1.PassLease_WARN))
	p.now = p.now.Add(days(6))
	p.accept(p.pass(commandv1.PassLease_EXPIRE))
	p.accept(extend("s", 90))
	m := p.leaseOf()
	if !m.GetExpiresAt().AsTime().Equal(begun.Add(days(100))) || m.GetState() != apiv1.Lease_ACTIVE || len(m.GetExtensions()) != 2 || p.vm(1).GetDesiredState() != apiv1.VM_RUNNING {
		t.Errorf("from its grace: %v, the VM is wanted %v", m, p.vm(1).GetDesiredState())
	}
	p.refuse(problem.WrongState, extend("t", 1))
}

func TestWhatIsTakenOutOfTheTrashHasItsGraceAgain(t *testing.T) {
	p := leased(t)
	for _, step := range []commandv1.PassLease_Step{commandv1.PassLease_WARN, commandv1.PassLease_EXPIRE, commandv1.PassLease_TRASH} {
		p.now = p.now.Add(days(40))
		p.accept(p.pass(step))
	}
	out := desire(1, apiv1.VM_STOPPED, "op-untrash")
	out.GetSetVmDesired().Untrash = true
	p.accept(out)
	if m := p.leaseOf(); m.GetState() != apiv1.Lease_EXPIRED || !m.GetReclaimAt().AsTime().Equal(p.now.Add(days(3))) {
		t.Errorf("out of the trash: %v", m)
	}
}

func TestALeaseSaysWhatHoldsWhereItsTermsSayNothing(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	given := lease(30)
	given.GetCreateLease().Lease.Terms = nil
	p.accept(given)
	if m := p.leaseOf().GetTerms(); m.GetWarnDays() != 7 || m.GetGraceDays() != 7 || m.GetTrashDays() != 14 || m.GetLongestDays() != 0 {
		t.Errorf("its terms are %v", m)
	}
}

func TestALeaseThatHasNotBegunIsNotShortenedYet(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(lease(30))
	result := p.refuse(problem.WrongState, &commandv1.Command{Body: &commandv1.Command_ShortenLease{ShortenLease: &commandv1.ShortenLease{
		LeaseId: "l", ExpiresAt: timestamppb.New(p.now.Add(days(2))), Reason: "cho: not needed"}}})
	if !strings.Contains(result.GetNext(), "in a moment") {
		t.Errorf("it is said: %v", result)
	}
}

func TestAVMHasOneLeaseAndOneThatWasMadeDirectlyNone(t *testing.T) {
	p := leased(t)
	other := lease(5)
	other.GetCreateLease().Lease.Id = "l-2"
	p.refuse(problem.WrongState, other)
	p.accept(createVM(2))
	p.view(func(tx *state.Tx) {
		if _, err := tx.LeaseOf("vm-2"); err != state.ErrNotFound {
			t.Errorf("VM 2 has a lease: %v", err)
		}
	})
}

func TestWhoAskedForAVMIsToldOfEachStepOfItsLease(t *testing.T) {
	p := staffed(t)
	p.draft("r", func(m *apiv1.Request) { m.OnBehalfOf, m.OnBehalfOfId = "bob", "u-bob" })
	p.accept(createVM(1))
	given := lease(30)
	given.GetCreateLease().Lease.Request = p.request("r").GetName()
	p.accept(given)
	p.usable(1)
	for i, step := range []commandv1.PassLease_Step{commandv1.PassLease_START, commandv1.PassLease_WARN, commandv1.PassLease_EXPIRE, commandv1.PassLease_TRASH} {
		p.now = p.now.Add(days(30 * min(i, 1)))
		p.accept(p.pass(step))
	}
	told := map[string][]string{}
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Notifications.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			told[m.GetUserId()] = append(told[m.GetUserId()], m.GetTopic())
			if m.GetAbout().GetName() != "web-1" || m.GetParameters()[0].GetKey() != "until" {
				t.Errorf("%v", m)
			}
			if _, err := time.Parse(time.RFC3339, m.GetParameters()[0].GetValue()); err != nil {
				t.Error(err)
			}
		}
	})
	want := []string{"lease.started", "lease.ends-soon", "lease.expired", "lease.trashed"}
	for _, who := range []string{"u-ann", "u-bob"} {
		if !slices.Equal(told[who], want) {
			t.Errorf("%s was told %v", who, told[who])
		}
	}
	if len(told) != 2 {
		t.Errorf("told were %v", told)
	}
}
