package e2e

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// linkCut takes the business zone's link away for a while: nothing happens to VMs, freshness tells of it, the zone's own
// users still see theirs, and what was asked for and what happened meanwhile arrives, once and in order.
func linkCut(t *testing.T, s *standing) {
	const zone, cluster = "business", "was"
	for _, name := range []string{"cut-keeps", "cut-goes", "cut-stops", "cut-falls", "cut-ours", "cut-both"} {
		s.naru(t, "internet", "vm", "create", name, "--image", "tiny", "--flavor", "s1", "--zone", zone, "--cluster", cluster, "--wait")
	}
	falls := s.vm(t, "cut-falls", "runs", running)
	edge := s.client(t, zone)
	s.local(t, edge, "cut-falls", apiv1.VM_RUNNING) // the control plane vouches for the user
	before := s.machines(t, zone)

	s.dev(t, "cut", zone)
	began := time.Now()
	s.zone(t, zone, "is disconnected", func(z *apiv1.Zone) bool { return z.GetState() == apiv1.Zone_DISCONNECTED })
	t.Logf("the control plane has noticed after %v", time.Since(began))
	shows(t, s.naru(t, "control", "zone", "list"), zone, "disconnected")
	shows(t, s.naru(t, "control", "vm", "list", "--project", "web", "--zone", zone), "cut-keeps", "running", "stale")

	s.naru(t, "internet", "vm", "create", "cut-new", "--image", "tiny", "--flavor", "s1", "--zone", zone, "--cluster", cluster)
	s.naru(t, "internet", "vm", "delete", "cut-goes")
	s.naru(t, "internet", "vm", "stop", "cut-stops")
	s.power(t, zone, falls.GetId(), false)
	s.local(t, edge, "cut-falls", apiv1.VM_STOPPED)
	s.power(t, zone, falls.GetId(), true)
	s.local(t, edge, "cut-falls", apiv1.VM_RUNNING)
	meanwhile := s.machines(t, zone)
	delete(before, falls.GetId())
	delete(meanwhile, falls.GetId())
	if !maps.EqualFunc(before, meanwhile, sameMachines) {
		t.Errorf("the hosts have %+v; before the link was cut they had %+v", meanwhile, before)
	}

	local := s.operated(t, edge)
	s.naru(t, "internet", "vm", "stop", "cut-both")
	s.naru(t, "internet", "vm", "start", "cut-both") // wished after what the operator of the zone knows of

	entries := s.entries(t) // of which the zone has not seen the last

	s.dev(t, "heal", zone)
	began = time.Now()
	s.zone(t, zone, "is online again", func(z *apiv1.Zone) bool { return z.GetState() == apiv1.Zone_ONLINE })
	t.Logf("it is back after %v", time.Since(began))
	for _, filter := range []string{"kind=vm.create AND target=cut-new", "kind=vm.delete AND target=cut-goes", "kind=vm.stop AND target=cut-stops"} {
		if op := s.ended(t, filter); op.GetError() != nil {
			t.Errorf("what was asked for meanwhile failed: %v", op)
		}
	}
	s.exactlyOne(t, zone, "cut-new")
	s.toldOnce(t, "cut-new")
	local.merged(t)
	stopped := s.vm(t, "cut-stops", "is stopped", func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_STOPPED })
	now := s.machines(t, zone)
	if on := now[stopped.GetId()]; len(on) != 1 || !on[0].StartedAt.IsZero() || on[0].starts != 1 {
		t.Errorf("VM cut-stops was stopped, and its host has %+v", on)
	}
	if keeps := s.vm(t, "cut-keeps", "runs", running); !sameMachines(now[keeps.GetId()], before[keeps.GetId()]) {
		t.Errorf("nobody touched cut-keeps, and its host has %+v; it had %+v", now[keeps.GetId()], before[keeps.GetId()])
	}
	s.noOrphans(t, zone)

	s.event(t, "type=vm.started AND target=cut-falls")
	var told []string
	for _, e := range s.happened(t, "target=cut-falls AND severity=WARNING") {
		told = append(told, e.GetType())
	}
	if got := strings.Join(told, " "); got != "vm.stopped vm.started" {
		t.Errorf("while the link was cut cut-falls was found off, then on; told was %q", got)
	}
	shows(t, s.naru(t, "control", "vm", "list", "--project", "web", "--zone", zone), "cut-keeps", "running", "live")
	s.countersigns(t, zone, entries)
	says(t, s.verified(t, s.keepKeys(t), zone), "is whole and as it was signed", "zone/"+zone+" has countersigned up to")
}

func running(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_RUNNING && vm.GetUsableAt() != nil }

// local waits until a VM, as the users of its own zone see it at their edge, is in a state.
func (s *standing) local(t *testing.T, edge *client.Client, name string, state apiv1.VM_State) {
	t.Helper()
	s.until(t, name+" is "+state.String()+" at its zone's edge", func(ctx context.Context) (bool, error) {
		r, err := edge.VMs.GetVM(ctx, &apiv1.GetVMRequest{Vm: name, Project: "web"})
		return r.GetVm().GetState() == state, err
	})
}

// shows demands that a printed table has a line with all of the words.
func shows(t *testing.T, table string, words ...string) {
	t.Helper()
	for line := range strings.Lines(table) {
		fields := map[string]bool{}
		for _, f := range strings.Fields(line) {
			fields[f] = true
		}
		all := true
		for _, w := range words {
			all = all && fields[w]
		}
		if all {
			return
		}
	}
	t.Errorf("no line with %v in\n%s", words, table)
}
