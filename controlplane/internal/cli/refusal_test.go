package cli

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
)

func TestARefusalOfSeveralClustersIsATable(t *testing.T) {
	d := newDesk(t)
	d.must("cluster create empty --zone business --hypervisor sim")
	d.must("cluster create shut --zone business --hypervisor sim")
	d.must("host create shut-1 --zone business --cluster shut --endpoint sim://")
	d.must("cluster cordon shut --zone business")
	d.must("host cordon kvm-2 --zone business")
	d.Settle()
	r := d.naru("vm create v --project web --image tiny --flavor huge --zone business")
	if r.code != problem.ExitRefused {
		t.Fatalf("%+v", r)
	}
	want := []string{
		"naru: No host fits this VM",
		"CLUSTER HOSTS WHY_NOT NEAREST",
		"empty 0 it has no hosts -",
		"kvm 2 1 is cordoned -",
		"1 lacks cores and memory kvm-1 has 8 cores and 32768 MiB free, 64 cores and 1048576 MiB asked",
		"shut 1 the cluster is cordoned -",
	}
	var got []string
	for line := range strings.Lines(r.err) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	for i, w := range want {
		if i >= len(got) || got[i] != w {
			t.Fatalf("line %d is not %q:\n%s", i+1, w, r.err)
		}
	}
	if strings.Contains(r.err, "looked at") || !strings.Contains(r.err, "Choose a smaller flavor") {
		t.Errorf("%s", r.err)
	}
}
