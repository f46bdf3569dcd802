package api_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestGRPCAndRESTShareOneListener(t *testing.T) {
	f := newFederation(t, 1)
	admin := f.admin()
	both := f.tls(admin)
	both.NextProtos = []string{"h2", "http/1.1"}
	for about, c := range map[string]*tls.Config{"a gRPC client": f.tls(admin), "one that offers HTTP/1.1 too": both} {
		t.Run(about, func(t *testing.T) {
			r, err := f.dial(c).Zones.ListZones(t.Context(), &apiv1.ListZonesRequest{})
			if err != nil || len(r.GetZones()) != 2 {
				t.Fatalf("%v, %v", r, err)
			}
		})
	}
	one := f.rest(f.tls(admin), "")
	one.http.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	for about, c := range map[string]rest{"HTTP/2": f.asAdmin(), "HTTP/1.1": one} {
		t.Run(about, func(t *testing.T) {
			var list struct{ Zones []struct{ Name string } }
			a := c.call("GET", "/v1/zones?order_by=name", "")
			a.json(t, 200, &list)
			if a.Proto != about+".0" && a.Proto != about || len(list.Zones) != 2 || list.Zones[0].Name != "business" {
				t.Fatalf("%s: %s", a.Proto, a.body)
			}
		})
	}
}

func TestHealthAndMetricsNeedNoCredentials(t *testing.T) {
	f := newFederation(t, 1)
	c := f.rest(f.tls(), "")
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := c.call("GET", path, ""); a.StatusCode != 200 {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	f.ready = errors.New("there is no leader")
	if a := c.call("GET", "/readyz", ""); a.StatusCode != 503 || !strings.Contains(string(a.body), "no leader") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	c.call("GET", "/v1/zones", "")
	if a := c.call("GET", "/metrics", ""); !strings.Contains(string(a.body), `naru_api_calls_total{code="UNAUTHENTICATED",method="/naru.api.v1.ZoneService/ListZones"} 1`) {
		t.Errorf("metrics: %s", a.body)
	}
}

// TestWhoeverIsNotKnownIsToldWhy is the part of the issue's "bad input" that is about credentials.
func TestWhoeverIsNotKnownIsToldWhy(t *testing.T) {
	f := newFederation(t, 1)
	other := authority(t, pki.AuthorityPeople, authority(t, pki.AuthorityRoot, nil))
	id, idErr := pki.AdminID("naru.test", "kim")
	agent, agentErr := pki.AgentID("naru.test", "zone-1", "agent-1")
	deleted := f.token("deleted", "web", "")
	if _, err := f.Admin().AccessTokens.DeleteAccessToken(t.Context(), &apiv1.DeleteAccessTokenRequest{AccessToken: "deleted"}); err != nil {
		t.Fatal(err)
	}
	for about, c := range map[string]struct {
		certificates []tls.Certificate
		token        string
		status       int
		code         problem.Code
		says         string
	}{
		"nobody": {nil, "", 401, problem.Unauthenticated, "nothing of who calls"},
		"an expired certificate": {[]tls.Certificate{certificate(t, f.people, id, idErr, pki.IssueOptions{TTL: time.Minute, Now: time.Now().Add(-30 * time.Minute)})}, "",
			401, problem.CertificateInvalid, "expired"},
		"another federation's certificate": {[]tls.Certificate{certificate(t, other, id, idErr, pki.IssueOptions{Now: time.Now()})}, "",
			401, problem.CertificateInvalid, "not trusted"},
		"an agent's certificate": {[]tls.Certificate{certificate(t, authority(t, pki.AuthorityLinks, f.root), agent, agentErr, pki.IssueOptions{Now: time.Now()})}, "",
			401, problem.CertificateInvalid, "another role"},
		"a token that never was":                {nil, "naru_x", 401, problem.TokenInvalid, "no access token"},
		"a deleted token":                       {nil, deleted, 401, problem.TokenInvalid, "deleted"},
		"a token of a zone's edge":              {nil, f.token("bound", "web", "business"), 403, problem.Forbidden, "edge of zone business"},
		"a bad token beside a good certificate": {[]tls.Certificate{f.admin()}, "naru_x", 401, problem.TokenInvalid, "no access token"},
	} {
		t.Run(about, func(t *testing.T) {
			f.rest(f.tls(c.certificates...), c.token).call("GET", "/v1/vms", "").problem(t, c.status, c.code, c.says)
			var options []grpc.DialOption
			if c.token != "" {
				options = append(options, grpc.WithPerRPCCredentials(bearer(c.token)))
			}
			_, err := f.dial(f.tls(c.certificates...), options...).VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{})
			if err = problem.FromStatus(err); !problem.Is(err, c.code) || !strings.Contains(err.Error(), c.says) || problem.Of(err).GetTraceId() == "" {
				t.Fatalf("over gRPC: %v", err)
			}
		})
	}
}

