package service

import (
	"context"

	"github.com/naru-project/naru/controlplane/internal/auth"
)

// Call is what a request says besides its message.
type Call struct {
	Principal auth.Principal
	// IdempotencyKey makes it safe to send a write again; may be empty.
	IdempotencyKey string
	// IfMatch is the revision that an update rests on; empty means whatever it is.
	IfMatch string
	// LastEventID is where a watch goes on; it goes before the request's after.
	LastEventID string
	// Stale lets a read be answered from what this server has, without asking the leader.
	Stale bool
	// Method is what is called: /naru.api.v1.VMService/CreateVM. Without one nothing is permitted.
	Method string
	// Asked notes whether the decision about an object was asked for; nil where nobody wants to know.
	Asked *Asked
	// ViaZoneID is the zone at whose edge the call was made; empty in the control network.
	ViaZoneID string
	// Place is from where the call comes, as far as wrong passwords are counted by it: the zone, or in the control network the
	// caller's address.
	Place string
	// From is the caller's address within the place, as the zone's agent says it.
	From string
	// TraceID follows the request through every log.
	TraceID string
}

type callKey struct{}

// WithCall returns a context that carries c.
func WithCall(ctx context.Context, c Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// callOf returns what ctx carries; nobody's call where it carries none, which sees nothing.
func callOf(ctx context.Context) Call {
	c, _ := ctx.Value(callKey{}).(Call)
	return c
}
