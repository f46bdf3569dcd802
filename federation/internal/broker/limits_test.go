package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/frontdoor"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func tcp(address string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return a
}

func TestWhatCountsAsOneAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"10.0.0.1:1", "10.0.0.1:2", true},
		{"10.0.0.1:1", "10.0.0.2:1", false},
		{"10.0.0.1:1", "[::ffff:10.0.0.1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
	} {
		if got := frontdoor.AddressOf(tcp(c.a)) == frontdoor.AddressOf(tcp(c.b)); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	if frontdoor.AddressOf(&net.UnixAddr{Name: "x"}) != frontdoor.AddressOf(&net.UnixAddr{Name: "y"}) {
		t.Error("what has no address counts as one")
	}
}

func TestOneGreedyAddressCostsOthersNothing(t *testing.T) {
	j := newJoinLimits(Limits{JoinsPerMinute: 120, JoinsPerMinutePerAddress: 8})
	now := time.Now()
	for i := range 1000 {
		if got := j.allow(frontdoor.AddressOf(tcp("10.0.0.1:1")), now); got != (i < 2) {
			t.Fatalf("ask %d of the greedy: %v", i, got)
		}
	}
	for i := range 14 {
		if !j.allow(frontdoor.AddressOf(tcp(fmt.Sprintf("10.0.1.%d:1", i))), now) {
			t.Fatalf("another was refused")
		}
	}
	if !j.allow(frontdoor.AddressOf(tcp("10.0.0.1:1")), now.Add(time.Minute)) {
		t.Error("a minute later it is still refused")
	}
}

func TestAllAddressesTogetherHaveAPaceAndABoundedMemory(t *testing.T) {
	j := newJoinLimits(Limits{JoinsPerMinute: 120, JoinsPerMinutePerAddress: 8})
	now, allowed := time.Now(), 0
	for i := range 3 * maxAddresses {
		if j.allow(frontdoor.AddressOf(tcp(fmt.Sprintf("10.%d.%d.1:1", i/256, i%256))), now) {
			allowed++
		}
	}
	if allowed != 30 {
		t.Errorf("%d allowed at once", allowed)
	}
	if len(j.each) > maxAddresses {
		t.Errorf("%d remembered", len(j.each))
	}
	j.allow(frontdoor.AddressOf(tcp("192.0.2.1:1")), now.Add(time.Hour))
	if len(j.each) != 1 {
		t.Errorf("after an hour %d are remembered", len(j.each))
	}
}

func TestAPaceMakesItsSenderWaitAndLetsGoWhenTheSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waited time.Duration
		p := newPace(Limits{FramesPerSecondPerZone: 10, MiBPerSecondPerZone: 8}, func(d time.Duration) { waited += d })
		began := time.Now()
		for range 20 {
			if err := p.wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != time.Second || waited != took {
			t.Errorf("twenty frames at ten a second: %s, waited %s", took, waited)
		}
		time.Sleep(time.Minute)
		began = time.Now()
		for range 6 {
			if err := p.wait(t.Context(), 4<<20); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began).Round(time.Millisecond); took != 2*time.Second {
			t.Errorf("24 MiB at 8 a second: %s", took)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		over := errors.New("over")
		cancel(over)
		if err := p.wait(ctx, 4<<20); !errors.Is(err, over) {
			t.Errorf("of a session that has ended: %v", err)
		}
	})
}

func TestEveryTypeOfFrameHasAPlaceToBeCounted(t *testing.T) {
	for number := range linkv1.Type_name {
		if number < 0 || number >= typeSlots {
			t.Errorf("type %d has none", number)
		}
	}
}
