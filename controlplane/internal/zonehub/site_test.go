package zonehub_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/zonehub"
	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const patience = 30 * time.Second

// site is a server's hub on real state, a real broker on loopback, and zones whose agents the test plays.
type site struct {
	*servicetest.World
	*servicetest.Site
	root, links, brokers, servers *pki.Authority
	own                           *pki.Holder

	zoneLeg, hubLeg string
	config          federation.Config
	stopBroker      func()
	hub             *zonehub.Brokers
	stopHub         func()
	budget          zonehub.Budget
	proposer        zonehub.Proposer
	leader          *leader
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newSite(t *testing.T) *site {
	t.Helper()
	w := servicetest.New(t)
	s := &site{World: w, Site: w.NewSite(1), leader: newLeader(), budget: zonehub.DefaultBudget(), proposer: w}
	born := time.Now().Add(-60 * 24 * time.Hour)
	s.root = must(pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, born))
	for role, a := range map[string]**pki.Authority{pki.AuthorityLinks: &s.links, pki.AuthorityBrokers: &s.brokers, pki.AuthorityServers: &s.servers} {
		*a = must(pki.NewAuthority(role, "naru.test", s.root, born))
	}
	s.own = s.holder(s.servers, must(pki.ServerID("naru.test", "server-1")).String(), time.Now())
	s.config = federation.DefaultConfig()
	s.config.StateDir, s.config.TrustPin = t.TempDir(), pki.Pin(s.root.Certificate)
	fingerprint := s.startBroker()
	if _, err := s.Admin().Brokers.CreateBroker(t.Context(), &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{
		Name: "edge", HubAddress: s.hubLeg, Fingerprint: fingerprint,
	}}); err != nil {
		t.Fatal(err)
	}
	s.standBehind("edge", "internet", "business")
	s.startHub()
	return s
}

// standBehind puts zones behind a broker.
func (s *site) standBehind(broker string, zones ...string) {
	s.Helper()
	for _, z := range zones {
		if _, err := s.Admin().Zones.UpdateZone(s.Context(), &apiv1.UpdateZoneRequest{
			Zone: &apiv1.Zone{Id: z, Broker: broker}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"broker"}},
		}); err != nil {
			s.Fatal(err)
		}
	}
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
func (s *site) startBroker() (fingerprint string) {
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
	s.stopBroker = s.run(b.Run)
	return b.Fingerprint()
}

