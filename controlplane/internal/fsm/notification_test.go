package fsm_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// topics are those of what a user was told, the oldest first.
func (p *plane) topics(userID string) (out []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Notifications.All(state.Scope{"user_id": userID}) {
			if err != nil {
				p.Fatal(err)
			}
			out = append(out, m.GetTopic())
		}
	})
	return out
}

func (p *plane) notices() (out []*commandv1.Notice) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if out, err = tx.Notices("", 100); err != nil {
			p.Fatal(err)
		}
	})
	return out
}

func (p *plane) deliveries() (out []*apiv1.Delivery) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Deliveries.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			out = append(out, m)
		}
	})
	return out
}

func createChannel(m *apiv1.NotificationChannel) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateNotificationChannel{CreateNotificationChannel: &commandv1.CreateNotificationChannel{NotificationChannel: m}}}
}

// able disables a user, or enables them again.
func able(name string, disable bool) *commandv1.Command {
	if disable {
		return &commandv1.Command{Actor: "user:boss", Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-" + name}}}
	}
	return &commandv1.Command{Actor: "user:boss", Body: &commandv1.Command_EnableUser{EnableUser: &commandv1.EnableUser{UserId: "u-" + name}}}
}

func settle(m *apiv1.Delivery, as apiv1.Delivery_State, next time.Time) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_SettleDelivery{SettleDelivery: &commandv1.SettleDelivery{
		DeliveryId: m.GetId(), Attempts: m.GetAttempts(), State: as, Error: "451 later", NextAttemptAt: timestamppb.New(next)}}}
}

func TestNoCauseIsWithoutItsNotice(t *testing.T) {
	p := staffed(t)
	p.draft("one", nil)
	if n := len(p.notices()); n != 0 {
		t.Fatalf("a draft has %d notices", n)
	}
	p.accept(p.submission("one", "review"))
	all := p.notices()
	if len(all) != 1 || all[0].GetNotification().GetTopic() != "request.waiting" || all[0].GetNotification().GetAbout().GetName() != "r-1" {
		t.Fatalf("%v", all)
	}
	p.refuse(problem.NotFound, p.vote("one", "bob", "none", apiv1.Decision_APPROVE, nil))
	if n := len(p.notices()); n != 1 {
		t.Errorf("what was refused left a notice: %d", n)
	}
	address := addressed(all, &commandv1.AddressNotice_Addressee{UserId: "u-bob"}, &commandv1.AddressNotice_Addressee{UserId: "u-bob"},
		&commandv1.AddressNotice_Addressee{UserId: "u-gone"}, &commandv1.AddressNotice_Addressee{UserId: "u-dan", ActingFor: "cho"})
	p.accept(address)
	if !slices.Equal(p.topics("u-bob"), []string{"request.waiting"}) || !slices.Equal(p.topics("u-dan"), []string{"request.waiting"}) || len(p.notices()) != 0 {
		t.Errorf("bob %v, dan %v, %v", p.topics("u-bob"), p.topics("u-dan"), p.notices())
	}
	// The leader before had the same in mind, and this one more besides.
	p.draft("two", nil)
	p.accept(p.submission("two", "review"))
	p.accept(addressed(append(all, p.notices()...), &commandv1.AddressNotice_Addressee{UserId: "u-bob"}))
	if !slices.Equal(p.topics("u-bob"), []string{"request.waiting", "request.waiting"}) || len(p.topics("u-dan")) != 1 || len(p.notices()) != 0 {
		t.Errorf("of two notices, one of them told already, bob has %v, dan %v, and %v are left", p.topics("u-bob"), p.topics("u-dan"), p.notices())
	}
}

// addressed tells notices to people, all in one command.
func addressed(all []*commandv1.Notice, to ...*commandv1.AddressNotice_Addressee) *commandv1.Command {
	in := &commandv1.AddressNotices{}
	for _, m := range all {
		in.Notices = append(in.Notices, &commandv1.AddressNotice{NoticeId: m.GetNotification().GetId(), Addressees: to})
	}
	return &commandv1.Command{Body: &commandv1.Command_AddressNotices{AddressNotices: in}}
}

