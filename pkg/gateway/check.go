package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
)

const (
	// maxBody bounds a request's body; the largest honest one, a VM with all its keys and user data, is about 90 KiB.
	maxBody = 1 << 20
	// bodyTime is how long a client may take to send it.
	bodyTime = 30 * time.Second
)

// exchange is what the gateway remembers of a request while it is served.
type exchange struct {
	route *route
	body  []byte
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// check stands before every route and refuses what the generated code would ignore. It reads the body, so that what comes
// after it cannot be held up by a slow client.
func (g *gateway) check(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		rt, ok := g.routes.byPattern[r.Method+" "+pattern.String()]
		if !ok { // a path of the gateway's own
			next(w, r, params)
			return
		}
		for _, value := range params {
			if strings.ContainsRune(value, ':') { // an action that this method does not know
				g.refuse(w, r, g.noRoute(w, r))
				return
			}
		}
		x := &exchange{route: rt}
		err := checkQuery(r.URL.RawQuery, rt.query)
		if err == nil {
			x.body, err = readBody(w, r, rt.body)
		}
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		r.Body = io.NopCloser(bytes.NewReader(x.body))
		r.Header.Del("Accept") // one form of answer for each route, whatever is asked for
		r.Header.Del("Content-Type")
		next(w, r, params)
	}
}

// checkQuery refuses parameters that a route does not know, and one that is given twice.
func checkQuery(raw string, known map[string]bool) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return problem.New(problem.Invalid, "the query cannot be read: "+err.Error(), "Encode the query parameters.")
	}
	names := slices.Sorted(maps.Keys(known))
	e := problem.New(problem.Invalid, "", "This path takes no query parameters.")
	if len(names) > 0 {
		e.Problem.Next = "Known here: " + strings.Join(names, ", ") + "."
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case !known[name]:
			e.With(clip(name, 256), "is not a query parameter here")
		case len(values[name]) > 1:
			e.With(name, "is given more than once")
		}
	}
	if len(e.Problem.GetErrors()) == 0 {
		return nil
	}
	first := e.Problem.GetErrors()[0]
	e.Problem.Detail = first.GetField() + " " + first.GetDetail()
	e.Problem.Errors = e.Problem.GetErrors()[:min(64, len(e.Problem.GetErrors()))]
	return e
}

// readBody returns the whole body, at most maxBody.
func readBody(w http.ResponseWriter, r *http.Request, wanted bool) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if wanted && r.ContentLength != 0 {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/json" {
			return nil, problem.Newf(problem.UnsupportedMedia, "Send JSON, with Content-Type: application/json.",
				"the body's Content-Type is %q", clip(r.Header.Get("Content-Type"), 128)).With("Content-Type", "must be application/json")
		}
	}
	control := http.NewResponseController(w)
	// A writer that knows no deadlines is one of a test, or one whose server has its own.
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem.Newf(problem.TooLarge, "Send less.", "the body is larger than %d bytes", tooLarge.Limit)
	case err != nil:
		return nil, problem.New(problem.Invalid, "the body did not come in whole", "Send it again.")
	case len(data) > 0 && !wanted:
		return nil, problem.Newf(problem.Invalid, "Send no body.", "%s takes no body here", r.Method)
	}
	return data, nil
}

// readable undoes what the generated code does to an error that it found itself: it turns it into a bare status. What was
// wrong with the body is found again, with the field's name.
func (g *gateway) readable(r *http.Request, err error) error {
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.InvalidArgument || len(st.Details()) > 0 {
		return err
	}
	if x := exchangeOf(r.Context()); x != nil && x.route.body {
		if err := g.json.Unmarshal(x.body, x.route.newBody()); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return problem.New(problem.Invalid, st.Message(), "Correct the request; GET /openapi.json has its form.")
}

// newBody returns an empty message of what the route's body is.
func (r *route) newBody() proto.Message {
	m := r.input.New()
	if r.bodyField == nil {
		return m.Interface()
	}
	return m.NewField(r.bodyField).Message().Interface()
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// invalid is an error in the request's form, as the generated code would put it.
func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }
