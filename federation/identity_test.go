package federation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// P12: who is revoked is cut off within two seconds, and gets in by no way.
func TestP12WhoIsRevokedIsCutOffAtOnce(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	for name, c := range map[string]struct{ zone, say string }{
		"a whole zone": {"z1", "z1"},
		"one agent":    {"z2", "z2/a1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := s.agentHolder(c.zone, "a1", time.Now())
			a, up := s.session(one, h)
			bystander, bystanderUp := s.session(one, s.agentHolder("z3", "a1", time.Now()))
			began := time.Now()
			s.publishRevoked(one, "z9", c.say)
			err := a.ends()
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("cut off after %s", took)
			}
			wantCode(t, err, codes.PermissionDenied, "the agent")
			if !problem.Is(problem.FromStatus(err), problem.Revoked) {
				t.Errorf("told %v", err)
			}
			if _, err := up.Stream.Recv(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("its server is told %v", err)
			}
			wantCode(t, s.silent(h).ends(), codes.PermissionDenied, "a new session")
			_, err = s.dialer(h).Renew(t.Context(), must(h.CSR()))
			wantCode(t, err, codes.PermissionDenied, "a renewal")

			bystander.send(linkv1.Type_PING, &linkv1.Ping{})
			receive(t, bystanderUp.Stream)
		})
	}
	t.Run("and is let in again when no server says so any more", func(t *testing.T) {
		s.publishRevoked(one)
		h := s.agentHolder("z1", "a1", time.Now())
		s.eventually("let in", func() bool {
			s.connect(h)
			select {
			case <-one.taken:
				return true
			case <-time.After(100 * time.Millisecond):
				return false
			}
		})
	})
}

func TestARevocationHoldsAsSoonAsOneServerSaysSoAndWhileNoneIsThere(t *testing.T) {
	s := newSite(t)
	one, two := s.server("s1"), s.server("s2")
	h := s.agentHolder("z1", "a1", time.Now())
	s.publishRevoked(one, "z1")
	s.eventually("refused", func() bool { return status.Code(s.silent(h).endsSoon()) == codes.PermissionDenied })
	two.board.Publish(&linkv1.ServerStatus{Serving: true, Schema: 1}) // it lags behind
	wantCode(t, s.silent(h).ends(), codes.PermissionDenied, "after the other's word")
	two.stop()
	one.stop()
	s.eventually("both are gone", func() bool { return s.gauge("naru_broker_servers") == 0 })
	wantCode(t, s.silent(h).ends(), codes.PermissionDenied, "while none is there")
}

// endsSoon is how a silent stream ended, which it does by itself only when it is refused; nil: it lives.
func (a *agent) endsSoon() error {
	select {
	case err := <-ended(a):
		return err
	case <-time.After(50 * time.Millisecond):
		a.close()
		return nil
	}
}

func TestAnExpiredCertificateCanRenewItselfAndNothingElse(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now().Add(-90*24*time.Hour))
	a := s.silent(h)
	err := a.ends()
	wantCode(t, err, codes.Unauthenticated, "a session")
	if !strings.Contains(err.Error(), "renew it first") {
		t.Errorf("told %v", err)
	}
	chain, err := s.dialer(h).Renew(t.Context(), must(h.CSR()))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Set(chain); err != nil {
		t.Fatal(err)
	}
	s.session(one, h)
}

func TestRenewalsOfAZoneHaveAPace(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Limits.RenewalsPerMinutePerZone = 8 })
	s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	for range 2 {
		if _, err := s.dialer(h).Renew(t.Context(), must(h.CSR())); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.dialer(h).Renew(t.Context(), must(h.CSR()))
	if err == nil || !strings.Contains(err.Error(), "too often") {
		t.Errorf("the third at once: %v", err)
	}
	other := s.agentHolder("z2", "a1", time.Now())
	if _, err := s.dialer(other).Renew(t.Context(), must(other.CSR())); err != nil {
		t.Errorf("another zone: %v", err)
	}
}

