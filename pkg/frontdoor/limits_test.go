package frontdoor_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/frontdoor"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// from dials the door from an address of the loopback network.
func from(address string) func(context.Context, string) (net.Conn, error) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return func(ctx context.Context, to string) (net.Conn, error) { return d.DialContext(ctx, "tcp", to) }
}

func (h *house) client(t *testing.T, address string) apiv1.ProjectServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+h.address, grpc.WithTransportCredentials(credentials.NewTLS(trusting())), grpc.WithContextDialer(from(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return apiv1.NewProjectServiceClient(conn)
}

// hold opens connections that say nothing: shaken hands with, or not even that.
func (h *house) hold(t *testing.T, address string, n int, shake bool) (held []net.Conn) {
	t.Helper()
	for range n {
		conn, err := from(address)(t.Context(), h.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if shake {
			if err := tls.Client(conn, trusting("http/1.1")).HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		held = append(held, conn)
	}
	return held
}

func (h *house) open() float64 {
	all, _ := h.registry.Gather()
	for _, f := range all {
		if f.GetName() == "naru_frontdoor_connections" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestP26OneAddressThatTakesTooManyConnectionsIsToldSoAndOthersAreServed(t *testing.T) {
	watched := make(chan struct{})
	h := open(t, &house{limits: frontdoor.Limits{Connections: 100, PerAddress: 4}, watch: func(ctx context.Context) error {
		close(watched)
		<-ctx.Done()
		return ctx.Err()
	}})
	honest := h.client(t, "127.0.0.2")
	watch, err := honest.WatchProjects(t.Context(), &apiv1.WatchProjectsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-watched
	held := h.hold(t, "127.0.0.3", 4, true)

	_, err = h.client(t, "127.0.0.3").ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "too many connections are open from your address") {
		t.Errorf("over gRPC: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: trusting(), DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
		return from("127.0.0.3")(ctx, to)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := (&http.Client{Transport: transport}).Get("https://" + h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var p struct{ Code, Detail, Next string }
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.StatusCode != http.StatusServiceUnavailable || p.Code != "TOO_MANY" || p.Next == "" {
		t.Errorf("over %s: %d %+v %v", r.Proto, r.StatusCode, p, err)
	}
	if _, err := honest.ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
		t.Errorf("another address: %v", err)
	}
	if _, err := h.client(t, "127.0.0.4").ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
		t.Errorf("a third: %v", err)
	}
	for _, c := range held {
		_ = c.Close()
	}
	eventually(t, "what it has closed it may open again", func() bool {
		_, err := h.client(t, "127.0.0.3").ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
		return err == nil
	})
	if watch.Context().Err() != nil {
		t.Error("the watch of an honest client was cut")
	}
}

func TestTheDoorHasSoManyConnectionsInAllAndRecoversWhenTheyAreClosed(t *testing.T) {
	h := open(t, &house{limits: frontdoor.Limits{Connections: 6, PerAddress: 4}})
	held := append(h.hold(t, "127.0.0.2", 3, true), h.hold(t, "127.0.0.3", 3, true)...)
	_, err := h.client(t, "127.0.0.4").ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "too many connections are open here") {
		t.Errorf("one too many: %v", err)
	}
	for _, c := range held {
		_ = c.Close()
	}
	eventually(t, "all are gone", func() bool { return h.open() == 0 })
	if _, err := h.client(t, "127.0.0.4").ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// One that holds handshakes or headers back has its own share of them and no more.
func TestP26SlowClientsOfOneAddressHoldUpNoOther(t *testing.T) {
	for name, shake := range map[string]bool{"handshakes": false, "headers": true} {
		t.Run(name, func(t *testing.T) {
			h := open(t, &house{limits: frontdoor.Limits{Connections: 1000, PerAddress: 80}})
			h.hold(t, "127.0.0.3", 70, false)
			if shake {
				for _, c := range h.hold(t, "127.0.0.5", 40, true) {
					_, _ = c.Write([]byte("GET / HTTP/1.1\r\nX: "))
				}
			}
			for range 5 {
				if _, err := h.client(t, "127.0.0.2").ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
					t.Errorf("another address: %v", err)
				}
			}
			if n := h.open(); n < 64 {
				t.Errorf("%v connections are open: nobody was slow", n)
			}
		})
	}
}
