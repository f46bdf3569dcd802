package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestWhatIsToldGoesOutByMailAndByWebhookOnceEach(t *testing.T) {
	p := newPost(t)
	p.channel(mailChannel("mail"))
	p.channel(hook("desk", "request.*"))
	p.channel(hook("other", "account.*"))
	db := hook("db")
	db.Projects = []string{"db"}
	p.channel(db)
	here := hook("here")
	here.Organizations = []string{"default"}
	p.channel(here)
	p.address("bob", "cho")
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.send()
	var got []string
	for _, m := range p.Outbox.Sent() {
		got = append(got, fmt.Sprint(m.Notification.GetTopic(), " ", m.Address, " ", m.Recipients))
	}
	slices.Sort(got)
	want := []string{"request.submitted  []", "request.submitted  []", "request.waiting  [bob]", "request.waiting  [bob]", "request.waiting bob@example.org [bob]"}
	if !slices.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
	if all := p.deliveries("state!=DELIVERED"); len(all) > 0 {
		t.Errorf("%v", all)
	}
	p.send()
	if n := len(p.Outbox.Sent()); n != len(want) {
		t.Errorf("%d were sent, some of them twice", n)
	}
}

func TestAMailThatConcernsItsReaderNoLongerIsNotSent(t *testing.T) {
	p := newPost(t)
	p.channel(mailChannel("mail"))
	p.address("ann", "bob")
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.tell()
	if err := p.decide("bob", "r-1", apiv1.Decision_DENY, nil); err != nil {
		t.Fatal(err)
	}
	p.send()
	if sent := p.Outbox.Sent(); len(sent) != 1 || sent[0].Notification.GetTopic() != "request.rejected" || sent[0].Address != "ann@example.org" {
		t.Errorf("sent %v", sent)
	}
	if all := p.deliveries("state!=DELIVERED"); len(all) > 0 {
		t.Errorf("what concerns nobody any more is kept: %v", all)
	}
}

var errBusy = errors.New("451 come back later")

func TestWhatFailsIsTriedAgainLaterAndLaterAndThenGivenUp(t *testing.T) {
	p := newPost(t)
	p.channel(hook("desk", "request.submitted"))
	p.Outbox.Fail(func(context.Context, *apiv1.NotificationChannel, outbound.Message) error { return errBusy })
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	last := time.Duration(0)
	for tries := 1; ; tries++ {
		p.send()
		d := p.deliveries("")[0]
		if d.GetAttempts() != uint32(tries) || d.GetLastError() != errBusy.Error() {
			t.Fatalf("after %d tries: %v", tries, d)
		}
		if d.GetState() == apiv1.Delivery_DEAD {
			if tries != 16 {
				t.Errorf("given up after %d tries", tries)
			}
			break
		}
		pause := d.GetNextAttemptAt().AsTime().Sub(p.now)
		if pause < last || pause > 90*time.Minute {
			t.Errorf("after %d tries it waits %v, and before %v", tries, pause, last)
		}
		last = min(pause, time.Hour)
		p.send() // not before its time
		p.now = d.GetNextAttemptAt().AsTime().Add(time.Millisecond)
	}
	p.Outbox.Fail(nil)
	p.now = p.now.Add(time.Hour)
	p.send()
	if len(p.Outbox.Sent()) != 0 {
		t.Error("what was given up was sent")
	}
	id := p.deliveries("state=DEAD")[0].GetId()
	if _, err := p.Admin().Deliveries.RetryDelivery(t.Context(), &apiv1.RetryDeliveryRequest{Delivery: id}); err != nil {
		t.Fatal(err)
	}
	p.now = p.now.Add(time.Hour)
	p.send()
	if sent := p.Outbox.Sent(); len(sent) != 1 || sent[0].ID != id {
		t.Errorf("sent %v", sent)
	}
	if _, err := p.Admin().Deliveries.DropDelivery(t.Context(), &apiv1.DropDeliveryRequest{Delivery: id}); !problem.Is(err, problem.WrongState) {
		t.Errorf("what was delivered was dropped: %v", err)
	}
}

