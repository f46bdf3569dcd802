package fsm_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func digest(of string) []byte {
	sum := sha256.Sum256([]byte(of))
	return sum[:]
}

func resetPassword(user string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ResetPassword{ResetPassword: &commandv1.ResetPassword{
		UserId: "u-" + user, Password: "$one-time$", Until: timestamppb.New(start.Add(24 * time.Hour))}}}
}

// proof is what a user showed with one sealing, held against what is kept.
func (p *plane) proof(user, seal string) *commandv1.Shown {
	p.Helper()
	shown := &commandv1.Shown{KeyId: "key-1", Seal: digest(seal)}
	p.view(func(tx *state.Tx) {
		if kept, err := tx.Credentials("u-" + user); err == nil {
			shown.Revision = kept.GetRevision()
		}
	})
	return shown
}

func (p *plane) logIn(user, id string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_BeginSession{BeginSession: &commandv1.BeginSession{
		Session: &apiv1.Session{Id: id, UserId: "u-" + user, Zone: "business", ZoneId: "z-business", Strength: apiv1.Session_PASSWORD,
			SecretHash: digest("secret of " + id), ExpiresAt: timestamppb.New(start.Add(12 * time.Hour))},
		Shown: p.proof(user, "seal of "+id),
	}}}
}

func (p *plane) changePassword(user, session string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ChangePassword{ChangePassword: &commandv1.ChangePassword{
		UserId: "u-" + user, SessionId: session, Shown: p.proof(user, fmt.Sprint("change in ", session, p.made)), Password: "$own$"}}}
}

// loggedIn is a plane with a user whose password is their own, and who is logged in as session one.
func loggedIn(t tb) *plane {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(sealingKey("key-1", ""))
	p.accept(resetPassword("kim"))
	p.accept(p.logIn("kim", "one"))
	p.accept(p.changePassword("kim", "one"))
	return p
}

func (p *plane) sessions(user string) (ids []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		all, err := tx.SessionsOf("u-" + user)
		if err != nil {
			p.Fatal(err)
		}
		for _, m := range all {
			ids = append(ids, m.GetId())
		}
	})
	return ids
}

func TestAPasswordForOneLoginLetsInOnceAndHasToBeChanged(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(sealingKey("key-1", ""))
	p.refuse(problem.Conflict, p.logIn("kim", "early")) // nothing is kept of kim yet
	p.accept(resetPassword("kim"))
	p.accept(p.logIn("kim", "one"))
	p.refuse(problem.Unauthenticated, p.logIn("kim", "two"))
	must := func(want bool) {
		t.Helper()
		p.view(func(tx *state.Tx) {
			m, err := tx.Sessions.Get("one")
			u, err2 := tx.Users.Get("u-kim")
			if err != nil || err2 != nil || m.GetMustChangePassword() != want || u.GetMustChangePassword() != want {
				t.Errorf("session %v (%v), user %v (%v): the password has to be changed should be %v", m, err, u, err2, want)
			}
		})
	}
	must(true)
	p.accept(p.changePassword("kim", "one"))
	must(false)
	p.accept(p.logIn("kim", "three"))
}

func TestAPasswordForOneLoginEnds(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(sealingKey("key-1", ""))
	p.accept(resetPassword("kim"))
	p.now = start.Add(25 * time.Hour)
	late := p.logIn("kim", "late")
	late.GetBeginSession().Session.ExpiresAt = timestamppb.New(p.now.Add(time.Hour))
	p.refuse(problem.Unauthenticated, late)
}

