package broker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// pump carries a session's frames one way.
type pump struct {
	session   *session
	checker   *wire.Checker
	direction linkv1.Direction
	from      stream
	forward   *outlet
	back      *outlet
	meter     *meter
	pace      *pace // nil: unlimited
	// left is how the session ends when the sending side goes away.
	left func(error) *ending
	// seldom keeps a careless sender from filling the log.
	seldom *rate.Sometimes
}

// run returns when the session has ended, and ends it when it cannot go on.
func (p *pump) run() {
	for {
		f, err := p.from.Recv()
		if err == nil {
			err = p.carry(f)
		} else if status.Code(err) == codes.ResourceExhausted {
			// gRPC's own bound: the frame was never gathered, and gRPC has told the sender.
			err = p.hostile(&wire.Refusal{Reason: wire.ReasonOversize, Hostile: true, Detail: fmt.Sprintf("a frame of more than %d bytes", maxFrame)})
		} else {
			err = p.left(err)
		}
		if err != nil {
			p.session.end(err)
			return
		}
	}
}

// carry checks one frame and passes it on. An error is the end of the session.
func (p *pump) carry(f *linkv1.Frame) error {
	if p.pace != nil {
		if err := p.pace.wait(p.session.ctx, len(f.Payload)+frameOverhead); err != nil {
			return err
		}
	}
	refusal := p.check(f)
	switch {
	case refusal == nil:
		if err := p.forward.send(f); err != nil {
			return p.undelivered(err)
		}
		p.meter.forwarded(f)
		return nil
	case refusal.Hostile:
		return p.hostile(refusal)
	}
	return p.withhold(f, refusal)
}

func (p *pump) check(f *linkv1.Frame) *wire.Refusal {
	if _, refusal := p.checker.Check(f, p.direction); refusal != nil {
		return refusal
	}
	switch {
	case sessionID(f.Session) != p.session.id:
		return &wire.Refusal{Reason: reasonSession, Hostile: true, Detail: "a frame of another session"}
	case f.Type == linkv1.Type_HELLO:
		return &wire.Refusal{Reason: reasonSession, Hostile: true, Detail: "HELLO in the middle of a session"}
	}
	return nil
}

// withhold tells both sides of a frame that does not pass; the session goes on. The sender hears it first: the receiver may
// end the session at once, and the sender is to know why.
func (p *pump) withhold(f *linkv1.Frame, refusal *wire.Refusal) error {
	p.meter.refused(refusal.Reason)
	p.seldom.Do(func() {
		p.session.log.Warn("frame refused", "direction", p.direction.String(), "type", f.Type.String(), "reason", string(refusal.Reason), "detail", refusal.Detail)
	})
	withheld, refused, err := p.checker.Withhold(f, refusal)
	if err != nil {
		return ended(endHostile, codes.Internal, "a refused frame could not be named: %v", err)
	}
	if err := p.back.send(refused); err != nil {
		return p.left(err)
	}
	if err := p.forward.send(withheld); err != nil {
		return p.undelivered(err)
	}
	return nil
}

func (p *pump) hostile(refusal *wire.Refusal) error {
	p.meter.refused(refusal.Reason)
	p.session.log.Warn("hostile frame, session cut", "direction", p.direction.String(), "reason", string(refusal.Reason), "detail", refusal.Detail)
	return hostileEnding(p.direction, refusal)
}

// undelivered is the end of a session whose receiving side has gone.
func (p *pump) undelivered(err error) error {
	if p.direction == linkv1.Direction_UP {
		return serverLeft(err)
	}
	return agentLeft(err)
}

func agentLeft(err error) *ending {
	return ended(endAgentLeft, codes.Unavailable, "the agent's stream ended: %s", brief(err))
}

func serverLeft(err error) *ending {
	return ended(endServerLeft, codes.Unavailable, "the server's stream ended (%s): connect anew, another server may serve", brief(err))
}

// brief is what the far side may know of an error on the near one.
func brief(err error) string {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return "it hung up"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return status.Code(err).String()
}
