package cli

import (
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// inTheLanguage has whoever types read a language, as their environment says.
func inTheLanguage(t *testing.T, lang string) {
	t.Helper()
	t.Setenv("LC_ALL", "")
	t.Setenv("LC_MESSAGES", "")
	t.Setenv("LANG", lang)
}

func TestATextIsShownInTheReadersLanguageOrElseAsItWasWritten(t *testing.T) {
	both, korean, english := &apiv1.Text{Ko: "웹 서버", En: "Web server"}, &apiv1.Text{Ko: "웹 서버"}, &apiv1.Text{En: "Web server"}
	for lang, want := range map[string]string{"ko_KR.UTF-8": "웹 서버", "ko": "웹 서버", "en_US.UTF-8": "Web server", "C": "Web server", "": "Web server", "de_DE.UTF-8": "Web server"} {
		inTheLanguage(t, lang)
		if got := inLanguage(both); got != want {
			t.Errorf("%q reads %q", lang, got)
		}
		if inLanguage(korean) != "웹 서버" || inLanguage(english) != "Web server" || inLanguage(nil) != "" {
			t.Errorf("%q does not read what is in one language", lang)
		}
	}
	inTheLanguage(t, "en_US.UTF-8")
	t.Setenv("LC_ALL", "ko_KR.UTF-8")
	if got := inLanguage(both); got != "웹 서버" {
		t.Errorf("LC_ALL does not go before: %q", got)
	}
}

// TestTitlesAreInTheReadersLanguage wherever the catalogue is shown: in its list, in what is shown of one, and to who
// approves.
func TestTitlesAreInTheReadersLanguage(t *testing.T) {
	d := counter(t)
	d.must(asks)
	for lang, words := range map[string][2]string{"ko_KR.UTF-8": {"웹 서버", "서버 이름: shop"}, "en_US.UTF-8": {"Web server", "Host name: shop"}} {
		inTheLanguage(t, lang)
		other := map[string]string{"웹 서버": "Web server", "Web server": "웹 서버"}[words[0]]
		for _, line := range []string{"catalog list --context ann", "catalog show web-server --context ann"} {
			if got := d.must(line); !strings.Contains(got, words[0]) || strings.Contains(got, other) {
				t.Errorf("%s: %s shows\n%s", lang, line, got)
			}
		}
		if got := d.must("catalog show web-server -o json"); !strings.Contains(got, words[0]) || !strings.Contains(got, other) {
			t.Errorf("%s: of all that there is a part is shown:\n%s", lang, got)
		}
		r := naru(t.Context(), "approve r-1 --context bob", "n\n")
		if !strings.Contains(r.err, "web-server ("+words[0]+")") || !strings.Contains(r.err, words[1]) || strings.Contains(r.err, other) {
			t.Errorf("%s: an approver is shown\n%s", lang, r.err)
		}
	}
}
