package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What counts here is libvirt's own word.
func TestOnASiteWithLibvirt(t *testing.T) {
	needs(t, "libvirtd", "qemu-system-x86_64", "ssh", "virsh", "nsenter", "qemu-io")
	s := raise(t)
	t.Run("each kind of request is carried out", func(t *testing.T) { everyKindOnBoth(t, s) })
	t.Run("P2 the agent is killed while it builds a real guest", func(t *testing.T) { killedOnLibvirt(t, s) })
}

func killedOnLibvirt(t *testing.T, s *standing) {
	s.naru(t, "internet", "vm", "delete", "web-1", "--wait") // the walk's
	if left := s.domains(t, "business"); len(left) != 0 {
		t.Fatalf("VM web-1 was deleted, and libvirt has %v", left)
	}
	rounds, seed := number(t, "NARU_E2E_KILLS", 1), number(t, "NARU_E2E_SEED", time.Now().UnixNano())
	t.Logf("repeat with NARU_E2E_SEED=%d", seed)
	chance := rand.New(rand.NewPCG(uint64(seed), 200))
	for round := range rounds {
		name := fmt.Sprintf("real-%d", round)
		step, delay := moment(chance)
		t.Logf("agent-business is killed %v after step %q", delay, step)
		asked := s.ask(t, name, "business", "kvm")
		asked.reaches(step, delay)
		s.dev(t, "kill", "agent-business")
		s.dev(t, "start", "agent-business")
		asked.succeeds(t)
		vm := s.vm(t, name, "runs", func(vm *apiv1.VM) bool { return running(vm) && vm.GetPower() == apiv1.VM_ON })
		if got := s.domains(t, "business"); len(got) != 1 || got[0] != vm.GetId() {
			t.Errorf("VM %s is %s, and libvirt has %v", name, vm.GetId(), got)
		}
		s.toldOnce(t, name)
		s.naru(t, "internet", "vm", "delete", name, "--wait")
		if left := s.domains(t, "business"); len(left) != 0 {
			t.Errorf("VM %s was deleted, and libvirt has %v", name, left)
		}
	}
}

// domains returns the ids of all domains, running or not, that the zone's libvirt knows.
func (s *standing) domains(t *testing.T, zone string) []string {
	t.Helper()
	socket := s.path("data", "host-"+zone, "run", "libvirt-sock")
	return strings.Fields(run(t, exec.CommandContext(t.Context(), "virsh", "-c", "qemu+unix:///system?socket="+socket, "list", "--all", "--uuid")))
}
