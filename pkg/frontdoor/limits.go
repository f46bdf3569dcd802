package frontdoor

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/naru-project/naru/pkg/problem"
)

// Limits bound the connections that are open at a door. A long watch takes one of them, and is never ended for it.
type Limits struct {
	Connections int
	// PerAddress is of one IPv4 address, or of one IPv6 /64.
	PerAddress int
}

// DefaultLimits leave room for many users behind one address.
func DefaultLimits() Limits { return Limits{Connections: 4096, PerAddress: 512} }

const (
	// maxRefusals bounds those who are told why they are refused; who comes beyond is hung up on.
	maxRefusals = 32
	// refusalTime is how long a refusal may take.
	refusalTime = 2 * time.Second
)

// metrics are a door's figures.
type metrics struct {
	connections prometheus.Gauge
	refused     *prometheus.CounterVec // reason
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		connections: f.NewGauge(prometheus.GaugeOpts{Name: "naru_frontdoor_connections", Help: "Open connections, those in their handshake included."}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_frontdoor_refused_connections_total", Help: "Connections refused because too many were open.",
		}, []string{"reason"}),
	}
}

// guests counts who is inside. Safe for concurrent use.
type guests struct {
	limits  Limits
	metrics *metrics

	mu    sync.Mutex
	total int
	each  map[netip.Prefix]*guest
}

// guest is one address.
type guest struct{ open, shaking int }

func newGuests(l Limits, m *metrics) *guests {
	return &guests{limits: l, metrics: m, each: map[netip.Prefix]*guest{}}
}

// enter counts a connection that begins its handshake, or returns why it may not: "total" or "address". Of the handshakes under
// way one address has at most a share.
func (g *guests) enter(from netip.Prefix) (refused string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.each[from]
	switch {
	case g.total >= g.limits.Connections:
		return "total"
	case at != nil && (at.open >= g.limits.PerAddress || at.shaking >= maxHandshakes/4):
		return "address"
	case at == nil:
		at = &guest{}
		g.each[from] = at
	}
	g.total++
	at.open++
	at.shaking++
	g.metrics.connections.Inc()
	return ""
}

func (g *guests) shaken(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.each[from].shaking--
	g.tidy(from)
}

// tidy forgets an address of which nothing is left.
func (g *guests) tidy(from netip.Prefix) {
	if at := g.each[from]; at.open == 0 && at.shaking == 0 {
		delete(g.each, from)
	}
}

func (g *guests) leave(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	g.metrics.connections.Dec()
	g.each[from].open--
	g.tidy(from)
}

// AddressOf is what counts as one client: an IPv4 address, or an IPv6 /64. Whatever has no address counts as one.
func AddressOf(a net.Addr) netip.Prefix { return clientAt(a.String()) }

// Client is what counts as one client at an address with its port, in words; empty where it has none.
func Client(address string) string {
	if p := clientAt(address); p.IsValid() {
		return p.String()
	}
	return ""
}

func clientAt(address string) netip.Prefix {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := at.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}

// counted is a connection that says when it is closed.
type counted struct {
	net.Conn
	closed func()
}

func (c counted) Close() error {
	err := c.Conn.Close()
	c.closed()
	return err
}

// refusal is what a client that is one too many is told.
func refusal(reason string) *problem.Error {
	if reason == "address" {
		return problem.New(problem.TooMany, "too many connections are open from your address", "Close some, or use one for many calls; then try again.")
	}
	return problem.New(problem.TooMany, "too many connections are open here", "Try again in a moment, or at another server.")
}

// refuse tells a client over its finished handshake why it is not let in, and hangs up.
func refuse(conn *tls.Conn, http2Only bool, why *problem.Error) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(refusalTime))
	if http2Only || conn.ConnectionState().NegotiatedProtocol == "h2" {
		if refuseHTTP2(conn, why.Problem.GetDetail()) != nil {
			return
		}
	} else {
		if _, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, 16<<10))); err != nil {
			return
		}
		body, _ := json.Marshal(map[string]any{
			"type": "about:blank", "status": http.StatusServiceUnavailable, "code": why.Code(), "title": "Too many connections",
			"detail": why.Problem.GetDetail(), "next": why.Problem.GetNext(),
		})
		fmt.Fprintf(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 10\r\n"+
			"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	// What is unread when a connection is closed takes what was written with it.
	_ = conn.CloseWrite()
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
}

// refuseHTTP2 answers the first request of a gRPC client, in the few frames that this takes: SETTINGS, and on the request's
// stream HEADERS that end it (RFC 9113, section 6; RFC 7541, section 6.2.2; gRPC over HTTP/2, Trailers-Only).
func refuseHTTP2(conn io.ReadWriter, why string) error {
	const headers, settings, goAway = 1, 4, 7
	const endStream, endHeaders, calm = 1, 4, 0xb
	if _, err := conn.Write(frame(settings, 0, 0, nil)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, conn, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return err
	}
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			return err
		}
		if head[3] != headers {
			continue
		}
		stream := binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1)
		block := []byte{0x88} // :status: 200
		for _, h := range [][2]string{{"content-type", "application/grpc"}, {"grpc-status", "14"}, {"grpc-message", url.PathEscape(why)}} {
			block = append(append(block, 0, byte(len(h[0]))), h[0]...)
			block = append(append(block, byte(min(len(h[1]), 126))), h[1][:min(len(h[1]), 126)]...)
		}
		last := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, stream), calm)
		_, err := conn.Write(append(frame(headers, endStream|endHeaders, stream, block), frame(goAway, 0, 0, last)...))
		return err
	}
}

// frame is one of HTTP/2.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// bodyTime is how long a request's body may take. What is answered may take for ever: watches do.
const bodyTime = 30 * time.Second

// patient bounds the time that a request's body takes to come.
func patient(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		r.Body = &timedBody{r.Body, func() { _ = c.SetReadDeadline(time.Time{}) }}
	}
}

type timedBody struct {
	io.ReadCloser
	whole func()
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.whole()
	}
	return n, err
}