// Nobody who is of another role or federation speaks on either leg, whatever it asks.
func TestEachLegTakesOnlyItsOwn(t *testing.T) {
	s, foreign := newSite(t), newAuthorities(t)
	s.server("s1")
	for name, c := range map[string]struct {
		leg  string
		who  *pki.Holder
		want bool
	}{
		"an agent on the zone leg":                     {s.zoneAddr, s.agentHolder("z1", "a1", time.Now()), true},
		"a server on the zone leg":                     {s.zoneAddr, s.serverHolder("s7"), false},
		"a foreign agent on the zone leg":              {s.zoneAddr, foreign.agentHolder("z1", "a1", time.Now()), false},
		"an administrator on the zone leg":             {s.zoneAddr, s.adminHolder(), false},
		"an agent of tomorrow on the zone leg":         {s.zoneAddr, s.agentHolder("z1", "a1", time.Now().Add(48*time.Hour)), false},
		"a server on the hub leg":                      {s.hubAddr, s.serverHolder("s7"), true},
		"an agent on the hub leg":                      {s.hubAddr, s.agentHolder("z1", "a1", time.Now()), false},
		"a foreign server on the hub leg":              {s.hubAddr, foreign.serverHolder("s7"), false},
		"a server that has expired, on the hub leg":    {s.hubAddr, s.expiredServer(), false},
		"an administrator on the hub leg":              {s.hubAddr, s.adminHolder(), false},
		"somebody with a bare key, on the hub leg":     {s.hubAddr, nil, false},
		"somebody with a bare key, on the zone leg":    {s.zoneAddr, nil, false},
		"a foreign administrator on the hub leg":       {s.hubAddr, foreign.adminHolder(), false},
		"a foreign expired agent on the zone leg":      {s.zoneAddr, foreign.agentHolder("z1", "a1", time.Now().Add(-48*time.Hour)), false},
		"an expired agent, let in to renew, zone leg":  {s.zoneAddr, s.agentHolder("z1", "a1", time.Now().Add(-48*time.Hour)), true},
		"a server with a chain of two, on the hub leg": {s.hubAddr, s.serverHolder("s8"), true},
	} {
		t.Run(name, func(t *testing.T) {
			own := func() (*tls.Certificate, error) { return must(pki.LoadOrCreate(t.TempDir(), "x")).SelfSigned() }
			if c.who != nil {
				own = c.who.TLSCertificate
			}
			config := pki.KeyClient(s.broker.Fingerprint(), own)
			config.NextProtos = []string{"h2"}
			conn, err := tls.Dial("tcp", c.leg, config)
			if err == nil {
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1)) // the other end's verdict, or its first frame
			}
			if (err == nil) != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func (s *site) adminHolder() *pki.Holder {
	return s.holder(s.people, time.Now(), func(f string) string { return must(pki.AdminID(f, "root")).String() })
}

func (s *site) expiredServer() *pki.Holder {
	return s.holder(s.servers, time.Now().Add(-60*24*time.Hour), func(f string) string { return must(pki.ServerID(f, "s7")).String() })
}

func TestAStrangerCanAskToJoinAndNothingElse(t *testing.T) {
	s := newSite(t)
	s.server("s1")
	conn := must(grpc.NewClient("passthrough:///"+s.zoneAddr,
		grpc.WithTransportCredentials(credentials.NewTLS((&pki.Guard{Pin: s.config.TrustPin}).Client(nil)))))
	defer conn.Close()
	leg := linkv1.NewZoneLegServiceClient(conn)
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))

	_, err := leg.Renew(t.Context(), &linkv1.RenewRequest{Csr: must(h.CSR())})
	wantCode(t, err, codes.Unauthenticated, "a renewal")
	stream := must(leg.Connect(t.Context()))
	_, err = stream.Recv()
	wantCode(t, err, codes.Unauthenticated, "a session")

	good := &linkv1.JoinRequest{TokenId: "t", Agent: "a1", Csr: must(h.CSR()), Nonce: random(32), Mac: random(32)}
	_, err = leg.Join(t.Context(), good)
	wantCode(t, err, codes.PermissionDenied, "an unknown token")
	beside := proto.CloneOf(good)
	beside.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("whatever a stranger likes to say")))
	for name, bad := range map[string]*linkv1.JoinRequest{
		"something beside it":       beside,
		"no request":                {TokenId: "t", Agent: "a1", Nonce: random(32), Mac: random(32)},
		"a request that is rubbish": {TokenId: "t", Agent: "a1", Csr: random(200), Nonce: random(32), Mac: random(32)},
		"a name that is none":       {TokenId: "t", Agent: "../a1", Csr: good.Csr, Nonce: random(32), Mac: random(32)},
		"a short nonce":             {TokenId: "t", Agent: "a1", Csr: good.Csr, Nonce: random(3), Mac: random(32)},
		"no token":                  {Agent: "a1", Csr: good.Csr, Nonce: random(32), Mac: random(32)},
	} {
		_, err := leg.Join(t.Context(), bad)
		wantCode(t, err, codes.InvalidArgument, name)
	}
	_, err = leg.Join(t.Context(), &linkv1.JoinRequest{TokenId: "t", Agent: "a1", Csr: random(64 << 10)})
	wantCode(t, err, codes.ResourceExhausted, "more than a stranger may send")
}

