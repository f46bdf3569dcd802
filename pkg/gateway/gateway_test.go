package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// far stands for whatever is behind the gateway: it answers each method with a function.
type far struct {
	unary  map[string]func(md metadata.MD, in proto.Message) (proto.Message, error)
	stream map[string]func(md metadata.MD, in proto.Message) ([]proto.Message, error)
	header metadata.MD // of every answer
}

func (f far) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	h, ok := f.unary[method]
	if !ok {
		return problem.ToStatus(problem.New(problem.Unsupported, method+" is not there", ""))
	}
	out, err := h(md, args.(proto.Message))
	if err != nil {
		return problem.ToStatus(err)
	}
	proto.Merge(reply.(proto.Message), out)
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = f.header
		}
	}
	return nil
}

func (f far) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &farStream{ctx: ctx, handler: f.stream[method]}, nil
}

type farStream struct {
	grpc.ClientStream
	ctx     context.Context
	handler func(metadata.MD, proto.Message) ([]proto.Message, error)
	queue   []proto.Message
	err     error
}

func (s *farStream) SendMsg(m any) error {
	md, _ := metadata.FromOutgoingContext(s.ctx)
	s.queue, s.err = s.handler(md, m.(proto.Message))
	return nil
}

func (s *farStream) CloseSend() error { return nil }

func (s *farStream) RecvMsg(m any) error {
	if len(s.queue) == 0 {
		if s.err != nil {
			return problem.ToStatus(s.err)
		}
		return io.EOF
	}
	proto.Merge(m.(proto.Message), s.queue[0])
	s.queue = s.queue[1:]
	return nil
}

func newHandler(t testing.TB, f far) http.Handler {
	t.Helper()
	h, err := New(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// call sends one request; headers come in pairs.
func call(h http.Handler, verb, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(verb, "https://naru.test"+path, strings.NewReader(body))
	if body == "" {
		r.Body = http.NoBody
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) problemBody {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("status %d, content type %q, body %s: no problem", w.Code, got, w.Body)
	}
	var p problemBody
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != w.Code || p.Title == "" || p.Type != "https://naru.dev/problems/"+strings.ToLower(strings.ReplaceAll(p.Code, "_", "-")) {
		t.Fatalf("status %d: %+v", w.Code, p)
	}
	return p
}

const (
	createVM = "/naru.api.v1.VMService/CreateVM"
	listVMs  = "/naru.api.v1.VMService/ListVMs"
	getVM    = "/naru.api.v1.VMService/GetVM"
	watchVMs = "/naru.api.v1.VMService/WatchVMs"
)

func TestWhatBeginsAnOperationAnswers202WithItsLocation(t *testing.T) {
	var got *apiv1.CreateVMRequest
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		createVM: func(_ metadata.MD, in proto.Message) (proto.Message, error) {
			got = in.(*apiv1.CreateVMRequest)
			return &apiv1.CreateVMResponse{Operation: &apiv1.Operation{Id: "op-1", Kind: "vm.create"}}, nil
		},
	}})
	w := call(h, "POST", "/v1/vms", `{"name":"web-1","project":"web","ssh_keys":["a"]}`)
	if w.Code != http.StatusAccepted || w.Header().Get("Location") != "/v1/operations/op-1" {
		t.Fatalf("status %d, location %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	if got.GetVm().GetName() != "web-1" || got.GetVm().GetSshKeys()[0] != "a" {
		t.Fatalf("got %v", got)
	}
	var op struct{ ID, Kind string }
	if err := json.Unmarshal(w.Body.Bytes(), &op); err != nil || op.ID != "op-1" || op.Kind != "vm.create" {
		t.Fatalf("%v: %s", err, w.Body)
	}
}

func TestANounsRevisionIsItsETag(t *testing.T) {
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		getVM: func(_ metadata.MD, in proto.Message) (proto.Message, error) {
			r := in.(*apiv1.GetVMRequest)
			return &apiv1.GetVMResponse{Vm: &apiv1.VM{Name: r.GetVm(), Project: r.GetProject(), Revision: "7-9"}}, nil
		},
	}})
	w := call(h, "GET", "/v1/vms/web-1?project=web", "")
	if w.Code != 200 || w.Header().Get("ETag") != `"7-9"` || !strings.Contains(w.Body.String(), `"project":"web"`) {
		t.Fatalf("status %d, headers %v: %s", w.Code, w.Header(), w.Body)
	}
}

