package cli

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
)

func TestAZonesPolicyIsChangedByWhatTheFlagsName(t *testing.T) {
	d := newDesk(t)
	for _, step := range []struct{ flags, out, in, methods string }{
		{"", "usual", "usual", "all"},
		{"--lets-out open=names+figures --lets-out any=all", "open=names+figures any=names+addresses+figures", "usual", "all"},
		{"--lets-in classified=nothing", "open=names+figures any=names+addresses+figures", "classified=nothing", "all"},
		{"--methods VMService/*,ZoneService/ListZones", "open=names+figures any=names+addresses+figures", "classified=nothing", "VMService/*,ZoneService/ListZones"},
		{"--lets-out usual --methods all", "usual", "classified=nothing", "all"},
	} {
		d.must("zone policy business " + step.flags)
		got := d.must("zone policy business")
		row := strings.Join(strings.Fields(strings.Split(got, "\n")[1]), " ")
		if want := "business open " + step.out + " " + step.in + " " + step.methods; row != want {
			t.Errorf("after %q: %q, not %q", step.flags, row, want)
		}
	}
	for flags, says := range map[string]string{
		"--lets-out open":                           "takes GRADE=WHAT",
		"--lets-out secret=names":                   "takes GRADE=WHAT",
		"--lets-in open=passwords":                  "does not cross",
		"--lets-in any=names --lets-in any=nothing": "twice",
		"--methods everything":                      "takes methods as the API names them",
		"--methods VMService/*,Foo/*":               "there is no method Foo/*",
	} {
		if r := d.naru("zone policy business " + flags); r.code != problem.ExitUsage || !strings.Contains(r.err, says) {
			t.Errorf("%s: exit %d, %s", flags, r.code, r.err)
		}
	}
}
