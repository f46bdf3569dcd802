package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const pin = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "broker.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func settings(t *testing.T, more string) string {
	t.Helper()
	return fmt.Sprintf("state_dir: %s\ntrust_pin: %s\nzone_listen: 127.0.0.1:0\nhub_listen: 127.0.0.2:0\n%s", t.TempDir(), pin, more)
}

func TestWhatIsWrongIsSaidWithTheWayOut(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		args []string
		exit int
		say  string
	}{
		"an unknown flag":          {[]string{"--colour"}, 2, "colour"},
		"a word too many":          {[]string{"start"}, 2, `"start"`},
		"no configuration":         {[]string{"--config", "/nonexistent/x.yaml"}, 2, "/nonexistent/x.yaml"},
		"an unknown key":           {[]string{"--config", write(t, settings(t, "zone_listens: x\n"))}, 2, "zone_listens"},
		"a missing key":            {[]string{"--config", write(t, "state_dir: x\n")}, 1, "trust_pin"},
		"a port that is taken":     {[]string{"--config", write(t, settings(t, "admin_listen: "+taken.Addr().String()+"\n"))}, 1, taken.Addr().String()},
		"a limit that is no limit": {[]string{"--config", write(t, settings(t, "limits: {connections: 0}\n"))}, 1, "limits.connections"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), c.args, &stdout, &stderr); got != c.exit || !strings.Contains(stderr.String(), c.say) {
				t.Errorf("exit %d, said %q", got, stderr.String())
			}
			if stdout.Len() > 0 {
				t.Errorf("on stdout: %q", stdout.String())
			}
		})
	}
}

func TestTheFingerprintIsPrintedAndStays(t *testing.T) {
	path := write(t, settings(t, ""))
	var prints []string
	for range 2 {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), []string{"--config", path, "--fingerprint"}, &stdout, &stderr); got != 0 {
			t.Fatalf("exit %d: %s", got, stderr.String())
		}
		prints = append(prints, stdout.String())
	}
	if prints[0] != prints[1] || !regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}\n$`).MatchString(prints[0]) {
		t.Errorf("printed %q", prints)
	}
}

func TestABrokerThatIsToldToEndEndsWell(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	var stdout, stderr bytes.Buffer
	if got := run(ctx, []string{"--config", write(t, settings(t, "")), "--debug"}, &stdout, &stderr); got != 0 {
		t.Errorf("exit %d: %s", got, stderr.String())
	}
	for _, say := range []string{"broker listens", "waiting to be enrolled", "SHA256:", "broker ended"} {
		if !strings.Contains(stderr.String(), say) {
			t.Errorf("the log lacks %q:\n%s", say, stderr.String())
		}
	}
}
