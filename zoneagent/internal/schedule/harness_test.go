package schedule

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/schedule/storetest"
)

// fakeStore is an owner's hand on the store in memory.
type fakeStore struct{ *storetest.Owner }

func (s fakeStore) Begin() Tx { return s.Tx() }

// site is a store with clusters, and the terms that run on it. It lives in a synctest bubble.
type site struct {
	t       testing.TB
	zone    *storetest.Zone
	network *Network
	terms   map[string]*running
	index   uint64
	fail    func(format string, args ...any)
}

type running struct {
	*Term
	stop  context.CancelFunc
	ended chan error
}

// within runs a test in a bubble of its own time.
func within(t *testing.T, fn func(s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.stopAll()
		fn(s)
	})
}

func newSite(t testing.TB) *site {
	return &site{
		t: t, fail: t.Errorf, zone: storetest.NewZone(), terms: map[string]*running{},
		network: &Network{CIDR: netip.MustParsePrefix("10.91.2.0/24"), Gateway: netip.MustParseAddr("10.91.2.1")},
	}
}

func (s *site) cluster(name string, hosts int) {
	s.zone.Want(&apiv1.Cluster{Id: name, Name: name, ZoneId: "zone", Zone: "business", Hypervisor: "sim"})
	for i := range hosts {
		s.host(name, fmt.Sprintf("%s-%d", name, i+1), 8, 32768)
	}
}

func (s *site) host(cluster, name string, cores, memoryMiB uint32) {
	s.zone.Want(&apiv1.Host{Id: name, Name: name, ClusterId: cluster, Cluster: cluster, Endpoint: "sim://"})
	s.report(name, apiv1.Host_AVAILABLE, cores, memoryMiB)
}

// report writes what the worker observes of a host.
func (s *site) report(name string, health apiv1.Host_Health, cores, memoryMiB uint32) {
	s.zone.Put(etcdstore.Observed, "host", name, &apiv1.Host{
		Id: name, Name: name, Health: health, Total: &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB, DiskGib: 1000},
	})
}

// vm is a wanted VM of one core.
func (s *site) vm(cluster, id string, change ...func(*apiv1.VM)) *apiv1.VM {
	s.index++
	vm := &apiv1.VM{
		Id: id, Name: id, ProjectId: "web", ClusterId: cluster, Cluster: cluster, DesiredState: apiv1.VM_RUNNING,
		Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10}, Operation: "op-" + id,
		Generation: &apiv1.Generation{Epoch: 1, Index: s.index},
	}
	for _, c := range change {
		c(vm)
	}
	return vm
}

func sized(cores, memoryMiB uint32) func(*apiv1.VM) {
	return func(vm *apiv1.VM) { vm.Size = &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB, DiskGib: 10} }
}

func wanting(state apiv1.VM_State) func(*apiv1.VM) {
	return func(vm *apiv1.VM) { vm.DesiredState = state }
}

// own takes a cluster over and schedules it.
func (s *site) own(cluster string, change ...func(*Config)) *running {
	s.t.Helper()
	owner := s.zone.Own(cluster, time.Hour)
	c := Config{Cluster: cluster, Store: fakeStore{owner}, Network: s.network}
	for _, fn := range change {
		fn(&c)
	}
	term, err := NewTerm(c)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{term, stop, make(chan error, 1)}
	go func() { r.ended <- term.Run(ctx) }()
	s.terms[cluster] = r
	return r
}

// leave ends a term as a killed agent would: it writes nothing more, and says nothing.
func (s *site) leave(cluster string) {
	s.zone.Depose(cluster)
	if r := s.terms[cluster]; r != nil {
		r.stop()
		if err := <-r.ended; err != nil && !errors.Is(err, etcdstore.ErrFenced) {
			s.t.Fatalf("the term of %s ended with %v", cluster, err)
		}
		delete(s.terms, cluster)
	}
}

func (s *site) stopAll() {
	for cluster := range s.terms {
		s.leave(cluster)
	}
	synctest.Wait()
}

// settle lets everything happen that can, retries included.
func (s *site) settle() {
	synctest.Wait()
	time.Sleep(time.Second) // the bubble's time
	synctest.Wait()
}

// audit checks what must hold at every moment of the committed state: allocations are what the VMs take, nothing is
// over capacity, an address has one VM and a VM its own address.
func (s *site) audit() {
	type sum struct{ cores, memory, disk, vms uint32 }
	taken, addresses := map[string]sum{}, map[string]string{}
	s.zone.Each(etcdstore.Observed, func(kind, id string, m proto.Message) {
		vm, ok := m.(*apiv1.VM)
		if !ok || vm.HostId == "" {
			return
		}
		size := vm.Allocated
		at := taken[vm.HostId]
		taken[vm.HostId] = sum{at.cores + size.GetCores(), at.memory + size.GetMemoryMib(), at.disk + size.GetDiskGib(), at.vms + 1}
		if other := addresses[vm.Address]; other != "" && vm.Address != "" {
			s.fail("%s and %s both have %s", id, other, vm.Address)
		}
		addresses[vm.Address] = id
	})
	delete(addresses, "")
	had := map[string]string{} // VM → reservation
	s.zone.Each(etcdstore.Observed, func(kind, id string, m proto.Message) {
		r, ok := m.(*apiv1.Reservation)
		if !ok {
			return
		}
		left := uint32(0)
		for _, u := range r.Units {
			if u.VmId == "" {
				at := taken[u.HostId]
				taken[u.HostId] = sum{at.cores + r.Size.GetCores(), at.memory + r.Size.GetMemoryMib(), at.disk + r.Size.GetDiskGib(), at.vms}
				left++
			} else if r.VmId != "" {
				continue // a VM was placed once, and may grow many times
			} else if other := had[u.VmId]; other != "" {
				s.fail("%s was placed in %s and in %s", u.VmId, other, id)
			} else {
				had[u.VmId] = id
			}
		}
		if left != r.Left || (left > 0) != (r.State == apiv1.Reservation_HELD) {
			s.fail("%s is %v with %d units left, of which it says %d", id, r.State, left, r.Left)
		}
	})
	s.zone.Each(etcdstore.Allocation, func(_, id string, m proto.Message) {
		a := m.(*zonev1.Allocation)
		want := taken[id]
		got := sum{a.GetUsed().GetCores(), a.GetUsed().GetMemoryMib(), a.GetUsed().GetDiskGib(), a.GetVmCount()}
		if got != want {
			s.fail("%s: allocated %v, its VMs take %v", id, got, want)
		}
		host := s.zone.Host(id)
		if got.cores > host.GetTotal().GetCores() || got.memory > host.GetTotal().GetMemoryMib() {
			s.fail("%s is over capacity: %v of %v", id, got, host.GetTotal())
		}
		delete(taken, id)
	})
	for id, v := range taken {
		s.fail("%s has %v VMs and no allocation", id, v)
	}
	s.zone.Each(etcdstore.Address, func(_, address string, m proto.Message) {
		if vm := m.(*zonev1.AddressLease).GetVmId(); addresses[address] != vm {
			s.fail("%s is leased to %s and used by %q", address, vm, addresses[address])
		}
		delete(addresses, address)
	})
	for address, vm := range addresses {
		s.fail("%s uses %s without a lease", vm, address)
	}
}