func TestOnlyTheListedHeadersBecomeMetadata(t *testing.T) {
	var md metadata.MD
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		getVM: func(m metadata.MD, _ proto.Message) (proto.Message, error) {
			md = m
			return &apiv1.GetVMResponse{}, nil
		},
	}})
	call(h, "GET", "/v1/vms/web-1", "", "Authorization", "Bearer t", "If-Match", `"7-9"`, "Idempotency-Key", "k", "Accept-Language", "ko",
		"X-Naru-Consistency", "stale", "Cookie", "c=1", "Grpc-Metadata-Zone", "business", "X-Other", "1")
	for name, want := range map[string]string{"authorization": "Bearer t", "if-match": "7-9", "idempotency-key": "k", "accept-language": "ko", "x-naru-consistency": "stale"} {
		if got := md.Get(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q once", name, got, want)
		}
	}
	for _, name := range []string{"cookie", "grpcgateway-cookie", "zone", "x-other", "grpcgateway-authorization"} {
		if got := md.Get(name); len(got) != 0 {
			t.Errorf("%s went through: %q", name, got)
		}
	}
}

func TestAWeakTagOrAListIsNoRevision(t *testing.T) {
	for in, want := range map[string]string{`"7-9"`: "7-9", `W/"7-9"`: `W/"7-9"`, `"7-9", "7-10"`: `"7-9", "7-10"`, `*`: `*`, `7-9`: `7-9`, ` "7-9" `: "7-9"} {
		if got := unquoteTag(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

// TestBadRequestsAreRefusedWithTheReason is the part of the "bad input" that the gateway sees.
func TestBadRequestsAreRefusedWithTheReason(t *testing.T) {
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		createVM: func(metadata.MD, proto.Message) (proto.Message, error) { return &apiv1.CreateVMResponse{}, nil },
		listVMs:  func(metadata.MD, proto.Message) (proto.Message, error) { return &apiv1.ListVMsResponse{}, nil },
	}})
	for _, c := range []struct {
		about, verb, path, body string
		headers                 []string
		status                  int
		code                    problem.Code
		says, field             string
	}{
		{"an unknown field", "POST", "/v1/vms", `{"name":"a","wrong":1}`, nil, 400, problem.Invalid, "unknown field", "wrong"},
		{"a value of the wrong kind", "POST", "/v1/vms", `{"name":1}`, nil, 400, problem.Invalid, "name", "name"},
		{"an object for a text that holds one", "POST", "/v1/requests", `{"specification":{"create":{"form":{"service_name":"shop"}}}}`, nil, 400, problem.Invalid, `"form":"{\"name\":\"value\"}"`, "form"},
		{"a field twice", "POST", "/v1/vms", `{"name":"a","name":"b"}`, nil, 400, problem.Invalid, "name", ""},
		{"an unknown state", "POST", "/v1/vms", `{"affinities":[{"group":"g","rule":"NEAR"}]}`, nil, 400, problem.Invalid, "rule", "rule"},
		{"no JSON", "POST", "/v1/vms", `name=a`, nil, 400, problem.Invalid, "invalid character", ""},
		{"half of a body", "POST", "/v1/vms", `{"name":`, nil, 400, problem.Invalid, "unexpected EOF", ""},
		{"no object", "POST", "/v1/vms", `["a"]`, nil, 400, problem.Invalid, "no JSON object", ""},
		{"null", "POST", "/v1/vms", `null`, nil, 400, problem.Invalid, "no JSON object", ""},
		{"bytes behind the body", "POST", "/v1/vms", `{"name":"a"}{"x":1}`, nil, 400, problem.Invalid, "more behind its JSON value", ""},
		{"a body that is too large", "POST", "/v1/vms", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, nil, 413, problem.TooLarge, "1048576 bytes", ""},
		{"a form", "POST", "/v1/vms", `name=a`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, problem.UnsupportedMedia, "Content-Type", "Content-Type"},
		{"a query beside a body", "POST", "/v1/vms?name=b", `{"name":"a"}`, nil, 400, problem.Invalid, "name is not a query parameter", "name"},
		{"a body where none is", "DELETE", "/v1/vms/web-1", `{"name":"a"}`, nil, 400, problem.Invalid, "takes no body", ""},
		{"an unknown parameter", "GET", "/v1/vms?sort=name", "", nil, 400, problem.Invalid, "sort is not a query parameter", "sort"},
		{"a parameter in camel case", "GET", "/v1/vms?pageSize=3", "", nil, 400, problem.Invalid, "pageSize", "pageSize"},
		{"a parameter of a method that has none", "GET", "/v1/whoami?x=1", "", nil, 400, problem.Invalid, "x is not", "x"},
		{"a parameter twice", "GET", "/v1/vms?page_size=3&page_size=4", "", nil, 400, problem.Invalid, "more than once", "page_size"},
		{"a parameter of the wrong kind", "GET", "/v1/vms?page_size=many", "", nil, 400, problem.Invalid, "page_size", ""},
		{"a negative size", "GET", "/v1/vms?page_size=-1", "", nil, 400, problem.Invalid, "page_size", ""},
		{"a query that cannot be read", "GET", "/v1/vms?filter=%zz", "", nil, 400, problem.Invalid, "query", ""},
		{"an unknown path", "GET", "/v1/nothing", "", nil, 404, problem.NotFound, "/v1/nothing", ""},
		{"an unknown action", "POST", "/v1/vms/web-1:explode", "", nil, 404, problem.NotFound, "explode", ""},
		{"the wrong method", "PUT", "/v1/vms/web-1", "", nil, 405, problem.MethodNotAllowed, "PUT", ""},
		{"the wrong method for an action", "GET", "/v1/vms/web-1:stop", "", nil, 405, problem.MethodNotAllowed, "GET", ""},
		{"a method in disguise", "POST", "/v1/vms/web-1", "", []string{"X-Http-Method-Override", "DELETE", "Content-Type", "application/x-www-form-urlencoded"}, 405, problem.MethodNotAllowed, "POST", ""},
		{"another site's page", "POST", "/v1/vms", `{}`, []string{"Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"}, 403, problem.Forbidden, "another site", ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			p := problemOf(t, call(h, c.verb, c.path, c.body, c.headers...))
			if p.Status != c.status || p.Code != string(c.code) || !strings.Contains(p.Detail+p.Next, c.says) || p.Next == "" {
				t.Fatalf("got %+v", p)
			}
			if c.field != "" && (len(p.Errors) == 0 || p.Errors[0].Field != c.field) {
				t.Fatalf("the field %s is not named: %+v", c.field, p)
			}
		})
	}
}

