package controlplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestALinkCertificateLivesADayAndLessWhereTheConfigurationSaysSo(t *testing.T) {
	for said, want := range map[string]struct {
		life    time.Duration
		refusal string
	}{
		"":                    {24 * time.Hour, ""},
		"link_lifetime: 1h":   {time.Hour, ""},
		"link_lifetime: 10s":  {10 * time.Second, ""},
		"link_lifetime: 25h":  {0, `key "link_lifetime": 25h0m0s is no life of a link certificate; choose one from 10s to 24h0m0s`},
		"link_lifetime: 9s":   {0, "choose one from 10s"},
		"link_lifetime: 0s":   {0, "choose one from 10s"},
		"link_lifetime: soon": {0, "link_lifetime"},
	} {
		path := filepath.Join(t.TempDir(), "controlplane.yaml")
		text := "name: cp-1\ndata: /nowhere\napi: {address: \"127.0.0.1:1\"}\npeer: {address: \"127.0.0.1:2\"}\n" + said + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(path)
		switch {
		case want.refusal != "":
			if err == nil || !strings.Contains(err.Error(), want.refusal) {
				t.Errorf("%q: %v", said, err)
			}
		case err != nil || c.LinkLifetime != want.life:
			t.Errorf("%q: %v, %v", said, c, err)
		}
	}
}

func TestDirectoriesAreAskedAsOftenAsIsSaidWithinBounds(t *testing.T) {
	for said, want := range map[string]struct {
		every   time.Duration
		refusal string
	}{
		"":                                    {2 * time.Minute, ""},
		"identity_providers: {allow: []}":     {2 * time.Minute, ""},
		"identity_providers: {ask_every: 1s}": {time.Second, ""},
		"identity_providers: {ask_every: 0s}": {0, `key "identity_providers.ask_every": 0s lies between two rounds; choose from 1s to 1h`},
		"identity_providers: {ask_every: 2h}": {0, "choose from 1s to 1h"},
	} {
		path := filepath.Join(t.TempDir(), "controlplane.yaml")
		text := "name: cp-1\ndata: /nowhere\napi: {address: \"127.0.0.1:1\"}\npeer: {address: \"127.0.0.1:2\"}\n" + said + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		switch c, err := LoadConfig(path); {
		case want.refusal == "" && (err != nil || c.IdentityProviders.AskEvery != want.every):
			t.Errorf("%q: %v, %v", said, c, err)
		case want.refusal != "" && (err == nil || !strings.Contains(err.Error(), want.refusal)):
			t.Errorf("%q: %v", said, err)
		}
	}
}
