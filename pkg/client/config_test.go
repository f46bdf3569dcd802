package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// file writes a configuration and returns its path; no variable of the machine's own counts.
func file(t *testing.T, text string) string {
	t.Helper()
	for _, name := range []string{"NARU_SERVER", "NARU_TOKEN", "NARU_PROJECT", "NARU_ZONE", "NARU_CA_FILE"} {
		t.Setenv(name, "")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesAreLookedUpBesideTheConfiguration(t *testing.T) {
	path := file(t, "server: https://naru.test:8443\nca_file: ca.pem\ntoken_file: /etc/naru/token\n")
	c, err := LoadConfig(path)
	if err != nil || c.CAFile != filepath.Join(filepath.Dir(path), "ca.pem") || c.TokenFile != "/etc/naru/token" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestAVariableGoesBeforeTheFile(t *testing.T) {
	path := file(t, "server: https://naru.test:8443\nproject: web\ntoken: old\n")
	t.Setenv("NARU_SERVER", "https://other.test:1")
	t.Setenv("NARU_PROJECT", "db")
	t.Setenv("NARU_ZONE", "business")
	t.Setenv("NARU_TOKEN", "new")
	t.Setenv("NARU_CA_FILE", "here.pem")
	c, err := LoadConfig(path)
	if err != nil || c.Server != "https://other.test:1" || c.Project != "db" || c.Zone != "business" || c.Token != "new" || c.CAFile != "here.pem" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestVariablesAloneWillDo(t *testing.T) {
	path := file(t, "")
	t.Setenv("NARU_SERVER", "https://other.test:1")
	if c, err := LoadConfig(path + ".not"); err != nil || c.Server != "https://other.test:1" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestAConfigurationThatCannotServeSaysWhy(t *testing.T) {
	for text, says := range map[string]string{
		"":                                "config.yaml names no server",
		"servers: https://naru.test\n":    `unknown key "servers"`,
		"server: http://naru.test\n":      "https://HOST:PORT",
		"server: naru.test:8443\n":        "https://HOST:PORT",
		"server: https://a.test,b.test\n": "https://HOST:PORT",
		"server: https://naru.test/v1\n":  "https://HOST:PORT",
		"server: https://naru.test\nca_file: none.pem\n":             "ca_file",
		"server: https://naru.test\nca_file: config.yaml\n":          "holds no certificate",
		"server: https://naru.test\ntoken_file: none\n":              "token_file",
		"server: https://naru.test\ncertificate_file: config.yaml\n": "certificate_file",
	} {
		c, err := LoadConfig(file(t, text))
		if err == nil {
			_, err = New(c)
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSeveralServersAreSeveralAddresses(t *testing.T) {
	c := &Config{Server: "https://a.test:8443, https://b.test,https://[::1]:9"}
	got, err := c.servers()
	if err != nil || len(got) != 3 || got[0].Addr != "a.test:8443" || got[1].Addr != "b.test:443" || got[2].Addr != "[::1]:9" || got[1].ServerName != "b.test" || got[2].ServerName != "::1" {
		t.Fatalf("%v, %v", got, err)
	}
}
