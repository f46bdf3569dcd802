package cli

import (
	"fmt"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// refusals writes why no host of any of several clusters takes a VM: a reason a line.
func (a *app) refusals(clusters []*apiv1.ClusterRefusal) {
	t := &table{to: a.err, indent: "  ", heads: []string{"CLUSTER", "HOSTS", "WHY_NOT", "NEAREST"}, cut: []bool{false, false, true, true}}
	for _, c := range clusters {
		name, hosts := cell{text: c.GetCluster()}, cell{text: fmt.Sprint(c.GetHosts())}
		switch {
		case c.GetHosts() == 0:
			t.add(name, hosts, cell{text: "it has no hosts"}, cell{})
			continue
		case c.GetCordoned():
			t.add(name, hosts, cell{text: "the cluster is cordoned"}, cell{})
			continue
		}
		for i, r := range c.GetReasons() {
			if i > 0 {
				name, hosts = cell{text: " "}, cell{text: " "}
			}
			t.add(name, hosts, cell{text: fmt.Sprintf("%d %s", r.GetHosts(), r.GetReason())}, cell{text: r.GetNearest()})
		}
	}
	t.flush()
}