// TestP21AClockThatWasAheadAndWasSetRightLocksNobodyOut: what was seen of it stays, and ends nothing early.
func TestP21AClockThatWasAheadAndWasSetRightLocksNobodyOut(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(sealingKey("key-1", ""))
	p.accept(resetPassword("kim"))
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "ch", Name: "desk", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	p.accept(&commandv1.Command{Stamp: timestamppb.New(start.AddDate(10, 0, 0)), Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
	p.accept(p.logIn("kim", "one"))
	p.accept(p.changePassword("kim", "one"))
	p.accept(p.logIn("kim", "two"))
	p.accept(able("kim", true))
	for _, d := range p.deliveries() {
		if d.GetNextAttemptAt().AsTime().After(p.now) {
			t.Errorf("%s is delivered %v from now", d.GetNotification().GetTopic(), d.GetNextAttemptAt().AsTime().Sub(p.now))
		}
	}
	if len(p.deliveries()) == 0 {
		t.Error("there is nothing to deliver")
	}
}

func TestWhatWasSealedCountsOnce(t *testing.T) {
	p := loggedIn(t)
	first := p.logIn("kim", "two")
	p.accept(first)
	again := p.logIn("kim", "three")
	again.GetBeginSession().Shown.Seal = first.GetBeginSession().GetShown().GetSeal()
	if got := p.refuse(problem.Unauthenticated, again).GetDetail(); !strings.Contains(got, "counted before") {
		t.Errorf("%q", got)
	}
	p.refuse(problem.Unauthenticated, &commandv1.Command{Body: &commandv1.Command_StepUpSession{StepUpSession: &commandv1.StepUpSession{
		SessionId: "two", Shown: first.GetBeginSession().GetShown(), Until: timestamppb.New(start.Add(time.Hour))}}})
}

// TestATicketThatCountedRefusesAStepUpAndHaltsNobody: it may be anything that somebody sends.
func TestATicketThatCountedRefusesAStepUpAndHaltsNobody(t *testing.T) {
	p := loggedIn(t)
	stepUp := func(seal string, ticket []byte) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_StepUpSession{StepUpSession: &commandv1.StepUpSession{
			SessionId: "one", Shown: p.proof("kim", seal), TicketHash: ticket, Strength: apiv1.Session_PASSWORD, Until: timestamppb.New(start.Add(time.Hour))}}}
	}
	p.accept(stepUp("first", digest("ticket")))
	p.refuse(problem.Unauthenticated, stepUp("second", digest("ticket")))
	p.refuse(problem.Unauthenticated, stepUp("third", digest("seal of one")))
	p.accept(stepUp("fourth", nil))
}

func TestACodeCountsOnceThoughItWasJudgedTwiceAtOnce(t *testing.T) {
	p := loggedIn(t)
	one, two := p.logIn("kim", "two"), p.logIn("kim", "three")
	one.GetBeginSession().Shown.Step, two.GetBeginSession().Shown.Step = 100, 100
	p.accept(one)
	p.refuse(problem.Unauthenticated, two)
	next := p.logIn("kim", "four")
	next.GetBeginSession().Shown.Step = 101
	p.accept(next)
}

func TestWhatWasJudgedByAnOldPasswordDoesNotCount(t *testing.T) {
	p := loggedIn(t)
	stale := p.logIn("kim", "two")
	p.accept(p.changePassword("kim", "one"))
	p.refuse(problem.Conflict, stale)
}

func TestAChangedPasswordEndsTheOtherSessions(t *testing.T) {
	p := loggedIn(t)
	p.accept(p.logIn("kim", "two"))
	c := p.changePassword("kim", "two")
	p.accept(c)
	if got := p.sessions("kim"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("kim has the sessions %v", got)
	}
}

func TestP12WhoIsDisabledResetOrDeletedHasNoSession(t *testing.T) {
	for name, c := range map[string]*commandv1.Command{
		"disabled": disableUser("kim"), "reset": resetPassword("kim"), "deleted": deletion("user", "u-kim", ""),
		"revoked": {Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: "u-kim"}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := loggedIn(t)
			p.accept(p.logIn("kim", "two"))
			if got := p.sessions("kim"); len(got) != 2 {
				t.Fatalf("kim has the sessions %v", got)
			}
			p.accept(c)
			if got := p.sessions("kim"); len(got) != 0 {
				t.Errorf("kim has the sessions %v", got)
			}
		})
	}
}

