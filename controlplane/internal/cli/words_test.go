package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/problem"
)

func TestARefusalSpeaksOfFlagsArgumentsAndCommands(t *testing.T) {
	d := newDesk(t)
	d.write("nobody.yaml", strings.ReplaceAll(string(d.read("web.yaml")), "token: ", "# token: "))
	d.must("user create kim")
	d.must("role create viewer --permissions vm.read")
	for line, says := range map[string][]string{
		"user update kim --organization ''": {"  --organization: is required", "naru organization list"},
		"group add nobody kim":              {"there is no group nobody"},
		"vm create Web --project web --zone business --image tiny --flavor s1":                    {"  NAME: takes 1 to 63"},
		"vm create web --project web --zone business --image tiny --flavor s1 --ssh-key nonsense": {"  --ssh-key: "},
		"vm create web --project web --zone business --cluster kvm --image tiny --flavor huge":    {"  --cluster: cluster kvm has no host"},
		"vm create web --project web --zone nowhere --image tiny --flavor s1":                     {"there is no zone nowhere"},
		"host create h --zone business --cluster kvm":                                             {"  --endpoint: "},
		"host create h --zone business --cluster kvm --endpoint sim:// --cores 4000000000":        {"  --cores: "},
		"flavor create s9":                                                       {"  --memory-mib: "},
		"vm list --filter color=red":                                             {"  --filter: there is no column"},
		"zone token business --lifetime 9999h":                                   {"  --lifetime: "},
		"role-binding create user --user kim --lifetime -1h":                     {"--lifetime", "longer than nothing"},
		"role-binding create user --user kim --lifetime 0":                       {"--lifetime", "longer than nothing"},
		"role create r1 --permissions foo.bar":                                   {"The nouns are access-token, "},
		"role create r1 --permissions flavor.fly":                                {"There are flavor.create, "},
		"server list --context web":                                              {"Not allowed"},
		"vm list --context nobody":                                               {"Log in: naru login.", "token or token_file"},
		"zone create UPPER":                                                      {"  NAME: takes"},
		"operation resolve none --as fail --reason because":                      {"there is no operation none"},
		"zone policy business --methods Foo/*":                                   {"no method Foo/*", "VMService/ListVMs, VMService/*."},
		"vm resize web-1":                                                        {"--flavor is required"},
		"role-binding create nothing --user kim":                                 {"  ROLE: there is no role nothing"},
		"role-binding create viewer --user kim --zone nowhere":                   {"  --zone: "},
		"token create t --user web --lifetime 99999h":                            {"  --lifetime: "},
		"user create ann --email foo":                                            {"  --email: is no mail address"},
		"user create ann --title 'x\ny'":                                         {"  --title: takes one line"},
		"notification-channel create h --url http://h.example":                   {"  --url: begins with https://"},
		"notification-channel create h --url https://h.example --topics bogus.*": {"  --topics: there is no topic bogus.*"},
		"request create --power stop --resize --vm web-1":                        {"--power and --resize do not go together: give one of them"},
		"approve r-1 --external-approver hong":                                   {"--external-approver and --external-ref go together: give --external-ref too"},
		"broker create b --hub-address x:1 --fingerprint wrong":                  {"  --fingerprint: takes a fingerprint"},
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
	d := newDesk(t)
	d.write("policy.yaml", "stages: [{name: one, rule: PERCENT, needed: 200, eligible: {groups: [nope]}}]\nautomatic: {when: '1 +', reason: r, max_quantity: 1}")
	d.write("offering.yaml", "image: tiny\nflavors: [{flavor: s1, monthly_price: many}]\nlease: {longest_days: 3}")
	d.write("calendar.yaml", "time_zone: Asia/Seoul\nhours: [{weekday: 9, from: '09:00', to: '18:00'}]")
	in := filepath.Join(d.folder, "naru") + "/"
	for line, says := range map[string][]string{
		"approval-policy create p --file " + in + "policy.yaml": {"  stages[0].needed: is 1 to 100", "  automatic.when: "},
		"catalog create o --file " + in + "offering.yaml":       {"  flavors[0].monthly_price: "},
		"calendar create c --file " + in + "calendar.yaml":      {"  hours[0].weekday: "},
	} {
		r := d.naru(line)
		for _, words := range says {
			if r.code != problem.ExitUsage || !strings.Contains(r.err, words) {
				t.Errorf("naru %s does not say %q:\n%s", line, words, r.err)
			}
		}
	}
}

func TestAFlagThatIsCalledOtherwiseThanItsFieldIsNamed(t *testing.T) {
	a := &app{command: &cobra.Command{Use: "create --to USER --for TIME"}}
	for _, flag := range []string{"to", "for", "lifetime", "zone", "project", "snapshot", "name", "start"} {
		a.command.Flags().String(flag, "", "")
	}
	if err := a.command.Flags().Set("zone", "mars"); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"to_user": "--to", "delegation.ends_at": "--for", "access_token.expires_at": "--lifetime", "place": "--zone", "request.specification.snapshot.name": "--snapshot",
		"specification.create.name_pattern": "--name", "reason": "reason", "request.desired_start": "--start", "name": "--name",
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
