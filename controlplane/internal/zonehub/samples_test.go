package zonehub

import (
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// P15: an agent that makes up hosts and VMs, in whatever time, fills no more than its zone's room.
func TestP15WhatAZoneClaimsToMeasureIsKeptWithinABound(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := NewSamples(func() time.Time { return now })
	never := timestamppb.New(now.AddDate(1000, 0, 0))
	const batch = 4096
	for from := 0; from < maxVMs+batch; from += batch {
		b := &linkv1.SampleBatch{}
		for i := range batch {
			id := strconv.Itoa(from + i)
			b.Hosts = append(b.Hosts, &apiv1.HostSample{HostId: id, Time: never})
			b.Vms = append(b.Vms, &apiv1.VMSample{VmId: id, Time: never})
		}
		s.take("z1", "business", b)
	}
	if hosts, vms := s.Newest(); len(hosts) != maxHosts || len(vms) != maxVMs {
		t.Errorf("%d hosts and %d VMs are kept", len(hosts), len(vms))
	}
	now = now.Add(sampleLife + time.Second)
	if hosts, vms := s.Newest(); len(hosts) != 0 || len(vms) != 0 {
		t.Errorf("%d hosts and %d VMs are shown that no longer report", len(hosts), len(vms))
	}
	s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "new"}}})
	if z := s.zones["z1"]; len(z.hosts) != 1 || len(z.vms) != 0 {
		t.Errorf("%d hosts and %d VMs are kept that no longer report", len(z.hosts), len(z.vms))
	}
}

// P21: a zone whose clock is wrong is measured all the same.
func TestP21SamplesOfAZoneWithAWrongClockAreShown(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := NewSamples(func() time.Time { return now })
	for _, years := range []int{-10, 10} {
		wrong := timestamppb.New(now.AddDate(years, 0, 0))
		s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "h1", Zone: "internet", Time: wrong}}})
		hosts, _ := s.Newest()
		if len(hosts) != 1 || hosts[0].GetZone() != "business" || !hosts[0].GetTime().AsTime().Equal(wrong.AsTime()) {
			t.Errorf("%d years: %v", years, hosts)
		}
	}
}

func TestTheLastSamplesOfAZoneThatIsAwayAreKeptAsStaleForADay(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := NewSamples(func() time.Time { return now })
	began := now
	s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "silent"}}})
	now = now.Add(sampleLife + time.Second)
	last := now
	s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "h1", Freshness: apiv1.Freshness_UNREACHABLE, SeenAt: timestamppb.New(began)}}})
	shown := func() *apiv1.HostSample {
		t.Helper()
		hosts, _ := s.Newest()
		if len(hosts) != 1 || hosts[0].GetHostId() != "h1" || !hosts[0].GetSeenAt().AsTime().Equal(last) {
			t.Fatalf("after %v: %v", now.Sub(began), hosts)
		}
		return hosts[0]
	}
	live := shown()
	if live.GetFreshness() != apiv1.Freshness_LIVE {
		t.Errorf("of a zone that is here: %v", live)
	}
	now = now.Add(time.Second)
	s.leave("z1")
	now = now.Add(awayLife)
	if stale := shown(); stale.GetFreshness() != apiv1.Freshness_STALE || live.GetFreshness() != apiv1.Freshness_LIVE {
		t.Errorf("of a zone that is away: %v; what was given before: %v", stale, live)
	}
	now = now.Add(time.Second)
	if hosts, _ := s.Newest(); len(hosts) != 0 || len(s.zones) != 0 {
		t.Errorf("a day later: %v", hosts)
	}
	s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "h1"}}})
	s.leave("z1")
	last = now
	s.take("z1", "business", &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{HostId: "h1"}}})
	if back := shown(); back.GetFreshness() != apiv1.Freshness_LIVE {
		t.Errorf("of a zone that is back: %v", back)
	}
}
