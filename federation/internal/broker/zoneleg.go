package broker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/frontdoor"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// zoneLeg answers agents.
type zoneLeg struct {
	linkv1.UnimplementedZoneLegServiceServer
	*Broker
}

// Join passes a stranger's wish to a server. The secret behind it is the server's to judge.
func (z zoneLeg) Join(ctx context.Context, in *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	from, _ := grpcpeer.FromContext(ctx)
	if !z.joins.allow(frontdoor.AddressOf(from.Addr), z.now()) {
		z.metrics.queries.WithLabelValues("join", "throttled").Inc()
		return nil, status.Error(codes.ResourceExhausted, "too many ask to join at the moment: ask again in a minute")
	}
	if err := z.validate(in, in.Csr); err != nil {
		z.metrics.queries.WithLabelValues("join", "invalid").Inc()
		return nil, err
	}
	answer, err := z.queries.ask(ctx, "join", &linkv1.Query{Body: &linkv1.Query_Join{Join: in}})
	if err != nil {
		return nil, err
	}
	if answer.GetJoin() == nil {
		return nil, status.Error(codes.Internal, "the control plane gave no answer to a join")
	}
	return answer.GetJoin(), z.passes(answer.GetJoin())
}

// Renew passes on the wish of the holder of a link certificate, expired or not. Whose it is, the server reads from the
// certificate that was shown here.
func (z zoneLeg) Renew(ctx context.Context, in *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	peer, err := z.zoneGuard.FromContext(ctx)
	if err != nil && !errors.Is(err, pki.ErrExpired) {
		return nil, status.Errorf(codes.Unauthenticated, "renewal asks for the certificate that is to be renewed: %v", err)
	}
	if z.servers.isRevoked(peer.ZoneID, peer.Agent) {
		z.metrics.queries.WithLabelValues("renew", "revoked").Inc()
		return nil, errRevoked(peer.ID.String())
	}
	if !z.zones.get(peer.ZoneID).renewals.AllowN(z.now(), 1) {
		z.metrics.queries.WithLabelValues("renew", "throttled").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "zone %s asks for renewal too often: ask again in a minute", peer.ZoneID)
	}
	if err := z.validate(in, in.Csr); err != nil {
		z.metrics.queries.WithLabelValues("renew", "invalid").Inc()
		return nil, err
	}
	answer, err := z.queries.ask(ctx, "renew", &linkv1.Query{Certificate: pki.LeafFromContext(ctx), Body: &linkv1.Query_Renew{Renew: in}})
	if err != nil {
		return nil, err
	}
	if answer.GetRenew() == nil {
		return nil, status.Error(codes.Internal, "the control plane gave no answer to a renewal")
	}
	return answer.GetRenew(), z.passes(answer.GetRenew())
}

// Connect carries one session. Its goroutine waits for as long as the session lives, and there are many: what takes
// stack is done by others that end (open and match), so that this one stays small.
func (z zoneLeg) Connect(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	s, err := z.open(leg)
	if err != nil {
		return err
	}
	if err := z.sessions.add(s); err != nil {
		return err
	}
	life := time.AfterFunc(s.until.Sub(z.now()), s.expire)
	defer life.Stop()
	go z.match(s) // ends when the session has a server, or has ended
	<-s.ctx.Done()
	return z.close(s)
}

// open judges who comes and its first frame.
func (z zoneLeg) open(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) (*session, error) {
	type result struct {
		session *session
		err     error
	}
	got := make(chan result, 1)
	go func() { // ends with the stream
		s, err := z.greet(leg)
		got <- result{s, err}
	}()
	timer := time.NewTimer(z.config.Patience.Hello)
	defer timer.Stop()
	select {
	case r := <-got:
		return r.session, r.err
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no HELLO came within %s", z.config.Patience.Hello)
	case <-z.stopping:
		return nil, errStopping
	}
}

// greet is open without its patience.
func (z zoneLeg) greet(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) (*session, error) {
	peer, err := z.zoneGuard.FromContext(leg.Context())
	switch {
	case errors.Is(err, pki.ErrExpired):
		return nil, status.Errorf(codes.Unauthenticated, "%v: renew it first", err)
	case err != nil:
		return nil, status.Errorf(codes.Unauthenticated, "a session asks for a link certificate: %v", err)
	case z.servers.isRevoked(peer.ZoneID, peer.Agent):
		return nil, errRevoked(peer.ID.String())
	}
	first, err := leg.Recv()
	if err != nil {
		return nil, err
	}
	s, err := z.newSession(leg.Context(), peer, pki.LeafFromContext(leg.Context()), leg, first)
	if err != nil {
		z.metrics.ends.WithLabelValues(peer.ZoneID, "refused").Inc()
	}
	return s, err
}

// close takes an ended session out, and returns what its agent is told.
func (z zoneLeg) close(s *session) error {
	z.sessions.remove(s)
	e := s.ending()
	z.metrics.ends.WithLabelValues(s.zone.id, e.reason).Inc()
	s.log.Info("session ended", "reason", e.reason, "detail", e.zone.Message())
	return e.zone.Err()
}

// match finds a session its server.
func (z zoneLeg) match(s *session) {
	// The revocation list may have changed between the check and the session's being known to it.
	if z.servers.isRevoked(s.zone.id, s.agent) {
		s.end(revokedEnding(s))
		return
	}
	if server := z.findServer(s); server != "" {
		s.log.Info("session taken up", "server", server)
	}
}

// findServer offers a session to one server after the other until one takes it up, and returns which, or "" when the
// session has ended.
func (z zoneLeg) findServer(s *session) string {
	deadline := time.Now().Add(z.config.Patience.TakeUp)
	tried := map[string]bool{}
	for {
		if time.Now().After(deadline) {
			s.end(ended(endNoServer, codes.Unavailable, "no server took up the session within %s: connect again in a moment", z.config.Patience.TakeUp))
			return ""
		}
		to := z.servers.choose(tried)
		if to == nil && len(tried) == 0 {
			s.end(ended(endNoServer, codes.Unavailable, "no server of the control plane serves at this broker now (%s): connect again in a moment", z.presence()))
			return ""
		}
		if to == nil {
			clear(tried)
			if !s.rest(100 * time.Millisecond) {
				return ""
			}
			continue
		}
		tried[to.id] = true
		s.offerTo(to.id)
		if !to.tell(&linkv1.AnnounceResponse{Body: &linkv1.AnnounceResponse_Offer{Offer: &linkv1.Offer{
			Session: s.id[:], ZoneId: s.zone.id, Agent: s.agent,
		}}}) {
			continue
		}
		once := time.NewTimer(z.config.Patience.Offer)
		select {
		case <-s.taken:
			once.Stop()
			return s.server
		case <-once.C:
			s.log.Warn("a server did not take up the session it was offered", "server", to.id)
		case <-to.ctx.Done():
			once.Stop()
		case <-s.ctx.Done():
			once.Stop()
			return ""
		case <-s.left:
			once.Stop()
			s.end(agentLeft(context.Canceled))
			return ""
		}
	}
}

// rest waits between two rounds of offers; false: the session has ended meanwhile.
func (s *session) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.left:
		s.end(agentLeft(context.Canceled))
	case <-s.ctx.Done():
	}
	return false
}

// presence says in words how many servers are here.
func (b *Broker) presence() string {
	switch here, _ := b.servers.all(); len(here) {
	case 0:
		return "none is connected"
	case 1:
		return "one is connected and has no leader"
	default:
		return "those that are connected have no leader"
	}
}
