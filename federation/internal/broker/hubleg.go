package broker

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// SessionKey is the metadata with which a server names the session that it takes up, in hexadecimal.
const SessionKey = "naru-session"

// EndedKey is the trailer in which a broker says, in one word, why the session ended.
const EndedKey = "naru-ended"

// hubLeg answers servers.
type hubLeg struct {
	linkv1.UnimplementedHubLegServiceServer
	*Broker
}

// Announce is held by each server; a newer one of the same server ends the older.
func (h hubLeg) Announce(leg grpc.BidiStreamingServer[linkv1.AnnounceRequest, linkv1.AnnounceResponse]) error {
	peer, err := h.hubGuard.FromContext(leg.Context())
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "the hub leg is for servers: %v", err)
	}
	// A server that has renewed its certificate comes again before the old one's end.
	ctx, cancel := context.WithTimeoutCause(leg.Context(), peer.NotAfter.Sub(h.now()), errors.New("the certificate of this connection has expired"))
	defer cancel()
	s := h.servers.join(ctx, peer.ServerID)
	defer h.servers.leave(s)
	log := h.log.With("server", s.id)
	log.Info("server connected")
	if err := leg.Send(&linkv1.AnnounceResponse{Body: &linkv1.AnnounceResponse_Status{Status: h.enrolment.status()}}); err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			word, err := leg.Recv()
			if err != nil {
				s.cut(err)
				return
			}
			h.hear(s, word)
		}
	}()
	for {
		select {
		case word := <-s.out:
			if err := leg.Send(word); err != nil {
				return err
			}
		case <-s.ctx.Done():
			cause := context.Cause(s.ctx)
			log.Info("server left", "cause", cause)
			if errors.Is(cause, io.EOF) {
				return nil
			}
			return status.Error(codes.Aborted, cause.Error())
		case <-h.stopping:
			return errStopping
		}
	}
}

// hear takes one word of a server.
func (h hubLeg) hear(s *server, word *linkv1.AnnounceRequest) {
	switch body := word.Body.(type) {
	case *linkv1.AnnounceRequest_Status:
		h.servers.update(s, body.Status)
		if n := h.sessions.endWhere(func(one *session) *ending {
			if h.servers.isRevoked(one.zone.id, one.agent) {
				return revokedEnding(one)
			}
			return nil
		}); n > 0 {
			h.log.Warn("sessions cut: revoked", "sessions", n, "server", s.id)
		}
	case *linkv1.AnnounceRequest_Answer:
		h.queries.answer(s.id, body.Answer)
	case *linkv1.AnnounceRequest_Certificate:
		h.enrolment.deliver(body.Certificate.GetChain())
	}
}

// Session takes up an offered session.
func (h hubLeg) Session(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	peer, err := h.hubGuard.FromContext(leg.Context())
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "the hub leg is for servers: %v", err)
	}
	id, err := namedSession(leg.Context())
	if err != nil {
		return err
	}
	s := h.sessions.find(id)
	if s == nil {
		return status.Errorf(codes.NotFound, "session %s is over", id)
	}
	if err := s.take(peer.ServerID, leg); err != nil {
		return err
	}
	h.servers.count(peer.ServerID, 1)
	defer h.servers.count(peer.ServerID, -1)
	h.carry(s, leg)
	end := s.ending()
	leg.SetTrailer(metadata.Pairs(EndedKey, end.reason))
	return end.hub.Err()
}

// carry moves frames until the session has ended.
func (h hubLeg) carry(s *session, leg stream) {
	seldom := &rate.Sometimes{First: 3, Interval: 10 * time.Second}
	down := pump{
		session: s, checker: h.checker, direction: linkv1.Direction_DOWN,
		from: leg, forward: &s.toZone, back: &s.toHub, meter: s.zone.down, left: serverLeft, seldom: seldom,
	}
	up := pump{
		session: s, checker: h.checker, direction: linkv1.Direction_UP,
		from: s.toZone.stream, forward: &s.toHub, back: &s.toZone, meter: s.zone.up, left: agentLeft, seldom: seldom,
		pace: s.zone.pace,
	}
	if err := s.toHub.send(s.hello); err != nil {
		s.end(serverLeft(err))
		return
	}
	s.zone.up.forwarded(s.hello)
	s.hello = nil
	go down.run() // ends with the hub's stream, which ends when this handler returns
	up.run()      // ends with the zone's stream, which ends when the session has
}

func namedSession(ctx context.Context) (sessionID, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(SessionKey)
	var id sessionID
	if len(values) == 1 {
		if raw, err := hex.DecodeString(values[0]); err == nil && len(raw) == len(id) {
			return sessionID(raw), nil
		}
	}
	return id, status.Errorf(codes.InvalidArgument, "metadata %s: want one session's id, 32 hexadecimal digits", SessionKey)
}
