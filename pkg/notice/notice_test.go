package notice_test

import (
	"os"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/notice"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func about(topic, name string, parameters ...string) *apiv1.Notification {
	n := &apiv1.Notification{Topic: topic, About: &apiv1.Reference{Kind: "request", Id: "1", Name: name}}
	for i := 0; i < len(parameters); i += 2 {
		n.Parameters = append(n.Parameters, &apiv1.Notification_Parameter{Key: parameters[i], Value: parameters[i+1]})
	}
	return n
}

func TestEveryTopicIsSaidInBothLanguagesAndStandsInTheDocument(t *testing.T) {
	document, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range notice.Topics() {
		if !strings.Contains(string(document), "`"+topic+"`") {
			t.Errorf("docs/notifications.md does not name %s", topic)
		}
		said := map[string]bool{}
		for _, language := range []string{notice.English, notice.Korean} {
			sentence := notice.Sentence(language, about(topic, "r-1", "from", "kim", "until", "2026-12-31 09:00 UTC", "provider", "corp"))
			if sentence == "" || strings.ContainsAny(sentence, "{}") {
				t.Errorf("%s in %s: %q", topic, language, sentence)
			}
			said[sentence] = true
		}
		if len(said) != 2 {
			t.Errorf("%s is said alike in both languages", topic)
		}
	}
}

func TestATopicThatIsNotKnownIsShownAsItIs(t *testing.T) {
	if got := notice.Sentence(notice.Korean, about("lease.warned", "web-1")); got != "lease.warned web-1" {
		t.Error(got)
	}
}

func TestWhatMayNotBeSeenIsSaidToBeGone(t *testing.T) {
	if got := notice.Sentence(notice.English, &apiv1.Notification{Topic: "request.approved"}); got != "Something that you can no longer see (request.approved)" {
		t.Error(got)
	}
	if _, text := notice.Mail(notice.English, "naru.test", &apiv1.Notification{Topic: "request.approved"}); strings.Contains(text, "naru request show") {
		t.Error(text)
	}
}

func TestWhatStandsInABraceIsNotLookedAtAgain(t *testing.T) {
	if got := notice.Sentence(notice.English, about("delegation.created", "x", "from", "{about}{topic}\r\n\x1b[2J")); got != "You may decide in the place of {about}{topic}  [2J" {
		t.Errorf("%q", got)
	}
}

func TestTheLanguageIsTheReadersElseTheUsualOne(t *testing.T) {
	for _, c := range []struct{ tag, usual, want string }{
		{"ko", "en", "ko"}, {"ko_KR.UTF-8", "en", "ko"}, {"en-US", "ko", "en"}, {"", "ko", "ko"}, {"C.UTF-8", "ko", "ko"}, {"fr", "", "en"}, {"", "", "en"},
	} {
		if got := notice.Language(c.tag, c.usual); got != c.want {
			t.Errorf("of %q, usually %q: %s", c.tag, c.usual, got)
		}
	}
}

func TestATimeIsSaidAsPeopleReadIt(t *testing.T) {
	n := &apiv1.Notification{Topic: "lease.started", About: &apiv1.Reference{Name: "web-1"}, Parameters: []*apiv1.Notification_Parameter{{Key: "until", Value: "2027-02-21T00:29:00Z"}}}
	if got, want := notice.Sentence("en", n), "The lease of VM web-1 runs until 2027-02-21 00:29 UTC"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWhatNamesNoTopicIsFound(t *testing.T) {
	for named, want := range map[string]string{"request.*": "", "lease.started": "", "bogus.*": "bogus.*", "request.bogus": "request.bogus"} {
		if got := notice.Unknown([]string{"account.disabled", named}); got != want {
			t.Errorf("%s: %q", named, got)
		}
	}
	if notice.Within("request.waiting", []string{"lease.*"}) || !notice.Within("lease.started", []string{"lease.*"}) {
		t.Error("a topic is of another kind")
	}
}
