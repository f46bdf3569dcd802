package zonehub_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/controlplane/internal/zonehub"
	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func spiffe(text string) spiffeid.ID { return spiffeid.RequireFromString(text) }

func (s *site) createHost(name string) {
	s.Helper()
	if _, err := s.Admin().Hosts.CreateHost(s.Context(), &apiv1.CreateHostRequest{Host: &apiv1.Host{
		Name: name, Zone: "business", Cluster: "kvm", Endpoint: "sim://",
	}}); err != nil {
		s.Fatal(err)
	}
}

// TestWhatABrokerDoesNotLetThroughIsToldOnce, with which object it is; the rest arrives.
func TestWhatABrokerDoesNotLetThroughIsToldOnce(t *testing.T) {
	s := newSite(t)
	bad := &apiv1.Host{Id: "h-bad", Name: "no such name", Zone: "business", ZoneId: s.Business.GetId(), Cluster: "kvm", ClusterId: s.Kvm.GetId(), Endpoint: "sim://"}
	s.Do(&commandv1.Command{Body: &commandv1.Command_CreateHost{CreateHost: &commandv1.CreateHost{Host: bad}}})
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("what can pass", func() bool { return a.came("host kvm-1") == 1 })
	told := func() []*apiv1.Event {
		r, err := s.Admin().Events.ListEvents(t.Context(), &apiv1.ListEventsRequest{Filter: "type=zone.object-withheld"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetEvents()
	}
	s.eventually("it is told", func() bool { return len(told()) == 1 })
	e := told()[0]
	if e.GetSeverity() != apiv1.Event_ERROR || e.GetTarget().GetKind() != "host" || e.GetTarget().GetId() != "h-bad" || e.GetZone() != "business" ||
		!strings.Contains(e.GetMessage(), "broker edge does not let host no such name through to zone business") || !strings.Contains(e.GetMessage(), "RULES") || !strings.Contains(e.GetMessage(), "delete host no such name") {
		t.Errorf("the event is %v", e)
	}
	for n := range 3 { // again with each session, and by a server that has not told of it
		a.stop()
		if n == 1 {
			s.stopHub()
			s.startHub()
		}
		came := a.came("host kvm-1")
		a.point = &linkv1.StateAckPoint{} // so that all of it is sent anew
		a.start()
		s.eventually("what can pass, again", func() bool { return a.came("host kvm-1") > came })
	}
	if all := told(); len(all) != 1 {
		t.Errorf("it is told %d times", len(all))
	}
}

func TestAZoneThatConnectsGetsWhatItShouldHoldAndIsHeard(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("the zone is connected", s.connected)
	s.eventually("what it should hold", func() bool { return a.came("cluster kvm") == 1 && a.came("host kvm-1") == 1 })
	s.createHost("kvm-2")
	s.eventually("what is new", func() bool { return a.came("host kvm-2") == 1 })
	a.tell("one")
	a.tell("two")
	s.eventually("its journal is heard", func() bool { return slices.Equal(s.told(), []string{"one", "two"}) })
	if s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE {
		t.Error("another zone counts as connected")
	}
	a.stop()
	s.eventually("its end is written down", func() bool { return !s.connected() })
	if why := s.Zone("business").GetStateReason(); !strings.HasPrefix(why, "its session ended: ") || strings.Contains(why, "context") {
		t.Errorf("why the zone is disconnected: %q", why)
	}
	if got := s.why(); got != "SHUTTING_DOWN" && got != "AGENT_LEFT" { // by whichever word comes first
		t.Errorf("the condition says %q", got)
	}
}

func TestASessionResumesWhereTheLastOneEndedWhicheverEndStartsAnew(t *testing.T) {
	for what, restart := range map[string]func(s *site, a *agent){
		"the broker": func(s *site, _ *agent) { s.stopBroker(); s.startBroker() },
		"the server": func(s *site, _ *agent) { s.stopHub(); s.startHub() },
		"the agent":  func(_ *site, a *agent) { a.stop(); a.start() },
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			a := s.agent(s.Business, "agent-1").start()
			s.eventually("what it should hold", func() bool { return a.came("host kvm-1") == 1 })
			a.tell("before")
			s.eventually("heard", func() bool { return len(s.told()) == 1 })
			before := s.sessions(a)
			restart(s, a)
			a.tell("meanwhile")
			s.createHost("kvm-2")
			s.eventually("a session after it", func() bool { return s.sessions(a) > before && s.connected() })
			s.eventually("what is new", func() bool { return a.came("host kvm-2") == 1 })
			s.eventually("each entry once", func() bool { return slices.Equal(s.told(), []string{"before", "meanwhile"}) })
			if a.came("host kvm-1") != 1 || a.came("cluster kvm") != 1 {
				t.Errorf("what the zone had came again: %v", a.holds)
			}
		})
	}
}

