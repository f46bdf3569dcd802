package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// turns is an upkeep on a real state whose commands are kept and not carried out, whose servers and clock are the test's.
type turns struct {
	*Upkeep
	world    *servicetest.World
	now      time.Time
	servers  []*apiv1.Server
	proposed []*commandv1.Command
	carry    func(*commandv1.Command) // out; nil: nothing is
}

func newTurns(t *testing.T) *turns {
	t.Helper()
	w := servicetest.New(t)
	w.NewSite(1)
	u := &turns{world: w, now: time.Now()}
	u.Upkeep = New(Config{Reader: w.DB, Proposer: u, Servers: u, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return u.now }})
	u.silentSince = map[string]time.Time{}
	return u
}

func (u *turns) Propose(_ context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	u.proposed = append(u.proposed, c)
	if u.carry != nil {
		u.carry(c)
	}
	return &commandv1.Result{}, nil
}

func (u *turns) Servers(context.Context) ([]*apiv1.Server, error) { return u.servers, nil }

// take returns what was proposed since it was last asked.
func (u *turns) take(t *testing.T, turn func(context.Context) error) []*commandv1.Command {
	t.Helper()
	u.proposed = nil
	if err := turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range u.proposed {
		if len(c.GetId()) != 16 || c.GetActor() != "upkeep" {
			t.Errorf("a command without id or actor: %v", c)
		}
	}
	return u.proposed
}

func TestOperationsAreEndedWhenTheirDeadlineHasPassed(t *testing.T) {
	u := newTurns(t)
	r, err := u.world.Admin().VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: u.world.VM("web-1", "web")})
	if err != nil {
		t.Fatal(err)
	}
	deadline := r.GetOperation().GetDeadline().AsTime()
	u.now = deadline.Add(-time.Second)
	if early := u.take(t, u.expire); len(early) != 0 {
		t.Fatalf("before the deadline: %v", early)
	}
	u.now = deadline.Add(time.Second)
	late := u.take(t, u.expire)
	if len(late) != 1 || !slices.Equal(late[0].GetExpireOperations().GetOperationIds(), []string{r.GetOperation().GetId()}) {
		t.Fatalf("after the deadline: %v", late)
	}
}

func TestWhatIsForgottenHasOutlivedItsKeep(t *testing.T) {
	u := newTurns(t)
	got := u.take(t, u.prune)
	if len(got) != 1 {
		t.Fatalf("%v", got)
	}
	p := got[0].GetPrune()
	for what, kept := range map[string]time.Duration{
		"outcomes": u.now.Sub(p.GetBefore().AsTime()), "operations": u.now.Sub(p.GetOperationsBefore().AsTime()), "events": u.now.Sub(p.GetEventsBefore().AsTime()),
	} {
		if want := map[string]time.Duration{"outcomes": 24 * time.Hour, "operations": 30 * 24 * time.Hour, "events": 30 * 24 * time.Hour}[what]; kept != want {
			t.Errorf("%s are kept for %v, not %v", what, kept, want)
		}
	}
}

func TestForgettingGoesOnWhileThereIsMoreThanOneCommandForgets(t *testing.T) {
	u := newTurns(t)
	u.now = time.Now().Add(keepOutcomes) // what was done so far has outlived its keep, and what is done now has not
	u.carry = func(c *commandv1.Command) {
		if len(u.proposed) < 3 {
			return // so many that two commands were not enough
		}
		u.world.Do(proto.CloneOf(c))
	}
	if got := u.take(t, u.prune); len(got) != 3 {
		t.Errorf("%d commands", len(got))
	}
}

