package federation_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestASessionIsMatchedAndItsFramesCrossUnchanged(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	if up.ZoneID != "z1" || up.Agent != "a1" || up.Schema != 1 || up.Broker != "b1" {
		t.Errorf("taken up as %+v", up.Session)
	}
	small := &linkv1.StateAck{Point: &linkv1.StateAckPoint{Epoch: 1, Revision: 7}}
	for range 100 {
		sent := a.send(linkv1.Type_STATE_ACK, small)
		if got := receive(t, up.Stream); !proto.Equal(got, sent) {
			t.Fatalf("sent %v, came %v", sent, got)
		}
	}
	large := &linkv1.SampleBatch{}
	for range 100 {
		large.Vms = append(large.Vms, vmSample(8000))
	}
	if sent := a.send(linkv1.Type_SAMPLE_BATCH, large); !proto.Equal(receive(t, up.Stream), sent) {
		t.Error("a large frame was changed")
	}
	down := &linkv1.Frame{
		Session: a.session, Direction: linkv1.Direction_DOWN, Counter: 1, Type: linkv1.Type_STATE_ACK,
		Payload: must(proto.Marshal(small)), Tag: random(32),
	}
	if err := up.Stream.Send(down); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, a.stream); !proto.Equal(got, down) {
		t.Errorf("sent %v down, came %v", down, got)
	}
	for name, want := range map[string]float64{"direction=UP": 102, "direction=DOWN": 1} {
		s.eventually("every frame counted", func() bool { return s.gauge("naru_broker_frames_total", "zone=z1", name) == want })
	}
	if got := s.gauge("naru_broker_sessions", "zone=z1"); got != 1 {
		t.Errorf("%v sessions counted", got)
	}
}

func TestASessionBeginsWithAHelloThatShowsItsOwnCertificate(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	for name, c := range map[string]struct {
		first func(a *agent) *linkv1.Frame
		want  codes.Code
	}{
		"another frame first": {func(a *agent) *linkv1.Frame { return a.frame(linkv1.Type_PING, &linkv1.Ping{}) }, codes.InvalidArgument},
		"a HELLO of another agent": {func(a *agent) *linkv1.Frame {
			return a.frame(linkv1.Type_HELLO, hello(s.agentHolder("z2", "a1", time.Now())))
		}, codes.Unauthenticated},
		"a HELLO with an older certificate of its own": {func(a *agent) *linkv1.Frame {
			return a.frame(linkv1.Type_HELLO, hello(s.agentHolder("z1", "a1", time.Now())))
		}, codes.Unauthenticated},
		"a HELLO without certificates": {func(a *agent) *linkv1.Frame {
			m := hello(h)
			m.Chain = nil
			return a.frame(linkv1.Type_HELLO, m)
		}, codes.InvalidArgument},
		"a HELLO downwards": {func(a *agent) *linkv1.Frame {
			f := a.frame(linkv1.Type_HELLO, hello(h))
			f.Direction = linkv1.Direction_DOWN
			return f
		}, codes.InvalidArgument},
		"a session named by zeros": {func(a *agent) *linkv1.Frame {
			f := a.frame(linkv1.Type_HELLO, hello(h))
			f.Session = make([]byte, 16)
			return f
		}, codes.InvalidArgument},
		"a session with a short name": {func(a *agent) *linkv1.Frame {
			f := a.frame(linkv1.Type_HELLO, hello(h))
			f.Session = f.Session[:15]
			return f
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.silent(h)
			defer a.close()
			if err := a.stream.Send(c.first(a)); err != nil {
				t.Fatal(err)
			}
			wantCode(t, a.ends(), c.want, name)
		})
	}
	if len(one.taken) > 0 {
		t.Error("one of them reached a server")
	}
}

func TestASessionThatSaysNothingIsNotWaitedForForEver(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Patience.Hello = 50 * time.Millisecond })
	s.server("s1")
	a := s.silent(s.agentHolder("z1", "a1", time.Now()))
	wantCode(t, a.ends(), codes.DeadlineExceeded, "no HELLO")
}

func TestANewerSessionTakesTheOlderOnesPlace(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	old, oldUp := s.session(one, h)
	s.session(one, h)
	err := old.ends()
	wantCode(t, err, codes.Aborted, "the older one")
	if !strings.Contains(err.Error(), "newer session") {
		t.Errorf("it is told %v", err)
	}
	if _, err := oldUp.Stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("its server is told %v", err)
	}
	s.eventually("one session is left", func() bool { return s.gauge("naru_broker_sessions", "zone=z1") == 1 })
}

