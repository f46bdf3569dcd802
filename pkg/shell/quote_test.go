package shell

import (
	"os/exec"
	"testing"
)

// TestAShellTakesAQuotedWordWhole, whatever is in it.
func TestAShellTakesAQuotedWordWhole(t *testing.T) {
	for word, want := range map[string]string{
		"kim": "kim", "uid=kim,ou=people": "uid=kim,ou=people", "r-1": "r-1", "a@b.c": "a@b.c",
		"": "''", "kim lee": "'kim lee'", "it's": `'it'\''s'`, "$(reboot)": "'$(reboot)'", "a;b": "'a;b'", "`x`": "'`x`'", "=ls": "'=ls'", "~root": "'~root'", "a\nb": "'a\nb'", "한글": "'한글'",
	} {
		got := Quote(word)
		if got != want {
			t.Errorf("%q is written %s", word, got)
		}
		out, err := exec.Command("sh", "-c", "printf %s "+got).Output()
		if err != nil || string(out) != word {
			t.Errorf("a shell takes %s for %q (%v)", got, out, err)
		}
	}
}
