package worker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
	"github.com/naru-project/naru/zoneagent/internal/schedule"
	"github.com/naru-project/naru/zoneagent/internal/worker"
)

// realZone is one agent's store in real etcd, told by a pretended uplink what is wanted.
type realZone struct {
	t        testing.TB
	store    *etcdstore.Store
	sink     *etcdstore.DesiredSink
	revision uint64
	network  *schedule.Network
	reported chan etcdstore.Change // what is observed of VMs
}

const epoch = 7

func openZone(t testing.TB) *realZone {
	t.Helper()
	net := fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(250), rand.IntN(250))
	store, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Zone: "0192f000-0000-7000-8000-000000000001", Agent: "agent-1", Dir: t.TempDir(),
		Member: &etcdstore.MemberConfig{
			Peer: net + ":2380", Client: net + ":2379", Tick: 20 * time.Millisecond, Election: 200 * time.Millisecond, NoSync: true,
		},
		LeaseTTL: 4 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	z := &realZone{t: t, store: store, reported: make(chan etcdstore.Change, 1<<16)}
	var running sync.WaitGroup
	running.Go(func() { _ = store.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	uplink, err := store.Campaign(t.Context(), etcdstore.UplinkName)
	if err != nil {
		t.Fatal(err)
	}
	z.sink = store.DesiredSink(uplink)
	running.Go(func() {
		_ = store.Follow(ctx, func(b etcdstore.Batch) error {
			for _, c := range b.Changes {
				if c.Kind == "vm" {
					z.reported <- c
				}
			}
			return nil
		}, etcdstore.Observed)
	})
	return z
}

// want sends nouns down, in chunks.
func (z *realZone) want(nouns ...*linkv1.Object) {
	z.t.Helper()
	for len(nouns) > 0 {
		n := min(len(nouns), 128)
		c := &linkv1.StateChunk{Epoch: epoch, After: z.revision, Full: z.revision == 0, End: len(nouns) == n, Objects: nouns[:n]}
		for _, o := range c.Objects {
			z.revision++
			o.Revision = z.revision
			if vm := o.GetVm(); vm != nil {
				vm.Generation = &apiv1.Generation{Epoch: epoch, Index: z.revision}
			}
		}
		c.Through = z.revision
		if err := z.sink.Commit(z.t.Context(), c); err != nil {
			z.t.Fatal(err)
		}
		nouns = nouns[n:]
	}
}

func clusterObject(name string) *linkv1.Object {
	return &linkv1.Object{Noun: &linkv1.Object_Cluster{Cluster: &apiv1.Cluster{Id: name, Name: name, ZoneId: "zone", Hypervisor: "sim"}}}
}

func hostObject(cluster, name, query string) *linkv1.Object {
	return &linkv1.Object{Noun: &linkv1.Object_Host{Host: &apiv1.Host{
		Id: name, Name: name, ClusterId: cluster, Cluster: cluster, Endpoint: "sim://?" + query,
	}}}
}

var operatingSystem = bytes.Repeat([]byte("operating system "), 64)

func vmObject(cluster, id string, state apiv1.VM_State) *linkv1.Object {
	sum := sha256.Sum256(operatingSystem)
	return &linkv1.Object{Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{
		Id: id, Name: id, ProjectId: "p", ClusterId: cluster, Cluster: cluster, DesiredState: state, Operation: "op-" + id,
		Size:        &apiv1.Resources{Cores: 1, MemoryMib: 256, DiskGib: 1},
		CreatedAt:   timestamppb.New(time.Now().Add(time.Hour)), // newer than the store, whatever the clocks say
		ImageSha256: hex.EncodeToString(sum[:]), ImageFormat: apiv1.Image_RAW,
	}}}
}

type oneImage struct{}

func (oneImage) Open(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(operatingSystem)), nil
}

// own drives a cluster until the returned function ends it.
func (z *realZone) own(cluster string, w *worker.Worker) (end func()) {
	z.t.Helper()
	own, err := z.store.Campaign(z.t.Context(), etcdstore.ClusterName(cluster))
	if err != nil {
		z.t.Fatal(err)
	}
	placer, err := schedule.NewTerm(schedule.Config{Cluster: cluster, Store: schedule.Owned(z.store, own), Network: z.network})
	if err != nil {
		z.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var terms sync.WaitGroup
	run := func(name string, run func(context.Context) error) {
		terms.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, etcdstore.ErrFenced) {
				z.t.Errorf("%s of %s ended with %v", name, cluster, err)
			}
		})
	}
	run("scheduling", placer.Run)
	if w != nil {
		run("driving", w.NewTerm(cluster, worker.Owned(z.store, own), own, placer).Run)
	}
	return func() {
		stop()
		terms.Wait()
		if err := own.Resign(context.Background()); err != nil {
			z.t.Errorf("resign: %v", err)
		}
	}
}

