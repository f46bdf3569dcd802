package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// zoneRestored restores the management zone's etcd from a backup, as docs/operations.md has it. A new incarnation begins;
// what has happened since the backup stands: VMs that it does not know run on, and those that it knows and that are gone
// do not come back.
func zoneRestored(t *testing.T, s *standing) {
	const zone, agent = "management", "agent-management"
	create := func(name string) {
		s.naru(t, "internet", "vm", "create", name, "--image", "tiny", "--flavor", "s1", "--zone", zone, "--cluster", "management", "--wait")
	}
	for _, name := range []string{"old-runs", "old-stopped", "old-deleted"} {
		create(name)
	}
	deleted := s.vm(t, "old-deleted", "runs", running)
	was := s.zone(t, zone, "is online", online)
	backup := filepath.Join(t.TempDir(), "zone.backup")
	s.at(t, agent, "naru-zoneagent", "backup", backup)

	create("new-runs")
	s.naru(t, "internet", "vm", "delete", "old-deleted", "--wait")
	s.naru(t, "internet", "vm", "stop", "old-stopped", "--wait")
	before := s.machines(t, zone)

	s.dev(t, "kill", agent)
	if err := os.Rename(s.path("data", agent, "store", "etcd"), s.path("data", agent, "lost")); err != nil {
		t.Fatal(err)
	}
	s.at(t, agent, "naru-zoneagent", "restore", "--backup", backup)
	s.dev(t, "start", agent)
	s.event(t, "type=zone.incarnation AND zone="+zone)
	s.zone(t, zone, "is online in a new incarnation", func(z *apiv1.Zone) bool { return online(z) && z.GetIncarnation() != was.GetIncarnation() })

	create("after-runs") // the zone goes on
	s.exactlyOne(t, zone, "after-runs")
	for _, name := range []string{"old-runs", "new-runs"} {
		vm := s.vm(t, name, "runs", running)
		if now := s.machines(t, zone)[vm.GetId()]; !sameMachines(now, before[vm.GetId()]) {
			t.Errorf("nobody touched %s, and its host has %+v; it had %+v", name, now, before[vm.GetId()])
		}
		s.naru(t, "internet", "vm", "stop", name, "--wait") // the zone knows it and acts on it
	}
	s.vm(t, "old-stopped", "is stopped", func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_STOPPED && vm.GetPower() == apiv1.VM_OFF })
	for id, on := range s.machines(t, zone) {
		if len(before[id]) > 0 && on[0].starts != before[id][0].starts {
			t.Errorf("VM %s was started again: %+v; it was %+v", id, on, before[id])
		}
	}
	s.noOrphans(t, zone)
	s.until(t, "the zone has forgotten old-deleted again", func(context.Context) (bool, error) {
		return s.metric(t, agent, `naru_worker_finished_total{step="gone"}`) == "1", nil
	})
	s.until(t, "the control plane knows nothing of it", func(ctx context.Context) (bool, error) {
		_, err := s.admin.VMs.GetVM(ctx, &apiv1.GetVMRequest{Vm: deleted.GetId()})
		if status.Code(err) == codes.NotFound {
			return true, nil
		}
		return false, err
	})
	if told := s.happened(t, "severity=ERROR AND zone="+zone); len(told) > 0 {
		t.Errorf("after the restore: %v", told)
	}
}

func online(z *apiv1.Zone) bool { return z.GetState() == apiv1.Zone_ONLINE }

// planeRestored loses all servers of the control plane and begins anew from a backup, as docs/operations.md has it. A new
// epoch begins; what runs on hosts stays as it is, and what the backup does not know is adopted.
func planeRestored(t *testing.T, s *standing) {
	const zone, cluster = "business", "db"
	create := func(name string) {
		s.naru(t, "internet", "vm", "create", name, "--image", "tiny", "--flavor", "s1", "--zone", zone, "--cluster", cluster, "--wait")
	}
	for _, name := range []string{"known-runs", "known-stopped", "known-deleted"} {
		create(name)
	}
	backup := filepath.Join(t.TempDir(), "federation.backup")
	s.naru(t, "control", "server", "backup", backup)
	create("later-runs") // the first command that the backup lacks
	had := s.entries(t)  // and not fewer
	s.naru(t, "internet", "vm", "stop", "known-stopped", "--wait")
	s.naru(t, "internet", "vm", "delete", "known-deleted", "--wait")
	later := s.vm(t, "later-runs", "runs", running)
	before := s.machines(t, zone)
	s.countersigns(t, zone, had+1)
	keys := s.keepKeys(t)

	for _, server := range []string{"controlplane-1", "controlplane-2", "controlplane-3"} {
		s.dev(t, "kill", server)
	}
	data, lost := s.path("data", "controlplane-1"), s.path("data", "lost")
	err := errors.Join(os.Rename(data, lost), os.Mkdir(data, 0o700), os.Rename(filepath.Join(lost, "keys"), filepath.Join(data, "keys")))
	if err != nil {
		t.Fatal(err)
	}
	s.at(t, "controlplane-1", "naru-controlplane", "restore", "--backup", backup)
	s.dev(t, "start", "controlplane-1")
	s.event(t, "type=federation.epoch")
	for _, z := range []string{"internet", "business", "management"} {
		s.zone(t, z, "is online", online)
	}

	s.event(t, "type=vm.adopted AND target_id="+later.GetId())
	adopted := s.vm(t, "later-runs", "is adopted", running)
	for _, same := range [][2]string{
		{adopted.GetId(), later.GetId()}, {adopted.GetProject(), later.GetProject()}, {adopted.GetFlavor(), later.GetFlavor()},
		{adopted.GetImage(), later.GetImage()}, {adopted.GetHost(), later.GetHost()}, {adopted.GetAddress(), later.GetAddress()},
	} {
		if same[0] != same[1] {
			t.Errorf("later-runs was adopted with %q in place of %q", same[0], same[1])
		}
	}
	create("after-runs-too")
	s.exactlyOne(t, zone, "after-runs-too")
	now := s.machines(t, zone)
	for id, was := range before {
		if !sameMachines(now[id], was) {
			t.Errorf("nobody asked for a change of VM %s, and its host has %+v; it had %+v", id, now[id], was)
		}
	}
	if len(now) != len(before)+1 {
		t.Errorf("hosts have %d VMs; they had %d, and one was made", len(now), len(before))
	}
	s.naru(t, "internet", "vm", "stop", "later-runs", "--wait") // what was adopted is whole
	s.event(t, "type=zone.vms-absent AND zone="+zone)
	s.naru(t, "internet", "vm", "delete", "known-deleted", "--wait") // which the backup wants, and nobody made anew
	s.event(t, "type=audit.lost AND zone="+zone)
	s.event(t, "type=zone.audit-restored AND zone="+zone)
	s.countersigns(t, zone, s.entries(t))
	says(t, s.verified(t, keys, zone), "is whole and as it was signed", "an older backup was restored since", "zone/"+zone+" has countersigned up to")
	s.noOrphans(t, zone)
}
