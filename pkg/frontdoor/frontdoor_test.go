package frontdoor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/frontdoor"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// house is a door on loopback with a gRPC service and a web server behind it.
type house struct {
	apiv1.UnimplementedProjectServiceServer

	address string
	serial  atomic.Int64 // of the certificate that is shown
	close   context.CancelFunc
	ended   chan error
	closing chan struct{}

	list  func(ctx context.Context) error
	watch func(ctx context.Context) error
	web   http.HandlerFunc

	limits   frontdoor.Limits
	registry *prometheus.Registry
}

func open(t *testing.T, h *house) *house {
	t.Helper()
	h.registry = prometheus.NewRegistry()
	h.closing, h.ended = make(chan struct{}), make(chan error, 1)
	if h.web == nil {
		h.web = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "web over "+r.Proto) }
	}
	server := grpc.NewServer(frontdoor.Options(1 << 10)...)
	apiv1.RegisterProjectServiceServer(server, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	door := &frontdoor.Door{
		Certificate: func() (*tls.Certificate, error) { return certificate(h.serial.Add(1)) },
		GRPC:        server, Web: h.web, Closing: func() { close(h.closing) }, Log: slog.New(slog.DiscardHandler),
		Limits: h.limits, Registerer: h.registry,
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.close = cancel
	go func() {
		h.ended <- door.Run(ctx, l)
		close(h.ended)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-h.ended; err != nil { // nil, too, where the test has taken what it ended with
			t.Errorf("the door ended with %v", err)
		}
	})
	return h
}

func certificate(serial int64) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func (h *house) ListProjects(ctx context.Context, _ *apiv1.ListProjectsRequest) (*apiv1.ListProjectsResponse, error) {
	if h.list != nil {
		if err := h.list(ctx); err != nil {
			return nil, err
		}
	}
	return &apiv1.ListProjectsResponse{NextPageToken: "listed"}, nil
}

func (h *house) WatchProjects(_ *apiv1.WatchProjectsRequest, s grpc.ServerStreamingServer[apiv1.WatchProjectsResponse]) error {
	return h.watch(s.Context())
}

// trusting is a client that takes any certificate, and offers these protocols.
func trusting(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: protocols}
}

func dial(t *testing.T, address string, c credentials.TransportCredentials) apiv1.ProjectServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return apiv1.NewProjectServiceClient(conn)
}

// both offers HTTP/1.1 beside HTTP/2, as a gRPC library over an HTTP library does; gRPC's own offers HTTP/2 alone.
type both struct {
	credentials.TransportCredentials
}

func (both) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, trusting("h2", "http/1.1"))
	return conn, credentials.TLSInfo{State: conn.ConnectionState()}, conn.HandshakeContext(ctx)
}

func (b both) Clone() credentials.TransportCredentials { return b }

func TestOneListenerServesGRPCAndTheWeb(t *testing.T) {
	h := open(t, &house{})
	for name, c := range map[string]credentials.TransportCredentials{
		"a client of HTTP/2 alone": credentials.NewTLS(trusting()), "a client that also offers HTTP/1.1": both{credentials.NewTLS(trusting())},
	} {
		r, err := dial(t, h.address, c).ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
		if err != nil || r.GetNextPageToken() != "listed" {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	for protocol, http2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		transport := &http.Transport{TLSClientConfig: trusting(), ForceAttemptHTTP2: http2}
		t.Cleanup(transport.CloseIdleConnections)
		r, err := (&http.Client{Transport: transport}).Get("https://" + h.address)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if string(body) != "web over "+protocol {
			t.Errorf("the answer is %q, want one over %s", body, protocol)
		}
	}
}

func TestAClientsCertificateIsAskedForAndSeenByBoth(t *testing.T) {
	seen := make(chan string, 2)
	own, err := certificate(77)
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, &house{
		list: func(ctx context.Context) error {
			p, _ := peer.FromContext(ctx)
			seen <- p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String()
			return nil
		},
		web: func(_ http.ResponseWriter, r *http.Request) { seen <- r.TLS.PeerCertificates[0].SerialNumber.String() },
	})
	c := trusting()
	c.Certificates = []tls.Certificate{*own}
	if _, err := dial(t, h.address, credentials.NewTLS(c)).ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: c}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := (&http.Client{Transport: transport}).Get("https://" + h.address)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if a, b := <-seen, <-seen; a != "77" || b != "77" {
		t.Fatalf("gRPC saw %s, the web %s", a, b)
	}
}

func TestARenewedCertificateIsUsedAtOnce(t *testing.T) {
	h := open(t, &house{})
	for want := int64(1); want <= 2; want++ {
		conn, err := tls.Dial("tcp", h.address, trusting("http/1.1"))
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want {
			t.Errorf("connection %d sees certificate %d", want, got)
		}
		_ = conn.Close()
	}
}

func TestWhatIsOlderThanTLS13IsRefused(t *testing.T) {
	h := open(t, &house{})
	c := trusting("http/1.1")
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", h.address, c); err == nil {
		_ = conn.Close()
		t.Fatal("TLS 1.2 was accepted")
	}
}

func TestOneThatDoesNotShakeHandsHoldsNobodyUp(t *testing.T) {
	h := open(t, &house{})
	for range 20 {
		silent, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	if _, err := dial(t, h.address, credentials.NewTLS(trusting())).ListProjects(t.Context(), &apiv1.ListProjectsRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestARequestThatIsTooLargeIsRefused(t *testing.T) {
	h := open(t, &house{})
	_, err := dial(t, h.address, credentials.NewTLS(trusting())).ListProjects(t.Context(), &apiv1.ListProjectsRequest{Filter: string(make([]byte, 2<<10))})
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("%v", err)
	}
}

func TestCallsUnderWayAreFinishedWhenTheDoorCloses(t *testing.T) {
	came, goOn := make(chan struct{}), make(chan struct{})
	h := open(t, &house{list: func(context.Context) error {
		close(came)
		<-goOn
		return nil
	}})
	answered := make(chan error, 1)
	c := dial(t, h.address, credentials.NewTLS(trusting()))
	go func() {
		_, err := c.ListProjects(context.Background(), &apiv1.ListProjectsRequest{})
		answered <- err
	}()
	<-came
	h.close()
	<-h.closing
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("the call under way got %v", err)
	}
	if err := <-h.ended; err != nil {
		t.Errorf("the door ended with %v", err)
	}
}

func TestAStreamThatDoesNotEndIsCutWhenTheDoorCloses(t *testing.T) {
	came := make(chan struct{})
	h := open(t, &house{watch: func(ctx context.Context) error {
		close(came)
		<-ctx.Done()
		return ctx.Err()
	}})
	s, err := dial(t, h.address, credentials.NewTLS(trusting())).WatchProjects(t.Context(), &apiv1.WatchProjectsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-came
	h.close()
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-h.ended; err != nil {
		t.Errorf("the door ended with %v", err)
	}
}