func TestNobodyShutsThemselvesOut(t *testing.T) {
	for name, c := range map[string]*commandv1.Command{"disabled": disableUser("kim"), "deleted": deletion("user", "u-kim", "")} {
		t.Run(name, func(t *testing.T) {
			p := loggedIn(t)
			p.accept(p.logIn("kim", "two"))
			c.Origin = &commandv1.Origin{ActorId: "u-kim", SessionId: "two", Strength: apiv1.Session_PASSWORD}
			p.refuse(problem.WrongState, c)
			c.Origin = nil
			p.accept(c)
		})
	}
}

func TestADisabledUserCannotLogIn(t *testing.T) {
	p := loggedIn(t)
	c := p.logIn("kim", "two")
	p.accept(disableUser("kim"))
	p.refuse(problem.Forbidden, c)
	p.accept(enableUser("kim"))
	p.accept(c)
}

func TestAServiceHasNoPassword(t *testing.T) {
	p := furnished(t)
	c := createUser("ci")
	c.GetCreateUser().User.Kind = apiv1.User_SERVICE
	p.accept(c)
	p.refuse(problem.WrongState, resetPassword("ci"))
}

func TestASecretIsOfOneSession(t *testing.T) {
	p := loggedIn(t)
	p.accept(p.logIn("kim", "two"))
	same := p.logIn("kim", "three")
	same.GetBeginSession().Session.SecretHash = digest("secret of two")
	p.refuse(problem.Conflict, same)
}

func TestTheOldestSessionEndsForTheThirtyThird(t *testing.T) {
	p := loggedIn(t)
	for n := range 32 {
		p.now = p.now.Add(time.Second)
		p.accept(p.logIn("kim", fmt.Sprintf("s-%02d", n)))
	}
	if got := p.sessions("kim"); len(got) != 32 || got[0] != "s-00" {
		t.Errorf("kim has %d sessions, the oldest is %s", len(got), got[0])
	}
}

