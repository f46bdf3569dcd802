package dev

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is one of the site's network namespaces: of a group of processes, of a desk, of a network's switch.
type Namespace struct {
	// Group is the name: agent-business, controlplane-2, desk-control, switch-internet.
	Group string
	// Path is the file that stands for the namespace.
	Path string
	// Home is the network it is in; of a broker, the zone's.
	Home Network
	// Broker is set where it has a second leg, in the control network.
	Broker bool
}

// The interfaces of a broker's two legs.
const (
	zoneLeg = "zone"
	hubLeg  = "hub"
)

// Namespaces returns the namespaces of a site that stands in this machine's own network namespaces.
func (s *Site) Namespaces() ([]Namespace, error) {
	entries, err := os.ReadDir(netnsFolder)
	if err != nil {
		return nil, err
	}
	var all []Namespace
	for _, e := range entries {
		group, ours := strings.CutPrefix(e.Name(), s.prefix())
		if !ours {
			continue
		}
		n := Namespace{Group: group, Path: filepath.Join(netnsFolder, e.Name()), Home: control}
		role, place, _ := strings.Cut(group, "-")
		n.Broker = role == "broker"
		for _, z := range zones {
			if place == z.Name || strings.HasPrefix(place, z.Name+"-") {
				n.Home = z
			}
		}
		all = append(all, n)
	}
	return all, nil
}

// Networks returns the networks in which the namespace has a leg.
func (n Namespace) Networks() []Network {
	if n.Broker {
		return []Network{n.Home, control}
	}
	return []Network{n.Home}
}

// Behind returns the networks whose packets may pass an interface of the namespace; on the loopback interface those are all
// that the namespace has a leg in.
func (n Namespace) Behind(iface string) []Network {
	switch {
	case n.Broker && iface == hubLeg:
		return []Network{control}
	case n.Broker && iface == zoneLeg:
		return []Network{n.Home}
	}
	return n.Networks()
}

// Prefixes returns what belongs to a network: its own addresses, and those of its guests.
func (n Network) Prefixes() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.90.%d.0/24", n.Number)),
		netip.MustParsePrefix(fmt.Sprintf("10.91.%d.0/24", n.Number)),
	}
}

// Has reports whether an address belongs to the network.
func (n Network) Has(a netip.Addr) bool {
	for _, p := range n.Prefixes() {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Do calls f in the namespace. Sockets that f opens stay in it; goroutines that f starts do not run there.
func (n Namespace) Do(f func() error) error {
	there, err := os.Open(n.Path)
	if err != nil {
		return err
	}
	defer there.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		here, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer here.Close()
		if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter %s: %w", n.Group, err)
		} else {
			err = f()
		}
		// The thread goes back where it was and lives on: what was started from it may be bound to its life. Where it
		// cannot go back it ends with this goroutine.
		if unix.Setns(int(here.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// forwarding are the switches that make a machine a router. A new namespace takes the first over from the machine it is on.
var forwarding = []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"}

// Forwards reports whether the namespace passes packets on from one of its interfaces to another.
func (n Namespace) Forwards() (bool, error) {
	on := false
	err := n.Do(func() error {
		for _, f := range forwarding {
			b, err := os.ReadFile(f)
			if os.IsNotExist(err) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			on = on || strings.TrimSpace(string(b)) != "0"
		}
		return nil
	})
	return on, err
}

// SetForwarding makes the namespace a router, or none.
func (n Namespace) SetForwarding(on bool) error {
	value := map[bool]string{true: "1", false: "0"}[on]
	return n.Do(func() error {
		for _, f := range forwarding {
			if err := os.WriteFile(f, []byte(value), 0); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
}
