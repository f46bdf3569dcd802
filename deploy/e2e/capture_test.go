package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/naru-project/naru/deploy/dev"
)

// frame is a packet as it passed an interface of a namespace.
type frame struct {
	at    dev.Namespace
	iface string
	data  []byte // from the Ethernet header on
}

func (f frame) String() string {
	return fmt.Sprintf("%s %s: %x", f.at.Group, f.iface, f.data[:min(len(f.data), 60)])
}

// capture takes every frame on every interface of some namespaces, both ways.
type capture struct {
	stopped atomic.Bool
	readers []*reader
}

// reader takes what passes one namespace.
type reader struct {
	at     dev.Namespace
	fd     int
	frames []frame
	done   chan error
}

// listenIn begins to capture in all the namespaces.
func listenIn(t *testing.T, namespaces []dev.Namespace) *capture {
	t.Helper()
	c := &capture{}
	for _, n := range namespaces {
		r := &reader{at: n, done: make(chan error, 1)}
		names := map[int]string{}
		err := n.Do(func() (err error) {
			if r.fd, err = packetSocket(unix.ETH_P_ALL); err != nil {
				return err
			}
			names, err = interfaces()
			return err
		})
		if err != nil {
			t.Fatalf("capture in %s: %v", n.Group, err)
		}
		c.readers = append(c.readers, r)
		go func() { r.done <- r.run(names, &c.stopped) }()
	}
	return c
}

// stop ends the capture and returns what it took. A capture that missed something is none.
func (c *capture) stop(t *testing.T) []frame {
	t.Helper()
	c.stopped.Store(true)
	var all []frame
	for _, r := range c.readers {
		if err := <-r.done; err != nil {
			t.Fatalf("capture in %s: %v", r.at.Group, err)
		}
		all = append(all, r.frames...)
	}
	return all
}

func (r *reader) run(names map[int]string, stopped *atomic.Bool) error {
	defer unix.Close(r.fd)
	buffer := make([]byte, 1<<18)
	for {
		flags, ending := unix.MSG_TRUNC, stopped.Load()
		if ending {
			flags |= unix.MSG_DONTWAIT // only what has come already
		}
		n, from, err := unix.Recvfrom(r.fd, buffer, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			if !ending {
				continue
			}
			stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err == nil && stats.Drops > 0 {
				err = fmt.Errorf("%d of %d packets were missed", stats.Drops, stats.Packets)
			}
			return err
		}
		if err != nil {
			return err
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || n > len(buffer) {
			return fmt.Errorf("a packet of %d bytes from %T", n, from)
		}
		name, known := names[link.Ifindex]
		if !known { // a guest's port, made since
			name = fmt.Sprintf("interface %d", link.Ifindex)
		}
		r.frames = append(r.frames, frame{r.at, name, bytes.Clone(buffer[:n])})
	}
}

// packetSocket opens a socket for whole frames of a protocol in the present namespace.
func packetSocket(protocol uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, protocol))))
	if err != nil {
		return 0, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}),
	)
	return fd, err
}

// interfaces returns the names of the present namespace's interfaces by their index.
func interfaces() (map[int]string, error) {
	// As net.Interfaces, which may run on another thread.
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for line := range bytes.Lines(b) {
		name, _, ok := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if !ok {
			continue
		}
		index, err := indexOf(string(name))
		if err != nil {
			return nil, err
		}
		names[index] = string(name)
	}
	return names, nil
}

func indexOf(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(request.Uint32()), nil
}

// packet is what a frame carries, as far as it matters who speaks with whom.
type packet struct {
	addresses []netip.Addr // every address that the frame names
	src, dst  netip.AddrPort
	tcp       *segment
	arp       bool
	icmp6     bool
}

// segment is a piece of a TCP stream.
type segment struct {
	seq            uint32
	syn, ack, gone bool // gone: FIN or RST
	payload        []byte
}

// EtherTypes and protocol numbers.
const (
	etherIPv4, etherARP, etherIPv6  = 0x0800, 0x0806, 0x86dd
	protocolTCP, protocolICMPv6     = 6, 58
	protocolHopByHop, ethernetBytes = 0, 14
)

// decode reads a frame. What it does not know is an error, and no frame that may pass.
func decode(data []byte) (p packet, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it is cut short")
		}
	}()
	body := data[ethernetBytes:]
	switch kind := binary.BigEndian.Uint16(data[12:]); kind {
	case etherARP:
		p.arp = true
		p.addresses = []netip.Addr{netip.AddrFrom4([4]byte(body[14:18])), netip.AddrFrom4([4]byte(body[24:28]))}
	case etherIPv4:
		p.addresses = []netip.Addr{netip.AddrFrom4([4]byte(body[12:16])), netip.AddrFrom4([4]byte(body[16:20]))}
		header, total := int(body[0]&15)*4, int(binary.BigEndian.Uint16(body[2:]))
		p.transport(body[9], body[header:total])
	case etherIPv6:
		p.addresses = []netip.Addr{netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(body[24:40]))}
		next, rest := body[6], body[40:40+int(binary.BigEndian.Uint16(body[4:]))]
		if next == protocolHopByHop {
			next, rest = rest[0], rest[8*(int(rest[1])+1):]
		}
		p.transport(next, rest)
	default:
		return p, fmt.Errorf("it is of an unknown kind, %#04x", kind)
	}
	return p, nil
}

func (p *packet) transport(protocol byte, b []byte) {
	p.icmp6 = protocol == protocolICMPv6
	if protocol != protocolTCP {
		return
	}
	p.src = netip.AddrPortFrom(p.addresses[0], binary.BigEndian.Uint16(b))
	p.dst = netip.AddrPortFrom(p.addresses[1], binary.BigEndian.Uint16(b[2:]))
	flags := b[13]
	p.tcp = &segment{
		seq: binary.BigEndian.Uint32(b[4:]),
		syn: flags&2 != 0, ack: flags&16 != 0, gone: flags&5 != 0,
		payload: b[int(b[12]>>4)*4:],
	}
}

// foreign returns the frames that name an address which has no business where they passed: of another network than those
// behind that interface, or of none. Only what is said to a whole link, or on it, belongs to no network.
func foreign(frames []frame) (found []string) {
	for _, f := range frames {
		p, err := decode(f.data)
		if err != nil {
			found = append(found, fmt.Sprintf("%v: %v", f, err))
			continue
		}
		for _, a := range p.addresses {
			here := a.IsLoopback() && f.iface == "lo" || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast()
			own := slices.ContainsFunc(f.at.Behind(f.iface), func(n dev.Network) bool { return n.Has(a) })
			if !here && !own {
				found = append(found, fmt.Sprintf("%v: %s", f, a))
			}
		}
	}
	return found
}
