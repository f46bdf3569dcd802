package cli

import (
	"strings"
	"testing"
)

func TestAMoveSaysWhatIsKeptByTheFormerOrganizationAndHowToEndIt(t *testing.T) {
	d := newDesk(t)
	d.Roles()
	for _, line := range []string{
		"organization create bureau", "organization create other", "user create jung --organization bureau", "group create club", "group add club jung",
		"role-binding create user --user jung --organization bureau --reason work", "role-binding create reviewer --user jung --organization other --reason work",
	} {
		d.must(line)
	}
	r := d.naru("user update jung --organization other")
	if r.code != 0 || !strings.Contains(r.err, "jung keeps by the former organization:\n  role-binding user in organization bureau (") || !strings.Contains(r.err, "naru group remove GROUP jung") || strings.Contains(r.err, "club") {
		t.Errorf("%d\n%s\n%s", r.code, r.out, r.err)
	}
	if r := d.naru("user update jung --title 정 --drop-rights"); r.code == 0 || !strings.Contains(r.err, "they stay in other") {
		t.Errorf("%d\n%s\n%s", r.code, r.out, r.err)
	}
	r = d.naru("user update jung --organization bureau --drop-rights")
	if r.code != 0 || !strings.Contains(r.err, "jung no longer has by the former organization:\n  role-binding reviewer in organization other (") || strings.Contains(r.err, "keeps") {
		t.Errorf("%d\n%s\n%s", r.code, r.out, r.err)
	}
	if got := d.must("role-binding list --filter user=jung -o name"); strings.Count(got, "\n") != 1 {
		t.Errorf("jung has\n%s", got)
	}
}

// TestWhatEndsWithAUserIsSaid on standard error, so that whoever needs it gets another; and nothing where nothing ended.
func TestWhatEndsWithAUserIsSaid(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"bot", "other"} {
		d.must("user create " + name + " --kind service")
	}
	d.must("token create of-bot --user bot")
	d.must("token create of-other --user other")
	r := d.naru("user disable bot --reason gone")
	if r.code != 0 || !strings.Contains(r.out, "disabled") || !strings.Contains(r.err, "ended 1") || !strings.Contains(r.err, "access-token of-bot") || strings.Contains(r.out, "of-bot") {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
	if r := d.naru("user delete bot"); r.code != 0 || r.err != "" {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	if r := d.naru("user delete other"); r.code != 0 || !strings.Contains(r.err, "access-token of-other") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}