func TestASessionIdThatIsLiveIsNoOneElses(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	first, _ := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	other := s.agentHolder("z2", "a1", time.Now())
	a := s.silent(other)
	a.session = first.session
	a.send(linkv1.Type_HELLO, hello(other))
	wantCode(t, a.ends(), codes.AlreadyExists, "the same id")
	first.send(linkv1.Type_PING, &linkv1.Ping{})
}

func TestAZoneHasOnlySoManySessions(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Limits.SessionsPerZone = 2 })
	one := s.server("s1")
	s.session(one, s.agentHolder("z1", "a1", time.Now()))
	s.session(one, s.agentHolder("z1", "a2", time.Now()))
	third := s.connect(s.agentHolder("z1", "a3", time.Now()))
	wantCode(t, third.ends(), codes.ResourceExhausted, "the third")
	s.session(one, s.agentHolder("z2", "a1", time.Now()))
}

func TestNoSessionOutlivesTheCertificateItWasOpenedWith(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	// Issued so long ago that it ends within two seconds; certificates count in whole ones.
	h := s.agentHolder("z1", "a1", time.Now().Add(2*time.Second-pki.LinkTTL))
	a, _ := s.session(one, h)
	err := a.ends()
	wantCode(t, err, codes.Unauthenticated, "the session")
	if !strings.Contains(err.Error(), "expired") {
		t.Errorf("told %v", err)
	}
}

func TestWithoutAServerThatServesAnAgentIsToldAtOnce(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	one.board.Publish(&linkv1.ServerStatus{Serving: false, Schema: 1})
	s.eventually("told that no server serves", func() bool {
		a := s.connect(h)
		defer a.close()
		select {
		case <-one.taken: // the word had not come yet
			return false
		case err := <-ended(a):
			return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "one is connected and has no leader")
		}
	})
	one.stop()
	s.eventually("told that no server is there", func() bool {
		a := s.connect(h)
		defer a.close()
		err := a.ends()
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "none is connected")
	})
}

func ended(a *agent) <-chan error {
	how := make(chan error, 1)
	go func() { how <- a.ends() }()
	return how
}

func TestTheLeaderIsAskedBeforeOthersAndThenWhoHasLeast(t *testing.T) {
	s := newSite(t)
	one, two, three := s.server("s1"), s.server("s2"), s.server("s3")
	s.session(one, s.agentHolder("z1", "a1", time.Now()))
	s.session(two, s.agentHolder("z2", "a1", time.Now()))
	s.session(three, s.agentHolder("z3", "a1", time.Now()))
	two.board.Publish(&linkv1.ServerStatus{Serving: true, Leader: true, Schema: 1})
	// The leader's word takes its time; a session that went elsewhere meanwhile shows only that.
	s.eventually("the leader is asked", func() bool {
		s.connect(s.agentHolder("z4", "a1", time.Now()))
		select {
		case <-two.taken:
			return true
		case <-one.taken:
		case <-three.taken:
		}
		return false
	})
	s.session(two, s.agentHolder("z5", "a1", time.Now()))
	s.session(two, s.agentHolder("z6", "a1", time.Now()))
}

func TestASessionThatIsNotTakenUpIsOfferedToAnother(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Patience.Offer = 50 * time.Millisecond })
	deaf := s.rawServer("s0")
	deaf.status(&linkv1.ServerStatus{Serving: true, Leader: true, Schema: 1})
	one := s.server("s1")
	offers := deaf.offers()
	var a *agent
	var up *taken
	// The leader's word takes its time.
	s.eventually("the leader is asked first", func() bool {
		a, up = s.session(one, s.agentHolder("z1", "a1", time.Now()))
		select {
		case offer := <-offers:
			return offer.ZoneId == "z1" && hex.EncodeToString(offer.Session) == hex.EncodeToString(a.session)
		default:
			return false
		}
	})
	t.Run("and then is the other's alone", func(t *testing.T) {
		_, err := deaf.take(a.session)
		wantCode(t, err, codes.FailedPrecondition, "taken up too late")
		a.send(linkv1.Type_PING, &linkv1.Ping{})
		if f := receive(t, up.Stream); f.Type != linkv1.Type_PING {
			t.Errorf("came %v", f)
		}
	})
}

