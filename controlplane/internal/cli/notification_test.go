package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestWhatConcernsOneIsListedInOnesLanguageAndMarkedAsRead(t *testing.T) {
	d := newDesk(t)
	bob := d.User("bob", apiv1.User_PERSON)
	d.write("bob.yaml", strings.Replace(string(d.read("admin.yaml")), "token: admin", "token: "+servicetest.AsUser(bob), 1))
	for range 2 {
		d.Do(&commandv1.Command{Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: bob.GetId()}}})
	}
	d.Session(bob)
	t.Setenv("LC_ALL", "")
	t.Setenv("LC_MESSAGES", "")
	t.Setenv("LANG", "en_US.UTF-8")
	if got := d.must("notification list --context bob"); strings.Count(got, "All your sessions were ended") != 2 || !strings.Contains(got, "server-1") {
		t.Errorf("list:\n%s", got)
	}
	t.Setenv("LANG", "ko_KR.UTF-8")
	if got := d.must("notification list --context bob --unread"); strings.Count(got, "모든 세션이 종료되었습니다") != 2 {
		t.Errorf("in Korean:\n%s", got)
	}
	one := strings.Fields(d.must("notification list --context bob -o name"))[0]
	if r := d.naru("notification read " + one + " --context bob"); r.code != 0 || !strings.Contains(r.err, "Unread: 1.") {
		t.Errorf("read one: %+v", r)
	}
	if r := d.naru("notification read --all --context bob"); r.code != 0 || !strings.Contains(r.err, "Unread: 0.") {
		t.Errorf("read all: %+v", r)
	}
	if r := d.naru("notification list --unread --context bob"); r.code != 0 || r.out != "" {
		t.Errorf("nothing is left: %+v", r)
	}
	if r := d.naru("notification read --context bob"); r.code != problem.ExitUsage {
		t.Errorf("nothing is named: %+v", r)
	}
	if got := d.must("notification mute lease.* request.commented --context bob"); got != "lease.*\nrequest.commented\n" {
		t.Errorf("muted: %q", got)
	}
	if got := d.must("notification mute --context bob"); got != "lease.*\nrequest.commented\n" {
		t.Errorf("muted, asked for: %q", got)
	}
	if got := d.must("user show bob -o json"); strings.Contains(got, "lease.*") {
		t.Errorf("others read what bob has muted: %s", got)
	}
	for topic, words := range map[string]string{"bogus.*": "there is no topic bogus.*", "request.waiting": "request.waiting cannot be muted", "account.*": "account.* cannot be muted", "account.disabled": "account.disabled cannot be muted", "delegation.created": "delegation.created cannot be muted"} {
		if r := d.naru("notification mute " + topic + " --context bob"); r.code != problem.ExitUsage || !strings.Contains(r.err, words) {
			t.Errorf("%s: %+v", topic, r)
		}
	}
	if r := d.naru("notification mute --none --context bob"); r.code != 0 || r.out != "" || d.must("notification mute --context bob") != "" {
		t.Errorf("nothing is muted any more: %+v", r)
	}
	if r := d.naru("notification list"); r.code != problem.ExitNotAllowed {
		t.Errorf("as nobody: %+v", r)
	}
}

func TestAChannelIsMadeGivenASecretTestedChangedAndItsDeadLettersAreRetried(t *testing.T) {
	d := newDesk(t)
	d.must("notification-channel create desk --url https://desk.example.org/naru --topics request.*,account.* --projects web")
	d.must("notification-channel create mail --server mail.example.org:587 --from naru@example.org --user naru --language ko")
	if got := d.must("notification-channel secret desk --generate"); !strings.HasPrefix(got, "whsec_") {
		t.Errorf("%q", got)
	}
	if r := naru(t.Context(), "notification-channel secret mail", "open sesame\n"); r.code != 0 || r.out != "" || strings.Contains(r.err, "sesame") {
		t.Errorf("%+v", r)
	}
	if got := d.must("notification-channel list"); !strings.Contains(got, "desk") || !strings.Contains(got, "mail.example.org:587") || strings.Contains(got, "sesame") {
		t.Errorf("list:\n%s", got)
	}
	d.must("notification-channel test desk")
	if sent := d.Outbox.Sent(); len(sent) != 1 || sent[0].Notification.GetTopic() != "channel.test" {
		t.Errorf("%v", sent)
	}
	d.must("notification-channel update desk --topics account.* --projects ''")
	if got := d.must("notification-channel show desk -o json"); !strings.Contains(got, `"account.*"`) || strings.Contains(got, "request.*") || !strings.Contains(got, "https://desk.example.org/naru") || strings.Contains(got, `"web"`) {
		t.Errorf("changed:\n%s", got)
	}
	d.must("notification-channel update mail --server other.example.org:587")
	if got := d.must("notification-channel show mail -o json"); !strings.Contains(got, "other.example.org") || !strings.Contains(got, `"naru@example.org"`) || strings.Contains(got, "secret_set_at") {
		t.Errorf("changed:\n%s", got)
	}
	for line, want := range map[string]string{
		"notification-channel update desk":                                   "nothing to change",
		"notification-channel update desk --server x:1":                      "mail or a webhook for ever",
		"notification-channel create x":                                      "server",
		"notification-channel create x --server m.example.org:1 --from none": "email",
	} {
		if r := d.naru(line); r.code != problem.ExitUsage || !strings.Contains(r.err, want) {
			t.Errorf("naru %s: %+v", line, r)
		}
	}
	d.Outbox.Fail(func(context.Context, *apiv1.NotificationChannel, outbound.Message) error {
		return context.DeadlineExceeded
	})
	if r := d.naru("notification-channel test desk"); r.code != problem.ExitRefused || !strings.Contains(r.err, "could not be delivered") {
		t.Errorf("%+v", r)
	}
	bob := d.User("bob", apiv1.User_PERSON)
	for range 2 {
		d.Do(&commandv1.Command{Body: &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: bob.GetId()}}})
	}
	ids := strings.Fields(d.must("delivery list -o name"))
	for _, id := range ids {
		d.Do(&commandv1.Command{Body: &commandv1.Command_SettleDelivery{SettleDelivery: &commandv1.SettleDelivery{DeliveryId: id, State: apiv1.Delivery_DEAD, Error: "410"}}})
	}
	if got := strings.Fields(d.must("delivery list --dead -o name")); len(got) != 2 {
		t.Fatalf("dead: %v", got)
	}
	d.must("delivery retry " + ids[0])
	d.must("delivery drop " + ids[1])
	if got := d.must("delivery list"); !strings.Contains(got, "waiting") || strings.Contains(got, "dead") || !strings.Contains(got, "account.sessions-revoked") {
		t.Errorf("list:\n%s", got)
	}
	d.must("notification-channel delete desk mail")
	if r := d.naru("delivery list -o name"); r.out != "" {
		t.Errorf("%+v", r)
	}
}