func TestATokenExpires(t *testing.T) {
	f := newFederation(t, 1)
	r, err := f.Admin().AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: "short", Project: "web", ExpiresAt: timestamppb.New(time.Now().Add(300 * time.Millisecond)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := f.rest(f.tls(), r.GetSecret())
	a := c.call("GET", "/v1/vms", "")
	for a.StatusCode == 200 {
		a = c.call("GET", "/v1/vms", "")
	}
	a.problem(t, 401, problem.TokenExpired, "short expired")
}

// TestBadRequestsAreRefused is the part of the issue's "bad input" that needs the whole way through.
func TestBadRequestsAreRefused(t *testing.T) {
	f := newFederation(t, 2)
	c := f.asAdmin()
	vm := func(changes ...string) string {
		fields := map[string]string{"name": `"web-1"`, "project": `"web"`, "zone": `"business"`, "cluster": `"kvm"`, "flavor": `"s1"`, "image": `"tiny"`}
		for i := 0; i < len(changes); i += 2 {
			fields[changes[i]] = changes[i+1]
		}
		var parts []string
		for k, v := range fields {
			if v != "" {
				parts = append(parts, `"`+k+`":`+v)
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	first := c.call("POST", "/v1/vms", vm("name", `"taken"`), "Idempotency-Key", "k-1")
	if first.StatusCode != http.StatusAccepted {
		t.Fatalf("%d %s", first.StatusCode, first.body)
	}
	for _, bad := range []struct {
		about, verb, path, body string
		headers                 []string
		status                  int
		code                    problem.Code
		says, field             string
	}{
		{"a missing field", "POST", "/v1/vms", vm("flavor", ""), nil, 400, problem.Invalid, "flavor is required", "flavor"},
		{"a wrong field", "POST", "/v1/vms", vm("colour", `"red"`), nil, 400, problem.Invalid, "colour", "colour"},
		{"a wrong name", "POST", "/v1/vms", vm("name", `"Web 1"`), nil, 400, problem.Invalid, "name", "name"},
		{"a field that is not the client's", "POST", "/v1/vms", vm("state", `"RUNNING"`), nil, 400, problem.Invalid, "state", "state"},
		{"an unknown zone", "POST", "/v1/vms", vm("zone", `"nowhere"`), nil, 404, problem.NotFound, "no zone nowhere", "zone"},
		{"an unknown flavor", "POST", "/v1/vms", vm("flavor", `"s9"`), nil, 404, problem.NotFound, "no flavor s9", "flavor"},
		{"an unknown image", "POST", "/v1/vms", vm("image", `"bsd"`), nil, 404, problem.NotFound, "no image bsd", "image"},
		{"a name that is taken", "POST", "/v1/vms", vm("name", `"taken"`), nil, 409, problem.NameTaken, "taken", "name"},
		{"a VM too large for every host", "POST", "/v1/vms", vm("flavor", `"huge"`), nil, 409, problem.NoHostFits, "2 hosts looked at: 2 lack cores and memory", "cluster"},
		{"the same key with another body", "POST", "/v1/vms", vm(), []string{"Idempotency-Key", "k-1"}, 422, problem.IdempotencyMismatch, "k-1", ""},
		{"a key that is too long", "POST", "/v1/vms", vm(), []string{"Idempotency-Key", strings.Repeat("k", 129)}, 400, problem.Invalid, "Idempotency-Key", "Idempotency-Key"},
		{"an unknown query parameter", "GET", "/v1/vms?state=RUNNING", "", nil, 400, problem.Invalid, "state", "state"},
		{"a filter that cannot be read", "GET", "/v1/vms?filter=state%3E%3E1", "", nil, 400, problem.Invalid, "filter", "filter"},
		{"an unknown VM", "GET", "/v1/vms/web-9?project=web", "", nil, 404, problem.NotFound, "no VM web-9", ""},
		{"a lost update", "PATCH", "/v1/zones/business", `{"description":"x"}`, []string{"If-Match", `"7-1"`}, 412, problem.Conflict, "7-1", ""},
		{"an If-Match that is no revision", "PATCH", "/v1/zones/business", `{"description":"x"}`, []string{"If-Match", strings.Repeat("7", 100)}, 400, problem.Invalid, "If-Match", ""},
		{"an action that cannot be now", "POST", "/v1/vms/taken:reboot?", `{"project":"web"}`, nil, 409, problem.WrongState, "only a VM that runs", ""},
	} {
		t.Run(bad.about, func(t *testing.T) {
			p := c.call(bad.verb, bad.path, bad.body, bad.headers...).problem(t, bad.status, bad.code, bad.says)
			if p["trace_id"] == nil {
				t.Errorf("no trace id: %v", p)
			}
			fields, _ := p["errors"].([]any)
			if bad.field != "" && (len(fields) == 0 || fields[0].(map[string]any)["field"] != bad.field) {
				t.Errorf("the field %s is not named: %v", bad.field, p)
			}
		})
	}
	again := c.call("POST", "/v1/vms", vm("name", `"taken"`), "Idempotency-Key", "k-1")
	if again.StatusCode != http.StatusAccepted || string(again.body) != string(first.body) || again.Header.Get("Location") != first.Header.Get("Location") {
		t.Fatalf("a repeated request: %d %s; the first was %s", again.StatusCode, again.body, first.body)
	}
	if a := c.call("GET", first.Header.Get("Location"), ""); a.StatusCode != 200 {
		t.Fatalf("the operation: %d %s", a.StatusCode, a.body)
	}
}

func TestAnETagGuardsAnUpdate(t *testing.T) {
	f := newFederation(t, 1)
	c := f.asAdmin()
	tag := c.call("GET", "/v1/zones/business", "").Header.Get("ETag")
	a := c.call("PATCH", "/v1/zones/business", `{"description":"mine"}`, "If-Match", tag)
	if a.StatusCode != 200 || a.Header.Get("ETag") == tag || a.Header.Get("ETag") == "" {
		t.Fatalf("%d %s %s", a.StatusCode, a.Header.Get("ETag"), a.body)
	}
	c.call("PATCH", "/v1/zones/business", `{"description":"theirs"}`, "If-Match", tag).problem(t, 412, problem.Conflict, "rests on")
}

func TestATraceIDGoesThrough(t *testing.T) {
	f := newFederation(t, 1)
	const id = "0123456789abcdef0123456789abcdef"
	p := f.asAdmin().call("GET", "/v1/zones/nowhere", "", "Trace-Id", id).problem(t, 404, problem.NotFound, "nowhere")
	if p["trace_id"] != id {
		t.Fatalf("got %v", p)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "trace-id", "no trace id")
	_, err := f.dial(f.tls(f.admin())).Zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: "nowhere"})
	if got := problem.Of(problem.FromStatus(err)).GetTraceId(); len(got) != 32 || got == id {
		t.Fatalf("what is no trace id became %q", got)
	}
}

func TestATooLargeMessageIsRefusedOverGRPC(t *testing.T) {
	f := newFederation(t, 1)
	_, err := f.dial(f.tls(f.admin())).Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "x", Description: strings.Repeat("x", 2<<20)}})
	if err = problem.FromStatus(err); !problem.Is(err, problem.TooMany) && !problem.Is(err, problem.TooLarge) {
		t.Fatal(err)
	}
}

