package service_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/notify"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// post is an office with somebody who tells people.
type post struct {
	*office
	notify *notify.Controller
}

func newPost(t *testing.T) *post {
	p := &post{office: newOffice(t)}
	p.now = p.now.Add(time.Minute) // behind whatever has been written so far
	p.notify = p.leader(clocked{p.office})
	return p
}

// leader is what the leader does about notices and deliveries.
func (p *post) leader(by notify.Proposer) *notify.Controller {
	return notify.New(notify.Config{Reader: p.DB, Proposer: by, Sender: &p.Outbox, Rights: p.Service, Unseal: p.Unseal,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return p.now }})
}

// tell has everything addressed that was announced.
func (p *post) tell() {
	p.Helper()
	if err := p.notify.Address(context.Background()); err != nil {
		p.Fatal(err)
	}
}

// send sends what is due, and returns when it has been noted what came of it.
func (p *post) send() {
	p.Helper()
	p.tell()
	if err := p.notify.Send(context.Background()); err != nil {
		p.Fatal(err)
	}
	p.notify.Wait()
}

func (p *post) told(who string) []*apiv1.Notification {
	p.Helper()
	r, err := p.As(p.users[who]).Notifications.ListNotifications(context.Background(), &apiv1.ListNotificationsRequest{OrderBy: "id"})
	if err != nil {
		p.Fatal(err)
	}
	return r.GetNotifications()
}

// news are a person's notifications as TOPIC ABOUT, those that are read in parentheses.
func (p *post) news(who string) (out []string) {
	p.Helper()
	for _, m := range p.told(who) {
		said := strings.TrimSpace(m.GetTopic() + " " + m.GetAbout().GetName())
		if m.GetRead() {
			said = "(" + said + ")"
		}
		out = append(out, said)
	}
	return out
}

func (p *post) expect(who string, want ...string) {
	p.Helper()
	if got := p.news(who); !slices.Equal(got, want) {
		p.Errorf("%s was told %q, not %q", who, got, want)
	}
}

func (p *post) deliveries(filter string) []*apiv1.Delivery {
	p.Helper()
	r, err := p.Admin().Deliveries.ListDeliveries(context.Background(), &apiv1.ListDeliveriesRequest{Filter: filter, OrderBy: "id"})
	if err != nil {
		p.Fatal(err)
	}
	return r.GetDeliveries()
}

func (p *post) channel(m *apiv1.NotificationChannel) {
	p.Helper()
	if _, err := p.Admin().NotificationChannels.CreateNotificationChannel(context.Background(), &apiv1.CreateNotificationChannelRequest{NotificationChannel: m}); err != nil {
		p.Fatal(err)
	}
}

func mailChannel(name string) *apiv1.NotificationChannel {
	return &apiv1.NotificationChannel{Name: name, Mail: &apiv1.Mail{Server: "mail.example.org:587", From: "naru@example.org"}}
}

func hook(name string, topics ...string) *apiv1.NotificationChannel {
	return &apiv1.NotificationChannel{Name: name, Topics: topics, Webhook: &apiv1.Webhook{Url: "https://hooks.example.org/" + name}}
}

// address gives people mail addresses.
func (p *post) address(names ...string) {
	p.Helper()
	for _, name := range names {
		if _, err := p.Admin().Users.UpdateUser(context.Background(), &apiv1.UpdateUserRequest{
			User: &apiv1.User{Id: name, Email: name + "@example.org"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"email"}}}); err != nil {
			p.Fatal(err)
		}
	}
}

