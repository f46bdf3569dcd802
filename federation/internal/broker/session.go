package broker

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// sessionID is chosen by the zone's end, at random.
type sessionID [16]byte

func (id sessionID) String() string { return hex.EncodeToString(id[:]) }

// stream is one leg of a session. One goroutine receives; sends are serialised by the session.
type stream interface {
	Send(*linkv1.Frame) error
	Recv() (*linkv1.Frame, error)
}

// session is one agent's stream, from its first frame to its end, and the server's stream once that has come.
type session struct {
	id    sessionID
	zone  *zone
	agent string
	until time.Time // when the agent's certificate ends
	hello *linkv1.Frame
	log   *slog.Logger

	// ctx ends with the session; its cause is an *ending. left is closed when the agent's stream has ended: until there
	// is a server, nobody else would see.
	ctx  context.Context
	end  context.CancelCauseFunc
	left <-chan struct{}

	toZone, toHub outlet

	mu      sync.Mutex
	offered string        // the server that may take it up now
	server  string        // the server that has
	taken   chan struct{} // closed then
}

// outlet is the sending half of a leg. The pump of the one direction sends through it, and seldom the other's, to say
// what was refused.
type outlet struct {
	mu     sync.Mutex
	stream stream
}

func (o *outlet) send(f *linkv1.Frame) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.Send(f)
}

// ending is why a session ended, as each side is told.
type ending struct {
	reason    string // of a closed set, for metrics
	zone, hub *status.Status
}

func (e *ending) Error() string { return e.reason + ": " + e.zone.Message() }

// Reasons of an ending.
const (
	endAgentLeft  = "agent_left"
	endServerLeft = "server_left"
	endNoServer   = "no_server"
	endSuperseded = "superseded"
	endRevoked    = "revoked"
	endExpired    = "expired"
	endHostile    = "hostile"
	endStopping   = "stopping"
)

func ended(reason string, code codes.Code, format string, args ...any) *ending {
	s := status.Newf(code, format, args...)
	return &ending{reason: reason, zone: s, hub: s}
}

// newSession checks a first frame: nothing is offered to a server before.
func (b *Broker) newSession(ctx context.Context, peer *pki.Peer, leaf []byte, zoneLeg stream, first *linkv1.Frame) (*session, error) {
	z := b.zones.get(peer.ZoneID)
	checked, refusal := b.checker.Check(first, linkv1.Direction_UP)
	hello, isHello := checked.Message.(*linkv1.Hello)
	switch {
	case refusal != nil:
		z.up.refused(refusal.Reason)
		return nil, status.Errorf(codes.InvalidArgument, "the first frame was refused: %s", refusal)
	case !isHello:
		z.up.refused(wire.ReasonType)
		return nil, status.Errorf(codes.InvalidArgument, "the first frame was %s; a session begins with HELLO", first.Type)
	case len(hello.Chain) == 0 || !bytes.Equal(hello.Chain[0], leaf):
		z.up.refused(reasonSender)
		return nil, status.Error(codes.Unauthenticated, "HELLO shows another certificate than the connection it came over: connect anew with the current one")
	}
	s := &session{
		id: sessionID(first.Session), zone: z, agent: peer.Agent, until: peer.NotAfter, hello: first,
		taken:  make(chan struct{}),
		toZone: outlet{stream: zoneLeg},
	}
	if s.id == (sessionID{}) {
		return nil, status.Error(codes.InvalidArgument, "the session's id is all zero: it must be random")
	}
	s.log = b.log.With("zone", peer.ZoneID, "agent", peer.Agent, "session", s.id.String())
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.left = ctx.Done()
	return s, nil
}

// Reasons for which the broker itself refuses a frame, beside those of package wire.
const (
	// reasonSender: it speaks for somebody else than who sent it.
	reasonSender wire.Reason = "SENDER"
	// reasonSession: it names another session, or opens one in the middle of this.
	reasonSession wire.Reason = "SESSION"
)

