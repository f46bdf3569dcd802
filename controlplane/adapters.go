package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"time"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/replica"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/controlplane/internal/zonehub"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// machine is the state machine as replication wants it.
type machine struct{ *fsm.Machine }

func (m machine) Apply(entries []replica.Entry) ([]*commandv1.Result, error) {
	out := make([]fsm.Entry, len(entries))
	for i, e := range entries {
		out[i] = fsm.Entry{Index: e.Index, Term: e.Term, Data: e.Data}
	}
	return m.Machine.Apply(out)
}

func (m machine) Snapshot() (replica.Snapshot, error) {
	s, err := m.Machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return snapshot{s}, nil
}

func (m machine) Restore(r io.Reader) error { return m.Machine.Restore(r) }

type snapshot struct{ *fsm.Snapshot }

func (s snapshot) Applied() (index, term uint64) { return s.Index, s.Term }

// stateReader reads for the parts that want one thing of the state.
type stateReader struct{ db *state.DB }

func (r stateReader) view(ctx context.Context, fn func(*state.Tx) error) error {
	for {
		if err := r.db.View(ctx, fn); !errors.Is(err, state.ErrRetry) {
			return err
		}
	}
}

func (r stateReader) Keyring(ctx context.Context) (ring *commandv1.Keyring, err error) {
	err = r.view(ctx, func(tx *state.Tx) (err error) {
		ring, err = tx.Keyring()
		return absent(err)
	})
	return ring, err
}

func (r stateReader) JoinToken(ctx context.Context, id string) (t *commandv1.JoinToken, err error) {
	err = r.view(ctx, func(tx *state.Tx) (err error) {
		t, err = tx.JoinToken(id)
		return absent(err)
	})
	return t, err
}

func (r stateReader) Member(ctx context.Context, zoneID, agent string) (m *commandv1.Member, err error) {
	err = r.view(ctx, func(tx *state.Tx) (err error) {
		m, err = tx.Member(zoneID, agent)
		return absent(err)
	})
	return m, err
}

func (r stateReader) ZoneName(ctx context.Context, zoneID string) (name string, active bool, err error) {
	err = r.view(ctx, func(tx *state.Tx) error {
		z, err := tx.Zones.Get(zoneID)
		if errors.Is(err, state.ErrNotFound) {
			name = zoneID
			return nil
		}
		if err != nil {
			return err
		}
		revoked, err := tx.IsRevoked(zoneID, "")
		name, active = z.GetName(), !revoked && z.GetState() != apiv1.Zone_RETIRED
		return err
	})
	return name, active, err
}

// checkFeatureLevel refuses a version that does not know what commands mean in the federation.
func (r stateReader) checkFeatureLevel(ctx context.Context, known uint32, version string) error {
	return r.view(ctx, func(tx *state.Tx) error {
		if level := tx.Meta().FeatureLevel; level > known {
			return problem.Newf(problem.WrongState, "Run a newer version.",
				"the federation's feature level is %d, and version %s knows %d", level, version, known)
		}
		return nil
	})
}

// checkName refuses a folder of another server than the one that the configuration names.
func (r stateReader) checkName(ctx context.Context, serverID string, c *Config) error {
	return r.view(ctx, func(tx *state.Tx) error {
		m, err := tx.Servers.Get(serverID)
		if err != nil || m.GetName() == c.Name {
			return absent(err) // one that has not been admitted yet has no record
		}
		return problem.Newf(problem.WrongState, "Give it a folder of its own (data), or its own name: "+m.GetName()+".",
			"folder %s belongs to server %s, this is server %s", c.Data, m.GetName(), c.Name)
	})
}

func absent(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// peerOf names the server at the other end of a connection.
func peerOf(g *pki.Guard) func(tls.ConnectionState) (string, error) {
	return func(cs tls.ConnectionState) (string, error) {
		p, err := g.Peer(cs)
		if err != nil {
			return "", err
		}
		return p.ServerID, nil
	}
}

// verifyAgent judges the chain of a zone's end.
func verifyAgent(root func() *x509.Certificate) link.Verify {
	return func(chain [][]byte) (link.Peer, error) {
		p, err := pki.Verify(chain, root(), time.Now(), pki.RoleAgent)
		if err != nil {
			return link.Peer{}, err
		}
		return link.Peer{Name: p.ID.String(), Zone: p.ZoneID, Agent: p.Agent, Key: p.Key}, nil
	}
}

// calls carries out what users at zones' edges call, through the API's own gate.
type calls struct{ dispatcher *api.Dispatcher }

func (c calls) Serve(ctx context.Context, call *link.Call) error {
	return c.dispatcher.Dispatch(ctx, api.LinkCall{
		ZoneID: call.Peer.Zone, Method: call.Method, Body: call.Body, Token: call.Credential,
		IdempotencyKey: call.IdempotencyKey, IfMatch: call.IfMatch, LastEventID: call.LastEventID,
		Language: call.Language, TraceID: call.TraceID, Client: call.Client,
	}, func(body []byte) error { return call.Send(ctx, body) })
}

// localView is what this server tells its peers about itself.
type localView struct {
	server  *Server
	samples *zonehub.Samples
}

func (l *localView) Server(context.Context) (*apiv1.Server, error) {
	s := l.server.self()
	s.Sessions = uint32(l.server.hub.Sessions())
	return s, nil
}

func (l *localView) Samples(context.Context) (*commandv1.SamplesResponse, error) {
	hosts, vms := l.samples.Newest()
	return &commandv1.SamplesResponse{Hosts: hosts, Vms: vms}, nil
}

func (l *localView) Brokers(context.Context) ([]*apiv1.Broker, error) {
	views := l.server.brokers.Views()
	for _, m := range views {
		for _, c := range m.GetConnections() {
			c.Server = l.server.config.Name
		}
	}
	return views, nil
}

// self is this server as it is recorded.
func (s *Server) self() *apiv1.Server {
	return &apiv1.Server{
		Id: s.id, Name: s.config.Name, PeerAddress: s.config.Peer.Advertise, ApiAddress: s.config.API.Advertise, Version: version.Version,
		FeatureLevel: fsm.FeatureLevel,
	}
}

// leading tells the hub who leads.
type leading struct{ replica *replica.Replica }

func (l leading) Leading() (self, known bool, changed <-chan struct{}) {
	leader, changed := l.replica.WatchLeader()
	return leader.Self, leader.ID != "", changed
}