func TestAnAuthenticatorCountsOnceItWasConfirmed(t *testing.T) {
	p := loggedIn(t)
	p.refuse(problem.WrongState, &commandv1.Command{Body: &commandv1.Command_ConfirmAuthenticator{ConfirmAuthenticator: &commandv1.ConfirmAuthenticator{
		UserId: "u-kim", Shown: p.proof("kim", "a")}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_EnrollAuthenticator{EnrollAuthenticator: &commandv1.EnrollAuthenticator{
		UserId: "u-kim", SealedAuthenticator: []byte("sealed"), Until: timestamppb.New(start.Add(10 * time.Minute)), Shown: p.proof("kim", "enrol")}}})
	p.refuse(problem.Unauthenticated, &commandv1.Command{Body: &commandv1.Command_EnrollAuthenticator{EnrollAuthenticator: &commandv1.EnrollAuthenticator{
		UserId: "u-kim", SealedAuthenticator: []byte("again"), Until: timestamppb.New(start.Add(10 * time.Minute)), Shown: p.proof("kim", "enrol")}}})
	kept := func() (m *commandv1.Credentials, u *apiv1.User) {
		p.view(func(tx *state.Tx) { m, _ = tx.Credentials("u-kim"); u, _ = tx.Users.Get("u-kim") })
		return m, u
	}
	if m, u := kept(); len(m.GetSealedAuthenticator()) != 0 || u.GetSecondFactor() == apiv1.User_TOTP {
		t.Errorf("it counts before it was confirmed: %v", u)
	}
	shown := p.proof("kim", "b")
	shown.Step = 7
	p.accept(&commandv1.Command{Body: &commandv1.Command_ConfirmAuthenticator{ConfirmAuthenticator: &commandv1.ConfirmAuthenticator{UserId: "u-kim", Shown: shown}}})
	if m, u := kept(); string(m.GetSealedAuthenticator()) != "sealed" || m.GetStep() != 7 || u.GetSecondFactor() != apiv1.User_TOTP {
		t.Errorf("kept %v of %v", m, u)
	}
	remove := &commandv1.Command{Body: &commandv1.Command_RemoveAuthenticator{RemoveAuthenticator: &commandv1.RemoveAuthenticator{UserId: "u-kim"}}}
	p.accept(remove)
	if m, u := kept(); len(m.GetSealedAuthenticator()) != 0 || u.GetSecondFactor() != apiv1.User_NONE {
		t.Errorf("kept %v of %v", m, u)
	}
	p.refuse(problem.WrongState, &commandv1.Command{Body: remove.Body})
}

func TestATokenIsOfAServiceAndEndsWithIt(t *testing.T) {
	p := furnished(t)
	ci := createUser("ci")
	ci.GetCreateUser().User.Kind = apiv1.User_SERVICE
	p.accept(ci)
	p.accept(createUser("kim"))
	of := func(user string) *commandv1.Command {
		c := createToken(user)
		c.GetCreateAccessToken().AccessToken.Project, c.GetCreateAccessToken().AccessToken.ProjectId = "", ""
		if user != "" {
			c.GetCreateAccessToken().AccessToken.User, c.GetCreateAccessToken().AccessToken.UserId = user, "u-"+user
		}
		return c
	}
	p.refuse(problem.WrongState, of("kim"))
	nobodys := of("")
	nobodys.GetCreateAccessToken().AccessToken.Name = "nobodys"
	p.refuse(problem.Invalid, nobodys)
	p.accept(of("ci"))
	p.accept(disableUser("ci"))
	p.view(func(tx *state.Tx) {
		if _, err := tx.AccessTokens.Get("t-ci"); err == nil {
			t.Error("the token of a disabled service is there")
		}
	})
	p.refuse(problem.WrongState, of("ci"))
	p.accept(enableUser("ci"))
	p.accept(of("ci"))
	p.accept(deletion("user", "u-ci", ""))
	p.refuse(problem.NotFound, deletion("access-token", "t-ci", ""))
}

func TestSessionsThatHaveEndedAreForgotten(t *testing.T) {
	p := loggedIn(t)
	p.now = start.Add(13 * time.Hour)
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}})
	if got := p.sessions("kim"); len(got) != 0 {
		t.Errorf("kim has the sessions %v", got)
	}
}

func sealingKey(id, after string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AddSealingKey{AddSealingKey: &commandv1.AddSealingKey{
		SealingKey: &commandv1.SealingKey{Id: id, PublicKey: make([]byte, 32), SealedKey: []byte("k")}, After: after}}}
}

func TestOfTheKeysToSealToTheNewestTwoAreKept(t *testing.T) {
	p := furnished(t)
	p.accept(createUser("kim"))
	p.accept(sealingKey("key-1", ""))
	p.accept(resetPassword("kim"))
	p.accept(p.logIn("kim", "one"))
	old := p.changePassword("kim", "one")
	p.accept(sealingKey("1", "key-1"))
	p.refuse(problem.Conflict, sealingKey("x", ""))
	p.accept(sealingKey("2", "1"))
	p.accept(sealingKey("3", "2"))
	p.refuse(problem.Conflict, old) // it was sealed to a key that is gone
	p.view(func(tx *state.Tx) {
		ring, err := tx.Keyring()
		if err != nil || len(ring.GetSealingKeys()) != 2 || ring.GetSealingKeys()[0].GetId() != "2" || ring.GetSealingKeys()[1].GetId() != "3" {
			t.Errorf("%v (%v)", ring.GetSealingKeys(), err)
		}
	})
}

