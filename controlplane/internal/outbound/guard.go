package outbound

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Networks are parts of the network, as 127.0.0.0/8.
type Networks []netip.Prefix

// Guard keeps whoever writes where something leads from having a server of the control plane speak to itself, or to what only machines
// beside it should reach. It looks at the address that is connected to, after names were resolved, so a name that changes does not help.
type Guard struct {
	// Allowed goes before what is refused.
	Allowed Networks
	// What may lead there, and Key of the configuration that says where to: for the sentence of a refusal.
	What, Key string
}

// refused are networks beside those that the standard library knows as loopback, link-local, multicast and unspecified: where clouds
// answer with the credentials of a machine, and where an IPv4 address hides in an IPv6 one.
var refused = Networks{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("100.100.100.200/32"), netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("192.0.0.192/32"),
	netip.MustParsePrefix("fd00:ec2::254/128"), netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

func (n Networks) contain(a netip.Addr) bool {
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (g Guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if g.Allowed.contain(a) {
		return nil
	}
	if !a.IsGlobalUnicast() || refused.contain(a) || own(a) {
		return fmt.Errorf("%s is no address that %s may lead to; the configuration of the servers allows others: %s", a, g.What, g.Key)
	}
	return nil
}

// own reports whether an address is one of this machine's. Where that cannot be found out, it is.
func own(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(of net.Addr) bool {
		p, err := netip.ParsePrefix(of.String())
		return err == nil && p.Addr().Unmap().WithZone("") == a
	})
}

// Dial connects to HOST:PORT within ten seconds.
func (g Guard) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return g.check(to.Addr())
	}}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