// P24: what a confirmed backup has, a zone is told with the next acknowledgement of the journal, or when its next session opens.
func TestAZoneHearsHowFarABackupHasItsJournal(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1").start()
	backUp := func() {
		t.Helper()
		stream := must(s.Admin().Servers.BackUp(t.Context(), &apiv1.BackUpRequest{}))
		name := must(stream.Recv()).GetBackup()
		must(s.Admin().Servers.ConfirmBackUp(t.Context(), &apiv1.ConfirmBackUpRequest{Backup: name}))
	}
	covered := func(n uint64) func() bool {
		return func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.covered == n
		}
	}
	a.tell("one")
	s.eventually("heard", func() bool { return len(s.told()) == 1 })
	if !covered(0)() {
		t.Error("nothing is backed up")
	}
	backUp()
	a.tell("two")
	s.eventually("heard", func() bool { return len(s.told()) == 2 })
	s.eventually("with the next acknowledgement", covered(1))
	backUp()
	a.stop()
	a.start()
	s.eventually("in the next session", covered(2))
}

func (s *site) sessions(a *agent) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.opened)
}

func TestP12ARevocationCutsTheLiveStreamAndNoOther(t *testing.T) {
	s := newSite(t)
	a, other := s.agent(s.Business, "agent-1").start(), s.agent(s.Internet, "agent-1").start()
	s.eventually("both are connected", func() bool {
		return s.connected() && s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE
	})
	before, _ := other.last()
	cut, _ := a.last()
	began := time.Now()
	s.Do(&commandv1.Command{Body: &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: s.Business.GetId()}}})
	s.eventually("it is cut", func() bool { n, _ := a.last(); return n > cut })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("cut after %s", took)
	}
	s.eventually("it hears why, each time", func() bool {
		n, err := a.last()
		var g *link.Goodbye
		return n > cut+2 && (errors.As(err, &g) && g.Code == link.CodeRevoked || problem.Is(problem.FromStatus(err), problem.Revoked))
	})
	if n, _ := other.last(); n != before || s.connected() {
		t.Errorf("%d sessions of another zone ended; the zone counts as connected: %v", n, s.connected())
	}
}

func TestOnlyAZoneThatWasDeletedIsToldSoAndNotOneThatIsMissing(t *testing.T) {
	s := newSite(t)
	s.agent(s.Business, "agent-1").start()
	s.eventually("this server takes sessions", s.connected)
	missing := s.agent(&apiv1.Zone{Id: "01890000-0000-7000-8000-000000000001"}, "agent-1").start()
	s.eventually("it has tried", func() bool {
		n, _ := missing.last()
		return n > 0
	})
	var g *link.Goodbye
	if _, err := missing.last(); errors.As(err, &g) && g.Code == link.CodeRevoked {
		t.Errorf("a zone that this server does not have was told %v", err)
	}
	made, err := s.Admin().Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "short", Kind: "business", Broker: "edge"}})
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetOperation().GetTarget().GetId()
	if _, err := s.Admin().Zones.DeleteZone(t.Context(), &apiv1.DeleteZoneRequest{Zone: "short"}); err != nil {
		t.Fatal(err)
	}
	deleted := s.agent(&apiv1.Zone{Id: id}, "agent-1").start()
	s.eventually("the deleted one hears it", func() bool {
		_, err := deleted.last()
		return errors.As(err, &g) && g.Code == link.CodeRevoked || problem.Is(problem.FromStatus(err), problem.Revoked)
	})
}

func TestAQuarantinedZoneHearsItOnlyFromTheControlPlaneItself(t *testing.T) {
	s := newSite(t)
	s.Do(&commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: s.Business.GetId(), Reason: "two of them"}}})
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("it hears why", func() bool {
		_, err := a.last()
		var g *link.Goodbye
		return errors.As(err, &g) && g.Code == link.CodeQuarantined && g.Remote && s.sessions(a) > 0
	})
	if a.came("cluster kvm") != 0 || s.connected() {
		t.Error("it got what it should hold, or counts as connected")
	}
}

