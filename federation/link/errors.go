package link

import (
	"context"
	"errors"
	"fmt"
)

// Why a session ended, or never began. Every error of Run wraps one of these, a *Goodbye, or what a source, a sink or
// the stream returned.
var (
	// ErrIdentity: the other end's chain is not accepted, or it did not prove to hold its key.
	ErrIdentity = errors.New("the other end is not who it should be")
	// ErrProtocol: a frame that the other end could not have sent, or not here: changed, repeated, out of order, beyond a
	// window. An honest path never does this.
	ErrProtocol = errors.New("the protocol was broken")
	// ErrWithheld: a broker did not let through what the session cannot do without.
	ErrWithheld = errors.New("a broker withheld what the session needs")
	// ErrSilent: nothing came for too long.
	ErrSilent = errors.New("the other end fell silent")
	// ErrSchema: the path speaks no schema that this end speaks.
	ErrSchema = errors.New("no schema in common")
	// ErrOldEpoch: the zone has seen a later epoch of the control plane than this one. One of the control plane's servers
	// was left behind, or an old backup runs beside its successor.
	ErrOldEpoch = errors.New("the control plane's epoch is older than one already seen")
	// ErrQuarantine: the epoch's number is the one that is known and its id another. Two control planes have the same
	// number; neither may be believed until an administrator has looked.
	ErrQuarantine = errors.New("the control plane's epoch has the known number and another id")
	// ErrIncarnationLost: the zone's store is behind what the control plane has of it. The zone must mint a new incarnation.
	ErrIncarnationLost = errors.New("the zone's store has gone backwards")
	// ErrBusy: this end has a session already.
	ErrBusy = errors.New("a session is running")
)

// ErrGap is returned by a sink that does not stand where a chunk or batch begins.
var ErrGap = errors.New("something is missing before this")

// Codes of a Goodbye. They never change.
const (
	CodeSuperseded   = "SUPERSEDED"
	CodeRevoked      = "REVOKED"
	CodeNoLeader     = "NO_LEADER"
	CodeShuttingDown = "SHUTTING_DOWN"
	CodeProtocol     = "PROTOCOL"
	CodeQuarantined  = "QUARANTINED"
	CodeWrongBroker  = "WRONG_BROKER"
)

// Goodbye is the end of a session by one end's word.
type Goodbye struct {
	Code, Reason string
	// Remote: the other end said it.
	Remote bool
}

func (g *Goodbye) Error() string {
	who := "this end"
	if g.Remote {
		who = "the other end"
	}
	return fmt.Sprintf("%s ended the session: %s: %s", who, g.Code, g.Reason)
}

// farewell returns what to tell the other end about a cause, nil when there is nothing to tell or nobody to hear it. Of
// this end's inner troubles it tells no more than that there are some.
func farewell(cause error) *Goodbye {
	var g *Goodbye
	switch {
	case errors.As(cause, &g):
		if g.Remote {
			return nil
		}
		return g
	case errors.Is(cause, errStream):
		return nil
	case errors.Is(cause, ErrQuarantine):
		return &Goodbye{Code: CodeQuarantined, Reason: ErrQuarantine.Error()}
	case errors.Is(cause, ErrProtocol), errors.Is(cause, ErrWithheld), errors.Is(cause, ErrOldEpoch):
		return &Goodbye{Code: CodeProtocol, Reason: cause.Error()}
	case errors.Is(cause, context.Canceled), errors.Is(cause, ErrIncarnationLost):
		return &Goodbye{Code: CodeShuttingDown, Reason: "this end closes the session"}
	}
	return &Goodbye{Code: CodeShuttingDown, Reason: "this end could not go on"}
}

// errStream marks the end of the stream itself.
var errStream = errors.New("the stream ended")

func broken(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, a...))
}