// startHub is a server's start.
func (s *site) startHub() {
	s.Helper()
	h, err := zonehub.New(zonehub.Config{
		Reader: s.DB, Proposer: s.proposer, ServerID: "server-1", Version: "test", Identity: link.IdentityOf(s.own),
		Verify: func(chain [][]byte) (link.Peer, error) {
			p, err := pki.Verify(chain, s.root.Certificate, time.Now(), pki.RoleAgent)
			if err != nil {
				return link.Peer{}, err
			}
			return link.Peer{Name: p.ID.String(), Zone: p.ZoneID, Agent: p.Agent, Key: p.Key}, nil
		},
		Samples: zonehub.NewSamples(time.Now), Budget: s.budget, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	b, err := zonehub.NewBrokers(zonehub.BrokersConfig{
		Hub: h, Leader: s.leader, Registrar: registrar{s}, Holder: s.own,
		Root: func() *x509.Certificate { return s.root.Certificate }, Data: s.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	s.hub, s.stopHub = b, s.run(b.Run)
}

// registrar gives certificates to whoever the broker vouches for.
type registrar struct{ *site }

func (r registrar) Join(context.Context, *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	return nil, errors.New("nobody joins here")
}

func (r registrar) Renew(_ context.Context, certificate []byte, in *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	peer, err := pki.Verify([][]byte{certificate, r.links.Certificate.Raw}, r.root.Certificate, time.Now(), pki.RoleAgent)
	if peer == nil {
		return nil, err
	}
	chain, err := r.links.Issue(must(pki.KeyOfCSR(in.GetCsr())), peer.ID, pki.IssueOptions{Now: time.Now()})
	return &linkv1.RenewResponse{Certificate: &linkv1.Certificate{Chain: chain}}, err
}

func (r registrar) EnrollBroker(_ context.Context, id string, csr []byte) ([][]byte, error) {
	return r.brokers.Issue(must(pki.KeyOfCSR(csr)), must(pki.BrokerID("naru.test", id)), pki.IssueOptions{Now: time.Now()})
}

// leader says who leads.
type leader struct {
	mu      sync.Mutex
	known   bool
	changed chan struct{}
}

func newLeader() *leader { return &leader{known: true, changed: make(chan struct{})} }

func (l *leader) Leading() (self, known bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known, l.known, l.changed
}

func (l *leader) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = false
	close(l.changed)
	l.changed = make(chan struct{})
}

func (s *site) holder(a *pki.Authority, id string, issued time.Time) *pki.Holder {
	s.Helper()
	h := must(pki.LoadOrCreate(s.TempDir(), "key"))
	if err := h.Set(must(a.Issue(h.Key().Public(), spiffe(id), pki.IssueOptions{Now: issued}))); err != nil {
		s.Fatal(err)
	}
	return h
}

func (s *site) agentHolder(zoneID, agent string, issued time.Time) *pki.Holder {
	return s.holder(s.links, must(pki.AgentID("naru.test", zoneID, agent)).String(), issued)
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

// connected tells how the state has the business zone.
func (s *site) connected() bool {
	return s.Zone("business").GetFreshness() == apiv1.Freshness_LIVE
}

// agent is a zone's end of the link, and what the zone keeps.
type agent struct {
	*site
	zoneID  string
	holder  *pki.Holder
	claims  *pki.Holder // whose chain the hello shows; else holder's
	schema  uint32
	numbers link.Numbers
	desired chan struct{}
	stop    func()

	mu      sync.Mutex
	holds   map[string]int // times that an object came, by kind and name
	point   *linkv1.StateAckPoint
	events  []string                         // the journal
	signed  map[int]*linkv1.Countersignature // in place of the event there
	written map[int]*linkv1.LocalEntry       // and these
	shown   *linkv1.Checkpoint
	acked   uint64
	covered uint64 // by a backup, as the acknowledgements say
	opened  []*link.Opened
	ends    []error
	kicked  chan struct{}
}

func (s *site) agent(zone *apiv1.Zone, name string) *agent {
	return &agent{
		site: s, zoneID: zone.GetId(), holder: s.agentHolder(zone.GetId(), name, time.Now()),
		holds: map[string]int{}, point: &linkv1.StateAckPoint{}, kicked: make(chan struct{}, 1), desired: make(chan struct{}, 1),
		numbers: link.Numbers{Incarnation: "i1", Revision: 1},
	}
}

// start keeps sessions until stop or the test's end.
func (a *agent) start() *agent {
	a.stop = a.run(func(ctx context.Context) error {
		for ctx.Err() == nil {
			err := a.session(ctx)
			a.mu.Lock()
			a.ends = append(a.ends, err)
			a.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond): // the pace of trying, not of the test
			}
		}
		return ctx.Err()
	})
	return a
}

// session is one, to its end.
func (a *agent) session(ctx context.Context) error {
	d := must(dial.New(dial.Config{Addresses: []string{a.zoneLeg}, Holder: a.holder}))
	shown := a.holder
	if a.claims != nil {
		shown = a.claims
	}
	end := must(link.NewZoneEnd(link.ZoneConfig{
		Common: link.Common{
			Identity: link.IdentityOf(shown), Checker: must(wire.NewChecker(wire.AtEnd)), Schema: a.schema, Version: "test",
			Verify: func(chain [][]byte) (link.Peer, error) {
				p, err := pki.Verify(chain, a.root.Certificate, time.Now(), pki.RoleServer)
				if err != nil {
					return link.Peer{}, err
				}
				return link.Peer{Name: p.ID.String(), Key: p.Key}, nil
			},
		},
		Classes: link.Classes{StateSink: sink{a}, JournalSource: source{a}},
		Numbers: func(context.Context) (link.Numbers, error) {
			return a.numbers, nil
		},
		Opened: func(_ context.Context, o *link.Opened) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.opened = append(a.opened, o)
			return nil
		},
	}))
	return end.Run(ctx, func(ctx context.Context) (link.Path, error) {
		stream, err := d.Connect(ctx)
		return link.Path{Stream: stream}, err
	})
}

// came returns how often an object came down.
func (a *agent) came(object string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[object]
}

// last is how many sessions have ended, and how the last one did.
func (a *agent) last() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ends) == 0 {
		return 0, nil
	}
	return len(a.ends), a.ends[len(a.ends)-1]
}

