package worker

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// consumed fails the test while an order waits to be taken up.
func (s *site) consumed() {
	s.t.Helper()
	s.zone.Each(etcdstore.Order, func(_, id string, m proto.Message) { s.t.Errorf("order %s waits: %v", id, m) })
}

func TestAnOrderedRebootIsDoneOnce(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=20ms")
		s.own("kvm")
		s.running("kvm", "web-1")
		op := s.order("kvm", "web-1")
		s.pass(10 * time.Millisecond)
		s.equal("task", s.zone.VM("web-1").GetTask(), apiv1.VM_REBOOTING)
		s.pass(5 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.equal("reboots", s.count("reboot", "web-1"), 1)
		s.equal("task", s.zone.VM("web-1").GetTask(), apiv1.VM_TASK_UNSPECIFIED)
		s.consumed()
		s.own("kvm")
		s.pass(time.Minute)
		s.equal("reboots after a change of owner", s.count("reboot", "web-1"), 1)
	})
}

func TestARebootSaysWhatWasDoneAndThatTheGuestIsNotWaitedFor(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		for force, says := range map[bool]string{
			false: "the guest was told to restart and is not awaited",
			true:  "the guest was reset and is not awaited",
		} {
			op := s.order("kvm", "web-1", func(o *linkv1.Order) { o.Force = force })
			s.pass(5 * time.Second)
			reports := s.zone.Reports(op)
			s.equal("said", reports[len(reports)-1].GetStep().GetMessage(), says)
		}
	})
}

// A reboot leaves no trace to look for: where its outcome is not known it is not done again, and the operation says so.
func TestARebootWhoseOutcomeIsNotKnownIsNotDoneAgain(t *testing.T) {
	t.Run("lost reply", func(t *testing.T) {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "")
			s.own("kvm")
			s.running("kvm", "web-1")
			s.fleet.Knobs("kvm-1").LoseNext(1)
			op := s.order("kvm", "web-1")
			s.pass(time.Minute)
			s.equal("outcome", s.outcome(op), problem.Unavailable)
			s.equal("reboots", s.count("reboot", "web-1"), 1)
			s.consumed()
		})
	})
	t.Run("agent killed", func(t *testing.T) {
		for at := time.Duration(0); at < 100*time.Millisecond; at += 10 * time.Millisecond {
			within(t, func(s *site) {
				s.cluster("kvm", 1, "latency=60ms")
				s.own("kvm")
				s.running("kvm", "web-1")
				op := s.order("kvm", "web-1")
				s.pass(at)
				s.own("kvm")
				s.pass(time.Minute)
				if n := s.count("reboot", "web-1"); n > 1 {
					t.Errorf("%d reboots", n)
				}
				if out := s.outcome(op); out != "done" && out != string(problem.Unavailable) {
					t.Errorf("outcome %q", out)
				}
				s.equal("task", s.zone.VM("web-1").GetTask(), apiv1.VM_TASK_UNSPECIFIED)
				s.consumed()
			})
		}
	})
}

func TestAnOrderThatCannotBeDoneIsConsumedWithTheReason(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		late := s.order("kvm", "web-1", func(o *linkv1.Order) { o.Deadline = timestamppb.New(time.Now().Add(-time.Second)) })
		strange := s.order("kvm", "web-1", func(o *linkv1.Order) { o.Verb = 77 })
		nobody := s.order("kvm", "nobody")
		s.pass(10 * time.Second)
		s.equal("late", s.outcome(late), problem.Timeout)
		s.equal("strange", s.outcome(strange), problem.Unsupported)
		s.equal("nobody's", s.outcome(nobody), problem.NotFound)

		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(10 * time.Second)
		off := s.order("kvm", "web-1")
		s.pass(10 * time.Second)
		s.equal("off", s.outcome(off), problem.WrongState)
		s.equal("reboots", s.count("reboot", "web-1"), 0)
		s.consumed()
	})
}

func TestAnOrderWaitsForASilentHostUntilItsDeadline(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(20 * time.Second)
		within := func(o *linkv1.Order) { o.Deadline = timestamppb.New(time.Now().Add(time.Minute)) }
		first := s.order("kvm", "web-1", within)
		s.pass(30 * time.Second)
		s.equal("told that the first waits", len(s.delays(first)), 1)
		s.restore("kvm-1")
		s.pass(20 * time.Second)
		s.equal("first", s.outcome(first), "done")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(20 * time.Second)
		second := s.order("kvm", "web-1", within)
		s.pass(2 * time.Minute)
		s.equal("second", s.outcome(second), problem.Timeout)
		s.restore("kvm-1")
		s.pass(time.Minute)
		s.equal("reboots", s.count("reboot", "web-1"), 1)
	})
}

func TestAStopThatIsWantedDuringARebootFollowsOnIt(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "latency=50ms")
		s.own("kvm")
		s.running("kvm", "web-1")
		reboot := s.order("kvm", "web-1")
		s.pass(20 * time.Millisecond)
		stop := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED)))
		s.pass(10 * time.Second)
		s.equal("reboot", s.outcome(reboot), "done")
		s.equal("stop", s.outcome(stop), "done")
	})
}

// An order in the zone's stream is for whoever has the VM.
func TestAnOrderInTheZonesStreamIsTakenUpByTheOwnerOfTheVM(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("web", 1, "")
		s.cluster("db", 1, "")
		s.own("web")
		s.own("db")
		s.running("db", "db-1")
		op := s.order("zone", "db-1")
		s.pass(10 * time.Second)
		s.equal("outcome", s.outcome(op), "done")
		s.equal("reboots", s.count("reboot", "db-1"), 1)
		s.consumed()
	})
}

// An order that comes while its VM departs is answered, whatever comes first.
func TestAnOrderForAVMThatDepartsIsAnswered(t *testing.T) {
	for at := time.Duration(0); at < 700*time.Millisecond; at += 35 * time.Millisecond {
		within(t, func(s *site) {
			s.cluster("kvm", 1, "latency=30ms")
			s.own("kvm")
			s.running("kvm", "web-1")
			s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
			s.pass(at)
			op := s.order("kvm", "web-1")
			s.pass(2 * time.Minute)
			if s.outcome(op) == "" {
				t.Errorf("after %s: no answer", at)
			}
			s.consumed()
			s.equal("tombstones", s.zone.Tombstones("vm", "web-1"), 1)
		})
	}
}