func TestWhatWaitsIsToldToThoseWhoMayDecideAndLeavesTheirQueuesWhenItIsDecided(t *testing.T) {
	p := newPost(t)
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.expect("bob") // a policy says whom it concerns: that is found out by the leader
	p.tell()
	p.expect("bob", "request.waiting r-1")
	p.expect("cho")
	if m := p.told("bob")[0]; m.GetBy() != "ann" || m.GetProject() != "web" || m.GetZone() != "" || len(m.GetParameters()) != 2 || m.GetParameters()[0].GetValue() != "review" {
		t.Errorf("it says %v", m)
	}
	if err := p.decide("bob", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.expect("bob", "(request.waiting r-1)")
	p.expect("cho", "request.waiting r-1")
	if err := p.decide("cho", "r-1", apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.expect("cho", "(request.waiting r-1)")
	p.expect("ann", "request.approved r-1")
	p.expect("dan")
}

func TestASubstituteIsToldAndSoIsTheOneInWhosePlaceTheyDecided(t *testing.T) {
	p := newPost(t)
	if _, err := p.As(p.users["bob"]).Delegations.CreateDelegation(t.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{ToUser: "dan", EndsAt: timestamppb.New(p.now.Add(time.Hour))}}); err != nil {
		t.Fatal(err)
	}
	p.expect("dan", "delegation.created bob/dan")
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.expect("bob", "request.waiting r-1")
	p.expect("dan", "delegation.created bob/dan", "request.waiting r-1")
	if last := p.told("dan")[1].GetParameters(); len(last) != 3 || last[2].GetKey() != "for" || last[2].GetValue() != "bob" {
		t.Errorf("dan is not told in whose place: %v", last)
	}
	if err := p.decide("dan", "r-1", apiv1.Decision_APPROVE, func(in *apiv1.DecideRequestRequest) { in.ActingFor = "bob" }); err != nil {
		t.Fatal(err)
	}
	p.expect("bob", "(request.waiting r-1)", "request.decided-for-you r-1")
	p.expect("dan", "delegation.created bob/dan", "(request.waiting r-1)")
}

func TestWhoAskedIsToldWhatBecomesOfItAndOfComments(t *testing.T) {
	p := newPost(t)
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.As(p.users["bob"]).Requests.CommentRequest(t.Context(), &apiv1.CommentRequestRequest{Request: "r-1", Text: "why two?"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.As(p.users["ann"]).Requests.CommentRequest(t.Context(), &apiv1.CommentRequestRequest{Request: "r-1", Text: "one is for nights"}); err != nil {
		t.Fatal(err)
	}
	if err := p.decide("bob", "r-1", apiv1.Decision_RETURN, nil); err != nil {
		t.Fatal(err)
	}
	p.tell() // the notice that something waited finds nobody any more
	p.expect("ann", "request.commented r-1", "request.returned r-1")
	p.expect("bob", "request.commented r-1")
	for _, m := range p.told("ann") {
		if strings.Contains(m.String(), "why two") || strings.Contains(m.String(), "seen") {
			t.Errorf("it holds what people wrote: %v", m)
		}
	}
}

func TestARequestThatIsNotDecidedRemindsThoseWhoMayDecide(t *testing.T) {
	p := &post{office: newOffice(t, &apiv1.StageTemplate{Name: "review", Sequence: 1, Rule: apiv1.StageTemplate_ANY, DueHours: 8, RemindHours: 4, OnDue: apiv1.StageTemplate_ESCALATE,
		Eligible: &apiv1.Eligibility{Users: []string{"bob"}}, EscalateTo: &apiv1.Eligibility{Users: []string{"cho"}}})}
	p.notify = p.leader(clocked{p.office})
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.now = p.now.Add(5 * time.Hour)
	p.turn()
	p.tell()
	p.expect("bob", "request.waiting r-1", "request.reminded r-1")
	p.now = p.now.Add(5 * time.Hour)
	p.turn()
	p.tell()
	p.expect("cho", "request.escalated r-1")
	if err := p.decide("cho", "r-1", apiv1.Decision_DENY, nil); err != nil {
		t.Fatal(err)
	}
	p.expect("bob", "(request.waiting r-1)", "(request.reminded r-1)", "(request.escalated r-1)")
	p.expect("ann", "request.rejected r-1")
}

func TestF6ANotificationSaysNoMoreThanItsReaderMaySeeNow(t *testing.T) {
	p := newPost(t)
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.expect("bob", "request.waiting r-1")
	p.Unbind("b-bob")
	p.expect("bob", "request.waiting")
	if m := p.told("bob")[0]; m.GetProject() != "" || m.GetBy() != "" || m.GetAbout() != nil || len(m.GetParameters()) > 0 {
		t.Errorf("it still says %v", m)
	}
	stream, err := p.As(p.users["bob"]).Notifications.WatchNotifications(t.Context(), &apiv1.WatchNotificationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetType() == apiv1.WatchType_PUT {
			if m.GetNotification().GetAbout() != nil || m.GetNotification().GetTopic() != "request.waiting" {
				t.Errorf("the watch says %v", m)
			}
			break
		}
	}
}

func TestNobodySeesOrMarksWhatOthersAreTold(t *testing.T) {
	p := newPost(t)
	p.Bind("b-dan", "federation-administrator", p.users["dan"], apiv1.RoleBinding_FEDERATION, "")
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.expect("dan") // who may do everything reads his own all the same
	mine := p.told("bob")[0].GetId()
	read := func(who string, in *apiv1.ReadNotificationsRequest) (uint32, error) {
		r, err := p.As(p.users[who]).Notifications.ReadNotifications(t.Context(), in)
		return r.GetUnread(), err
	}
	if _, err := read("dan", &apiv1.ReadNotificationsRequest{Notifications: []string{mine}}); !problem.Is(err, problem.NotFound) {
		t.Errorf("dan marked what is bob's: %v", err)
	}
	if _, err := read("dan", &apiv1.ReadNotificationsRequest{UpTo: "ffffffff"}); err != nil {
		t.Fatal(err)
	}
	p.expect("bob", "request.waiting r-1")
	r, err := p.As(p.users["bob"]).Notifications.ListNotifications(t.Context(), &apiv1.ListNotificationsRequest{Filter: "read=false"})
	if err != nil || r.GetUnread() != 1 || len(r.GetNotifications()) != 1 {
		t.Errorf("%v: %v", r, err)
	}
	if left, err := read("bob", &apiv1.ReadNotificationsRequest{Notifications: []string{mine}}); err != nil || left != 0 {
		t.Errorf("%d unread: %v", left, err)
	}
	p.expect("bob", "(request.waiting r-1)")
	if _, err := p.Admin().Notifications.ListNotifications(t.Context(), &apiv1.ListNotificationsRequest{}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("an administrator who is no user: %v", err)
	}
}

func TestWhatWaitsTogetherIsToldTogetherAndAfterAFailureOneByOne(t *testing.T) {
	p := newPost(t)
	ask := func(n int) {
		t.Helper()
		for range n {
			if _, err := p.submit("ann", ask()); err != nil {
				t.Fatal(err)
			}
		}
	}
	commands := func() int64 {
		before := p.Proposes()
		p.tell()
		return p.Proposes() - before
	}
	ask(3)
	if n := commands(); n != 1 {
		t.Errorf("three notices took %d commands", n)
	}
	p.expect("bob", "request.waiting r-1", "request.waiting r-2", "request.waiting r-3")
	ask(2)
	p.FailNext(problem.New(problem.Unavailable, "leadership was lost", "Try again."))
	if n := commands() + commands(); n != 1 || len(p.news("bob")) != 3 {
		t.Errorf("what failed is tried again at once: %d commands", n)
	}
	p.now = p.now.Add(time.Minute)
	if n := commands(); n != 2 || len(p.news("bob")) != 5 {
		t.Errorf("after a failure two notices took %d commands, and bob has %q", n, p.news("bob"))
	}
}
