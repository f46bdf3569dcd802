package cli

import (
	"strings"
	"testing"
)

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
