package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// passed is the allow-list of headers that become metadata of a call. Nothing else of a request does, but Authorization,
// which the gateway's library always passes on.
var passed = [...]string{
	"Idempotency-Key", "Last-Event-Id", "Accept-Language", traceHeader, ConsistencyHeader,
}

// traceHeader carries the id that follows a request through every log: the caller's, or one that the gateway makes. Every
// answer has it.
const traceHeader = "Trace-Id"

// ConsistencyHeader says in a request what may be answered, and in an answer that it is less than everything that was
// acknowledged before; an answer without it is that. It is metadata of a gRPC call by the same name.
const ConsistencyHeader = "X-Naru-Consistency"

// Stale asks in a request for what the server has, which may be a little old, and says in an answer that it is that, because
// no server leads.
const Stale = "stale"

const localSince = "local; since="

// LocalSince is what ConsistencyHeader says of an answer that a zone gives which is cut off since then: it is of what the
// zone itself holds, and of nothing else.
func LocalSince(t time.Time) string { return localSince + t.UTC().Format(time.RFC3339) }

// ReadLocalSince returns since when the zone is cut off whose answer has this ConsistencyHeader; false where it is no such answer.
func ReadLocalSince(header string) (time.Time, bool) {
	since, ok := strings.CutPrefix(header, localSince)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, since)
	return t, err == nil
}

// traceID takes a caller's id where it is one (32 hexadecimal digits), else makes one.
func traceID(given string) string {
	if raw, err := hex.DecodeString(given); err == nil && len(raw) == 16 {
		return given
	}
	raw := make([]byte, 16)
	rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// noHeader is the matcher of a gateway that passes on nothing by itself.
func noHeader(string) (string, bool) { return "", false }

// callMetadata returns the metadata of a request's call.
func callMetadata(_ context.Context, r *http.Request) metadata.MD {
	md := metadata.MD{}
	for _, name := range passed {
		if v := r.Header.Get(name); v != "" {
			md.Set(name, v)
		}
	}
	if v := r.Header.Get("If-Match"); v != "" {
		md.Set("If-Match", unquoteTag(v))
	}
	return md
}

// unquoteTag takes the quotes off an entity tag. A weak tag and a list stay as they are: they name no revision, so that
// the service refuses them instead of overwriting something.
func unquoteTag(tag string) string {
	tag = strings.TrimSpace(tag)
	if len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' && !strings.Contains(tag[1:len(tag)-1], `"`) {
		return tag[1 : len(tag)-1]
	}
	return tag
}

// answerHeaders sets what an answer's headers say of its body.
func (g *gateway) answerHeaders(ctx context.Context, w http.ResponseWriter, answer proto.Message) error {
	x := exchangeOf(ctx)
	if x == nil {
		return nil
	}
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok {
		if said := md.HeaderMD.Get(ConsistencyHeader); len(said) > 0 {
			w.Header().Set(ConsistencyHeader, said[0])
		}
	}
	body := any(answer)
	if part, ok := answer.(interface{ XXX_ResponseBody() any }); ok {
		body = part.XXX_ResponseBody()
	}
	if op, ok := body.(*apiv1.Operation); ok && x.route.begins {
		if op.GetId() != "" { // one that needed nothing to be done is kept nowhere
			w.Header().Set("Location", "/v1/operations/"+op.GetId())
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if noun, ok := body.(interface{ GetRevision() string }); ok && noun.GetRevision() != "" {
		w.Header().Set("ETag", `"`+noun.GetRevision()+`"`)
	}
	return nil
}
