package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// flow is one direction of a TCP connection.
type flow struct{ from, to netip.AddrPort }

// stream is what passed in a flow, put in order.
type stream struct {
	opened  bool // its first segment was seen
	dialled bool // by the end that this flow comes from
	answers bool // something was acknowledged, by an end that is there
	stray   string
	next    uint32
	early   map[uint32][]byte // by their first number
	data    []byte
}

// take adds a segment, which may come twice, late or early.
func (s *stream) take(p *segment) {
	seq := p.seq
	s.answers = s.answers || p.ack && !p.gone
	if p.syn {
		s.opened, s.dialled = true, !p.ack
		s.next, s.early, s.data = seq+1, map[uint32][]byte{}, nil
		return
	}
	if !s.opened || len(p.payload) == 0 {
		return
	}
	if old, ok := s.early[seq]; !ok || len(old) < len(p.payload) {
		s.early[seq] = p.payload
	}
	for moved := true; moved; {
		moved = false
		for seq, payload := range s.early {
			behind := int32(s.next - seq)
			if behind < 0 {
				continue
			}
			delete(s.early, seq)
			if int(behind) < len(payload) {
				s.data = append(s.data, payload[behind:]...)
				s.next += uint32(len(payload)) - uint32(behind)
			}
			moved = true
		}
	}
}

// legs is what passed the two legs of brokers.
type legs struct {
	streams map[flow]*stream
	faults  []string
}

// onLegs puts together what passed brokers' legs, and finds what may not: another protocol than TCP, a connection that a
// broker dialled, a stream whose beginning nobody saw.
func onLegs(frames []frame) *legs {
	l := &legs{streams: map[flow]*stream{}}
	for _, f := range frames {
		if !f.at.Broker || f.iface == "lo" {
			continue
		}
		p, err := decode(f.data)
		switch {
		case err != nil:
			l.faults = append(l.faults, fmt.Sprintf("%v: %v", f, err))
			continue
		case p.arp, p.icmp6 && p.addresses[1].IsLinkLocalMulticast():
			continue // neighbours look for one another
		case p.tcp == nil:
			l.faults = append(l.faults, fmt.Sprintf("%v: neither TCP nor what finds neighbours", f))
			continue
		}
		key := flow{p.src, p.dst}
		s := l.streams[key]
		if s == nil {
			s = &stream{}
			l.streams[key] = s
		}
		s.take(p.tcp)
		if s.dialled && isBroker(p.src.Addr()) {
			l.faults = append(l.faults, fmt.Sprintf("the broker at %s dials %s", p.src, p.dst))
			s.dialled = false
		}
		if !s.opened && len(p.tcp.payload) > 0 && !p.tcp.gone {
			s.stray = f.String()
		}
	}
	for key, s := range l.streams {
		// The rest of a connection that was open before is sent to an end that is gone, and taken by nobody.
		if back := l.streams[flow{key.to, key.from}]; s.stray != "" && back != nil && back.answers {
			l.faults = append(l.faults, s.stray+": data on a connection that was not seen to open")
		}
	}
	return l
}

// isBroker reports whether an address is a broker's, in a zone or in the control network.
func isBroker(a netip.Addr) bool {
	b := a.As4()
	return b[2] == 0 && b[3] > 20 && b[3] < 24 || b[2] > 0 && b[3] == 2
}

// TLS's content types, and what records may have.
const (
	changeCipherSpec, alert, handshake, applicationData = 20, 21, 22, 23

	recordHeader = 5
	recordMost   = 16384 + 256
)

// records reads a stream as TLS records from its first byte on, which must be a handshake, and returns how many bytes of
// application data it carried. What does not look like TLS is an error. The last record may be unfinished.
func records(data []byte) (carried int, err error) {
	for first, at := true, 0; at < len(data); first = false {
		b := data[at:]
		if first && b[0] != handshake {
			return carried, fmt.Errorf("it begins with %.16q, no TLS handshake", b)
		}
		if !slices.Contains([]byte{changeCipherSpec, alert, handshake, applicationData}, b[0]) {
			return carried, fmt.Errorf("after %d bytes comes %.16q, no TLS record", at, b)
		}
		if len(b) < recordHeader {
			return carried, nil
		}
		length := int(binary.BigEndian.Uint16(b[3:]))
		if b[1] != 3 || b[2] > 3 || length == 0 || length > recordMost {
			return carried, fmt.Errorf("after %d bytes comes a record with the header %x", at, b[:recordHeader])
		}
		if b[0] == applicationData {
			carried += length
		}
		at += recordHeader + length
	}
	return carried, nil
}

// onlyTLS returns what is wrong with the streams, and the bytes of application data that crossed each broker's leg, by the
// broker's address.
func (l *legs) onlyTLS() (found []string, carried map[netip.Addr]int) {
	found, carried = slices.Clone(l.faults), map[netip.Addr]int{}
	for key, s := range l.streams {
		n, err := records(s.data)
		if err != nil {
			found = append(found, fmt.Sprintf("%s to %s: %v", key.from, key.to, err))
		}
		for _, end := range []netip.Addr{key.from.Addr(), key.to.Addr()} {
			if isBroker(end) {
				carried[end] += n
			}
		}
	}
	return found, carried
}