func TestWhatIsDoneToAnAccountIsToldEvenToWhoIsDisabled(t *testing.T) {
	p := staffed(t)
	p.accept(able("bob", true))
	p.accept(able("bob", false))
	p.accept(&commandv1.Command{Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: "u-bob"}}})
	if got := p.topics("u-bob"); !slices.Equal(got, []string{"account.disabled", "account.enabled", "account.sessions-revoked"}) {
		t.Errorf("%v", got)
	}
	p.view(func(tx *state.Tx) {
		for m := range tx.Notifications.All(state.Scope{"user_id": "u-bob"}) {
			if m.GetTopic() == "account.disabled" && m.GetBy() != "boss" {
				t.Errorf("by %q", m.GetBy())
			}
		}
	})
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-bob"}}})
	if got := p.topics("u-bob"); got != nil {
		t.Errorf("of who is gone there is still %v", got)
	}
}

// TestWhatSomebodyHasMutedIsNotMailedToThem, and is listed for them all the same. What waits for their decision, and what was done to their
// account, is mailed.
func TestWhatSomebodyHasMutedIsNotMailedToThem(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.accept(createVM(1))
	given := lease(30)
	given.GetCreateLease().Lease.Request = p.request("r").GetName()
	p.accept(given)
	p.usable(1)
	if err := p.db.Update(func(tx *state.Tx) error {
		for _, id := range []string{"u-ann", "u-bob"} {
			u, err := tx.Users.Get(id)
			if err != nil {
				return err
			}
			u.Email = u.GetName() + "@example.org"
			if err := tx.Users.Put(u); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "mail", Name: "mail", Mail: &apiv1.Mail{Server: "mail.example.org:25", From: "naru@example.org"}}))
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "desk", Name: "desk", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	mute := func(actor, user string, topics ...string) *commandv1.Command {
		return p.by(actor, &commandv1.Command{Body: &commandv1.Command_MuteTopics{MuteTopics: &commandv1.MuteTopics{UserId: user, Topics: topics}}})
	}
	p.refuse(problem.Forbidden, mute("u-bob", "u-ann", "lease.*"))
	p.accept(mute("u-ann", "u-ann", "account.*", "lease.*"))
	p.accept(mute("u-bob", "u-bob", "request.*"))
	p.accept(p.pass(commandv1.PassLease_START))
	p.draft("two", nil)
	p.accept(p.submission("two", "review"))
	p.accept(addressed(p.notices(), &commandv1.AddressNotice_Addressee{UserId: "u-bob"}))
	p.accept(mute("u-ann", "u-ann", "account.*"))
	p.now = p.now.Add(days(30))
	p.accept(p.pass(commandv1.PassLease_WARN))
	p.accept(able("ann", true))
	p.accept(able("ann", false))
	var mailed, hooked []string
	for _, m := range p.deliveries() {
		if topic := m.GetNotification().GetTopic(); m.GetChannel() == "desk" {
			hooked = append(hooked, topic)
		} else {
			mailed = append(mailed, topic+" to "+m.GetRecipients()[0])
		}
	}
	if want := []string{"request.submitted to ann", "request.waiting to bob", "lease.ends-soon to ann", "account.disabled to ann", "account.enabled to ann"}; !slices.Equal(mailed, want) {
		t.Errorf("mailed is %v", mailed)
	}
	if !slices.Contains(hooked, "lease.started") || !slices.Contains(p.topics("u-ann"), "lease.started") {
		t.Errorf("a webhook gets %v, and ann is told %v", hooked, p.topics("u-ann"))
	}
}

func TestAPersonKeepsTheNewestNotificationsOnly(t *testing.T) {
	p := staffed(t)
	for i := range 503 {
		p.accept(able("bob", i%2 == 0))
	}
	got := p.topics("u-bob")
	if len(got) != 500 || got[0] != "account.enabled" || got[499] != "account.disabled" {
		t.Errorf("%d are kept, the oldest %s", len(got), got[0])
	}
	p.now = p.now.Add(31 * 24 * time.Hour)
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: timestamppb.New(p.now), OperationsBefore: timestamppb.New(p.now), EventsBefore: timestamppb.New(p.now)}}})
	if got := p.topics("u-bob"); got != nil {
		t.Errorf("after their time %d are kept", len(got))
	}
}

