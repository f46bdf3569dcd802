package hypervisor_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

func TestFatalIsSeenThroughWrapping(t *testing.T) {
	cause := errors.New("no such machine type")
	err := fmt.Errorf("defining web-1: %w", hypervisor.Fatal(cause))
	if !hypervisor.IsFatal(err) || !errors.Is(err, cause) {
		t.Fatalf("%v is not known as fatal with its cause", err)
	}
	if err.Error() != "defining web-1: no such machine type" {
		t.Fatalf("the mark changed the words: %q", err)
	}
}

func TestErrorsAreTemporaryUnlessMarked(t *testing.T) {
	if hypervisor.IsFatal(errors.New("connection reset")) || hypervisor.IsFatal(nil) {
		t.Fatal("an unmarked error is fatal")
	}
	if hypervisor.Fatal(nil) != nil {
		t.Fatal("marking no error made one")
	}
}

func TestAnOverrideReplacesNumberByNumber(t *testing.T) {
	reported := &apiv1.Resources{Cores: 2, MemoryMib: 24000, DiskGib: 250}
	got := hypervisor.Capacity(reported, &apiv1.Resources{MemoryMib: 4096})
	want := &apiv1.Resources{Cores: 2, MemoryMib: 4096, DiskGib: 250}
	if !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got := hypervisor.Capacity(reported, nil); !proto.Equal(got, reported) {
		t.Fatalf("no override changed the numbers: %v", got)
	}
}

func TestEveryAgentFindsTheSameLocallyAdministeredMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		mac, err := net.ParseMAC(hypervisor.MACOf(id))
		if err != nil {
			t.Fatal(err)
		}
		if mac[0]&1 != 0 || mac[0]&2 == 0 {
			t.Fatalf("%v is not a unicast, locally administered address", mac)
		}
		if mac.String() != hypervisor.MACOf(id) {
			t.Fatal("asked twice, answered differently")
		}
	})
}

func TestRatiosStayWithinZeroAndOne(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	for name, test := range map[string]struct {
		busy, elapsed time.Duration
		cores         uint32
		want          float64
	}{
		"half of two cores":      {busy: 10 * time.Second, elapsed: 10 * time.Second, cores: 2, want: 0.5},
		"power was cycled":       {busy: -time.Second, elapsed: 10 * time.Second, cores: 2, want: 0},
		"no time has passed":     {busy: time.Second, elapsed: 0, cores: 2, want: 0},
		"rounding above the top": {busy: 21 * time.Second, elapsed: 10 * time.Second, cores: 2, want: 1},
	} {
		before := hypervisor.VMCounters{At: start, CPU: time.Minute, Cores: test.cores}
		after := hypervisor.VMCounters{At: start.Add(test.elapsed), CPU: time.Minute + test.busy, Cores: test.cores}
		if got := after.CPURatio(before); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	host := hypervisor.HostCounters{CPUBusy: 30 * time.Second, CPUTotal: 80 * time.Second}
	if got := host.CPURatio(hypervisor.HostCounters{CPUBusy: 10 * time.Second, CPUTotal: 40 * time.Second}); got != 0.5 {
		t.Errorf("host: got %v, want 0.5", got)
	}
}
