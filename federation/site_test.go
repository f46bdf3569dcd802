package federation_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const patience = 30 * time.Second

// site is a federation's CA, one broker with both legs on loopback, and whoever the test lets dial them. Everything in
// it ends with the test.
type site struct {
	t                               testing.TB
	name                            string
	root                            *pki.Authority
	servers, brokers, links, people *pki.Authority
	registry                        *prometheus.Registry

	config            federation.Config
	zoneAddr, hubAddr string
	broker            *federation.Broker
	fingerprint       string // of its key
	stopBroker        func()
	ahead             time.Duration // of the broker's clock

	mu      sync.Mutex
	pending map[string]bool // agents that have asked to join and wait
	tokens  map[string]pki.JoinToken
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newAuthorities(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, name: "naru.test", pending: map[string]bool{}, tokens: map[string]pki.JoinToken{}}
	born := time.Now().Add(-365 * 24 * time.Hour)
	s.root = must(pki.NewAuthority(pki.AuthorityRoot, s.name, nil, born))
	s.servers = must(pki.NewAuthority(pki.AuthorityServers, s.name, s.root, born))
	s.brokers = must(pki.NewAuthority(pki.AuthorityBrokers, s.name, s.root, born))
	s.links = must(pki.NewAuthority(pki.AuthorityLinks, s.name, s.root, born))
	s.people = must(pki.NewAuthority(pki.AuthorityPeople, s.name, s.root, born))
	return s
}

// newSite starts a broker that has no certificate yet. change may alter its configuration.
func newSite(t testing.TB, change ...func(*federation.Config)) *site {
	t.Helper()
	s := newAuthorities(t)
	s.config = federation.DefaultConfig()
	s.config.StateDir, s.config.TrustPin = t.TempDir(), pki.Pin(s.root.Certificate)
	for _, c := range change {
		c(&s.config)
	}
	s.startBroker()
	return s
}

