package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestPeopleLogInOnARealSite, where one server leads.
func TestPeopleLogInOnARealSite(t *testing.T) {
	s := raise(t, "--without-libvirt", "--servers", "1")
	for _, network := range []string{"internet", "business"} { // people have no token
		path := s.path("cli", network+".yaml")
		s.naru(t, network, "vm", "list", "--project", "web")
		config, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.secrets = append(s.secrets, string(regexp.MustCompile(`(?m)^token:\s*(\S+)`).FindSubmatch(config)[1]))
		if err := os.WriteFile(path, regexp.MustCompile("(?m)^token:.*\n").ReplaceAll(config, nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("with a password of Naru's, at an edge", func(t *testing.T) { byPassword(t, s) })
	t.Run("with a directory's, at an edge and in the centre, until they leave", func(t *testing.T) { byDirectory(t, s) })
}

// byPassword: somebody logs in with the password for one login, chooses their own, acts at that edge and at no other, and logs out.
func byPassword(t *testing.T, s *standing) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	s.naru(t, "control", "user", "create", "han")
	once := strings.TrimSpace(s.naru(t, "control", "user", "reset-password", "han"))
	s.naru(t, "control", "role-binding", "create", "user", "--user", "han", "--project", "web")
	types := func(answers []string, args ...string) string {
		t.Helper()
		cmd := s.command(t.Context(), "internet", args...)
		cmd.Stdin = strings.NewReader(strings.Join(answers, "\n") + "\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	const own, next = "correct horse battery staple", "another horse battery staple"
	if told := types([]string{once, own, own}, "login", "han"); !strings.Contains(told, "You are logged in as han at zone internet") {
		t.Errorf("%s", told)
	}
	if told := s.naru(t, "internet", "whoami"); told != "user han, at zone internet\n" {
		t.Errorf("whoami says %q", told)
	}
	if told := s.naru(t, "internet", "vm", "list", "--project", "web"); !strings.Contains(told, "web-1") {
		t.Errorf("han sees %s", told)
	}
	types([]string{own, next, next}, "passwd")
	if told, err := s.command(t.Context(), "business", "whoami").CombinedOutput(); err == nil {
		t.Errorf("the session counts at another zone's edge: %s", told)
	}
	s.naru(t, "internet", "logout")
	if told, err := s.command(t.Context(), "internet", "whoami").CombinedOutput(); err == nil {
		t.Errorf("after logout: %s", told)
	}
	s.keepsQuiet(t, once, own, next)
	sessions, err := s.admin.Sessions.ListSessions(t.Context(), &apiv1.ListSessionsRequest{User: "han"})
	if err != nil || len(sessions.GetSessions()) != 0 {
		t.Errorf("sessions are left: %v, %v", sessions, err)
	}
}