func TestTheWrongMethodIsToldWhichAreRight(t *testing.T) {
	h := newHandler(t, far{})
	for path, want := range map[string]string{"/v1/vms": "GET, POST", "/v1/vms/web-1": "DELETE, GET, PATCH", "/v1/zones/z": "DELETE, GET, PATCH", "/v1/vms/web-1:stop": "POST"} {
		if got := call(h, "PUT", path, "").Header().Get("Allow"); got != want {
			t.Errorf("%s allows %q, want %q", path, got, want)
		}
	}
}

func TestAProblemFromBehindArrivesWhole(t *testing.T) {
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		createVM: func(metadata.MD, proto.Message) (proto.Message, error) {
			e := problem.New(problem.NoHostFits, "4 hosts looked at: 3 lack memory", "Choose a smaller flavor.").With("flavor", "too large")
			e.Problem.TraceId = "t-1"
			return nil, e
		},
	}})
	w := call(h, "POST", "/v1/vms", `{}`)
	p := problemOf(t, w)
	if p.Status != 409 || p.Code != "NO_HOST_FITS" || p.Next != "Choose a smaller flavor." || p.TraceID != "t-1" || p.Errors[0].Field != "flavor" {
		t.Fatalf("got %+v", p)
	}
}

func TestEveryAnswerHasATraceID(t *testing.T) {
	var md metadata.MD
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		getVM: func(m metadata.MD, _ proto.Message) (proto.Message, error) {
			md = m
			return &apiv1.GetVMResponse{}, nil
		},
	}})
	const mine = "0123456789abcdef0123456789abcdef"
	if got := call(h, "GET", "/v1/vms/web-1", "", "Trace-Id", mine).Header().Get("Trace-Id"); got != mine || md.Get("trace-id")[0] != mine {
		t.Fatalf("mine became %q, %v", got, md)
	}
	w := call(h, "GET", "/v1/nothing", "", "Trace-Id", "no trace id")
	if got := w.Header().Get("Trace-Id"); len(got) != 32 || problemOf(t, w).TraceID != got {
		t.Fatalf("it is %q", got)
	}
}