// startBroker starts it, the second time at the same addresses.
func (s *site) startBroker() {
	s.t.Helper()
	zone, hubLeg := listen(s.t, s.zoneAddr), listen(s.t, s.hubAddr)
	s.zoneAddr, s.hubAddr = zone.Addr().String(), hubLeg.Addr().String()
	s.registry = prometheus.NewRegistry()
	b, err := federation.NewBroker(s.config, federation.Options{Logger: logger(s.t), Registerer: s.registry, Zone: zone, Hub: hubLeg, Now: func() time.Time { return time.Now().Add(s.ahead) }})
	if err != nil {
		s.t.Fatal(err)
	}
	s.broker, s.fingerprint = b, b.Fingerprint()
	s.stopBroker = s.run("broker", b.Run)
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs something until stop is called or the test ends, whichever comes first.
func (s *site) run(what string, run func(context.Context) error) (stop func()) {
	s.t.Helper()
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel(over)
		select {
		case err := <-ended:
			if !errors.Is(err, over) {
				s.t.Errorf("%s ended with %v", what, err)
			}
		case <-time.After(patience):
			s.t.Errorf("%s does not end", what)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

// holder has a certificate of an authority, issued at a time.
func (s *site) holder(a *pki.Authority, issued time.Time, id func(federation string) string) *pki.Holder {
	s.t.Helper()
	h := must(pki.LoadOrCreate(s.t.TempDir(), "key"))
	chain := must(a.Issue(h.Key().Public(), mustID(id(s.name)), pki.IssueOptions{Now: issued}))
	if err := h.Set(chain); err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *site) serverHolder(id string) *pki.Holder {
	return s.holder(s.servers, time.Now(), func(f string) string { return must(pki.ServerID(f, id)).String() })
}

func (s *site) agentHolder(zone, agent string, issued time.Time) *pki.Holder {
	return s.holder(s.links, issued, func(f string) string { return must(pki.AgentID(f, zone, agent)).String() })
}

// server is one control plane server at the broker.
type server struct {
	id     string
	board  *hub.Board
	client *hub.Client
	stop   func()
	// taken gets each session that the server takes up; the test serves it, and end ends it.
	taken chan *taken
}

type taken struct {
	*hub.Session
	end func()
}

// server connects a server that serves, and waits until the broker knows it and has its certificate.
func (s *site) server(id string, change ...func(*hub.Config)) *server {
	s.t.Helper()
	before := s.gauge("naru_broker_servers_serving")
	one := s.absentServer(id, change...)
	s.eventually("server "+id+" at the broker", func() bool { return s.gauge("naru_broker_servers_serving") > before && s.broker.Enrolled() })
	stop := one.stop
	one.stop = func() {
		here := s.gauge("naru_broker_servers")
		stop()
		s.eventually("the broker sees that "+id+" is gone", func() bool { return s.gauge("naru_broker_servers") < here })
	}
	return one
}

// absentServer is a server that tries to connect.
func (s *site) absentServer(id string, change ...func(*hub.Config)) *server {
	s.t.Helper()
	one := &server{id: id, board: &hub.Board{}, taken: make(chan *taken, 64)}
	one.board.Publish(&linkv1.ServerStatus{Serving: true, Schema: 1})
	holder := s.serverHolder(id)
	config := hub.Config{
		Broker: "b1", Address: s.hubAddr, Fingerprint: s.fingerprint,
		Certificate: holder.TLSCertificate, Board: one.board, Registrar: registrar{s}, Logger: logger(s.t),
		Serve: func(ctx context.Context, session *hub.Session) error {
			ctx, end := context.WithCancel(ctx)
			one.taken <- &taken{session, end}
			<-ctx.Done()
			return ctx.Err()
		},
	}
	for _, c := range change {
		c(&config)
	}
	client, err := hub.New(config)
	if err != nil {
		s.t.Fatal(err)
	}
	one.client = client
	one.stop = s.run("server "+id, client.Run)
	return one
}

// next waits for the next session that the server takes up.
func (o *server) next(t testing.TB) *taken {
	t.Helper()
	select {
	case one := <-o.taken:
		return one
	case <-time.After(patience):
		t.Fatal("no session was offered to server " + o.id)
		return nil
	}
}

// registrar is a control plane's word about certificates, kept simple.
type registrar struct{ *site }

func (r registrar) Join(_ context.Context, in *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	token, ok := r.tokens[in.TokenId]
	if !ok || !pki.CheckMAC(in.Mac, token.Secret, []byte(in.TokenId), []byte(in.Agent), in.Csr, in.Nonce) {
		return nil, status.Error(codes.PermissionDenied, "the join token is not valid")
	}
	waits, asked := r.pending[in.Agent]
	if !asked || waits {
		r.pending[in.Agent] = true
		return &linkv1.JoinResponse{Pending: true}, nil
	}
	chain := must(r.links.Issue(must(pki.KeyOfCSR(in.Csr)), must(pki.AgentID(r.name, "z1", in.Agent)), pki.IssueOptions{Now: time.Now()}))
	return &linkv1.JoinResponse{Certificate: &linkv1.Certificate{Chain: chain, Zone: "business"}}, nil
}

func (r registrar) Renew(_ context.Context, certificate []byte, in *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	peer, err := pki.Verify([][]byte{certificate, r.links.Certificate.Raw}, r.root.Certificate, time.Now(), pki.RoleAgent)
	if peer == nil {
		return nil, err
	}
	chain, err := r.links.Issue(must(pki.KeyOfCSR(in.Csr)), peer.ID, pki.IssueOptions{Now: time.Now()})
	return &linkv1.RenewResponse{Certificate: &linkv1.Certificate{Chain: chain}}, err
}

func (r registrar) EnrollBroker(_ context.Context, broker string, csr []byte) ([][]byte, error) {
	return r.brokers.Issue(must(pki.KeyOfCSR(csr)), must(pki.BrokerID(r.name, broker)), pki.IssueOptions{Now: time.Now()})
}

func (s *site) dialer(h *pki.Holder) *dial.Dialer {
	s.t.Helper()
	return must(dial.New(dial.Config{Addresses: []string{s.zoneAddr}, Holder: h, Logger: logger(s.t)}))
}

// agent is the zone's end of a session, with its hand on every frame.
type agent struct {
	t       testing.TB
	stream  dial.Stream
	session []byte
	counter uint64
	close   func()
}

// connect opens a stream and says HELLO.
func (s *site) connect(h *pki.Holder) *agent {
	s.t.Helper()
	a := s.silent(h)
	a.send(linkv1.Type_HELLO, hello(h))
	return a
}

// silent opens a stream and says nothing.
func (s *site) silent(h *pki.Holder) *agent {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	stream, err := s.dialer(h).Connect(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return &agent{t: s.t, stream: stream, session: random(16), close: cancel}
}

func hello(h *pki.Holder) *linkv1.Hello {
	return &linkv1.Hello{Schema: 1, Key: random(32), Nonce: random(32), Chain: h.Chain(), Incarnation: "i1", Version: "test"}
}

func (a *agent) frame(kind linkv1.Type, m proto.Message) *linkv1.Frame {
	a.counter++
	f := &linkv1.Frame{Session: a.session, Direction: linkv1.Direction_UP, Counter: a.counter, Type: kind, Payload: must(proto.Marshal(m))}
	if kind != linkv1.Type_HELLO {
		f.Tag = random(32)
	}
	return f
}

func (a *agent) send(kind linkv1.Type, m proto.Message) *linkv1.Frame {
	a.t.Helper()
	f := a.frame(kind, m)
	if err := a.stream.Send(f); err != nil {
		a.t.Fatal(err)
	}
	return f
}

// ends receives until the stream has ended, and returns how.
func (a *agent) ends() error {
	for {
		if _, err := a.stream.Recv(); err != nil {
			return err
		}
	}
}

// receive is Recv with a test's patience.
func receive(t testing.TB, from hub.Stream) *linkv1.Frame {
	t.Helper()
	got, failed := make(chan *linkv1.Frame, 1), make(chan error, 1)
	go func() {
		f, err := from.Recv()
		if err != nil {
			failed <- err
			return
		}
		got <- f
	}()
	select {
	case f := <-got:
		return f
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("no frame came")
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// session is an agent and a server that have found each other; HELLO has come through.
func (s *site) session(one *server, h *pki.Holder) (*agent, *taken) {
	s.t.Helper()
	a := s.connect(h)
	up := one.next(s.t)
	if f := receive(s.t, up.Stream); f.Type != linkv1.Type_HELLO {
		s.t.Fatalf("the first frame is %s", f.Type)
	}
	return a, up
}

func (s *site) publishRevoked(one *server, names ...string) {
	one.board.Publish(&linkv1.ServerStatus{Serving: true, Schema: 1, Revoked: names})
}

// eventually waits for what must come true by events alone; a look every few milliseconds is only how it is seen.
func (s *site) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("never: %s", what)
		}
	}
}

// standsStill waits until a count that has begun to rise rises no more.
func (s *site) standsStill(what string, count func() float64) {
	s.t.Helper()
	last, looks := 0.0, 0
	s.eventually(what, func() bool {
		now := count()
		if looks++; now != last {
			last, looks = now, 0
		}
		return now > 0 && looks >= 25
	})
}

// gauge sums a metric's series whose labels are among those given.
func (s *site) gauge(name string, labels ...string) (sum float64) {
	for _, family := range must(s.registry.Gather()) {
		if family.GetName() != name {
			continue
		}
	series:
		for _, m := range family.GetMetric() {
			have := map[string]bool{}
			for _, l := range m.GetLabel() {
				have[l.GetName()+"="+l.GetValue()] = true
			}
			for _, l := range labels {
				if !have[l] {
					continue series
				}
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// logger writes where the test's log goes; a goroutine that logs after the test's end is a bug that goleak tells.
func logger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(logWriter{t}, nil))
	}
	return slog.New(slog.DiscardHandler)
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p[:len(p)-1]))
	return len(p), nil
}

func wantCode(t testing.TB, err error, want codes.Code, what string) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: want %s, got %v", what, want, err)
	}
}
