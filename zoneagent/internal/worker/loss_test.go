package worker

import (
	"slices"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// declare has the control plane say that a host is lost, or found.
func (s *site) declare(host string, lost bool) {
	h := &apiv1.Host{Id: host, Name: host, ClusterId: "kvm", Cluster: "kvm", Endpoint: "sim://?"}
	if lost {
		h.Loss = &apiv1.Loss{By: "spiffe://naru.test/admin/kim", Reason: "it burnt"}
	}
	s.zone.Want(h)
	s.pass(time.Second)
}

// What is lost with its host can be deleted, without the host; its address and its room are free then and not before.
func TestVMsOnALostHostCanBeDeleted(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Kill)
		s.pass(30 * time.Second)
		waits := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(time.Minute)
		s.equal("while the host is merely down", s.outcome(waits), "")
		if a, _ := s.zone.Get(etcdstore.Allocation, "", "kvm-1"); a == nil {
			t.Error("its room was given away")
		}
		s.declare("kvm-1", true)
		s.pass(10 * time.Second)
		s.equal("the deletion, once the host is lost", s.outcome(waits), "done")
		s.equal("the VM", s.zone.VM("web-1"), (*apiv1.VM)(nil))
		s.equal("the room", s.zone.Host("kvm-1").GetAllocated().GetCores(), uint32(0))
		s.equal("usage", s.usage("web-1"), "[RUNNING ERROR DELETED]")
	})
}

func TestNothingIsStartedOnALostHost(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Kill)
		s.pass(30 * time.Second)
		s.declare("kvm-1", true)
		start := s.want(s.vm("kvm", "web-1"))
		s.pass(time.Second)
		s.equal("a start", s.outcome(start), "WRONG_STATE")

		s.restore("kvm-1") // it comes back, its VMs off
		s.pass(time.Minute)
		h := s.zone.Host("kvm-1")
		s.equal("its health", h.GetHealth(), apiv1.Host_FENCED)
		s.equal("its VM", s.zone.VM("web-1").GetHostFreshness(), apiv1.Freshness_UNREACHABLE)
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)
		start = s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.equal("a start, with the host back", s.outcome(start), "WRONG_STATE")
		s.equal("starts", s.fleet.Knobs("kvm-1").Starts("web-1"), 1)

		s.declare("kvm-1", false)
		s.pass(time.Minute)
		start = s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.equal("a start, with the host found", s.outcome(start), "done")
		s.equal("its health", s.zone.Host("kvm-1").GetHealth(), apiv1.Host_AVAILABLE)
	})
}

// A host that was lost, and comes back with a VM that has been deleted since, is told on and left alone.
func TestWhatALostHostBringsBackIsReportedAndNotTouched(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Cut)
		s.pass(30 * time.Second)
		s.declare("kvm-1", true)
		gone := s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(10 * time.Second)
		s.equal("the deletion", s.outcome(gone), "done")
		s.zone.Put(etcdstore.Desired, "vm", "web-1", nil)
		s.restore("kvm-1")
		s.pass(time.Minute)
		// Of what comes back, either may be told first.
		events := s.zone.Events("kvm-1")
		slices.Sort(events)
		s.equal("events", events, "[host.available host.down host.fenced host.unknown_vm]")
		s.equal("removals", s.count("gone", "web-1"), 0)
	})
}
