package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Admission is what the control plane gives to one session of a zone.
type Admission struct {
	Classes
	// Epoch and EpochID are the control plane's.
	Epoch   uint64
	EpochID []byte
	// IncarnationLost: the zone's store is behind what is known of the incarnation that it names. Both ends then end the
	// session with ErrIncarnationLost, and the zone mints a new incarnation.
	IncarnationLost bool
	// Refused, if set, is the zone's answer: the session ends with it as soon as both ends have proven who they are, so that
	// the zone can believe it and nobody else hears it.
	Refused *Goodbye
	Calls   CallHandler
	Samples SampleSink
	// Opened, if set, is told once both ends have proven who they are and their numbers agree, before anything else flows.
	// An error of it ends the session.
	Opened func(ctx context.Context, o *Opened) error
	// Skipped, if set, is told of an object that was left out of the state, because a broker refuses it. It does not wait.
	Skipped func(o *linkv1.Object, reason string)
}

// HubConfig is what the control plane's end is made of.
type HubConfig struct {
	Common
	// Admit is asked with each hello whose chain is accepted. The sender has not yet proven to hold its key, and the hello
	// may be a repeated one: Admit reads, and changes nothing. An error ends the session without a word.
	Admit func(ctx context.Context, p Peer, h *linkv1.Hello) (*Admission, error)
}

// HubEnd is the control plane's end of the link, for all zones: of each zone it has at most one session.
type HubEnd struct {
	shared
	config HubConfig

	mu       sync.Mutex
	sessions map[string]*hubSession // by zone
}

type hubSession struct {
	s     *session
	since time.Time
	o     *Opened
}

// SessionInfo describes a session that is running.
type SessionInfo struct {
	Peer    Peer
	Schema  uint32
	Version string
	Since   time.Time
}

// NewHubEnd returns a hub's end without sessions.
func NewHubEnd(c HubConfig) (*HubEnd, error) {
	sh, err := c.ready()
	if err != nil {
		return nil, err
	}
	if c.Admit == nil {
		return nil, fmt.Errorf("a hub's end of a link needs somebody to admit zones")
	}
	return &HubEnd{shared: sh, config: c, sessions: map[string]*hubSession{}}, nil
}

// Run answers the opening of one session and carries it to its end, whose cause it returns; it never returns nil. A
// zone's new session, once it has proven itself, ends the one that the zone had.
func (h *HubEnd) Run(ctx context.Context, dial Dial) error {
	var admission *Admission
	return h.round(ctx, linkv1.Direction_DOWN, dial,
		func(o *opening) (*Opened, error) {
			return o.atHub(h.Schema, func(p Peer, hello *linkv1.Hello) (w *linkv1.Welcome, err error) {
				admission, w, err = h.admit(ctx, p, hello)
				return w, err
			})
		},
		func(s *session, o *Opened) error { return h.begin(ctx, s, o, admission) })
}

func (h *HubEnd) admit(ctx context.Context, p Peer, hello *linkv1.Hello) (*Admission, *linkv1.Welcome, error) {
	a, err := h.config.Admit(ctx, p, hello)
	if err != nil {
		return nil, nil, fmt.Errorf("admit zone %s: %w", p.Zone, err)
	}
	state, journals, err := a.points(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read the resume points of zone %s: %w", p.Zone, err)
	}
	return a, &linkv1.Welcome{
		Version: shorten(h.Version, 64), Epoch: a.Epoch, EpochId: a.EpochID, IncarnationLost: a.IncarnationLost,
		State: state, Journals: journals,
	}, nil
}

func (h *HubEnd) begin(ctx context.Context, s *session, o *Opened, a *Admission) error {
	if a.Refused != nil {
		return a.Refused
	}
	h.register(s, o)
	s.loops = append(s.loops, func(ctx context.Context) error {
		<-ctx.Done()
		h.forget(s)
		return nil
	})
	if a.Opened != nil {
		if err := a.Opened(ctx, o); err != nil {
			return err
		}
	}
	s.joinState(a.Classes, o, a.Skipped)
	s.joinJournal(a.Classes, o)
	s.joinSamples(nil, a.Samples)
	if a.Calls != nil {
		calls := &servingTable{s: s, handler: a.Calls, live: map[uint64]*serving{}}
		s.onCall = calls.take
		s.loops = append(s.loops, calls.run)
	}
	return nil
}

// register makes a session its zone's, and ends the one that was.
func (h *HubEnd) register(s *session, o *Opened) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.sessions[s.peer.Zone]; old != nil {
		old.s.end(&Goodbye{Code: CodeSuperseded, Reason: "a newer session of the zone has opened"})
	}
	h.sessions[s.peer.Zone] = &hubSession{s: s, since: time.Now(), o: o}
}

func (h *HubEnd) forget(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.sessions[s.peer.Zone]; now != nil && now.s == s {
		delete(h.sessions, s.peer.Zone)
	}
}

// End ends a zone's session, if it has one here, with a code of this package and a reason that the zone is told. With an
// agent's name only a session of that agent ends.
func (h *HubEnd) End(zone, agent, code, reason string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.sessions[zone]
	if now == nil || agent != "" && now.s.peer.Agent != agent {
		return false
	}
	now.s.end(&Goodbye{Code: code, Reason: reason})
	return true
}

// EndAll ends every session, as End does.
func (h *HubEnd) EndAll(code, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, now := range h.sessions {
		now.s.end(&Goodbye{Code: code, Reason: reason})
	}
}

// Sessions returns the sessions that are running, ordered by zone.
func (h *HubEnd) Sessions() []SessionInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []SessionInfo
	for _, now := range h.sessions {
		found = append(found, SessionInfo{Peer: now.s.peer, Schema: now.o.Schema, Version: now.o.Hello.Version, Since: now.since})
	}
	slices.SortFunc(found, func(a, b SessionInfo) int { return strings.Compare(a.Peer.Zone, b.Peer.Zone) })
	return found
}