// talkative says more in its answers than there is a field for.
type talkative struct{ registrar }

func (r talkative) Join(context.Context, *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	out := &linkv1.JoinResponse{Pending: true}
	out.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	return out, nil
}

func (r talkative) Renew(context.Context, []byte, *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	out := &linkv1.RenewResponse{Certificate: &linkv1.Certificate{}}
	out.Certificate.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	return out, nil
}

func TestAnAnswerOfTheControlPlaneIsCheckedToo(t *testing.T) {
	s := newSite(t)
	s.server("s1", func(c *hub.Config) { c.Registrar = talkative{registrar{s}} })
	h := s.agentHolder("z1", "a1", time.Now())
	leg := func(own func() (*tls.Certificate, error)) linkv1.ZoneLegServiceClient {
		conn := must(grpc.NewClient("passthrough:///"+s.zoneAddr,
			grpc.WithTransportCredentials(credentials.NewTLS((&pki.Guard{Pin: s.config.TrustPin}).Client(own)))))
		t.Cleanup(func() { conn.Close() })
		return linkv1.NewZoneLegServiceClient(conn)
	}
	_, err := leg(nil).Join(t.Context(), &linkv1.JoinRequest{TokenId: "t", Agent: "a1", Csr: must(h.CSR()), Nonce: random(32), Mac: random(32)})
	wantCode(t, err, codes.Internal, "a join")
	_, err = leg(h.TLSCertificate).Renew(t.Context(), &linkv1.RenewRequest{Csr: must(h.CSR())})
	wantCode(t, err, codes.Internal, "a renewal")
}

func TestAnAgentJoinsWithATokenOnceAnAdministratorHasAccepted(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	token := must(pki.NewJoinToken(s.config.TrustPin))
	s.tokens[token.ID] = token
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))
	waited := make(chan struct{})
	joined := make(chan error, 1)
	go func() {
		zone, err := s.dialer(h).Join(t.Context(), token, "a1", func() { close(waited) })
		if zone != "business" && err == nil {
			err = errors.New("the zone's name is " + zone)
		}
		joined <- err
	}()
	<-waited
	if h.Peer() != nil {
		t.Error("it has a certificate before it was accepted")
	}
	s.mu.Lock()
	s.pending["a1"] = false
	s.mu.Unlock()
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	if got := h.Peer().ID.String(); got != "spiffe://naru.test/zone/z1/agent/a1" {
		t.Errorf("joined as %s", got)
	}
	s.session(one, h)
}

