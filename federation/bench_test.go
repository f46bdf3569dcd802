package federation_test

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// echo answers each call with its response.
func echo(from hub.Stream, response *linkv1.Frame) error {
	for {
		f, err := from.Recv()
		if err != nil {
			return err
		}
		if f.Type != linkv1.Type_CALL_REQUEST {
			continue
		}
		answer := &linkv1.Frame{Session: f.Session, Direction: linkv1.Direction_DOWN, Counter: f.Counter, Type: linkv1.Type_CALL_RESPONSE, Payload: response.Payload, Tag: response.Tag}
		if err := from.Send(answer); err != nil {
			return err
		}
	}
}

// calls makes n calls, as many at a time as depth, and returns the processor time of this process for a message; a call
// is two.
func calls(b *testing.B, a *agent, n, depth int) time.Duration {
	b.Helper()
	request := a.frame(linkv1.Type_CALL_REQUEST, call(1))
	tokens := make(chan struct{}, depth)
	runtime.GC()
	before := cpu()
	go func() {
		for range n {
			tokens <- struct{}{}
			a.counter++
			f := &linkv1.Frame{Session: request.Session, Direction: request.Direction, Counter: a.counter, Type: request.Type, Payload: request.Payload, Tag: request.Tag}
			if a.stream.Send(f) != nil {
				return
			}
		}
	}()
	for range n {
		if _, err := a.stream.Recv(); err != nil {
			b.Fatal(err)
		}
		<-tokens
	}
	return (cpu() - before) / time.Duration(2*n)
}

// direct is a gRPC stream over one TLS connection between the same two ends, with nothing between.
func direct(b *testing.B, s *site, response *linkv1.Frame) *agent {
	b.Helper()
	server, client := s.serverHolder("direct"), s.serverHolder("direct2")
	l := listen(b, "")
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(pki.ServerTLS(server, server.Root, pki.RoleServer))))
	linkv1.RegisterHubLegServiceServer(g, &directServer{response: response})
	go g.Serve(l)
	conn := must(grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(pki.ClientTLS(client, client.Root, pki.RoleServer)))))
	b.Cleanup(func() { conn.Close(); g.Stop() })
	return &agent{t: b, stream: must(linkv1.NewHubLegServiceClient(conn).Session(b.Context())), session: random(16)}
}

type directServer struct {
	linkv1.UnimplementedHubLegServiceServer
	response *linkv1.Frame
}

func (d *directServer) Session(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	return echo(leg, d.response)
}

func answerFrame() *linkv1.Frame {
	a := &agent{}
	return a.frame(linkv1.Type_CALL_RESPONSE, &linkv1.CallResponse{Call: 1, Method: call(1).Method, End: true, Etag: "1-1"})
}

// S7: a call through the broker (two TLS legs, decoded and checked) against a direct gRPC stream over TLS, in one run:
// processor time of all ends together for a message. The bar is 3 × direct.
func BenchmarkS7CallThroughBroker(b *testing.B) {
	s := newSite(b, func(c *federation.Config) {
		c.Limits.FramesPerSecondPerZone = 10_000_000
		c.Limits.MiBPerSecondPerZone = 1000
	})
	response := answerFrame()
	one := s.server("s1", func(c *hub.Config) {
		c.Serve = func(_ context.Context, session *hub.Session) error { return echo(session.Stream, response) }
	})
	_ = one
	through, straight := s.connect(s.agentHolder("z1", "a1", time.Now())), direct(b, s, response)
	for _, depth := range []int{1, 64} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			const warm = 2000
			calls(b, straight, warm, depth)
			calls(b, through, warm, depth)
			n := max(b.N, 1000)
			b.ResetTimer()
			began := time.Now()
			broker := calls(b, through, n, depth)
			wall := time.Since(began)
			b.StopTimer()
			reference := calls(b, straight, n, depth)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(broker.Nanoseconds())/1000, "µs-cpu/msg")
			b.ReportMetric(float64(reference.Nanoseconds())/1000, "µs-cpu/msg-direct")
			b.ReportMetric(float64(broker)/float64(reference), "×direct")
			b.ReportMetric(float64(n)/wall.Seconds(), "calls/s")
		})
	}
}

// S7 also asks what a session costs that says nothing: memory as the system sees it, for a session with both its legs,
// of a broker that is a process of its own; beside it that of one stream of gRPC over TLS, as the library comes. The
// goal is 48 KB.
func BenchmarkS7IdleSession(b *testing.B) {
	const warm, sessions = 50, 400
	crowd := func(c *federation.Config) { c.Limits.ConnectionsPerAddress = 4096 }
	grown := func(s *childSite, open func(i int)) float64 {
		for i := range warm { // what is made once
			open(i)
		}
		before := s.resident()
		for i := range sessions {
			open(warm + i)
		}
		return float64(s.resident()-before) / sessions / 1024
	}
	s := newChildSite(b, crowd)
	one := s.absentServer("s1", func(c *hub.Config) { c.Fingerprint = s.fingerprint })
	s.ready(1)
	broker := grown(s, func(i int) {
		s.connect(s.agentHolder(fmt.Sprintf("z%d", i), "a1", time.Now()))
		receive(b, one.next(b).Stream)
	})
	b.Setenv(bareKey, "1")
	s = newChildSite(b, crowd)
	bare := grown(s, func(i int) {
		h := s.agentHolder(fmt.Sprintf("z%d", i), "a1", time.Now())
		conn := must(grpc.NewClient("passthrough:///"+s.zoneAddr, grpc.WithTransportCredentials(credentials.NewTLS(pki.KeyClient(s.fingerprint, h.TLSCertificate)))))
		b.Cleanup(func() { conn.Close() })
		stream := must(linkv1.NewZoneLegServiceClient(conn).Connect(b.Context()))
		if err := stream.Send(&linkv1.Frame{Session: random(16)}); err != nil {
			b.Fatal(err)
		}
		must(stream.Recv())
	})
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(broker, "KiB/session")
	b.ReportMetric(bare, "KiB/bare-stream")
}