// TestWhatWasShownCountsNoLongerThanItMay, whatever a proposer says.
func TestWhatWasShownCountsNoLongerThanItMay(t *testing.T) {
	p := loggedIn(t)
	far := timestamppb.New(start.AddDate(10, 0, 0))
	begin := p.logIn("kim", "two")
	begin.GetBeginSession().Session.ExpiresAt = far
	p.accept(begin)
	p.accept(&commandv1.Command{Body: &commandv1.Command_StepUpSession{StepUpSession: &commandv1.StepUpSession{
		SessionId: "two", Shown: p.proof("kim", "again"), Strength: apiv1.Session_PASSWORD, Until: far}}})
	p.view(func(tx *state.Tx) {
		m, err := tx.Sessions.Get("two")
		if err != nil || m.GetExpiresAt().AsTime().Sub(p.now) > 12*time.Hour || m.GetSteppedUpUntil().AsTime().Sub(p.now) > 10*time.Minute {
			t.Errorf("the session lasts until %v, its step-up until %v (%v)", m.GetExpiresAt().AsTime(), m.GetSteppedUpUntil().AsTime(), err)
		}
	})
	given := resetPassword("kim")
	given.GetResetPassword().Until = far
	p.accept(given)
	p.accept(&commandv1.Command{Body: &commandv1.Command_EnrollAuthenticator{EnrollAuthenticator: &commandv1.EnrollAuthenticator{
		UserId: "u-kim", Shown: p.proof("kim", "enrolling"), SealedAuthenticator: []byte("s"), Until: far}}})
	p.view(func(tx *state.Tx) {
		kept, err := tx.Credentials("u-kim")
		if err != nil || kept.GetOneTimeUntil().AsTime().Sub(p.now) > 24*time.Hour || kept.GetNewAuthenticatorUntil().AsTime().Sub(p.now) > 10*time.Minute {
			t.Errorf("it is kept until %v and %v (%v)", kept.GetOneTimeUntil().AsTime(), kept.GetNewAuthenticatorUntil().AsTime(), err)
		}
	})
}

// TestAClockThatWasAheadEndsNoSessionOnceItIsSetRight.
func TestAClockThatWasAheadEndsNoSessionOnceItIsSetRight(t *testing.T) {
	p := loggedIn(t)
	prune := &commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}}
	right := p.now
	p.now = right.AddDate(0, 0, 1)
	p.accept(createUser("lee")) // a day ahead, and nothing is pruned meanwhile
	p.now = right
	if p.accept(prune); len(p.sessions("kim")) != 1 {
		t.Error("a session has ended that goes on")
	}
	p.now = right.Add(13 * time.Hour)
	if p.accept(prune); len(p.sessions("kim")) != 0 {
		t.Error("a session that has ended is kept")
	}
}

// TestNobodyIsAnsweredByTheKeyOfWhoIsGone: with a user go the idempotency keys that they used, and those of their tokens.
func TestNobodyIsAnsweredByTheKeyOfWhoIsGone(t *testing.T) {
	for about, x := range map[string]struct {
		actor string
		end   *commandv1.Command
		then  problem.Code
	}{
		"a user":          {"u-ci", &commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ci"}}}, problem.Revoked},
		"a user's token":  {"t-mine", &commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ci"}}}, problem.TokenInvalid},
		"a deleted token": {"t-mine", deletion("access-token", "t-mine", ""), problem.TokenInvalid},
	} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.accept(p.tokenOfService("mine", "cho"))
			keyed := func(hash string, c *commandv1.Command) *commandv1.Command {
				c.Idempotency = &commandv1.Idempotency{Key: "again", RequestHash: digest(hash)}
				return p.by(x.actor, c)
			}
			p.accept(keyed("a", createUser("one")))
			p.refuse(problem.IdempotencyMismatch, keyed("b", createUser("two")))
			p.accept(x.end)
			p.refuse(x.then, keyed("b", createUser("two"))) // and not for its key
		})
	}
}
