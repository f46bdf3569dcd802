// Package zonehub is the control plane's end of the links to its zones: it holds their sessions on this server, gives each
// what its zone should hold and what it is ordered, and has what comes back carried through Raft.
//
// Which server holds a session does not matter: where each class stands is in the replicated state, and commands are
// forwarded to the leader. A zone has one session; a newer one ends an older.
package zonehub

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Config is what a hub is made of. Every field but Registerer must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	// ServerID is this server's.
	ServerID string
	// Version of the program.
	Version  string
	Identity link.Identity
	Verify   link.Verify
	// Calls carries out what users at zones' edges call.
	Calls   link.CallHandler
	Samples *Samples
	// Budget is how fast each zone may have this server propose.
	Budget     Budget
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Hub holds the sessions of this server. Safe for concurrent use.
type Hub struct {
	Config
	end    *link.HubEnd
	life   [8]byte                // begins the id of every session of this process
	slowed *prometheus.CounterVec // zone, reason

	mu         sync.Mutex
	open       map[string]*session   // by zone
	allowances map[string]*allowance // by zone
	// farewells are the ends of sessions that are being written down, and what is told of them.
	farewells sync.WaitGroup
	// withheld is what brokers do not let through and has been told, or is being told.
	withheld map[withheld]bool
	telling  sync.Mutex // of what is withheld, one at a time
}

// New returns a hub without sessions.
func New(c Config) (*Hub, error) {
	h := &Hub{Config: c, slowed: slowedSeconds(c.Registerer), open: map[string]*session{}, allowances: map[string]*allowance{}, withheld: map[withheld]bool{}}
	rand.Read(h.life[:])
	checker, err := wire.NewChecker(wire.AtEnd)
	if err != nil {
		return nil, err
	}
	h.end, err = link.NewHubEnd(link.HubConfig{
		Common: link.Common{
			Identity: c.Identity, Verify: c.Verify, Checker: checker, Version: c.Version,
			Metrics: link.NewMetrics(c.Registerer), Log: c.Log,
		},
		Admit: h.admit,
	})
	return h, err
}

// Serve carries one session that a broker offered, to its end.
func (h *Hub) Serve(ctx context.Context, zoneID, agent string, dial link.Dial) error {
	// What the session leaves to be done at its end waits for this context.
	ctx, ended := context.WithCancelCause(ctx)
	err := h.end.Run(ctx, dial)
	ended(err)
	h.Log.Info("a zone's session ended", "zone_id", zoneID, "agent", agent, "reason", causeOf(err), "cause", err)
	return err
}

// Sessions is how many sessions this server holds.
func (h *Hub) Sessions() int { return len(h.end.Sessions()) }

// admit judges a zone that opens a session; it changes nothing, save that it quarantines one that
// contradicts what is known.
func (h *Hub) admit(ctx context.Context, p link.Peer, hello *linkv1.Hello) (*link.Admission, error) {
	var zone *apiv1.Zone
	contradicts := false
	a := &link.Admission{Calls: h.Calls}
	came, _ := ctx.Value(boundaryKey{}).(boundary)
	err := h.view(ctx, func(tx *state.Tx) (err error) {
		if zone, a.Refused, err = h.judge(tx, p.Zone, p.Agent, came); err != nil {
			return err
		}
		m := tx.Meta()
		a.Epoch, a.EpochID = m.Epoch, bytes.Clone(m.EpochID)
		contradicts = hello.GetEpoch() == m.Epoch && len(hello.GetEpochId()) > 0 && !bytes.Equal(hello.GetEpochId(), m.EpochID)
		known, revision, err := tx.ObservedPoint(p.Zone)
		a.IncarnationLost = known == hello.GetIncarnation() && revision > hello.GetRevision()
		return err
	})
	if err != nil || a.Refused != nil {
		return a, err
	}
	if contradicts {
		reason := fmt.Sprintf("it knows epoch %d under another id: it has heard from another control plane with the same number", a.Epoch)
		if err := h.quarantine(ctx, p.Zone, reason); err != nil {
			return nil, err
		}
		return nil, &link.Goodbye{Code: link.CodeQuarantined, Reason: "zone " + zone.GetName() + ": " + reason}
	}
	session := newSession(h, zone, p.Agent, hello.GetIncarnation(), came)
	a.Classes = link.Classes{
		StateSource: session.desired, StateSink: session.observed, JournalSource: session.orders, JournalSink: session.results,
	}
	a.Samples = session
	a.Opened, a.Skipped = session.opened, session.skipped
	return a, nil
}

// view reads a snapshot, and reads again when the state was replaced under it.
func (h *Hub) view(ctx context.Context, fn func(*state.Tx) error) error {
	for {
		err := h.Reader.View(ctx, fn)
		if !errors.Is(err, state.ErrRetry) {
			return err
		}
	}
}

// actor is who does what the hub proposes.
const actor = "zonehub"

// propose has a command carried out; the error is a problem when it was refused. A refusal counts the first time only: a
// command is never repeated with another id.
func (h *Hub) propose(ctx context.Context, c *commandv1.Command) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	c.Id, c.Actor = id[:], actor
	result, err := h.Proposer.Propose(ctx, c)
	if err == nil {
		err = problem.FromProto(result.GetProblem())
	}
	if zone := c.GetAcknowledgeDesired().GetZoneId(); zone != "" && problem.Is(err, problem.Contradiction) {
		err = errors.Join(err, h.quarantine(ctx, zone, problem.Of(err).GetDetail()))
	}
	return err
}

// quarantine stops the exchange with a zone whose numbers contradict what is known here, until an administrator has looked.
func (h *Hub) quarantine(ctx context.Context, zone, reason string) error {
	h.Log.Error("a zone is quarantined", "zone_id", zone, "reason", reason)
	return h.propose(ctx, &commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: zone, Reason: reason}}})
}

// awaitFarewells waits until the ends of sessions are written down, for a moment: without a leader they cannot be, and the
// next leader sees to it.
func (h *Hub) awaitFarewells() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.farewells.Wait()
	}()
	select {
	case <-done:
	case <-time.After(lastWait):
	}
}

// lastWait is how long a server that stops waits for what its sessions leave.
const lastWait = 3 * time.Second

// farewellTime bounds how long the end of a session may take to be written down.
const farewellTime = 30 * time.Second
