package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const (
	zoneID   = "0192f000-0000-7000-8000-000000000001"
	patience = 30 * time.Second
)

// site is a zone with real etcd, a real broker on loopback, and a control plane that the test plays.
type site struct {
	*testing.T
	root, links, brokers, servers *pki.Authority

	zoneLeg, hubLeg string
	config          federation.Config
	fingerprint     string
	stopBroker      func()
	plane           *plane
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t}
	s.root = must(pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, time.Now()))
	for role, a := range map[string]**pki.Authority{pki.AuthorityLinks: &s.links, pki.AuthorityBrokers: &s.brokers, pki.AuthorityServers: &s.servers} {
		*a = must(pki.NewAuthority(role, "naru.test", s.root, time.Now()))
	}
	s.config = federation.DefaultConfig()
	s.config.StateDir, s.config.TrustPin = t.TempDir(), pki.Pin(s.root.Certificate)
	s.startBroker()
	s.plane = &plane{site: s, epoch: 7, epochID: make([]byte, 16), changed: make(chan struct{}, 1), points: map[string]uint64{}, point: &linkv1.StateAckPoint{}}
	s.plane.start()
	return s
}

// run runs something until stop is called or the test ends.
func (s *site) run(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			s.Errorf("it ended with %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	s.Cleanup(stop)
	return stop
}

// startBroker starts it, the second time at the same addresses.
func (s *site) startBroker() {
	s.Helper()
	listen := func(address *string) net.Listener {
		if *address == "" {
			*address = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", *address)
		if err != nil {
			s.Fatal(err)
		}
		*address = l.Addr().String()
		return l
	}
	b, err := federation.NewBroker(s.config, federation.Options{Zone: listen(&s.zoneLeg), Hub: listen(&s.hubLeg)})
	if err != nil {
		s.Fatal(err)
	}
	s.fingerprint = b.Fingerprint()
	s.stopBroker = s.run(b.Run)
}

func (s *site) holder(a *pki.Authority, role pki.Role, name string) *pki.Holder {
	s.Helper()
	h := must(pki.LoadOrCreate(s.TempDir(), "key"))
	id := must(pki.ServerID("naru.test", name))
	if role == pki.RoleAgent {
		id = must(pki.AgentID("naru.test", zoneID, name))
	}
	if err := h.Set(must(a.Issue(h.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
		s.Fatal(err)
	}
	return h
}

// eventually waits for what must come true by events alone; a look every few milliseconds is only how it is seen.
func (s *site) eventually(what string, ok func() bool) {
	s.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			s.Fatalf("never: %s", what)
		}
	}
}

// agent is one with a store; the first begins the zone's etcd, others join it.
type agent struct {
	*Uplink
	site    *site
	name    string
	central *Central
	stop    func()
	own     chan *etcdstore.Ownership // each time that it comes to own the link
}

// store opens the zone's etcd at an agent.
func (s *site) store(name string, endpoints ...string) *etcdstore.Store {
	s.Helper()
	at := fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(250), rand.IntN(250))
	c := etcdstore.Config{
		Zone: zoneID, Agent: name, Dir: s.TempDir(), Endpoints: endpoints,
		LeaseTTL: 2 * time.Second, LeaseMargin: 200 * time.Millisecond, Heartbeat: 50 * time.Millisecond, AnchorEvery: 20 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
		Member: &etcdstore.MemberConfig{Peer: at + ":2380", Client: at + ":2379", Tick: 10 * time.Millisecond, Election: 100 * time.Millisecond, NoSync: true},
	}
	store, err := etcdstore.Open(s.Context(), c)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { store.Close() })
	s.run(store.Run)
	return store
}

// agent starts an uplink on a store.
func (s *site) agent(name string, store *etcdstore.Store, peers Peers) *agent {
	s.Helper()
	h := s.holder(s.links, pki.RoleAgent, name)
	a := &agent{site: s, name: name, own: make(chan *etcdstore.Ownership, 16)}
	var last *etcdstore.Ownership
	a.Uplink = New(Config{
		Store: store, Dialer: connector{must(dial.New(dial.Config{Addresses: []string{s.zoneLeg}, Holder: h}))}, Link: h, Version: "test",
		Housekeeping: func(_ context.Context, own *etcdstore.Ownership) error {
			if own != last {
				last = own
				a.own <- own
			}
			return nil
		},
		Log: slog.New(slog.DiscardHandler),
	})
	a.central = a.Central(peers, nil)
	a.stop = s.run(a.Run)
	return a
}

