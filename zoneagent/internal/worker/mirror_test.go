package worker

import (
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// What comes down the link moves the cursor each time; what it costs here must not grow with the VMs there are.
func TestOnlyWhatChangesForAllVMsHasAllLookedAt(t *testing.T) {
	fleet, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Agent: "agent-1", Drivers: map[string]hypervisor.Driver{"sim": fleet}, Images: bitsStore{}})
	if err != nil {
		t.Fatal(err)
	}
	term := w.NewTerm("kvm", nil, nil, nil)
	cursor := func(c *zonev1.Cursor, revision uint64) etcdstore.Change {
		c.Point = &linkv1.StateAckPoint{Epoch: c.GetPoint().GetEpoch(), Revision: revision}
		return etcdstore.Change{Space: etcdstore.Cursor, Message: c, Revision: int64(revision)}
	}
	wanted := func(id string) etcdstore.Change {
		return etcdstore.Change{Space: etcdstore.Desired, Kind: "vm", ID: id, Message: &apiv1.VM{Id: id, ClusterId: "kvm"}}
	}
	term.applyBatch(etcdstore.Batch{Reset: true, Changes: []etcdstore.Change{
		wanted("vm-1"), wanted("vm-2"), cursor(&zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: 1}}, 5)}})
	for _, c := range []struct {
		what string
		told []etcdstore.Change
		due  int
	}{
		{"one VM and the cursor behind it", []etcdstore.Change{wanted("vm-1"), cursor(&zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: 1}}, 6)}, 1},
		{"another cluster's VM is seen", []etcdstore.Change{{Space: etcdstore.Observed, Kind: "vm", ID: "x", Message: &apiv1.VM{Id: "x", HostId: "h"}, Revision: 7}}, 0},
		{"a full sync begins", []etcdstore.Change{cursor(&zonev1.Cursor{Syncing: true, Point: &linkv1.StateAckPoint{Epoch: 1}}, 8)}, 0},
		{"it ends", []etcdstore.Change{cursor(&zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: 1}}, 9)}, 3},
		{"another epoch", []etcdstore.Change{cursor(&zonev1.Cursor{Point: &linkv1.StateAckPoint{Epoch: 2}}, 10)}, 3},
	} {
		clear(term.due)
		term.applyBatch(etcdstore.Batch{Changes: c.told})
		if len(term.due) != c.due {
			t.Errorf("%s: %d are looked at, want %d", c.what, len(term.due), c.due)
		}
	}
}