func TestASessionThatNobodyTakesUpEndsInWords(t *testing.T) {
	s := newSite(t, func(c *federation.Config) {
		c.Patience.Offer, c.Patience.TakeUp = 20*time.Millisecond, 200*time.Millisecond
	})
	s.server("s1").stop() // it gave the broker its certificate
	deaf := s.rawServer("s0")
	deaf.status(&linkv1.ServerStatus{Serving: true, Schema: 1})
	s.eventually("the session ends in words", func() bool {
		a := s.connect(s.agentHolder("z1", "a1", time.Now()))
		defer a.close()
		err := a.ends()
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "no server took up the session")
	})
}

func TestAServerTakesUpOnlyWhatItWasOffered(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, _ := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	other := s.rawServer("s2")
	_, err := other.take(a.session)
	wantCode(t, err, codes.FailedPrecondition, "another's session")
	_, err = other.take(random(16))
	wantCode(t, err, codes.NotFound, "a session that is not")
	_, err = other.take(random(3))
	wantCode(t, err, codes.InvalidArgument, "no session's name")
}

func TestWhenItsServerDiesAnAgentIsToldAndFindsAnother(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	a, _ := s.session(one, h)
	two := s.server("s2")
	one.stop()
	err := a.ends()
	wantCode(t, err, codes.Unavailable, "the agent")
	if !strings.Contains(err.Error(), "another server may serve") {
		t.Errorf("told %v", err)
	}
	s.session(two, h)
}

func TestWhenAnAgentDiesItsServerIsTold(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	a.close()
	for {
		if _, err := up.Stream.Recv(); err != nil {
			wantCode(t, err, codes.Unavailable, "the server")
			break
		}
	}
	s.eventually("no session is left", func() bool { return s.gauge("naru_broker_sessions") == 0 })
}

func TestABrokerThatComesAgainIsTheSameAndServes(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	a, _ := s.session(one, h)
	fingerprint := s.broker.Fingerprint()
	s.stopBroker()
	err := a.ends()
	wantCode(t, err, codes.Unavailable, "the agent of a broker that goes down")

	s.startBroker()
	if s.broker.Fingerprint() != fingerprint || !s.broker.Enrolled() {
		t.Error("it is another, or has lost its certificate")
	}
	s.eventually("the server is back", func() bool { return s.gauge("naru_broker_servers") == 1 })
	s.eventually("an agent is served again", func() bool {
		again := s.connect(h)
		select {
		case <-one.taken:
			return true
		case <-ended(again):
			again.close()
			return false
		}
	})
}

// rawServer holds an announce stream and does nothing by itself.
type rawServer struct {
	t        testing.TB
	leg      linkv1.HubLegServiceClient
	announce grpc.BidiStreamingClient[linkv1.AnnounceRequest, linkv1.AnnounceResponse]
	ctx      context.Context
}

// rawServer announces itself; the broker knows it when this returns.
func (s *site) rawServer(id string) *rawServer {
	s.t.Helper()
	holder := s.serverHolder(id)
	conn := must(grpc.NewClient("passthrough:///"+s.hubAddr, grpc.WithTransportCredentials(credentials.NewTLS(pki.KeyClient(s.fingerprint, holder.TLSCertificate)))))
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(func() { cancel(); conn.Close() })
	r := &rawServer{t: s.t, leg: linkv1.NewHubLegServiceClient(conn), ctx: ctx}
	r.announce = must(r.leg.Announce(ctx))
	if first := r.word().GetStatus(); first == nil {
		s.t.Fatal("the broker's first word is not its status")
	}
	return r
}

func (r *rawServer) word() *linkv1.AnnounceResponse {
	r.t.Helper()
	word, err := r.announce.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	return word
}

// offers passes on what the server is offered from now on.
func (r *rawServer) offers() <-chan *linkv1.Offer {
	all := make(chan *linkv1.Offer, 64)
	go func() {
		for {
			word, err := r.announce.Recv()
			if err != nil {
				return
			}
			if offer := word.GetOffer(); offer != nil {
				all <- offer
			}
		}
	}()
	return all
}

func (r *rawServer) status(status *linkv1.ServerStatus) {
	r.t.Helper()
	if err := r.announce.Send(&linkv1.AnnounceRequest{Body: &linkv1.AnnounceRequest_Status{Status: status}}); err != nil {
		r.t.Fatal(err)
	}
}

// take takes up a session and waits for its first frame.
func (r *rawServer) take(session []byte) (hub.Stream, error) {
	stream, err := r.leg.Session(metadata.AppendToOutgoingContext(r.ctx, "naru-session", hex.EncodeToString(session)))
	if err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	return stream, err
}