type connector struct{ *dial.Dialer }

func (c connector) Connect(ctx context.Context) (link.Stream, error) { return c.Dialer.Connect(ctx) }

// observe writes down what the zone sees of itself.
func (a *agent) observe(own *etcdstore.Ownership, name string) {
	a.site.Helper()
	tx := a.Store.Begin(own)
	tx.PutObserved(&apiv1.Zone{Id: zoneID, Name: name})
	if _, err := tx.Commit(a.site.Context()); err != nil {
		a.site.Fatal(err)
	}
}

// tell writes an event into the zone's journal, as whoever owns the link does.
func (a *agent) tell(own *etcdstore.Ownership, message string) {
	a.site.Helper()
	tx := a.Store.Begin(own)
	tx.Journal(&linkv1.JournalEntry{Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: "00000000-0000-7000-8000-000000000001", Type: "test.told", Severity: apiv1.Event_INFO, Message: message,
	}}})
	if _, err := tx.Commit(a.site.Context()); err != nil {
		a.site.Fatal(err)
	}
}

// holds tells whether a cluster has come down into the store.
func (a *agent) holds(cluster string) bool {
	_, err := a.Store.Get(a.site.Context(), etcdstore.Desired, "cluster", cluster)
	return err == nil
}

// connected tells whether both ends have a session.
func (a *agent) connected() bool {
	p := a.site.plane
	p.mu.Lock()
	sessions := p.end.Sessions()
	p.mu.Unlock()
	end := a.state.end.Load()
	return end != nil && end.Connected() && len(sessions) == 1 && sessions[0].Peer.Agent == a.name
}

// plane is a control plane of one server.
type plane struct {
	*site
	stop func()

	mu      sync.Mutex
	end     *link.HubEnd
	epoch   uint64
	epochID []byte
	refused *link.Goodbye
	lost    string // the incarnation of which it has seen more
	hellos  []*linkv1.Hello

	changed  chan struct{}
	clusters []string // desired; revision n is the n-th
	sent     []string // clusters, each time
	points   map[string]uint64
	told     []string
	point    *linkv1.StateAckPoint // of what the zone observed
	observed []string              // names of the zone, as it was told
}

// start is a server's start.
func (p *plane) start() {
	h := p.holder(p.servers, pki.RoleServer, "server-1")
	board := &hub.Board{}
	board.Publish(&linkv1.ServerStatus{Serving: true, Leader: true, Schema: link.CurrentSchema})
	end := must(link.NewHubEnd(link.HubConfig{
		Common: link.Common{
			Identity: link.IdentityOf(h), Checker: must(wire.NewChecker(wire.AtEnd)),
			Verify: func(chain [][]byte) (link.Peer, error) {
				who, err := pki.Verify(chain, p.root.Certificate, time.Now(), pki.RoleAgent)
				if err != nil {
					return link.Peer{}, err
				}
				return link.Peer{Name: who.ID.String(), Zone: who.ZoneID, Agent: who.Agent, Key: who.Key}, nil
			},
		},
		Admit: p.admit,
	}))
	client := must(hub.New(hub.Config{
		Broker: "b1", Address: p.hubLeg, Fingerprint: p.fingerprint, Certificate: h.TLSCertificate, Board: board, Registrar: registrar{p.site},
		Serve: func(ctx context.Context, session *hub.Session) error {
			return end.Run(ctx, func(context.Context) (link.Path, error) {
				return link.Path{Stream: session.Stream, Schema: session.Schema, Zone: session.ZoneID}, nil
			})
		},
	}))
	p.mu.Lock()
	p.end = end
	p.mu.Unlock()
	p.stop = p.run(client.Run)
}

