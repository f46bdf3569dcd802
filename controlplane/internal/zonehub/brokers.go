package zonehub

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// leaderless is how long a server may know no leader before it lets its zones go elsewhere.
const leaderless = 2 * time.Second

// Leader tells who leads.
type Leader interface {
	// Leading returns whether this server leads, whether any leader is known, and a channel that is closed when that
	// changes.
	Leading() (self, known bool, changed <-chan struct{})
}

// BrokersConfig is what Brokers is made of. Every field but ZoneLeg and Registerer must be set.
type BrokersConfig struct {
	Hub       *Hub
	Leader    Leader
	Registrar hub.Registrar
	Holder    *pki.Holder
	Root      func() *x509.Certificate
	// ZoneLeg is HOST:PORT of the leg towards zones of a broker inside this process; empty: there is none.
	ZoneLeg string
	// Data is the server's data folder.
	Data       string
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Brokers keeps this server's side of every broker's hub leg: of those that the state names, and of the one inside this
// process. It tells them whether this server takes sessions and who is revoked.
type Brokers struct {
	BrokersConfig
	board   *hub.Board
	metrics *hub.Metrics
	inside  *federation.Broker
	pipe    *federation.InProcess

	mu      sync.Mutex
	clients map[string]*side // by the broker's id
}

// side is this server's side of one broker: its client, and how many sessions of which zones go through it.
type side struct {
	client *hub.Client
	zones  map[string]int // by id; of Brokers.mu
}

// NewBrokers returns it; nothing is dialled before Run.
func NewBrokers(c BrokersConfig) (*Brokers, error) {
	b := &Brokers{BrokersConfig: c, board: &hub.Board{}, clients: map[string]*side{}}
	var err error
	if b.metrics, err = hub.NewMetrics(c.Registerer); err != nil || c.ZoneLeg == "" {
		return b, err
	}
	b.pipe = federation.Pipe()
	config := federation.DefaultConfig()
	config.StateDir, config.ZoneListen, config.TrustPin = filepath.Join(c.Data, "broker"), c.ZoneLeg, pki.Pin(c.Root())
	b.inside, err = federation.NewBroker(config, federation.Options{Hub: b.pipe, Logger: c.Log, Registerer: c.Registerer})
	return b, err
}

// Run goes on until ctx ends.
func (b *Brokers) Run(ctx context.Context) error {
	defer b.Hub.awaitFarewells()
	// Sessions that end with this server end for that reason, however their streams break.
	stopped, ctx := ctx, context.WithoutCancel(ctx)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(stopped, func() { stop(&link.Goodbye{Code: link.CodeShuttingDown, Reason: "this server stops"}) })()
	g, ctx := errgroup.WithContext(ctx)
	if b.inside != nil {
		g.Go(func() error { return b.inside.Run(ctx) })
		g.Go(func() error {
			return b.client(ctx, &apiv1.Broker{Id: inside, Name: inside, HubAddress: "in-process", Fingerprint: b.inside.Fingerprint()})
		})
	}
	g.Go(func() error { return b.publish(ctx) })
	g.Go(func() error { return b.reconcile(ctx) })
	g.Go(func() error { return b.Hub.rejudge(ctx) })
	return g.Wait()
}

// publish tells brokers how this server stands, each time that changes. Without a leader it ends its sessions.
func (b *Brokers) publish(ctx context.Context) error {
	identity := b.Hub.Reader.Watch(state.TopicIdentity)
	defer identity.Close()
	var since time.Time // when the last leader was lost
	for {
		self, known, changed := b.Leader.Leading()
		var revoked []string
		if err := b.Hub.view(ctx, func(tx *state.Tx) (err error) {
			revoked, err = tx.Revoked()
			return err
		}); err != nil {
			return fmt.Errorf("read who is revoked: %w", err)
		}
		var lost <-chan time.Time
		switch {
		case known:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
			fallthrough
		default:
			if left := leaderless - time.Since(since); left > 0 {
				lost = time.After(left)
			} else {
				b.Hub.end.EndAll(link.CodeNoLeader, "this server knows no leader")
			}
		}
		b.board.Publish(&linkv1.ServerStatus{Serving: known, Leader: self, Schema: link.CurrentSchema, Revoked: revoked})
		select {
		case <-ctx.Done():
			// Zones are told to go elsewhere before the streams end.
			b.board.Publish(&linkv1.ServerStatus{Schema: link.CurrentSchema, Revoked: revoked})
			b.Hub.end.EndAll(link.CodeShuttingDown, "this server stops")
			return ctx.Err()
		case <-changed:
		case <-identity.C():
		case <-lost:
		}
	}
}

// reconcile keeps a client for each broker that the state names.
func (b *Brokers) reconcile(ctx context.Context) error {
	watch := b.Hub.Reader.Watch("brokers")
	defer watch.Close()
	running := map[string]*runningClient{}
	var work sync.WaitGroup
	defer work.Wait()
	for {
		wanted := map[string]*apiv1.Broker{}
		err := b.Hub.view(ctx, func(tx *state.Tx) error {
			clear(wanted)
			for broker, err := range tx.Brokers.All(nil) {
				if err != nil {
					return err
				}
				wanted[broker.GetId()] = broker
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the brokers: %w", err)
		}
		for id, r := range running {
			if w := wanted[id]; w == nil || w.GetHubAddress() != r.broker.GetHubAddress() || w.GetFingerprint() != r.broker.GetFingerprint() {
				r.stop()
				delete(running, id)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(wanted)) {
			if running[id] != nil {
				continue
			}
			ctx, stop := context.WithCancel(ctx)
			r := &runningClient{broker: wanted[id], stop: stop}
			running[id] = r
			work.Go(func() {
				if err := b.client(ctx, r.broker); err != nil && ctx.Err() == nil {
					b.Log.Error("a broker cannot be served", "broker", r.broker.GetName(), "error", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watch.C():
		}
	}
}

type runningClient struct {
	broker *apiv1.Broker
	stop   context.CancelFunc
}

// client runs this server's side of one broker.
func (b *Brokers) client(ctx context.Context, broker *apiv1.Broker) error {
	at := boundary{broker, b.Hub}
	own := &side{zones: map[string]int{}}
	config := hub.Config{
		Broker: broker.GetId(), Address: broker.GetHubAddress(), Fingerprint: broker.GetFingerprint(),
		Certificate: b.Holder.TLSCertificate, Board: b.board, Registrar: boundaryRegistrar{b.Registrar, at},
		Serve: func(ctx context.Context, s *hub.Session) error {
			b.count(own, s.ZoneID, 1)
			defer b.count(own, s.ZoneID, -1)
			return b.Hub.Serve(through(ctx, at), s.ZoneID, s.Agent, func(context.Context) (link.Path, error) {
				return link.Path{Stream: s.Stream, Schema: s.Schema, Zone: s.ZoneID}, nil
			})
		},
		Logger: b.Log.With("broker_name", broker.GetName()), Metrics: b.metrics,
	}
	if broker.GetId() == inside {
		config.DialContext = b.pipe.DialContext
	}
	var err error
	if own.client, err = hub.New(config); err != nil {
		return err
	}
	b.mu.Lock()
	b.clients[broker.GetId()] = own
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.clients[broker.GetId()] == own { // else another one is there, at a new address
			delete(b.clients, broker.GetId())
		}
	}()
	return own.client.Run(ctx)
}

func (b *Brokers) count(s *side, zone string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.zones[zone] += n; s.zones[zone] <= 0 {
		delete(s.zones, zone)
	}
}

// Views returns this server's part of what is seen of each broker now: its id, one connection, whose zones are ids, and what
// the broker said of itself.
func (b *Brokers) Views() []*apiv1.Broker {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*apiv1.Broker
	for _, id := range slices.Sorted(maps.Keys(b.clients)) {
		s := b.clients[id]
		v := s.client.View()
		m := &apiv1.Broker{Id: id, Connections: []*apiv1.Broker_Connection{{
			Connected: v.Connected, Reason: v.Reason, SeenAt: stamp(v.Seen), Zones: slices.Sorted(maps.Keys(s.zones)),
		}}}
		if v.Connected {
			m.Version, m.CertificateExpiresAt = v.Version, stamp(v.Expires)
		}
		out = append(out, m)
	}
	return out
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
