package api

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/pkg/frontdoor"
	"github.com/naru-project/naru/pkg/problem"
)

// Metadata of a call. Nothing else of it is read.
const (
	authorizationKey  = "authorization"
	idempotencyKey    = "idempotency-key"
	ifMatchKey        = "if-match"
	lastEventIDKey    = "last-event-id"
	consistencyKey    = "x-naru-consistency"
	traceKey          = "trace-id"
	maxIdempotencyKey = 128
	maxRevision       = 64
)

// visit is one call on its way through the gate.
type visit struct {
	method    string
	trace     string
	began     time.Time
	principal auth.Principal
	call      service.Call
	refused   *problem.Error // as it was before what may not cross was taken out of it
}

// judged refuses to answer where the method needs a permission and nobody asked whether the caller has it where the object is:
// a fault in the service, which has to show in a test and must not show anything to a caller.
func (v *visit) judged() error {
	m, _ := rights.MethodOf(v.method)
	if m.Permission == rights.Public || m.Permission == rights.Self || v.call.Asked.Done() {
		return nil
	}
	return fmt.Errorf("%s answers without having asked for the decision about %s", v.method, m.Permission)
}

func newVisit(ctx context.Context, method string) *visit {
	md, _ := metadata.FromIncomingContext(ctx)
	return &visit{method: method, trace: traceOf(first(md, traceKey)), began: time.Now()}
}

// traceOf takes a caller's trace id where it is one (32 hexadecimal digits), else makes one.
func traceOf(given string) string {
	if raw, err := hex.DecodeString(given); err == nil && len(raw) == 16 {
		return given
	}
	raw := make([]byte, 16)
	rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// readCall reads what the call's metadata says, and refuses what does not have the form.
func readCall(ctx context.Context) (service.Call, auth.Credentials, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, key := range []string{authorizationKey, idempotencyKey, ifMatchKey, lastEventIDKey, consistencyKey} {
		if len(md.Get(key)) > 1 {
			return service.Call{}, auth.Credentials{}, problem.New(problem.Invalid, key+" is given more than once", "Send it once.")
		}
	}
	call := service.Call{IdempotencyKey: first(md, idempotencyKey), IfMatch: first(md, ifMatchKey), LastEventID: first(md, lastEventIDKey)}
	if !printable(call.IdempotencyKey, maxIdempotencyKey) {
		return call, auth.Credentials{}, problem.New(problem.Invalid, "the Idempotency-Key is too long or has letters that it may not have",
			"Send 1 to 128 printable ASCII letters; a UUID does well.").With("Idempotency-Key", "is not of the form")
	}
	if !printable(call.IfMatch, maxRevision) || !printable(call.LastEventID, maxRevision) {
		return call, auth.Credentials{}, problem.New(problem.Invalid, "If-Match or Last-Event-ID is no revision", "Send the revision as it was received.")
	}
	switch first(md, consistencyKey) {
	case "":
	case "stale":
		call.Stale = true
	default:
		return call, auth.Credentials{}, problem.New(problem.Invalid, "X-Naru-Consistency knows the value stale only", "Send stale, or leave it out.")
	}
	return call, credentialsOf(ctx, first(md, authorizationKey)), nil
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

func printable(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// origin is where a call came from that came over no gRPC connection of its own.
type origin struct {
	chain []*x509.Certificate // of the HTTP connection
	zone  string              // id of the zone whose link carried it
	from  string              // address of the HTTP connection's other end, or of the client at the zone's edge
}

type originKey struct{}

func withOrigin(ctx context.Context, o origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// cameFrom is from where a call comes, as far as wrong passwords are counted by it: the place, and the address there.
func cameFrom(ctx context.Context) (place, from string) {
	o, _ := ctx.Value(originKey{}).(origin)
	if o.zone != "" {
		return "zone " + o.zone, o.from
	}
	address := o.from
	if p, ok := peer.FromContext(ctx); ok && address == "" {
		address = p.Addr.String()
	}
	from = frontdoor.Client(address)
	return from, from
}

// credentialsOf gathers what shows who calls. An origin goes before the connection: a link's calls arrive on a connection
// that is the server's own business.
func credentialsOf(ctx context.Context, authorization string) auth.Credentials {
	if o, ok := ctx.Value(originKey{}).(origin); ok {
		return auth.Credentials{Chain: o.chain, ViaZone: o.zone, Authorization: authorization}
	}
	c := auth.Credentials{Authorization: authorization}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.Chain = info.State.PeerCertificates
		}
	}
	return c
}