func (p *plane) admit(_ context.Context, _ link.Peer, hello *linkv1.Hello) (*link.Admission, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hellos = append(p.hellos, hello)
	a := &link.Admission{Epoch: p.epoch, EpochID: p.epochID, Refused: p.refused, IncarnationLost: p.lost == hello.GetIncarnation(), Calls: answers{}}
	a.Classes = link.Classes{StateSource: desired{p}, StateSink: observed{p}, JournalSink: journal{p}}
	return a, nil
}

// change changes what the plane is, under its lock.
func (p *plane) change(how func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how()
}

// want gives the zone another cluster to hold.
func (p *plane) want(cluster string) {
	p.change(func() { p.clusters = append(p.clusters, cluster) })
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *plane) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// asked is how often a session was asked for.
func (p *plane) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.hellos)
}

type desired struct{ *plane }

func (d desired) Changed() <-chan struct{} { return d.changed }

func (d desired) Acknowledged(context.Context, *linkv1.StateAckPoint) error { return nil }

func (d desired) Since(_ context.Context, after *linkv1.StateAckPoint, _ int) (*linkv1.StateChunk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := after.GetRevision()
	if after.GetEpoch() != d.epoch {
		from = 0
	}
	if from == uint64(len(d.clusters)) {
		return nil, nil
	}
	chunk := &linkv1.StateChunk{Epoch: d.epoch, After: from, Through: uint64(len(d.clusters)), End: true}
	for i := from; i < chunk.Through; i++ {
		chunk.Objects = append(chunk.Objects, &linkv1.Object{Revision: i + 1, Noun: &linkv1.Object_Cluster{Cluster: &apiv1.Cluster{
			Id: d.clusters[i], Name: d.clusters[i], ZoneId: zoneID, Zone: "business", Hypervisor: "sim",
		}}})
		d.sent = append(d.sent, d.clusters[i])
	}
	return chunk, nil
}

type observed struct{ *plane }

func (o observed) Point(context.Context) (*linkv1.StateAckPoint, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.point, nil
}

func (o observed) Commit(_ context.Context, chunk *linkv1.StateChunk) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.point = &linkv1.StateAckPoint{Incarnation: chunk.GetIncarnation(), Revision: chunk.GetThrough()}
	for _, object := range chunk.GetObjects() {
		o.observed = append(o.observed, object.GetZone().GetName())
	}
	return nil
}

type journal struct{ *plane }

func (j journal) Points(context.Context) (points []*linkv1.JournalPoint, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for origin, at := range j.points {
		points = append(points, &linkv1.JournalPoint{Origin: origin, Stream: "zone", Sequence: at})
	}
	return points, nil
}

func (j journal) Commit(_ context.Context, b *linkv1.JournalBatch) (*linkv1.JournalAck, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range b.GetEntries() {
		if e.GetSequence() == j.points[b.GetOrigin()]+1 {
			j.points[b.GetOrigin()]++
			j.told = append(j.told, e.GetEvent().GetMessage())
		}
	}
	return &linkv1.JournalAck{Points: []*linkv1.JournalPoint{{Origin: b.GetOrigin(), Stream: b.GetStream(), Sequence: j.points[b.GetOrigin()]}}}, nil
}

func (j journal) Withheld(context.Context, *linkv1.Withheld) (*linkv1.JournalAck, error) {
	return nil, errors.New("the broker withheld an entry")
}

// answers lists one zone to whoever calls.
type answers struct{}

func (answers) Serve(ctx context.Context, c *link.Call) error {
	return c.Send(ctx, must(proto.Marshal(&apiv1.ListZonesResponse{Zones: []*apiv1.Zone{{Name: "business", StateReason: "asked with " + c.Credential + " from " + c.Client}}})))
}

type registrar struct{ *site }

func (registrar) Join(context.Context, *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	return nil, errors.New("nobody joins here")
}

func (registrar) Renew(context.Context, []byte, *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	return nil, errors.New("nobody renews here")
}

func (r registrar) EnrollBroker(_ context.Context, id string, csr []byte) ([][]byte, error) {
	return r.brokers.Issue(must(pki.KeyOfCSR(csr)), must(pki.BrokerID("naru.test", id)), pki.IssueOptions{Now: time.Now()})
}
