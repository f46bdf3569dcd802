package zonehub

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/federation/link"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// session is one session of a zone: its classes, and the record of its beginning and end.
type session struct {
	hub                *Hub
	zone               *apiv1.Zone
	agent, incarnation string
	came               boundary
	id                 []byte
	// Once the agent has proven who it is:
	ctx       context.Context
	allowance *allowance

	desired  *desired
	observed *observed
	orders   *orders
	results  *results
}

// maxReason is how much is kept of why a session ended: the far end may have a say in it, and a zone's reason is bounded.
const maxReason = 512

func newSession(h *Hub, zone *apiv1.Zone, agent, incarnation string, came boundary) *session {
	s := &session{hub: h, zone: zone, agent: agent, incarnation: incarnation, came: came, id: make([]byte, 16)}
	rand.Read(s.id[copy(s.id, h.life[:]):])
	s.desired = newDesired(h, zone.GetId())
	s.observed = &observed{s}
	s.orders = newOrders(s)
	s.results = &results{s}
	return s
}

// opened writes down that the zone is connected, and sees to it that its end is written down after that.
func (s *session) opened(ctx context.Context, _ *link.Opened) error {
	s.ctx, s.allowance = ctx, s.hub.allowanceOf(s.zone)
	if err := s.allowance.wait(ctx, need{}); err != nil {
		return err
	}
	s.hub.farewells.Add(1)
	err := s.record(ctx, true, nil, "")
	if err == nil {
		s.hub.Log.Info("a zone's session began", "zone", s.zone.GetName(), "agent", s.agent)
		s.hub.enter(s)
	}
	context.AfterFunc(ctx, func() { s.closed(context.Cause(ctx)) }) // in case of an error too: it may be written down all the same
	if err != nil {
		return err
	}
	// What has changed since it was admitted, nobody has judged.
	over, err := s.judge(ctx)
	if err == nil && over != nil {
		err = over
	}
	return err
}

// closed writes down that the session has ended, and why. It goes on trying beyond this session's life; a server that dies before
// leaves it to its next life (bury), or to the leader, who watches over sessions of servers that are gone.
func (s *session) closed(why error) {
	defer s.hub.farewells.Done()
	s.desired.close()
	s.orders.close()
	s.hub.Samples.leave(s.zone.GetId())
	s.hub.leave(s)
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	told := "its session ended: " + inWords(why)
	told = strings.ToValidUTF8(told[:min(len(told), maxReason)], "")
	if err := s.record(ctx, false, &apiv1.Event{Message: told}, causeOf(why)); err != nil {
		s.hub.Log.Warn("the end of a zone's session could not be written down", "zone", s.zone.GetName(), "error", err)
	}
}

// inWords is why a session ended, for a reader who knows no gRPC.
func inWords(why error) string {
	var of interface {
		error
		GRPCStatus() *status.Status
	}
	switch answered := errors.As(why, &of); {
	case errors.Is(why, context.Canceled), errors.Is(why, io.EOF):
		return "the stream through the broker broke off"
	case !answered:
		return why.Error()
	case of.GRPCStatus().Code() == codes.Canceled, brokenOff(of.GRPCStatus().Message()):
		return "the stream through the broker broke off"
	default:
		return strings.ReplaceAll(why.Error(), of.Error(), of.GRPCStatus().Message())
	}
}

// brokenOff tells a gRPC library's own message of a connection that is gone from one that a broker wrote.
func brokenOff(message string) bool {
	for _, begin := range []string{"error reading from server", "connection error", "transport is closing", "the connection is draining", "unexpected EOF"} {
		if strings.HasPrefix(message, begin) {
			return true
		}
	}
	return false
}

func (s *session) record(ctx context.Context, connected bool, told *apiv1.Event, cause string) error {
	return s.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
		ZoneId: s.zone.GetId(), Session: s.id, Connected: connected, Agent: s.agent, ServerId: s.hub.ServerID, Incarnation: s.incarnation,
		Event: told, Cause: cause,
	}}})
}

// causeOf names why a session ended, in one of few words.
func causeOf(why error) string {
	if errors.Is(why, context.Canceled) {
		return "STREAM" // the leg to the broker has ended
	}
	return link.Cause(why)
}

// Take keeps the zone's samples.
func (s *session) Take(b *linkv1.SampleBatch) {
	s.allowance.settle(s.ctx)
	s.hub.Samples.take(s.zone.GetId(), s.zone.GetName(), b)
}