// offerTo says which server may take the session up from now on.
func (s *session) offerTo(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered = server
}

// take gives the session its server. It fails unless the session is on offer to that server.
func (s *session) take(server string, hubLeg stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != "" || s.offered != server || s.ctx.Err() != nil {
		return status.Errorf(codes.FailedPrecondition, "session %s is not on offer to this server any more", s.id)
	}
	s.server = server
	s.toHub.stream = hubLeg
	close(s.taken)
	return nil
}

// expire ends the session at the end of the certificate it was opened with.
func (s *session) expire() {
	s.end(ended(endExpired, codes.Unauthenticated, "the certificate that this session was opened with has expired: connect anew with the current one"))
}

// ending is why the session ended; it must have.
func (s *session) ending() *ending {
	if e, ok := context.Cause(s.ctx).(*ending); ok {
		return e
	}
	return ended(endAgentLeft, codes.Unavailable, "the agent's stream ended")
}

// holder is whom the session belongs to: one session each.
func (s *session) holder() string { return s.zone.id + "/" + s.agent }

// sessions knows the live ones.
type sessions struct {
	perZone int

	mu       sync.Mutex
	byID     map[sessionID]*session
	byHolder map[string]*session
	count    map[string]int // by zone
}

func newSessions(perZone int) *sessions {
	return &sessions{perZone: perZone, byID: map[sessionID]*session{}, byHolder: map[string]*session{}, count: map[string]int{}}
}

// add takes a session in; an older one of the same holder ends.
func (r *sessions) add(s *session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, live := r.byID[s.id]; live {
		return status.Error(codes.AlreadyExists, "a session of this id is live: each needs a fresh random one")
	}
	older := r.byHolder[s.holder()]
	if older == nil && r.count[s.zone.id] >= r.perZone {
		return status.Errorf(codes.ResourceExhausted, "zone %s has %d sessions, and no more are allowed", s.zone.id, r.perZone)
	}
	if older != nil {
		older.end(ended(endSuperseded, codes.Aborted, "a newer session of %s took its place", s.holder()))
		r.drop(older)
	}
	r.byID[s.id], r.byHolder[s.holder()] = s, s
	r.count[s.zone.id]++
	s.zone.live.Inc()
	return nil
}

func (r *sessions) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(s)
}

func (r *sessions) drop(s *session) {
	if r.byID[s.id] != s {
		return
	}
	delete(r.byID, s.id)
	if r.byHolder[s.holder()] == s {
		delete(r.byHolder, s.holder())
	}
	if r.count[s.zone.id]--; r.count[s.zone.id] == 0 {
		delete(r.count, s.zone.id)
	}
	s.zone.live.Dec()
}

func (r *sessions) find(id sessionID) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// endWhere ends every session of which it is true, and says how many that were.
func (r *sessions) endWhere(why func(*session) *ending) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.byID {
		if e := why(s); e != nil {
			s.end(e)
			n++
		}
	}
	return n
}

// errRevoked carries a Problem: an agent that is told so stops asking at the ordinary pace.
func errRevoked(who string) error {
	return problem.ToStatus(problem.Newf(problem.Revoked, "Ask an administrator of the federation.", "%s is revoked", who))
}

func revokedEnding(s *session) *ending {
	told := status.Convert(errRevoked(s.holder()))
	return &ending{reason: endRevoked, zone: told, hub: told}
}

func hostileEnding(d linkv1.Direction, refusal *wire.Refusal) *ending {
	told := func(who string) *status.Status {
		return status.New(codes.PermissionDenied, fmt.Sprintf("the session was cut: %s sent what no honest peer sends: %s", who, refusal))
	}
	if d == linkv1.Direction_UP {
		return &ending{reason: endHostile, zone: told("this end"), hub: told("the zone")}
	}
	return &ending{reason: endHostile, zone: told("the control plane"), hub: told("this end")}
}

func (r *sessions) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID)
}