func TestAJoinThatCannotBeEndsInWords(t *testing.T) {
	s, foreign := newSite(t), newAuthorities(t)
	s.server("s1")
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))
	unknown := must(pki.NewJoinToken(s.config.TrustPin))
	_, err := s.dialer(h).Join(t.Context(), unknown, "a1", nil)
	wantCode(t, errors.Unwrap(errors.Unwrap(err)), codes.PermissionDenied, "an unknown token")
	wrong := unknown
	wrong.Secret = random(32)
	s.tokens[unknown.ID] = unknown
	if _, err := s.dialer(h).Join(t.Context(), wrong, "a1", nil); err == nil {
		t.Error("joined with a wrong secret")
	}

	// A token of another federation: the broker is not spoken to, and asking goes on until the caller has enough.
	elsewhere := must(pki.NewJoinToken(pki.Pin(foreign.root.Certificate)))
	elsewhere.ID, elsewhere.Secret = unknown.ID, unknown.Secret
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	asked := s.gauge("naru_broker_queries_total")
	if _, err := s.dialer(h).Join(ctx, elsewhere, "a1", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with another federation's token: %v", err)
	}
	if s.gauge("naru_broker_queries_total") != asked {
		t.Error("a broker of another federation was told of the token")
	}
	if h.Chain() != nil {
		t.Error("it has a certificate")
	}
}

func TestStrangersAreHeldToAPace(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Limits.JoinsPerMinutePerAddress = 20 })
	s.server("s1")
	conn := must(grpc.NewClient("passthrough:///"+s.zoneAddr,
		grpc.WithTransportCredentials(credentials.NewTLS((&pki.Guard{Pin: s.config.TrustPin}).Client(nil)))))
	defer conn.Close()
	h := must(pki.LoadOrCreate(t.TempDir(), "link"))
	got := map[codes.Code]int{}
	for range 12 {
		_, err := linkv1.NewZoneLegServiceClient(conn).Join(t.Context(), &linkv1.JoinRequest{TokenId: "t", Agent: "a1", Csr: must(h.CSR()), Nonce: random(32), Mac: random(32)})
		got[status.Code(err)]++
	}
	if got[codes.PermissionDenied] != 5 || got[codes.ResourceExhausted] != 7 {
		t.Errorf("of twelve at once: %v", got)
	}
	if s.gauge("naru_broker_queries_total", "kind=join", "result=throttled") != 7 {
		t.Error("not counted")
	}
}

func TestAJoinWithoutAControlPlaneIsToldToComeAgain(t *testing.T) {
	s := newSite(t)
	s.server("s1").stop()
	s.eventually("the server is gone", func() bool { return s.gauge("naru_broker_servers") == 0 })
	h := s.agentHolder("z1", "a1", time.Now())
	_, err := s.dialer(h).Renew(t.Context(), must(h.CSR()))
	if err == nil || !strings.Contains(err.Error(), "no server of the control plane serves") {
		t.Errorf("told %v", err)
	}
}

func TestABrokerIsEnrolledByTheServerThatKnowsItsKey(t *testing.T) {
	s := newSite(t)
	if s.broker.Enrolled() {
		t.Fatal("enrolled before anybody came")
	}
	if _, err := tls.Dial("tcp", s.zoneAddr, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("the zone leg lets people in before the broker has a certificate")
	}

	stranger := must(pki.LoadOrCreate(t.TempDir(), "other"))
	s.absentServer("s0", func(c *hub.Config) { c.Fingerprint = stranger.Fingerprint() })
	foreign := newAuthorities(t).serverHolder("s0")
	s.absentServer("s0", func(c *hub.Config) { c.Certificate = foreign.TLSCertificate })
	s.server("s1")

	left := []string{}
	for _, f := range must(os.ReadDir(s.config.StateDir)) {
		left = append(left, f.Name())
	}
	if !slices.Equal(left, []string{"broker.crt", "broker.key"}) {
		t.Errorf("on disk: %v", left)
	}
	for leg, address := range map[string]string{"zone": s.zoneAddr, "hub": s.hubAddr} {
		var peer *pki.Peer
		config := pki.KeyClient(s.broker.Fingerprint(), s.serverHolder("s9").TLSCertificate)
		config.NextProtos = []string{"h2"}
		config.VerifyConnection = func(state tls.ConnectionState) (err error) {
			peer, err = (&pki.Guard{Root: func() *x509.Certificate { return s.root.Certificate }, Want: []pki.Role{pki.RoleBroker}}).Peer(tls.ConnectionState{HandshakeComplete: true, PeerCertificates: state.PeerCertificates})
			return err
		}
		conn, err := tls.Dial("tcp", address, config)
		if err != nil || peer.BrokerID != "b1" {
			t.Errorf("the %s leg shows %+v, %v", leg, peer, err)
			continue
		}
		conn.Close()
	}
}