func TestWhatWaitsForAChannelIsBoundedAndTheRestIsCounted(t *testing.T) {
	p := staffed(t)
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "ch", Name: "desk", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	if err := p.db.Update(func(tx *state.Tx) error {
		for i := range 9_999 {
			if err := tx.Deliveries.Put(&apiv1.Delivery{Id: fmt.Sprint("d", i), ChannelId: "ch", Channel: "desk", State: apiv1.Delivery_WAITING, NextAttemptAt: timestamppb.New(p.now)}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p.accept(able("bob", i%2 == 0))
	}
	p.view(func(tx *state.Tx) {
		m := get(p, tx.NotificationChannels, "ch")
		if m.GetWaiting() != 10_000 || m.GetDropped() != 2 {
			t.Errorf("%d wait, and %d were dropped", m.GetWaiting(), m.GetDropped())
		}
	})
	if got := p.topics("u-bob"); len(got) != 3 {
		t.Errorf("bob was told %v", got)
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteNotificationChannel{DeleteNotificationChannel: &commandv1.DeleteNoun{Id: "ch"}}})
	if n := len(p.deliveries()); n != 0 {
		t.Errorf("%d are left of a channel that is gone", n)
	}
}

func TestADeliveryIsSettledOnceForEachTry(t *testing.T) {
	p := staffed(t)
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "ch", Name: "desk", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	p.accept(able("bob", true))
	first := p.deliveries()[0]
	p.accept(settle(first, apiv1.Delivery_WAITING, p.now.Add(time.Minute)))
	p.refuse(problem.Conflict, settle(first, apiv1.Delivery_DELIVERED, p.now)) // of a leader that has lost its term
	p.accept(settle(p.deliveries()[0], apiv1.Delivery_WAITING, p.now.Add(25*time.Hour)))
	if m := p.deliveries()[0]; m.GetState() != apiv1.Delivery_DEAD || m.GetAttempts() != 2 || m.GetLastError() != "451 later" {
		t.Errorf("it would be tried after its time: %v", m)
	}
	p.refuse(problem.Conflict, settle(p.deliveries()[0], apiv1.Delivery_DELIVERED, p.now))
	p.accept(&commandv1.Command{Body: &commandv1.Command_RetryDelivery{RetryDelivery: &commandv1.RetryDelivery{DeliveryId: first.GetId()}}})
	p.accept(settle(p.deliveries()[0], apiv1.Delivery_DELIVERED, p.now))
	if m := p.deliveries()[0]; m.GetState() != apiv1.Delivery_DELIVERED {
		t.Errorf("%v", m)
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: timestamppb.New(p.now.Add(time.Hour)), OperationsBefore: timestamppb.New(p.now), EventsBefore: timestamppb.New(start)}}})
	if n := len(p.deliveries()); n != 0 {
		t.Errorf("%d are kept after their time", n)
	}
}

func TestAChannelIsMailOrAWebhookForEver(t *testing.T) {
	p := staffed(t)
	p.refuse(problem.Invalid, createChannel(&apiv1.NotificationChannel{Id: "ch", Name: "desk"}))
	p.accept(createChannel(&apiv1.NotificationChannel{Id: "ch", Name: "desk", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	p.refuse(problem.Invalid, &commandv1.Command{Body: &commandv1.Command_UpdateNotificationChannel{UpdateNotificationChannel: &commandv1.UpdateNotificationChannel{
		NotificationChannel: &apiv1.NotificationChannel{Id: "ch", Name: "desk", Mail: &apiv1.Mail{Server: "mail.example.org:25", From: "a@example.org"}}}}})
	for i := range 31 {
		p.accept(createChannel(&apiv1.NotificationChannel{Id: fmt.Sprint("ch-", i), Name: fmt.Sprint("desk-", i), Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
	}
	p.refuse(problem.TooMany, createChannel(&apiv1.NotificationChannel{Id: "more", Name: "more", Webhook: &apiv1.Webhook{Url: "https://example.org"}}))
}