func TestWhatIsRefusedForGoodIsGivenUpAtOnceAndCanBeDropped(t *testing.T) {
	p := newPost(t)
	p.channel(hook("desk", "request.submitted"))
	p.Outbox.Fail(func(context.Context, *apiv1.NotificationChannel, outbound.Message) error {
		return &outbound.Permanent{Err: errors.New("550 no such person")}
	})
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	p.send()
	dead := p.deliveries("state=DEAD")
	if len(dead) != 1 || dead[0].GetAttempts() != 1 {
		t.Fatalf("%v", dead)
	}
	ch, err := p.Admin().NotificationChannels.GetNotificationChannel(t.Context(), &apiv1.GetNotificationChannelRequest{NotificationChannel: "desk"})
	if err != nil || ch.GetNotificationChannel().GetDead() != 1 {
		t.Errorf("%v: %v", ch, err)
	}
	if _, err := p.Admin().Deliveries.DropDelivery(t.Context(), &apiv1.DropDeliveryRequest{Delivery: dead[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	if all := p.deliveries(""); len(all) > 0 {
		t.Errorf("%v", all)
	}
}

// deaf lets a leader read, and do nothing that lasts: it has lost its term between sending and noting.
type deaf struct{}

func (deaf) Propose(context.Context, *commandv1.Command) (*commandv1.Result, error) {
	return nil, problem.New(problem.Unavailable, "leadership was lost", "Try again.")
}

func TestALeaderThatFallsBetweenSendingAndNotingLeavesADuplicateOfTheSameID(t *testing.T) {
	p := newPost(t)
	p.channel(hook("desk", "request.submitted"))
	if _, err := p.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	before := p.leader(deaf{})
	if err := before.Send(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.Wait()
	p.send()
	sent := p.Outbox.Sent()
	if len(sent) != 2 || sent[0].ID != sent[1].ID || len(p.deliveries("state=DELIVERED")) != 1 {
		t.Errorf("sent %v, noted %v", sent, p.deliveries(""))
	}
}

func TestAChannelThatHangsHoldsUpNoOther(t *testing.T) {
	p := newPost(t)
	p.channel(hook("dead"))
	p.channel(hook("alive"))
	release, hanging := make(chan struct{}), make(chan struct{}, 100)
	p.Outbox.Fail(func(_ context.Context, ch *apiv1.NotificationChannel, _ outbound.Message) error {
		if ch.GetName() == "dead" {
			hanging <- struct{}{}
			<-release
		}
		return nil
	})
	for range 6 { // more than are under way at once
		if _, err := p.submit("ann", ask()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	watch := p.DB.Watch("deliveries")
	defer watch.Close()
	go func() { ended <- p.notify.Run(ctx) }()
	for len(p.deliveries("channel=alive AND state=DELIVERED")) < 12 { // submitted and waiting of each
		select {
		case <-watch.C():
		case <-t.Context().Done():
			t.Fatal("the one that hangs holds up the other")
		}
	}
	if n := len(hanging); n != 4 {
		t.Errorf("%d are under way at once to the one that hangs", n)
	}
	cancel()
	close(release)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(p.deliveries("channel=dead AND state=WAITING")); n != 12 {
		t.Errorf("%d of 12 are left to the next leader", n)
	}
}

func TestASecretIsSealedReadByNobodyAndForgottenWhereItWouldGoElsewhere(t *testing.T) {
	const password = "correct horse battery staple"
	p := newPost(t)
	p.KeepLog = true
	ch := mailChannel("mail")
	ch.Mail.User = "naru"
	p.channel(ch)
	set := func(name, secret string, overlap time.Duration) (*apiv1.NotificationChannel, error) {
		r, err := p.Admin().NotificationChannels.SetNotificationChannelSecret(t.Context(), &apiv1.SetNotificationChannelSecretRequest{NotificationChannel: name, Secret: secret, Overlap: durationpb.New(overlap)})
		return r.GetNotificationChannel(), err
	}
	m, err := set("mail", password, 0)
	if err != nil || m.GetSecretSetAt() == nil || strings.Contains(m.String(), password) {
		t.Fatalf("%v: %v", m, err)
	}
	if bytes.Contains(p.RaftLog(), []byte(password)) {
		t.Error("the log has the password")
	}
	m.Mail.Server = "elsewhere.example.org:587"
	r, err := p.Admin().NotificationChannels.UpdateNotificationChannel(t.Context(), &apiv1.UpdateNotificationChannelRequest{NotificationChannel: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mail"}}})
	if err != nil || r.GetNotificationChannel().GetSecretSetAt() != nil {
		t.Errorf("the password would be shown to another server: %v: %v", r, err)
	}
	p.View(func(tx *state.Tx) error {
		if _, err := tx.ChannelSecrets(m.GetId()); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		return nil
	})
	p.channel(hook("desk"))
	if _, err := set("desk", "short", 0); !problem.Is(err, problem.Invalid) {
		t.Errorf("a short key: %v", err)
	}
	keys := func() (n int) {
		p.View(func(tx *state.Tx) error {
			ch, err := tx.NotificationChannels.ByName("desk", nil)
			if err != nil {
				return err
			}
			kept, err := tx.ChannelSecrets(ch.GetId())
			if err != nil {
				return err
			}
			all, err := outbound.Secrets(kept, p.Unseal, time.Now())
			n = len(all)
			return err
		})
		return n
	}
	for _, c := range []struct {
		overlap time.Duration
		keys    int
	}{{time.Hour, 1}, {time.Hour, 2}, {0, 1}} {
		if _, err := set("desk", "0123456789abcdef", c.overlap); err != nil {
			t.Fatal(err)
		}
		if got := keys(); got != c.keys {
			t.Errorf("%d keys count after an overlap of %v", got, c.overlap)
		}
	}
}

func TestAChannelThatCouldNeverSendIsRefused(t *testing.T) {
	p := newPost(t)
	both := hook("both")
	both.Mail = mailChannel("x").GetMail()
	certificate := hook("certificate")
	certificate.Webhook.Ca = "no PEM"
	nowhere := hook("nowhere")
	nowhere.Projects = []string{"none"}
	for name, m := range map[string]*apiv1.NotificationChannel{
		"neither": {Name: "neither"}, "both": both, "certificate": certificate, "plain": {Name: "plain", Webhook: &apiv1.Webhook{Url: "http://example.org/"}},
		"with a user": {Name: "user", Webhook: &apiv1.Webhook{Url: "https://kim:secret@example.org/"}}, "of no project": nowhere,
		"from nobody": {Name: "nobody", Mail: &apiv1.Mail{Server: "mail.example.org:25"}}, "of a topic that is none": hook("topic", "*"),
	} {
		_, err := p.Admin().NotificationChannels.CreateNotificationChannel(t.Context(), &apiv1.CreateNotificationChannelRequest{NotificationChannel: m})
		if !problem.Is(err, problem.Invalid) && !problem.Is(err, problem.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.As(p.users["ann"]).NotificationChannels.CreateNotificationChannel(t.Context(), &apiv1.CreateNotificationChannelRequest{NotificationChannel: hook("mine")}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("anybody makes one: %v", err)
	}
}

func TestTheTestOfAChannelSaysWhatCameOfIt(t *testing.T) {
	p := newPost(t)
	p.channel(mailChannel("mail"))
	p.address("ann")
	try := func(user string) error {
		_, err := p.Admin().NotificationChannels.TestNotificationChannel(t.Context(), &apiv1.TestNotificationChannelRequest{NotificationChannel: "mail", User: user})
		return err
	}
	if err := try("ann"); err != nil || len(p.Outbox.Sent()) != 1 || p.Outbox.Sent()[0].Address != "ann@example.org" {
		t.Errorf("%v: %v", p.Outbox.Sent(), err)
	}
	if err := try("bob"); !problem.Is(err, problem.Invalid) {
		t.Errorf("bob has no address: %v", err)
	}
	p.Outbox.Fail(func(context.Context, *apiv1.NotificationChannel, outbound.Message) error { return errBusy })
	if err := try("ann"); !problem.Is(err, problem.NotDelivered) || !strings.Contains(problem.Of(err).GetDetail(), "451") {
		t.Errorf("%v", err)
	}
}