// naughty gives a broker certificates that are not its own first.
type naughty struct {
	registrar
	asked *atomic.Int32
	other *pki.Holder
}

func (n naughty) EnrollBroker(ctx context.Context, broker string, csr []byte) ([][]byte, error) {
	n.asked.Add(1)
	foreign := newAuthorities(n.t)
	switch broker {
	case "server":
		return n.servers.Issue(must(pki.KeyOfCSR(csr)), must(pki.ServerID(n.name, "b1")), pki.IssueOptions{Now: time.Now()})
	case "foreign":
		return foreign.brokers.Issue(must(pki.KeyOfCSR(csr)), must(pki.BrokerID(n.name, "b1")), pki.IssueOptions{Now: time.Now()})
	case "key":
		return n.brokers.Issue(n.other.Key().Public(), must(pki.BrokerID(n.name, "b1")), pki.IssueOptions{Now: time.Now()})
	}
	return nil, errors.New("no")
}

func TestABrokerTakesNoCertificateThatIsNotItsOwn(t *testing.T) {
	s := newSite(t)
	for _, kind := range []string{"server", "foreign", "key", "refusal"} {
		n := naughty{registrar{s}, &atomic.Int32{}, must(pki.LoadOrCreate(t.TempDir(), "other"))}
		bad := s.absentServer("s-"+kind, func(c *hub.Config) { c.Broker, c.Registrar = kind, n })
		s.eventually("asked for a certificate", func() bool { return n.asked.Load() > 0 })
		bad.stop()
		s.eventually("it is gone", func() bool { return s.gauge("naru_broker_servers") == 0 })
		if s.broker.Enrolled() {
			t.Errorf("%s: taken", kind)
		}
	}
	s.server("s1")
}

func TestAServerSeesHowABrokerStandsAndUntilWhenItsCertificateIsGood(t *testing.T) {
	s := newSite(t)
	began := time.Now()
	one, other := s.server("s1"), s.server("s2")
	first := endOfCertificate(t, s)
	for _, server := range []*server{one, other} { // also the one that did not issue it
		s.eventually(server.id+" knows the certificate's end", func() bool { return server.client.View().Expires.Equal(first) })
		if v := server.client.View(); !v.Connected || v.Reason != "" || v.Seen.Before(began) {
			t.Errorf("%s sees %+v", server.id, v)
		}
	}
	s.stopBroker()
	s.eventually("it is not reached, and why", func() bool { v := one.client.View(); return !v.Connected && v.Reason != "" })
	if v := one.client.View(); v.Seen.Before(began) || !v.Expires.Equal(first) {
		t.Errorf("of a broker that is away, %+v", v)
	}
	s.ahead = 21 * 24 * time.Hour // of thirty
	s.startBroker()
	s.eventually("it has another", func() bool {
		end := endOfCertificate(t, s)
		return end.After(first) && one.client.View().Expires.Equal(end)
	})
}

// endOfCertificate is until when the broker's certificate is good.
func endOfCertificate(t *testing.T, s *site) time.Time {
	t.Helper()
	block, _ := pem.Decode(must(os.ReadFile(s.config.StateDir + "/broker.crt")))
	return must(x509.ParseCertificate(block.Bytes)).NotAfter
}

func TestABrokerAsksForItsNextCertificateInTime(t *testing.T) {
	s := newSite(t)
	s.server("s1")
	first := must(os.ReadFile(s.config.StateDir + "/broker.crt"))
	s.stopBroker()
	s.ahead = 21 * 24 * time.Hour // of thirty
	s.startBroker()
	s.eventually("it has another", func() bool { return string(must(os.ReadFile(s.config.StateDir+"/broker.crt"))) != string(first) })
}
