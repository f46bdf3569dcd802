package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/problem"
)

func TestARefusalSpeaksOfFlagsArgumentsAndCommands(t *testing.T) {
	d := newDesk(t)
	d.write("nobody.yaml", strings.ReplaceAll(string(d.read("web.yaml")), "token: ", "# token: "))
	for line, says := range map[string][]string{
		"vm create Web --project web --zone business --image tiny --flavor s1":                    {"  NAME: takes 1 to 63"},
		"vm create web --project web --zone business --image tiny --flavor s1 --ssh-key nonsense": {"  --ssh-key: "},
		"vm create web --project web --zone business --cluster kvm --image tiny --flavor huge":    {"  --cluster: cluster kvm has no host"},
		"vm create web --project web --zone nowhere --image tiny --flavor s1":                     {"there is no zone nowhere"},
		"host create h --zone business --cluster kvm":                                             {"  --endpoint: "},
		"host create h --zone business --cluster kvm --endpoint sim:// --cores 4000000000":        {"  --cores: "},
		"flavor create s9":                                      {"  --memory-mib: "},
		"vm list --filter color=red":                            {"  --filter: there is no column"},
		"zone token business --lifetime 9999h":                  {"  --lifetime: "},
		"role-binding create user --user kim --lifetime -1h":    {"--lifetime", "longer than nothing"},
		"role-binding create user --user kim --lifetime 0":      {"--lifetime", "longer than nothing"},
		"role create r1 --permissions foo.bar":                  {"The nouns are access-token, "},
		"role create r1 --permissions flavor.fly":               {"There are flavor.create, "},
		"server list --context web":                             {"Not allowed"},
		"vm list --context nobody":                              {"Log in: naru login.", "token or token_file"},
		"zone create UPPER":                                     {"  NAME: takes"},
		"operation resolve none --as fail --reason because":     {"there is no operation none"},
		"broker create b --hub-address x:1 --fingerprint wrong": {"  --fingerprint: takes a fingerprint"},
	} {
		r := d.naru(line)
		if r.code == 0 {
			t.Errorf("naru %s is not refused", line)
		}
		for _, words := range says {
			if !strings.Contains(r.err, words) {
				t.Errorf("naru %s does not say %q:\n%s", line, words, r.err)
			}
		}
		for _, foreign := range []string{"vm.", "host.", " zone:", "order_by", "Bearer", "ListServers"} {
			if strings.Contains(r.err, foreign) {
				t.Errorf("naru %s speaks the API's language (%q):\n%s", line, foreign, r.err)
			}
		}
	}
}

func TestAMethodIsCalledByItsCommand(t *testing.T) {
	var out strings.Builder
	a := &app{err: &screen{w: &out}}
	root := &cobra.Command{Use: "naru"}
	server, list := &cobra.Command{Use: "server"}, &cobra.Command{Use: "list"}
	root.AddCommand(server)
	server.AddCommand(list)
	a.command = list
	a.explain(problem.New(problem.Forbidden, "ListServers cannot be called at a zone's edge", "Call it in the control network."))
	a.explain(problem.New(problem.Forbidden, "/naru.api.v1.ServerService/ListServers cannot be called from a zone", ""))
	a.explain(problem.New(problem.Forbidden, "The Broker is no method", ""))
	if got := strings.Count(out.String(), "naru server list cannot be called"); got != 2 || !strings.Contains(out.String(), "The Broker is no method") {
		t.Errorf("%s", out.String())
	}
}

// TestAFieldOfOneOfManyIsNamedWithWhereItStands: a file has many stages, and each its own name.
func TestAFieldOfOneOfManyIsNamedWithWhereItStands(t *testing.T) {
	a := &app{command: &cobra.Command{Use: "create NAME"}}
	a.command.Flags().String("ssh-key", "", "")
	for field, want := range map[string]string{
		"approval_policy.stages[1].needed": "stages[1].needed", "stages[0].name": "stages[0].name", "approval_policy.name": "NAME", "vm.ssh_keys[2]": "--ssh-key",
	} {
		if got := a.inField(field); got != want {
			t.Errorf("%s is called %s, not %s", field, got, want)
		}
	}
}

// TestAFieldOfWhatIsAskedForIsNamedByTheFlagThatSaysIt where another field of the same name has a flag of its own.
func TestAFieldOfWhatIsAskedForIsNamedByTheFlagThatSaysIt(t *testing.T) {
	a := &app{}
	a.command = a.createRequest()
	for field, want := range map[string]string{
		"specification.snapshot.name": "--snapshot", "specification.restore.snapshot": "--restore", "specification.access_for_time.role": "--access",
		"specification.create.name_pattern": "--name", "specification.power.vm": "--vm", "desired_start": "--start", "decide_by": "--decide-by",
	} {
		if got := a.inField("request." + field); got != want {
			t.Errorf("%s is called %s, not %s", field, got, want)
		}
	}
}
