package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// machine is what a simulated host has of a VM.
type machine struct {
	host                string
	Disk, Seed, Defined bool
	StartedAt           time.Time
	Cores, MemoryMiB    uint32
	Content             string
	Snapshots           []struct{ ID string }
	creations, starts   int
}

// machines is the hosts' own truth: what all simulated hosts of a zone have, by the VM's id, past all programs.
func (s *standing) machines(t *testing.T, zone string) map[string][]machine {
	t.Helper()
	files, err := filepath.Glob(s.path("data", "sim-"+zone, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no simulated host of zone %s has kept a state: %v", zone, err)
	}
	all := map[string][]machine{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var host struct {
			VMs               map[string]machine
			Creations, Starts map[string]int
		}
		if err := errors.Join(err, json.Unmarshal(b, &host)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for id, m := range host.VMs {
			m.host, m.creations, m.starts = filepath.Base(file), host.Creations[id], host.Starts[id]
			all[id] = append(all[id], m)
		}
	}
	return all
}

// sameMachines reports whether nothing was done to a VM between two looks at its hosts.
func sameMachines(a, b []machine) bool { return reflect.DeepEqual(a, b) }

// power switches a VM on its simulated host on or off behind everyone's back.
func (s *standing) power(t *testing.T, zone, vm string, on bool) {
	t.Helper()
	at := time.Time{}
	if on {
		at = time.Now()
	}
	s.behindBacks(t, zone, vm, func(m map[string]any) { m["StartedAt"], m["BootedAt"] = at, at })
}

// behindBacks changes what the simulated host of a VM has of it, past all programs.
func (s *standing) behindBacks(t *testing.T, zone, vm string, change func(map[string]any)) {
	t.Helper()
	found := s.machines(t, zone)[vm]
	if len(found) != 1 {
		t.Fatalf("VM %s is on %d hosts", vm, len(found))
	}
	file := s.path("data", "sim-"+zone, found[0].host)
	lock, err := os.OpenFile(strings.TrimSuffix(file, ".json")+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var host map[string]any
	if err := json.Unmarshal(b, &host); err != nil {
		t.Fatal(err)
	}
	change(host["VMs"].(map[string]any)[vm].(map[string]any))
	if b, err = json.Marshal(host); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file+".test", b, 0o600), os.Rename(file+".test", file)); err != nil {
		t.Fatal(err)
	}
}

// exactlyOne demands that a VM was made once and started once, wholly and on one host, and returns it.
func (s *standing) exactlyOne(t *testing.T, zone, name string) machine {
	t.Helper()
	vm := s.vm(t, name, "runs", func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_RUNNING && vm.GetUsableAt() != nil })
	found := s.machines(t, zone)[vm.GetId()]
	if len(found) != 1 {
		t.Fatalf("VM %s is on %d hosts: %+v", name, len(found), found)
	}
	m := found[0]
	if !m.Disk || !m.Seed || !m.Defined || m.StartedAt.IsZero() || m.creations != 1 || m.starts != 1 {
		t.Fatalf("VM %s is not on its host once and whole: %+v", name, m)
	}
	return m
}

// noOrphans demands that hosts have what the control plane knows of and nothing else.
func (s *standing) noOrphans(t *testing.T, zone string) {
	t.Helper()
	r, err := s.admin.VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{Zone: zone, PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	addresses := map[string]string{}
	for _, vm := range r.GetVms() {
		known[vm.GetId()] = vm.GetName()
		if other := addresses[vm.GetAddress()]; vm.GetAddress() != "" && other != "" {
			t.Errorf("VMs %s and %s have one address, %s", other, vm.GetName(), vm.GetAddress())
		}
		addresses[vm.GetAddress()] = vm.GetName()
	}
	for id, on := range s.machines(t, zone) {
		if known[id] == "" {
			t.Errorf("nobody knows of VM %s on %s", id, on[0].host)
		}
		if len(on) > 1 {
			t.Errorf("VM %s is on several hosts: %+v", known[id], on)
		}
	}
}

// slowCluster makes a cluster of simulated hosts on which every call takes its time, so that a creation lasts.
func (s *standing) slowCluster(t *testing.T, zone, name string) string {
	t.Helper()
	cluster := &apiv1.Cluster{Name: name, Zone: zone, Purpose: "slow hosts", Hypervisor: "sim", Strategy: apiv1.Cluster_SPREAD}
	if _, err := s.admin.Clusters.CreateCluster(t.Context(), &apiv1.CreateClusterRequest{Cluster: cluster}); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{name + "-1", name + "-2", name + "-3"} {
		endpoint := "sim://" + host + "?cores=64&memory_mib=65536&disk_gib=500&latency=60ms&boot=800ms"
		h := &apiv1.Host{Name: host, Zone: zone, Cluster: name, Endpoint: endpoint}
		if _, err := s.admin.Hosts.CreateHost(t.Context(), &apiv1.CreateHostRequest{Host: h}); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{name + "-1", name + "-2", name + "-3"} {
		s.host(t, host)
	}
	return name
}