// countersign writes a countersignature into the zone's journal.
func (a *agent) countersign(c *linkv1.Countersignature) {
	a.mu.Lock()
	if a.signed == nil {
		a.signed = map[int]*linkv1.Countersignature{}
	}
	a.signed[len(a.events)] = c
	a.mu.Unlock()
	a.tell("")
}

// write writes an entry of the zone's own log into its journal.
func (a *agent) write(e *linkv1.LocalEntry) {
	a.mu.Lock()
	if a.written == nil {
		a.written = map[int]*linkv1.LocalEntry{}
	}
	a.written[len(a.events)] = e
	a.mu.Unlock()
	a.tell("")
}

// tell writes an event into the zone's journal.
func (a *agent) tell(message string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, message)
	select {
	case a.kicked <- struct{}{}:
	default:
	}
}

// sink is what the zone takes of what it should hold.
type sink struct{ *agent }

func (s sink) Point(context.Context) (*linkv1.StateAckPoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.point, nil
}

func (s sink) Commit(_ context.Context, chunk *linkv1.StateChunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range chunk.GetObjects() {
		s.holds[nameOf(o)]++
		if o.GetCheckpoint() != nil {
			s.shown = o.GetCheckpoint()
		}
	}
	s.point = &linkv1.StateAckPoint{Epoch: chunk.GetEpoch(), Revision: chunk.GetThrough()}
	return nil
}

func nameOf(o *linkv1.Object) string {
	switch {
	case o.GetCluster() != nil:
		return "cluster " + o.GetCluster().GetName()
	case o.GetHost() != nil:
		return "host " + o.GetHost().GetName()
	case o.GetVm() != nil:
		return "vm " + o.GetVm().GetName()
	case o.GetZone() != nil:
		return "zone " + o.GetZone().GetName()
	}
	return "another"
}

// source is the zone's journal.
type source struct{ *agent }

func (s source) Changed() <-chan struct{} { return s.kicked }

func (s source) Pending(context.Context) ([]*linkv1.JournalPoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked == uint64(len(s.events)) {
		return nil, nil
	}
	return []*linkv1.JournalPoint{{Origin: "i1", Stream: "zone", Sequence: s.acked}}, nil
}

func (s source) After(_ context.Context, p *linkv1.JournalPoint, most int) (*linkv1.JournalBatch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &linkv1.JournalBatch{Origin: "i1", Stream: "zone"}
	for i := p.GetSequence(); i < uint64(len(s.events)) && len(b.Entries) < most; i++ {
		b.Entries = append(b.Entries, &linkv1.JournalEntry{
			Sequence: i + 1, Time: timestamppb.Now(),
			Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
				Id: fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1), Time: timestamppb.Now(), Severity: apiv1.Event_INFO,
				Type: "test.told", Message: s.events[i],
			}},
		})
		if c := s.signed[int(i)]; c != nil {
			b.Entries[len(b.Entries)-1].Body = &linkv1.JournalEntry_Countersignature{Countersignature: c}
		}
		if e := s.written[int(i)]; e != nil {
			b.Entries[len(b.Entries)-1].Body = &linkv1.JournalEntry_LocalEntry{LocalEntry: e}
		}
	}
	if len(b.Entries) == 0 {
		return nil, nil
	}
	return b, nil
}

func (s source) Acknowledged(_ context.Context, ack *linkv1.JournalAck) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range ack.GetPoints() {
		s.acked, s.covered = max(s.acked, p.GetSequence()), max(s.covered, p.GetCovered())
	}
	return nil
}

// told returns what the federation has heard of zones' journals, in order.
func (s *site) told() (messages []string) {
	s.Helper()
	all, err := s.Admin().Events.ListEvents(s.Context(), &apiv1.ListEventsRequest{Filter: "type=test.told", PageSize: 1000})
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range all.GetEvents() {
		messages = append(messages, e.GetMessage())
	}
	slices.Sort(messages)
	return messages
}

// epoch is the state's.
func (s *site) epoch() (epoch uint64) {
	s.Helper()
	if err := s.DB.View(s.Context(), func(tx *state.Tx) error {
		epoch = tx.Meta().Epoch
		return nil
	}); err != nil {
		s.Fatal(err)
	}
	return epoch
}