func TestP25TheFeatureLevelIsRaisedOnceEveryServerKnowsAHigherOne(t *testing.T) {
	u := newTurns(t)
	u.world.Do(&commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: &apiv1.Server{Id: "server-2", Name: "two"}}}})
	var one string
	if err := u.world.DB.View(t.Context(), func(tx *state.Tx) error {
		for s, err := range tx.Servers.All(nil) {
			if err != nil {
				return err
			}
			if s.GetId() != "server-2" {
				one = s.GetId()
			}
		}
		return nil
	}); err != nil || one == "" {
		t.Fatal(one, err)
	}
	server := func(id string, level uint32) *apiv1.Server { return &apiv1.Server{Id: id, FeatureLevel: level} }
	for _, c := range []struct {
		about   string
		servers []*apiv1.Server
		raised  uint32
	}{
		{"none knows more", []*apiv1.Server{server(one, 1), server("server-2", 1)}, 0},
		{"one knows more", []*apiv1.Server{server(one, 2), server("server-2", 1)}, 0},
		{"one does not answer", []*apiv1.Server{server(one, 2), server("server-2", 0)}, 0},
		{"one that is recorded takes no part", []*apiv1.Server{server(one, 2)}, 0},
		{"one that takes part is not recorded and knows less", []*apiv1.Server{server(one, 2), server("server-2", 2), server("server-3", 1)}, 0},
		{"none is seen", nil, 0},
		{"all know more", []*apiv1.Server{server(one, 3), server("server-2", 2)}, 2},
	} {
		u.servers = c.servers
		got := u.take(t, u.raiseFeatureLevel)
		switch {
		case c.raised == 0 && len(got) != 0:
			t.Errorf("%s: %v", c.about, got)
		case c.raised != 0 && (len(got) != 1 || got[0].GetRaiseFeatureLevel().GetLevel() != c.raised):
			t.Errorf("%s: %v", c.about, got)
		}
	}
}

// connect opens a session of the business zone at a server.
func (u *turns) connect(server string) {
	u.world.Do(&commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
		ZoneId: u.world.Zone("business").GetId(), Connected: true, Session: []byte("session-1"), Agent: "agent-1", ServerId: server, Incarnation: "life-1",
	}}})
}

func TestSessionsOfAServerThatStaysSilentAreEnded(t *testing.T) {
	u := newTurns(t)
	u.connect("server-2")
	silent := []*apiv1.Server{{Id: "server-1", Healthy: true}, {Id: "server-2"}}
	well := []*apiv1.Server{{Id: "server-1", Healthy: true}, {Id: "server-2", Healthy: true}}
	for _, step := range []struct {
		after   time.Duration
		servers []*apiv1.Server
		ended   int
		about   string
	}{
		{0, well, 0, "it is well"},
		{time.Second, silent, 0, "it has just fallen silent"},
		{goneAfter, silent, 0, "it has been silent for as long as is borne"},
		{time.Second, well, 0, "it is back"},
		{goneAfter, silent, 0, "it has fallen silent again, and what was before does not count"},
		{goneAfter + time.Second, silent, 1, "it stays silent"},
	} {
		u.now, u.servers = u.now.Add(step.after), step.servers
		got := u.take(t, u.endSessionsOfTheGone)
		if len(got) != step.ended {
			t.Errorf("%s: %v", step.about, got)
			continue
		}
		for _, c := range got {
			s := c.GetSetZoneSession()
			if s.GetConnected() || string(s.GetSession()) != "session-1" || s.GetServerId() != "server-2" || s.GetZoneId() != u.world.Zone("business").GetId() {
				t.Errorf("%s: %v", step.about, s)
			}
		}
	}
}

func TestSessionsOfAServerThatIsNoLongerThereAreEndedAtOnce(t *testing.T) {
	u := newTurns(t)
	u.connect("server-9")
	u.servers = []*apiv1.Server{{Id: "server-1", Healthy: true}}
	if got := u.take(t, u.endSessionsOfTheGone); len(got) != 1 || got[0].GetSetZoneSession().GetServerId() != "server-9" {
		t.Fatalf("%v", got)
	}
}

// broken fails whatever is asked of it, and counts.
type broken struct{ views, proposals, servers atomic.Int32 }

var errBroken = errors.New("there is no leader")

func (b *broken) View(context.Context, func(*state.Tx) error) error { b.views.Add(1); return errBroken }
func (b *broken) Servers(context.Context) ([]*apiv1.Server, error) {
	b.servers.Add(1)
	return nil, errBroken
}
func (b *broken) Propose(context.Context, *commandv1.Command) (*commandv1.Result, error) {
	b.proposals.Add(1)
	return nil, errBroken
}

func TestWhatFailsIsTriedAgainAtTheNextTurnUntilTheTermEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broken{}
		u := New(Config{Reader: b, Proposer: b, Servers: b, Log: slog.New(slog.DiscardHandler), Now: time.Now})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute+time.Millisecond)
		defer cancel()
		if err := u.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if v, s, p := b.views.Load(), b.servers.Load(), b.proposals.Load(); v != 20*60+20+21+20/5 || s != 20*60/3+20 || p != 2 {
			t.Fatalf("in twenty minutes: %d views, %d looks at the servers, %d proposals", v, s, p)
		}
	})
}
