package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// events reads server-sent events.
type events struct {
	t     *testing.T
	lines *bufio.Scanner
	close context.CancelFunc
}

type event struct{ kind, id, data string }

func (r rest) watch(t *testing.T, path string, headers ...string) events {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, "GET", "https://"+r.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = response.Body.Close() })
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %s", response.StatusCode, response.Header.Get("Content-Type"))
	}
	return events{t, bufio.NewScanner(response.Body), cancel}
}

func (e events) next() event {
	e.t.Helper()
	var out event
	for e.lines.Scan() {
		key, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch key {
		case "event":
			out.kind = value
		case "id":
			out.id = value
		case "data":
			out.data = value
		case "":
			return out
		}
	}
	e.t.Fatalf("the stream ended: %v", e.lines.Err())
	return out
}

// until reads up to an event about a VM of the name.
func (e events) until(kind, name string) event {
	e.t.Helper()
	for {
		got := e.next()
		var m struct{ VM struct{ Name string } }
		if err := json.Unmarshal([]byte(got.data), &m); err != nil {
			e.t.Fatal(err)
		}
		if got.kind == kind && m.VM.Name == name {
			return got
		}
	}
}

func TestAWatchOverRESTGoesOnFromItsLastEvent(t *testing.T) {
	f := newFederation(t, 1)
	c := f.rest(f.tls(), f.token("ci", "web", ""))
	create := func(name string) {
		if _, err := f.In("web").VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: f.VM(name, "web")}); err != nil {
			t.Fatal(err)
		}
	}
	first := c.watch(t, "/v1/vms:watch")
	if got := first.next(); got.kind != "bookmark" || got.id != "7-0" {
		t.Fatalf("the first event is %+v", got)
	}
	if got := first.next(); got.kind != "bookmark" || got.id == "7-0" {
		t.Fatalf("the second event is %+v", got)
	}
	create("web-1")
	last := first.until("put", "web-1")
	first.close()
	create("web-2")
	again := c.watch(t, "/v1/vms:watch", "Last-Event-ID", last.id)
	if got := again.next(); got.kind != "bookmark" || got.id != last.id {
		t.Fatalf("it goes on with %+v", got)
	}
	if got := again.next(); got.kind != "put" || !strings.Contains(got.data, "web-2") || strings.Contains(got.data, "generation") {
		t.Fatalf("then comes %+v", got)
	}
	c.call("GET", "/v1/vms:watch?after=9-9", "").problem(t, http.StatusGone, problem.Gone, "9-9")
}

// TestP12ADeletedTokenCutsItsWatchWithinTwoSeconds over REST and over gRPC, while nothing changes.
func TestP12ADeletedTokenCutsItsWatchWithinTwoSeconds(t *testing.T) {
	f := newFederation(t, 1)
	token := f.token("ci", "web", "")
	sse := f.rest(f.tls(), token).watch(t, "/v1/vms:watch")
	sse.next()
	sse.next()
	stream, err := f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(token))).VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := f.Admin().AccessTokens.DeleteAccessToken(t.Context(), &apiv1.DeleteAccessTokenRequest{AccessToken: "ci"}); err != nil {
		t.Fatal(err)
	}
	if got := sse.next(); got.kind != "error" || !strings.Contains(got.data, "TOKEN_INVALID") {
		t.Fatalf("got %+v", got)
	}
	if _, err := stream.Recv(); !problem.Is(problem.FromStatus(err), problem.TokenInvalid) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("it took %s", took)
	}
}

// TestP12ADeletedAdministratorIsCutOffWithinTwoSeconds though the connection that was made with the certificate stands.
func TestP12ADeletedAdministratorIsCutOffWithinTwoSeconds(t *testing.T) {
	f := newFederation(t, 1)
	kim, lee := f.dial(f.tls(f.admin())), f.dial(f.tls(f.administrator("lee")))
	stream, err := lee.VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := kim.Administrators.DeleteAdministrator(t.Context(), &apiv1.DeleteAdministratorRequest{Administrator: "lee"}); err != nil {
		t.Fatal(err)
	}
	if _, err := lee.Servers.ListServers(t.Context(), &apiv1.ListServersRequest{}); !problem.Is(problem.FromStatus(err), problem.Revoked) {
		t.Errorf("the next call: %v", err)
	}
	if _, err := stream.Recv(); !problem.Is(problem.FromStatus(err), problem.Revoked) {
		t.Errorf("the watch: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	_, err = kim.Administrators.DeleteAdministrator(t.Context(), &apiv1.DeleteAdministratorRequest{Administrator: "kim"})
	if !problem.Is(problem.FromStatus(err), problem.InUse) {
		t.Errorf("the last one: %v", err)
	}
}

func TestWatchesEndWhenTheServerStops(t *testing.T) {
	var stream grpc.ServerStreamingClient[apiv1.WatchVMsResponse]
	t.Run("serving", func(t *testing.T) {
		f := newFederation(t, 1)
		var err error
		stream, err = f.dial(f.tls(f.admin())).VMs.WatchVMs(context.Background(), &apiv1.WatchVMsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	})
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}
