package link

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Metadata that a call takes along; nothing else of it crosses.
const (
	mdAuthorization  = "authorization"
	mdIdempotencyKey = "idempotency-key"
	mdIfMatch        = "if-match"
	mdLastEventID    = "last-event-id"
	mdLanguage       = "accept-language"
	mdTraceID        = "trace-id"
)

// MDClient is the metadata in which an edge says from which address a call came. Nobody's own is taken over.
const MDClient = "naru-client"

// bearer begins an authorization that holds a token.
const bearer = "Bearer "

// maxCredential leaves room for what sealing adds.
const maxCredential = 4096 - 16

// takeAlong puts the metadata of an outgoing call into its request, and returns the bearer token, which must be sealed.
func takeAlong(ctx context.Context, r *linkv1.CallRequest) (credential string, err error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	one := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	r.IdempotencyKey, r.IfMatch, r.LastEventId = one(mdIdempotencyKey), one(mdIfMatch), one(mdLastEventID)
	for _, v := range []struct {
		name, value string
		most        int
	}{{mdIdempotencyKey, r.IdempotencyKey, 128}, {mdIfMatch, r.IfMatch, 64}, {mdLastEventID, r.LastEventId, 64}} {
		if len(v.value) > v.most {
			return "", problem.Newf(problem.Invalid, "Send a shorter one.", "%s has %d bytes; at most %d", v.name, len(v.value), v.most)
		}
	}
	// These two only help a person; they are no reason to refuse a call.
	r.Language = firstLanguages(one(mdLanguage), 64)
	r.TraceId = shorten(one(mdTraceID), 64)
	r.Client = shorten(one(MDClient), 64)
	credential = one(mdAuthorization)
	if len(credential) >= len(bearer) && strings.EqualFold(credential[:len(bearer)], bearer) {
		credential = credential[len(bearer):]
	} else if credential != "" {
		return "", problem.New(problem.Unauthenticated, "the authorization is no bearer token", "Sign in with an access token.")
	}
	if len(credential) > maxCredential {
		return "", problem.Newf(problem.Unauthenticated, "Sign in with an access token of this federation.", "the token has %d bytes; at most %d", len(credential), maxCredential)
	}
	return credential, nil
}

// firstLanguages cuts a list of languages behind a whole one.
func firstLanguages(list string, max int) string {
	for len(list) > max {
		cut := strings.LastIndexByte(list[:max+1], ',')
		if cut < 0 {
			return ""
		}
		list = list[:cut]
	}
	return list
}

// linkDown is what a caller is told when the session ends under its call.
func linkDown(sent bool, m *wire.Method) error {
	switch {
	case !sent:
		return problem.New(problem.LinkDown, "the zone has no session with the control plane; the call was not sent",
			"Try again when the link is up.")
	case m.Reads:
		return problem.New(problem.LinkDown, "the link broke before the answer came", "Ask again when the link is up.")
	}
	return problem.New(problem.LinkDown, "the link broke before the answer came; whether it was done is unknown",
		"Repeat it with the same Idempotency-Key: then it is done once.")
}

// refusedByBroker is what a caller is told when a broker did not let its call, or the answer, through.
func refusedByBroker(what, reason string, sent bool) error {
	if sent {
		return problem.Newf(problem.Refused, "Whether it was done is unknown: look, or repeat it with the same Idempotency-Key.",
			"a broker on the way did not let %s through: %s", what, reason)
	}
	label, _, _ := strings.Cut(reason, ":")
	code, next := problem.Refused, "Show an operator what it says."
	switch wire.Reason(label) {
	case wire.ReasonRules:
		code, next = problem.Invalid, "Correct the field that it names."
	case wire.ReasonOversize:
		code, next = problem.TooLarge, "Send less."
	case wire.ReasonUnknown:
		code, next = problem.Unsupported, "The broker is older than this zone's edge: upgrade the broker."
	case wire.ReasonMethod:
		code, next = problem.Forbidden, "Call it in the control network."
	}
	return problem.Newf(code, next, "a broker on the way did not let %s through: %s", what, reason)
}

// failed returns the far end's error as one that a gRPC client expects; nil for none.
func failed(r *linkv1.CallResponse) error {
	if r.Error == nil && r.GrpcCode == uint32(codes.OK) {
		return nil
	}
	if r.Error == nil {
		return problem.ToStatus(problem.FromProto(&apiv1.Problem{Code: string(problem.Internal), Title: "Something went wrong inside"}))
	}
	return problem.ToStatus(problem.FromProto(r.Error))
}
