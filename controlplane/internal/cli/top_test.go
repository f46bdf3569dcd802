package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestTopShowsAZoneThatIsAwayWithItsLastFiguresAndSinceWhen(t *testing.T) {
	d := newDesk(t)
	zone := d.Zone("business")
	d.Connect(zone.GetId(), true)
	hosts := map[string]*apiv1.Host{}
	d.View(func(tx *state.Tx) error {
		for h, err := range tx.Hosts.All(nil) {
			if err != nil {
				return err
			}
			if h.GetZoneId() == zone.GetId() {
				hosts[h.GetName()] = h
			}
		}
		return nil
	})
	before := timestamppb.New(time.Now().Add(-3 * time.Minute))
	d.HostSamples = []*apiv1.HostSample{{
		HostId: hosts["kvm-1"].GetId(), Zone: "business", Time: before, SeenAt: before, Freshness: apiv1.Freshness_STALE, CpuRatio: 0.5, MemoryUsedMib: 512, MemoryTotalMib: 2048, VmCount: 2,
	}}
	d.Connect(zone.GetId(), false)
	got := d.must("host top --zone business")
	for _, row := range []string{"kvm-1 business kvm 50.0 % 512/2048 2 stale 3m ago", "kvm-2 business kvm - - - stale 0s ago"} {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), row) {
			t.Errorf("it does not show %q:\n%s", row, got)
		}
	}
}

func TestFiguresThatAreNotOfNowAreFaint(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &screen{w: &out, width: 80, colour: true}}
	now := timestamppb.Now()
	samples := []*apiv1.HostSample{
		{Host: "here", Freshness: apiv1.Freshness_LIVE, Time: now, SeenAt: now, VmCount: 7},
		{Host: "away", Freshness: apiv1.Freshness_STALE, Time: now, SeenAt: now, VmCount: 8},
	}
	if err := printList(a, hostSampleColumns, samples); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, " 7 ") || !strings.Contains(got, "\x1b[2m8\x1b[0m") || !strings.Contains(got, "\x1b[33mstale\x1b[0m") {
		t.Errorf("%q", got)
	}
}
