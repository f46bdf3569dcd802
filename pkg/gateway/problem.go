package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// problemType is the address of a code's explanation, less the code itself.
const problemType = "https://naru.dev/problems/"

// problemBody is a Problem as RFC 9457 writes it.
type problemBody struct {
	Type    string       `json:"type"`
	Title   string       `json:"title"`
	Status  int          `json:"status"`
	Code    string       `json:"code"`
	Detail  string       `json:"detail,omitempty"`
	Next    string       `json:"next,omitempty"`
	TraceID string       `json:"trace_id,omitempty"`
	Errors  []fieldError `json:"errors,omitempty"`
	// Clusters are as the API writes them.
	Clusters []json.RawMessage `json:"clusters,omitempty"`
}

type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// body returns err as what is sent, in the reader's language where the gateway can.
func (g *gateway) body(r *http.Request, err error) problemBody {
	p := problem.Of(err)
	if g.translate != nil {
		p = g.translate(r.Header.Get("Accept-Language"), p)
	}
	b := problemBody{
		Type: problemType + strings.ToLower(strings.ReplaceAll(p.GetCode(), "_", "-")), Title: p.GetTitle(),
		Status: problem.HTTPStatus(problem.Code(p.GetCode())), Code: p.GetCode(),
		Detail: p.GetDetail(), Next: p.GetNext(), TraceID: p.GetTraceId(),
	}
	if b.TraceID == "" {
		b.TraceID = r.Header.Get(traceHeader)
	}
	for _, f := range p.GetErrors() {
		b.Errors = append(b.Errors, fieldError{Field: f.GetField(), Detail: f.GetDetail()})
	}
	for _, c := range p.GetClusters() {
		if text, err := (&Encoder{}).Append(nil, c); err == nil {
			b.Clusters = append(b.Clusters, text)
		}
	}
	return b
}

// refuse answers err.
func (g *gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	b := g.body(r, err)
	h := w.Header()
	h.Del("Trailer")
	h.Del("Transfer-Encoding")
	h.Set("Content-Type", "application/problem+json")
	if b.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="naru"`)
	}
	w.WriteHeader(b.Status)
	_ = json.NewEncoder(w).Encode(b) // The reader may be gone; nobody is left to tell.
}

// refuseCall is the gateway's error handler for calls that began.
func (g *gateway) refuseCall(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	g.refuse(w, r, g.readable(r, err))
}

// refuseRoute is its error handler for requests that have no route.
func (g *gateway) refuseRoute(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, _ int) {
	g.refuse(w, r, g.noRoute(w, r))
}

// noRoute says why a request has no route: another method would do, or nothing would.
func (g *gateway) noRoute(w http.ResponseWriter, r *http.Request) error {
	if verbs := g.routes.verbs(r.URL.Path); len(verbs) > 0 {
		allow := strings.Join(verbs, ", ")
		w.Header().Set("Allow", allow)
		return problem.Newf(problem.MethodNotAllowed, "Use "+allow+".", "%s is not allowed on %s", r.Method, r.URL.Path)
	}
	return problem.Newf(problem.NotFound, "GET /openapi.json lists every path.", "there is no path %s", r.URL.Path)
}

// Translate returns p in a language that accept (an Accept-Language header) asks for, or p itself. It must not change p.
type Translate func(accept string, p *apiv1.Problem) *apiv1.Problem
