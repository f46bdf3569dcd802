package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keepsQuiet looks for what was typed, and for the tokens that were used, in the logs of everything that runs: servers, the agents of
// zones, through whose edges it went, and the brokers that carried it.
func (s *standing) keepsQuiet(t *testing.T, secrets ...string) {
	t.Helper()
	logs, err := filepath.Glob(s.path("log", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	looked := map[string]bool{}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		for _, kind := range []string{"controlplane", "agent", "broker"} {
			looked[kind] = looked[kind] || strings.Contains(name, kind) && len(text) > 0
		}
		for _, secret := range append(secrets, s.secrets...) {
			if secret == "" {
				t.Error("there is no secret to look for")
			} else if bytes.Contains(text, []byte(secret)) {
				t.Errorf("a secret is in the log %s", name)
			}
		}
	}
	for _, kind := range []string{"controlplane", "agent", "broker"} {
		if !looked[kind] {
			t.Errorf("no %s has written a log: %v", kind, logs)
		}
	}
}