func TestAZoneThatContradictsWhatIsKnownIsQuarantinedUntilAnAdministratorHasLooked(t *testing.T) {
	for what, c := range map[string]struct {
		lie    func(*agent)
		reason string
	}{
		"it knows the epoch under another id": {func(a *agent) {
			a.numbers.Epoch, a.numbers.EpochID = a.epoch(), []byte("another-epoch-id")
		}, "another control plane"},
		"it acknowledges what was never sent": {func(a *agent) {
			a.point = &linkv1.StateAckPoint{Epoch: a.epoch(), Revision: 1 << 40}
		}, "acknowledges"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			a := s.agent(s.Business, "agent-1")
			c.lie(a)
			a.start()
			s.eventually("the zone is quarantined", func() bool {
				z := s.Zone("business")
				return z.GetState() == apiv1.Zone_QUARANTINED && strings.Contains(z.GetStateReason(), c.reason)
			})
			s.eventually("its agent hears of it", func() bool {
				_, err := a.last()
				var g *link.Goodbye
				return errors.Is(err, link.ErrQuarantine) || // which the zone sees for itself
					errors.As(err, &g) && g.Code == link.CodeQuarantined && g.Remote && strings.Contains(g.Reason, c.reason)
			})
			s.eventually("it does not count as connected", func() bool { return !s.connected() })
			a.stop()
			s.Do(&commandv1.Command{Body: &commandv1.Command_LiftQuarantine{LiftQuarantine: &commandv1.LiftQuarantine{ZoneId: s.Business.GetId(), Reason: "it was a copy"}}})
			s.agent(s.Business, "agent-1").start()
			s.eventually("after that it is let in again", s.connected)
		})
	}
}

func TestP12AQuarantineEndsASessionThatIsOpen(t *testing.T) {
	s := newSite(t)
	a, other := s.agent(s.Business, "agent-1").start(), s.agent(s.Internet, "agent-1").start()
	s.eventually("both are connected", func() bool {
		return s.connected() && s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE
	})
	before, _ := other.last()
	s.Do(&commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: s.Business.GetId(), Reason: "two of them"}}})
	s.eventually("it hears why, each time", func() bool {
		n, err := a.last()
		var g *link.Goodbye
		return n > 2 && errors.As(err, &g) && g.Code == link.CodeQuarantined && g.Remote && !s.connected()
	})
	if n, _ := other.last(); n != before {
		t.Errorf("%d sessions of another zone ended", n-before)
	}
}

// why is the reason of the condition that says why the business zone has no session.
func (s *site) why() string {
	for _, c := range s.Zone("business").GetConditions() {
		if c.GetType() == "NO_SESSION" {
			return c.GetReason()
		}
	}
	return ""
}

func TestAZoneThatComesBehindAnotherBrokerLosesItsSessionByThisOne(t *testing.T) {
	s := newSite(t)
	elsewhere := pki.Fingerprint(must(pki.LoadOrCreate(t.TempDir(), "key")).Key().Public())
	if _, err := s.Admin().Brokers.CreateBroker(t.Context(), &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{
		Name: "inner", HubAddress: "127.0.0.1:9", Fingerprint: elsewhere,
	}}); err != nil {
		t.Fatal(err)
	}
	a, other := s.agent(s.Business, "agent-1").start(), s.agent(s.Internet, "agent-1").start()
	s.eventually("both are connected", func() bool {
		return s.connected() && s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE
	})
	before, _ := other.last()
	s.standBehind("inner", "business")
	s.eventually("it hears why, each time", func() bool {
		n, err := a.last()
		var g *link.Goodbye
		return n > 2 && errors.As(err, &g) && g.Code == link.CodeWrongBroker && g.Remote && !s.connected()
	})
	if got := s.why(); got != link.CodeWrongBroker {
		t.Errorf("the zone shows %q", got)
	}
	if n, _ := other.last(); n != before {
		t.Errorf("%d sessions of another zone ended", n-before)
	}
	s.standBehind("edge", "business")
	s.eventually("it is let in where it belongs", func() bool { return s.connected() && s.why() == "" })
}

