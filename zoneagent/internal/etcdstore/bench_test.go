package etcdstore

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// real opens a store as it is in production: certificates, disk syncs, etcd's own pace.
func real(b *testing.B) (*running, *Ownership) {
	b.Helper()
	z := newZone(b)
	c := z.secured(1, newZoneCA(b).issue(agentsName))
	c.Member.Tick, c.Member.Election, c.Member.NoSync = 0, 0, false
	r := z.open(c)
	return r, r.own("cluster/c1")
}

// placement fills a transaction as the scheduler does for n VMs on as many hosts.
type placement struct {
	r     *running
	own   *Ownership
	hosts map[int]int64
	n     int
}

func (p *placement) place(vms int) error {
	tx := p.r.Begin(p.own)
	base := p.n % 1000
	for i := range vms {
		id := fmt.Sprintf("0192f000-0000-7000-8000-%012d", p.n)
		host := (base + i) % 1000
		tx.PutObserved(&apiv1.VM{Id: id, Name: "vm-" + id, State: apiv1.VM_BUILDING, HostId: fmt.Sprint("host-", host),
			Host: fmt.Sprint("host-", host), Address: "10.91.2.10", Reached: &apiv1.Generation{Epoch: 1, Index: 77}})
		tx.PutAllocation(&zonev1.Allocation{HostId: fmt.Sprint("host-", host), VmCount: uint32(i),
			Used: &apiv1.Resources{Cores: 4, MemoryMib: 4096, DiskGib: 20}}, p.hosts[host])
		tx.TakeAddress(netip.AddrFrom4([4]byte{10, byte(p.n >> 16), byte(p.n >> 8), byte(p.n)}), &zonev1.AddressLease{VmId: id, ClusterId: "c1"})
		tx.PutWork(&zonev1.Work{VmId: id, Generation: &apiv1.Generation{Epoch: 1, Index: 77}, OperationId: id})
		tx.Journal(&linkv1.JournalEntry{Body: &linkv1.JournalEntry_Operation{Operation: &linkv1.OperationReport{
			OperationId: id, Step: &apiv1.Operation_Step{Name: "placed", State: apiv1.Operation_Step_DONE, Message: "on host of c1"}}}})
		p.n++
	}
	rev, err := tx.Commit(p.r.t.Context())
	for i := range vms {
		p.hosts[(base+i)%1000] = rev
	}
	return err
}

// S2's share: durable placements a second, by how many go together.
func BenchmarkPlacementsCommitted(b *testing.B) {
	for _, vms := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("batch=%d", vms), func(b *testing.B) {
			r, own := real(b)
			p := &placement{r: r, own: own, hosts: map[int]int64{}}
			b.ReportAllocs()
			cpu := processor()
			for b.Loop() {
				if err := p.place(vms); err != nil {
					b.Fatal(err)
				}
			}
			placed := float64(p.n)
			b.ReportMetric(placed/b.Elapsed().Seconds(), "placements/s")
			b.ReportMetric(float64((processor()-cpu).Microseconds())/placed, "µs-CPU/placement")
		})
	}
}

// Workers commit one step each; what waits goes together.
func BenchmarkWorkerSteps(b *testing.B) {
	for _, workers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			r, own := real(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			cpu := processor()
			b.ResetTimer()
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					id := fmt.Sprintf("vm-%d", w)
					for left.Add(-1) >= 0 {
						tx := r.Begin(own)
						tx.PutObserved(vm(id))
						tx.PutWork(&zonev1.Work{VmId: id, LastStep: "start"})
						tx.Journal(usage(id))
						if _, err := tx.Commit(b.Context()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
			b.ReportMetric(float64((processor()-cpu).Microseconds())/float64(b.N), "µs-CPU/step")
		})
	}
}

// What one look at the observed state costs when one of so many objects has changed.
func BenchmarkObservedSince(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("objects=%d", n), func(b *testing.B) {
			p := newPicture()
			seen := func(i int) Change {
				return Change{Space: Observed, Kind: "vm", ID: fmt.Sprint("vm-", i), Revision: int64(i + 1), Message: &apiv1.VM{Host: "host"}}
			}
			all := Batch{Reset: true, Revision: int64(n)}
			for i := range n {
				all.Changes = append(all.Changes, seen(i))
			}
			p.apply(all)
			c := seen(n / 2)
			b.ReportAllocs()
			for b.Loop() {
				c.Revision = p.revision + 1
				p.apply(Batch{Changes: []Change{c}, Revision: c.Revision})
				if rows, more := p.since(c.Revision-1, 127); len(rows) != 1 || more {
					b.Fatal(rows, more)
				}
			}
		})
	}
}

// processor is the time that this process, etcd in it, has had of the processors.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