func TestAProblemIsToldInTheReadersLanguageWhereThereIsOne(t *testing.T) {
	h, err := New(far{}, Options{Translate: func(accept string, p *apiv1.Problem) *apiv1.Problem {
		if accept != "ko" {
			return p
		}
		p = proto.CloneOf(p)
		p.Title = "없습니다"
		return p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if p := problemOf(t, call(h, "GET", "/v1/nothing", "", "Accept-Language", "ko")); p.Title != "없습니다" || p.Code != "NOT_FOUND" {
		t.Fatalf("got %+v", p)
	}
}

func TestAPatchNamesTheFieldsOfItsBody(t *testing.T) {
	var got *apiv1.UpdateZoneRequest
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		"/naru.api.v1.ZoneService/UpdateZone": func(_ metadata.MD, in proto.Message) (proto.Message, error) {
			got = in.(*apiv1.UpdateZoneRequest)
			return &apiv1.UpdateZoneResponse{Zone: &apiv1.Zone{Revision: "7-10"}}, nil
		},
	}})
	w := call(h, "PATCH", "/v1/zones/business", `{"description":"","grade":"SENSITIVE"}`)
	if w.Code != 200 || w.Header().Get("ETag") != `"7-10"` {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if got.GetZone().GetId() != "business" || strings.Join(got.GetUpdateMask().GetPaths(), ",") != "description,grade" {
		t.Fatalf("got %v", got)
	}
	if p := problemOf(t, call(h, "PATCH", "/v1/zones/business", `{"grade":"HIGH"}`)); p.Errors[0].Field != "grade" {
		t.Fatalf("got %+v", p)
	}
}

func TestEveryAnswerForbidsWhatABrowserMightDoWithIt(t *testing.T) {
	h := newHandler(t, far{})
	for _, path := range []string{"/v1/nothing", "/openapi.json"} {
		w := call(h, "GET", path, "", "Accept-Encoding", "gzip")
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", path, w.Header())
		}
		if w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s is compressed", path)
		}
	}
}

func TestEveryMethodWithABindingHasARouteThatIsServed(t *testing.T) {
	table, err := readRoutes()
	if err != nil {
		t.Fatal(err)
	}
	reached := map[string]bool{}
	h := newHandler(t, far{})
	g, err := New(recorder{reached}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range table.all {
		path := strings.NewReplacer("{", "", "}", "").Replace(r.path)
		body := ""
		if r.body {
			body = "{}"
		}
		call(g, r.verb, path, body)
		if !reached[r.method] {
			t.Errorf("%s %s does not reach %s", r.verb, path, r.method)
		}
		if p := problemOf(t, call(h, r.verb, path+"?surely_unknown=1", body)); p.Code != "INVALID" {
			t.Errorf("%s %s takes an unknown parameter: %+v", r.verb, path, p)
		}
	}
	if len(table.all) < 60 {
		t.Fatalf("only %d routes were read", len(table.all))
	}
}

type recorder struct{ reached map[string]bool }

func (r recorder) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	r.reached[method] = true
	return nil
}

func (r recorder) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	r.reached[method] = true
	return nil, problem.ToStatus(problem.New(problem.Unavailable, "", ""))
}

func TestARefusalOfPlacementCarriesItsTable(t *testing.T) {
	refused := problem.New(problem.NoHostFits, "2 clusters looked at.", "Choose a smaller flavor.")
	refused.Problem.Clusters = []*apiv1.ClusterRefusal{
		{Cluster: "web", Hosts: 8, Reasons: []*apiv1.HostRefusal{{Reason: "lack memory", Hosts: 8, Nearest: "web-1 has 1 MiB free, 2 MiB asked"}}}, {Cluster: "was"},
	}
	h := newHandler(t, far{unary: map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		createVM: func(metadata.MD, proto.Message) (proto.Message, error) { return nil, problem.ToStatus(refused) },
	}})
	p := problemOf(t, call(h, "POST", "/v1/vms", `{"name":"a"}`))
	if len(p.Clusters) != 2 || string(p.Clusters[0]) != `{"cluster":"web","hosts":8,"cordoned":false,"reasons":[{"reason":"lack memory","hosts":8,"nearest":"web-1 has 1 MiB free, 2 MiB asked"}]}` {
		t.Errorf("%s", p.Clusters)
	}
}

func TestAnAnswerSaysWhenItIsOfAZoneThatIsCutOff(t *testing.T) {
	since := time.Date(2026, 11, 22, 3, 4, 5, 0, time.UTC)
	list := map[string]func(metadata.MD, proto.Message) (proto.Message, error){
		apiv1.VMService_ListVMs_FullMethodName: func(metadata.MD, proto.Message) (proto.Message, error) { return &apiv1.ListVMsResponse{}, nil },
	}
	w := call(newHandler(t, far{unary: list, header: metadata.Pairs(ConsistencyHeader, LocalSince(since), "other", "inside")}), "GET", "/v1/vms", "")
	if got, ok := ReadLocalSince(w.Header().Get(ConsistencyHeader)); w.Code != 200 || !ok || !got.Equal(since) || w.Header().Get("other") != "" {
		t.Errorf("%d, headers %v", w.Code, w.Header())
	}
	w = call(newHandler(t, far{unary: list}), "GET", "/v1/vms", "")
	if got := w.Header().Values(ConsistencyHeader); w.Code != 200 || got != nil {
		t.Errorf("%d, a whole answer says %q", w.Code, got)
	}
}