func TestAZoneShowsWhyItsSessionEnded(t *testing.T) {
	s := newSite(t)
	for want, end := range map[string]func(){
		"STREAM BROKER_STOPPING": func() { s.stopBroker(); s.startBroker() }, // the broker's word, or that it is gone
		"SHUTTING_DOWN":          func() { s.stopHub(); s.startHub() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		a := s.agent(s.Business, "agent-1")
		ended := make(chan error, 1)
		go func() { ended <- s.retry(ctx, a) }()
		s.eventually("it is connected", func() bool { return s.connected() && s.sessions(a) > 0 })
		end()
		<-ended
		cancel()
		s.eventually("the zone is not", func() bool { return !s.connected() })
		if got := s.why(); !slices.Contains(strings.Fields(want), got) {
			t.Errorf("after %s the zone shows %q", want, got)
		}
	}
}

// unanswered carries out what it is given, and does not say of a session's beginning that it did.
type unanswered struct {
	zonehub.Proposer
	begun atomic.Int64
}

func (u *unanswered) Propose(ctx context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	result, err := u.Proposer.Propose(ctx, c)
	if err == nil && c.GetSetZoneSession().GetConnected() {
		u.begun.Add(1)
		return nil, problem.Newf(problem.Timeout, "", "it was not known in time")
	}
	return result, err
}

func TestASessionOfWhichItIsNotKnownWhetherItBeganEndsAllTheSame(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	u := &unanswered{Proposer: s.World}
	s.proposer = u
	s.startHub()
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("it begins", func() bool { return u.begun.Load() > 0 })
	a.stop()
	s.eventually("the zone is not connected", func() bool { return !s.connected() })
}

// A zone that is cut off opens no new session in the place of the one that died with the server.
func TestAServerThatDiedAndIsBackAtOnceEndsTheSessionsOfItsEarlierLife(t *testing.T) {
	s := newSite(t)
	s.stopHub()
	s.Connect(s.Business.GetId(), true)
	if !s.connected() {
		t.Fatal("the earlier life has no session")
	}
	s.startHub()
	s.eventually("the zone is not connected", func() bool { return !s.connected() })
	if got := s.why(); got != "SERVER_GONE" {
		t.Errorf("the zone shows %q", got)
	}
}

func TestAnExpiredCertificateRenewsItselfAndDoesNothingElse(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1")
	a.holder = s.agentHolder(s.Business.GetId(), "agent-1", time.Now().Add(-48*time.Hour))
	var err error
	s.eventually("the broker has a certificate", func() bool {
		err = a.session(t.Context())
		return status.Code(unwrapped(err)) == codes.Unauthenticated
	})
	if s.connected() || s.sessions(a) != 0 {
		t.Fatalf("a session opened: %v", err)
	}
	d := must(dial.New(dial.Config{Addresses: []string{s.zoneLeg}, Holder: a.holder}))
	chain, err := d.Renew(t.Context(), must(a.holder.CSR()))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.holder.Set(chain); err != nil {
		t.Fatal(err)
	}
	a.start()
	s.eventually("it is connected", s.connected)
}

// unwrapped is the gRPC status within an error.
func unwrapped(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return err
}

func TestAFrameOfAWrongSenderIsRefused(t *testing.T) {
	s := newSite(t)
	honest := s.agent(s.Internet, "agent-1").start()
	s.eventually("an honest agent is connected", func() bool { return s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE })
	before, _ := honest.last()
	// An agent of one zone with the hello of another's: of a stolen chain, and even with its key.
	thief := s.agent(s.Internet, "agent-2")
	thief.claims = s.agentHolder(s.Business.GetId(), "agent-1", time.Now())
	if err := thief.session(t.Context()); err == nil || s.sessions(thief) != 0 {
		t.Fatalf("a session opened: %v", err)
	}
	if s.connected() {
		t.Error("the robbed zone counts as connected")
	}
	if n, _ := honest.last(); n != before {
		t.Error("the session of an honest agent was ended by it")
	}
}

func TestTheSchemaIsTheOldestHops(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1")
	a.schema = link.CurrentSchema + 2
	a.start()
	s.eventually("it is connected", s.connected)
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.opened[0]; o.Schema != link.CurrentSchema || o.Hello.GetSchema() != link.CurrentSchema+2 {
		t.Errorf("an agent of schema %d and a broker and a server of %d agree on %d", o.Hello.GetSchema(), link.CurrentSchema, o.Schema)
	}
}

func TestAServerWithoutALeaderSendsItsZonesElsewhere(t *testing.T) {
	s := newSite(t)
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("it is connected", s.connected)
	s.leader.lost()
	s.eventually("the session ends", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return slices.ContainsFunc(a.ends, func(err error) bool {
			var g *link.Goodbye
			return errors.As(err, &g) && g.Code == link.CodeNoLeader
		})
	})
	s.eventually("no server takes it up", func() bool {
		n, err := a.last()
		return n > 1 && status.Code(unwrapped(err)) == codes.Unavailable
	})
}

func TestANewerSessionOfAZoneTakesTheOldersPlace(t *testing.T) {
	s := newSite(t)
	first := s.agent(s.Business, "agent-1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.retry(ctx, first) }()
	s.eventually("the first is connected", s.connected)
	s.agent(s.Business, "agent-2").start()
	var g *link.Goodbye
	if err := <-ended; !errors.As(err, &g) || g.Code != link.CodeSuperseded {
		t.Errorf("the first ended with %v", err)
	}
	s.eventually("and the zone stays connected", s.connected)
}

// retry has sessions until one has opened and ended.
func (s *site) retry(ctx context.Context, a *agent) error {
	for {
		err := a.session(ctx)
		if s.sessions(a) > 0 || ctx.Err() != nil {
			return err
		}
	}
}
