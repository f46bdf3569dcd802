package schedule

import (
	"errors"
	"fmt"
	"net/netip"
)

// maxRange bounds a pool: a bit an address is kept in memory.
const maxRange = 1 << 20

// Network is the flat guest network of a cluster. Clusters of a zone may share one.
type Network struct {
	// CIDR of the network: 10.91.2.0/24.
	CIDR netip.Prefix
	// Gateway is never handed out.
	Gateway netip.Addr
	// First and Last bound what is handed out; by default all host addresses of the network.
	First, Last netip.Addr
}

// pool knows which addresses are taken, and the lowest one that is free.
type pool struct {
	network     Network
	first, size int    // offsets in the network; size addresses from first
	taken       []bool // by offset from first
	free        int
	low         int // no address below is free
}

// newPool returns nil for no network.
func newPool(n *Network) (*pool, error) {
	if n == nil {
		return nil, nil
	}
	if !n.CIDR.IsValid() {
		return nil, errors.New("CIDR is not set")
	}
	n = &Network{CIDR: n.CIDR.Masked(), Gateway: n.Gateway, First: n.First, Last: n.Last}
	hosts := maxRange
	if bits := n.CIDR.Addr().BitLen() - n.CIDR.Bits(); bits < 21 {
		hosts = 1 << bits
	}
	// The first address names the network, IPv4's last is the broadcast.
	low, high := 1, hosts-1
	if n.CIDR.Addr().Is4() {
		high--
	}
	for _, end := range []struct {
		name    string
		address netip.Addr
		offset  *int
	}{{"first", n.First, &low}, {"last", n.Last, &high}} {
		if !end.address.IsValid() {
			continue
		}
		if *end.offset = n.offset(end.address); *end.offset < 0 {
			return nil, fmt.Errorf("%s address %s is not among the first %d of %s", end.name, end.address, maxRange, n.CIDR)
		}
	}
	if low > high {
		return nil, fmt.Errorf("%s has no address between %s and %s", n.CIDR, n.at(low), n.at(high))
	}
	p := &pool{network: *n, first: low, size: high - low + 1}
	p.reset()
	return p, nil
}

// offset is where an address lies in the network; -1 outside of it.
func (n *Network) offset(a netip.Addr) int {
	a = a.Unmap()
	if !n.CIDR.Contains(a) {
		return -1
	}
	base, raw, off := n.CIDR.Addr().AsSlice(), a.AsSlice(), 0
	for i := range raw {
		off = off<<8 | int(raw[i]) - int(base[i])
		if off >= maxRange {
			return -1
		}
	}
	return off
}

func (n *Network) at(offset int) netip.Addr {
	raw := n.CIDR.Addr().AsSlice()
	for i := len(raw) - 1; i >= 0 && offset > 0; i-- {
		offset += int(raw[i])
		raw[i] = byte(offset)
		offset >>= 8
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// reset frees everything but the gateway.
func (p *pool) reset() {
	p.taken, p.free, p.low = make([]bool, p.size), p.size, 0
	p.set(p.network.Gateway, true)
}

// set notes that an address is taken, or free; one that the pool does not hand out is passed over.
func (p *pool) set(a netip.Addr, taken bool) {
	if !a.IsValid() {
		return
	}
	i := p.network.offset(a) - p.first
	if i < 0 || i >= p.size || p.taken[i] == taken || !taken && a == p.network.Gateway {
		return
	}
	p.taken[i] = taken
	if taken {
		p.free--
	} else {
		p.free++
		p.low = min(p.low, i)
	}
}

// lowest returns the lowest free address, without taking it.
func (p *pool) lowest() (a netip.Addr, ok bool) {
	for ; p.low < p.size; p.low++ {
		if !p.taken[p.low] {
			return p.network.at(p.first + p.low), true
		}
	}
	return a, false
}

// bounds are the first and last address that are handed out.
func (p *pool) bounds() (first, last netip.Addr) {
	return p.network.at(p.first), p.network.at(p.first + p.size - 1)
}
