package schedule

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The pool agrees with a list of all addresses, whatever is taken and freed, and however often.
func TestThePoolGivesTheLowestFreeAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := netip.PrefixFrom(
			netip.MustParseAddr(rapid.SampledFrom([]string{"10.91.2.0", "10.0.255.240", "fd00::ff00"}).Draw(t, "base")), 0)
		prefix = netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen()-rapid.IntRange(3, 8).Draw(t, "bits")).Masked()
		n := &Network{CIDR: prefix, Gateway: prefix.Addr().Next()}
		p, err := newPool(n)
		if err != nil {
			t.Fatal(err)
		}
		var free []netip.Addr
		for a := prefix.Addr().Next(); prefix.Contains(a); a = a.Next() {
			if a != n.Gateway && (a.Is6() || prefix.Contains(a.Next())) {
				free = append(free, a)
			}
		}
		all := append([]netip.Addr{}, free...)
		taken := map[netip.Addr]bool{}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			a := rapid.SampledFrom(all).Draw(t, "address")
			take := rapid.Bool().Draw(t, "take")
			p.set(a, take)
			taken[a] = take
		}
		var want netip.Addr
		left := 0
		for _, a := range all {
			if !taken[a] {
				if left == 0 {
					want = a
				}
				left++
			}
		}
		got, ok := p.lowest()
		if got != want || ok != (left > 0) || p.free != left {
			t.Fatalf("lowest is %v (%v) with %d free, want %v with %d", got, ok, p.free, want, left)
		}
	})
}

func TestAddressesOfOthersAreNoMatterToThePool(t *testing.T) {
	p, err := newPool(&Network{CIDR: netip.MustParsePrefix("10.91.2.0/24"), First: netip.MustParseAddr("10.91.2.10")})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.91.3.10", "10.91.2.2", "fd00::1", "::"} {
		p.set(netip.MustParseAddr(a), true)
		p.set(netip.MustParseAddr(a), false)
	}
	if a, _ := p.lowest(); a.String() != "10.91.2.10" || p.free != 245 {
		t.Errorf("lowest is %v, %d free", a, p.free)
	}
}

func TestANetworkThatMakesNoSenseIsRefusedByName(t *testing.T) {
	cidr := netip.MustParsePrefix("10.91.2.0/24")
	for want, n := range map[string]*Network{
		"CIDR is not set":                      {},
		"first address 10.91.3.1 is not among": {CIDR: cidr, First: netip.MustParseAddr("10.91.3.1")},
		"last address 10.90.2.9 is not among":  {CIDR: cidr, Last: netip.MustParseAddr("10.90.2.9")},
		"no address between":                   {CIDR: cidr, First: netip.MustParseAddr("10.91.2.9"), Last: netip.MustParseAddr("10.91.2.8")},
	} {
		if _, err := newPool(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if p, err := newPool(&Network{CIDR: netip.MustParsePrefix("10.0.0.0/8")}); err != nil || p.size != maxRange-2 {
		t.Errorf("a large network: %v", err)
	}
}