// TestAMoveOverRESTSaysWhatItLeftAndWhatItEnded: drop_rights stands beside the body, which is the user.
func TestAMoveOverRESTSaysWhatItLeftAndWhatItEnded(t *testing.T) {
	f := newFederation(t, 1)
	f.Roles()
	c := f.asAdmin()
	for _, step := range [][2]string{
		{"/v1/organizations", `{"name":"bureau"}`}, {"/v1/organizations", `{"name":"other"}`}, {"/v1/users", `{"name":"jung","organization":"bureau"}`},
		{"/v1/role-bindings", `{"role":"user","user":"jung","scope":"ORGANIZATION","place":"bureau"}`},
		{"/v1/role-bindings", `{"role":"reviewer","user":"jung","scope":"ORGANIZATION","place":"other"}`},
	} {
		if a := c.call("POST", step[0], step[1]); a.StatusCode != 202 {
			t.Fatalf("%s: %d %s", step[0], a.StatusCode, a.body)
		}
	}
	c.call("PATCH", "/v1/users/jung?drop_rights=true", `{"title":"x"}`).problem(t, 400, problem.Invalid, "they stay in bureau")
	for _, move := range []struct{ to, query, says, never string }{
		{"other", "?drop_rights=true", `"dropped":[{"kind":"role-binding",`, `"keeps":[{`},
		{"bureau", "", `"keeps":[{"kind":"role-binding",`, `"dropped":[{`},
	} {
		a := c.call("PATCH", "/v1/users/jung"+move.query, `{"organization":"`+move.to+`"}`)
		if a.StatusCode != 200 || !strings.Contains(string(a.body), move.says) || strings.Contains(string(a.body), move.never) {
			t.Errorf("into %s: %d %s", move.to, a.StatusCode, a.body)
		}
	}
}