// await waits until n VMs are as said, or gone.
func (z *realZone) await(n int, is func(*apiv1.VM) bool) {
	z.t.Helper()
	done := map[string]bool{}
	timeout := time.After(2 * time.Minute)
	for len(done) < n {
		select {
		case c := <-z.reported:
			if vm, _ := c.Message.(*apiv1.VM); is(vm) {
				done[c.ID] = true
			} else {
				delete(done, c.ID)
			}
		case <-timeout:
			z.t.Fatalf("%d of %d VMs in two minutes", len(done), n)
		}
	}
}

// The same life on the real store: built, stopped, handed over to another owner, deleted; nothing is left.
func TestVMsLiveOnTheRealStore(t *testing.T) {
	z := openZone(t)
	z.network = &schedule.Network{CIDR: netip.MustParsePrefix("10.91.2.0/24"), Gateway: netip.MustParseAddr("10.91.2.1")}
	fleet, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(worker.Config{
		Agent: "agent-1", Zone: "business", Drivers: map[string]hypervisor.Driver{"sim": fleet}, Images: oneImage{},
		Limits: worker.Limits{
			BuildsPerHost: 8, PollEvery: 20 * time.Millisecond, ObserveEvery: 200 * time.Millisecond, ReportEvery: 50 * time.Millisecond,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	end := z.own("web", w)
	const vms = 24
	objects := []*linkv1.Object{clusterObject("web")}
	for i := range 4 {
		objects = append(objects, hostObject("web", fmt.Sprintf("web-%d", i), "boot=10ms&shutdown=10ms"))
	}
	all := func(state apiv1.VM_State) (out []*linkv1.Object) {
		for i := range vms {
			out = append(out, vmObject("web", fmt.Sprintf("vm-%02d", i), state))
		}
		return out
	}
	z.want(append(objects, all(apiv1.VM_RUNNING)...)...)
	z.await(vms, func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_RUNNING && vm.GetUsableAt() != nil })

	z.want(all(apiv1.VM_STOPPED)...)
	end()
	end = z.own("web", w)
	z.await(vms, func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_STOPPED })

	z.want(all(apiv1.VM_DELETED)...)
	z.await(vms, func(vm *apiv1.VM) bool { return vm == nil })
	end()
	left, err := z.store.Snapshot(t.Context(), etcdstore.Address, etcdstore.Work, etcdstore.Allocation)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range left.Changes {
		if c.Space != etcdstore.Allocation {
			t.Errorf("%s %s is left", c.Space, c.ID)
		}
	}
	for i := range 4 {
		knobs := fleet.Knobs(fmt.Sprintf("web-%d", i))
		if ids := knobs.VMs(); len(ids) > 0 {
			t.Errorf("web-%d still has %v", i, ids)
		}
		for n := range vms {
			if made := knobs.Creations(fmt.Sprintf("vm-%02d", n)); made > 1 {
				t.Errorf("vm-%02d was created %d times", n, made)
			}
		}
	}
}

// S2, the zone's part: from chunks of wanted VMs as they come down the link, to all of them durably placed, in real etcd
// without disk syncs.
func BenchmarkPlacing(b *testing.B) {
	for _, hosts := range []int{100, 1_000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			z := openZone(b)
			fleet, err := sim.New(sim.Options{})
			if err != nil {
				b.Fatal(err)
			}
			w, err := worker.New(worker.Config{Agent: "agent-1", Drivers: map[string]hypervisor.Driver{"sim": fleet}, Images: oneImage{}})
			if err != nil {
				b.Fatal(err)
			}
			objects := []*linkv1.Object{clusterObject("web")}
			for i := range hosts {
				objects = append(objects, hostObject("web", fmt.Sprintf("web-%04d", i), "cores=60000&memory_mib=40000000&disk_gib=4000000"))
			}
			objects = append(objects, vmObject("web", "probe", apiv1.VM_RUNNING))
			end := z.own("web", w)
			z.want(objects...)
			z.await(1, func(vm *apiv1.VM) bool { return vm.GetHostId() != "" })
			end()
			end = z.own("web", nil) // placing only
			defer end()
			const batch = 1024
			total := 0
			for round := 0; b.Loop(); round++ {
				b.StopTimer()
				objects = objects[:0]
				for i := range batch {
					objects = append(objects, vmObject("web", fmt.Sprintf("vm-%06d-%04d", round, i), apiv1.VM_RUNNING))
				}
				b.StartTimer()
				z.want(objects...)
				z.await(batch, func(vm *apiv1.VM) bool { return vm.GetHostId() != "" })
				total += batch
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "VMs/s")
		})
	}
}
