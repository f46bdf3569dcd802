package worker

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
	"github.com/naru-project/naru/zoneagent/internal/usageclock"
)

// links returns the chain of a VM, and fails where it is none: numbers are dense, and each link says what the one before it said.
func (s *site) links(vm string) (all []*linkv1.Usage) {
	s.t.Helper()
	for _, e := range s.zone.Journal() {
		u := e.GetUsage()
		if u.GetVmId() != vm {
			continue
		}
		if int(u.GetNumber()) != len(all)+1 {
			s.t.Errorf("link %d of %s comes as number %d", u.GetNumber(), vm, len(all)+1)
		}
		if len(all) > 0 {
			last, was := all[len(all)-1], u.GetWas()
			if was.GetNumber() != last.GetNumber() || was.GetState() != last.GetState() || !proto.Equal(was.GetAt(), last.GetAt()) || !proto.Equal(was.GetSize(), last.GetSize()) || was.GetClockId() != last.GetClockId() {
				s.t.Errorf("link %v says of the one before %v", u, last)
			}
		} else if u.GetWas() != nil {
			s.t.Errorf("the first link knows of one before: %v", u)
		}
		all = append(all, u)
	}
	return all
}

// spans is how long a VM was in each state by its chain, up to its newest link.
func (s *site) spans(vm string) map[string]time.Duration {
	s.t.Helper()
	out := map[string]time.Duration{}
	for _, u := range s.links(vm) {
		if was := u.GetWas(); was != nil {
			out[was.GetState().String()] += u.GetAt().AsTime().Sub(was.GetAt().AsTime())
		}
	}
	return out
}

// P5: each transition is a link of one chain, whoever owns the cluster, and the observed VM has the newest.
func TestP5AVMsUseIsOneChainOverAllOwners(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED), forced))
		s.pass(time.Minute)
		s.own("kvm")
		s.want(s.vm("kvm", "web-1"))
		s.pass(time.Minute)
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_TRASHED), forced))
		s.pass(time.Minute)
		s.own("kvm")
		s.pass(time.Minute)
		newest := s.zone.VM("web-1").GetUsage()
		s.equal("the newest link", fmt.Sprintf("%d %s %s", newest.GetNumber(), newest.GetState(), newest.GetIncarnationId()), "4 TRASHED life-1")
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_DELETED)))
		s.pass(time.Minute)
		s.equal("usage", s.usage("web-1"), "[RUNNING STOPPED RUNNING TRASHED DELETED]")
		s.links("web-1")
	})
}

// A VM on a host that an administrator declares lost is used no longer; nothing else has to happen to it.
func TestUseEndsWhenTheHostIsDeclaredLost(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.silence("kvm-1", (*sim.Knobs).Kill)
		s.pass(time.Hour)
		s.equal("while the host is merely down", s.usage("web-1"), "[RUNNING]")
		s.declare("kvm-1", true)
		s.pass(time.Minute)
		s.equal("once it is lost", s.usage("web-1"), "[RUNNING ERROR]")
		s.restore("kvm-1")
		s.declare("kvm-1", false)
		s.pass(time.Minute)
		if all := s.links("web-1"); all[len(all)-1].GetState() != apiv1.VM_STOPPED {
			t.Errorf("it was found, its VM off: %v", all)
		}
	})
}

// P21: the machine's time is set while a VM runs, and the agent is killed meanwhile: spans are as long as they were.
func TestP21UseIsAsLongAsItWasHoweverTheClockIsSet(t *testing.T) {
	within(t, func(s *site) {
		var set time.Duration
		booted, file := time.Now(), filepath.Join(t.TempDir(), "clock")
		begin := func() {
			t.Helper()
			c, err := usageclock.Open(file, usageclock.Machine{
				Boot: "once", Uptime: func() time.Duration { return time.Since(booted) }, Time: func() time.Time { return time.Now().Add(set) },
			}, s.log)
			if err != nil {
				t.Fatal(err)
			}
			s.clock = c.Now
			s.own("kvm")
		}
		s.cluster("kvm", 1, "")
		begin()
		s.running("kvm", "web-1")
		began := time.Now()
		for _, by := range []time.Duration{87600 * time.Hour, -200000 * time.Hour} {
			set += by
			s.pass(30 * time.Minute)
			begin()
		}
		s.want(s.vm("kvm", "web-1", wanting(apiv1.VM_STOPPED), forced))
		s.pass(time.Minute)
		took := time.Since(began)
		if ran := s.spans("web-1")["RUNNING"]; ran < took-2*time.Minute || ran > took+20*time.Second {
			t.Errorf("set by %v it ran for %v, and it was %v", set, ran, took)
		}
	})
}

// A store that begins another life does not know what it had told: each VM says anew what it is, and a chain that is forgotten begins.
func TestANewLifeOfTheStoreHasALinkForEachVM(t *testing.T) {
	within(t, func(s *site) {
		s.cluster("kvm", 1, "")
		s.own("kvm")
		s.running("kvm", "web-1")
		s.zone.PutBack()
		s.own("kvm")
		s.pass(time.Minute)
		var last *linkv1.Usage
		for _, e := range s.zone.Journal() {
			if u := e.GetUsage(); u.GetVmId() == "web-1" {
				last = u
			}
		}
		is := s.zone.VM("web-1").GetUsage()
		if is.GetIncarnationId() != "life-1'" || is.GetState() != apiv1.VM_RUNNING || last.GetNumber() != is.GetNumber() {
			t.Errorf("observed %v, told %v", is, last)
		}
		n := len(s.zone.Journal())
		s.pass(time.Hour)
		if more := len(s.zone.Journal()); more != n {
			t.Errorf("%d entries more, and nothing has changed", more-n)
		}
	})
}
