package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// The generated streams are Streams.
var (
	_ Stream = grpc.BidiStreamingClient[linkv1.Frame, linkv1.Frame](nil)
	_ Stream = grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame](nil)
)

// ferry is the least that can stand between two networks: two legs, both dialled, a checker between.
type ferry struct {
	linkv1.UnimplementedZoneLegServiceServer
	linkv1.UnimplementedHubLegServiceServer
	checker *wire.Checker
	waiting chan waiting
}

type waiting struct {
	zone Stream
	done chan struct{}
}

func (f *ferry) Connect(zone grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	w := waiting{zone: zone, done: make(chan struct{})}
	select {
	case f.waiting <- w:
	case <-zone.Context().Done():
		return zone.Context().Err()
	}
	select {
	case <-w.done:
	case <-zone.Context().Done():
	}
	return nil
}

func (f *ferry) Session(hub grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	w := <-f.waiting
	defer close(w.done)
	ends := make(chan error, 2)
	carry := func(from, to Stream, d linkv1.Direction) {
		for {
			frame, err := from.Recv()
			if err == nil {
				if _, refusal := f.checker.Check(frame, d); refusal != nil {
					err = refusal
				}
			}
			if err == nil {
				err = to.Send(frame)
			}
			if err != nil {
				ends <- err
				return
			}
		}
	}
	go carry(w.zone, hub, linkv1.Direction_UP)
	go carry(hub, w.zone, linkv1.Direction_DOWN)
	<-ends
	return nil
}

func (f *ferry) Announce(grpc.BidiStreamingServer[linkv1.AnnounceRequest, linkv1.AnnounceResponse]) error {
	return nil
}

// certified is an identity out of the federation's own certificates.
func certified(tb testing.TB, authority *pki.Authority, id spiffeid.ID) *pki.Holder {
	tb.Helper()
	h := must(pki.LoadOrCreate(tb.TempDir(), "link"))
	if err := h.Set(must(authority.Issue(h.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
		tb.Fatal(err)
	}
	return h
}

// verifier is what the composition roots hand in.
func verifier(root *x509.Certificate, role pki.Role) Verify {
	return func(chain [][]byte) (Peer, error) {
		p, err := pki.Verify(chain, root, time.Now(), role)
		if err != nil {
			return Peer{}, err
		}
		return Peer{Name: p.ID.String(), Zone: p.ZoneID, Agent: p.Agent, Key: p.Key}, nil
	}
}

// overTLS joins two ends over real connections, and returns the zone's, once it has a session.
func overTLS(tb testing.TB) (zone *ZoneEnd, hub *HubEnd, stop func() (zoneErr, hubErr error)) {
	tb.Helper()
	now := time.Now()
	root := must(pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, now))
	links := must(pki.NewAuthority(pki.AuthorityLinks, "naru.test", root, now))
	servers := must(pki.NewAuthority(pki.AuthorityServers, "naru.test", root, now))
	agent := certified(tb, links, must(pki.AgentID("naru.test", zoneID, "a1")))
	server := certified(tb, servers, must(pki.ServerID("naru.test", "s1")))
	zone = must(NewZoneEnd(ZoneConfig{
		Common:  Common{Identity: IdentityOf(agent), Verify: verifier(root.Certificate, pki.RoleServer), Checker: atEnd()},
		Numbers: func(context.Context) (Numbers, error) { return Numbers{Incarnation: "i"}, nil },
	}))
	hub = must(NewHubEnd(HubConfig{
		Common: Common{Identity: IdentityOf(server), Verify: verifier(root.Certificate, pki.RoleAgent), Checker: atEnd()},
		Admit: func(context.Context, Peer, *linkv1.Hello) (*Admission, error) {
			return &Admission{Epoch: 1, EpochID: []byte("epoch"), Calls: handlerFunc(echo)}, nil
		},
	}))
	leaf := must(server.TLSCertificate())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	f := &ferry{checker: atBroker(), waiting: make(chan waiting)}
	broker := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(leaf)))
	linkv1.RegisterZoneLegServiceServer(broker, f)
	linkv1.RegisterHubLegServiceServer(broker, f)
	go func() { _ = broker.Serve(listener) }()
	// Who the broker is, is not what is tested here.
	creds := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))
	zoneLeg := must(grpc.NewClient(listener.Addr().String(), creds))
	hubLeg := must(grpc.NewClient(listener.Addr().String(), creds))

	ctx, cancel := context.WithCancelCause(context.Background())
	zoneEnds, hubEnds := make(chan error, 1), make(chan error, 1)
	go func() {
		zoneEnds <- zone.Run(context.Background(), func(ctx context.Context) (Path, error) {
			stream, err := linkv1.NewZoneLegServiceClient(zoneLeg).Connect(ctx)
			return Path{Stream: stream}, err
		})
	}()
	go func() {
		hubEnds <- hub.Run(ctx, func(ctx context.Context) (Path, error) {
			stream, err := linkv1.NewHubLegServiceClient(hubLeg).Session(ctx)
			return Path{Stream: stream, Zone: zoneID}, err
		})
	}()
	for !zone.Connected() {
		select {
		case err := <-zoneEnds:
			tb.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	return zone, hub, func() (error, error) {
		cancel(&Goodbye{Code: CodeNoLeader, Reason: "over"})
		zoneErr, hubErr := <-zoneEnds, <-hubEnds
		zoneLeg.Close()
		hubLeg.Close()
		broker.Stop()
		return zoneErr, hubErr
	}
}

func TestASessionRunsOverRealStreamsWithRealCertificates(t *testing.T) {
	atEnd()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	zone, hub, stop := overTLS(t)
	for i := range 20 {
		out := &apiv1.GetVMResponse{}
		name := fmt.Sprintf("web-%d", i)
		if err := zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: name}, out); err != nil || out.Vm.Name != name {
			t.Fatalf("%v, %v", out, err)
		}
	}
	if s := hub.Sessions(); len(s) != 1 || s[0].Peer.Name != "spiffe://naru.test/zone/"+zoneID+"/agent/a1" {
		t.Errorf("%+v", s)
	}
	zoneErr, _ := stop()
	var g *Goodbye
	if !errors.As(zoneErr, &g) || g.Code != CodeNoLeader || !g.Remote {
		t.Errorf("the zone was told %v", zoneErr)
	}
}

func TestRunReturnsThoughItsStreamDoesNotEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		ctx, end := context.WithCancel(t.Context())
		stuck, _ := Pipe(ctx, 0)
		began := time.Now()
		err := w.hub.Run(t.Context(), func(context.Context) (Path, error) { return Path{Stream: stuck}, nil })
		if !errors.Is(err, ErrSilent) || time.Since(began) > 11*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		end()
	})
}
