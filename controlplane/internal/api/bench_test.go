package api_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// cpu is what the process has used so far: clients and server together.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCreateVM is a write through the whole API on one server, without Raft: TLS, gRPC, the gate, the decision, the
// state machine in batches. Its neighbour "local" is the same without the network.
func BenchmarkCreateVM(b *testing.B) {
	for _, clients := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("grpc/clients=%d", clients), func(b *testing.B) {
			f := large(b)
			var conns []*client.Services
			for range min(clients, 16) {
				conns = append(conns, f.dial(f.tls(f.admin())))
			}
			createVMs(b, f.World, conns, clients)
		})
		b.Run(fmt.Sprintf("local/clients=%d", clients), func(b *testing.B) {
			f := large(b)
			createVMs(b, f.World, []*client.Services{f.Admin()}, clients)
		})
	}
}

// large is a federation with room for every VM that a benchmark asks for.
func large(b *testing.B) *federation {
	f := newFederation(b, 100)
	for _, h := range f.Site.Hosts {
		f.Observe(f.Business.GetId(), &apiv1.Host{
			Id: h.GetId(), Name: h.GetName(), Health: apiv1.Host_AVAILABLE, Freshness: apiv1.Freshness_LIVE,
			Total: &apiv1.Resources{Cores: 1 << 16, MemoryMib: 1 << 30, DiskGib: 1 << 30},
		})
	}
	return f
}

func createVMs(b *testing.B, w *servicetest.World, conns []*client.Services, clients int) {
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	var next atomic.Int64
	var running sync.WaitGroup
	for i := range clients {
		c := conns[i%len(conns)]
		running.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				vm := w.VM(fmt.Sprintf("vm-%d", n), "web")
				if _, err := c.VMs.CreateVM(context.Background(), &apiv1.CreateVMRequest{Vm: vm}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "vms/s")
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkListAPageOf100 is a read of a page, each way in.
func BenchmarkListAPageOf100(b *testing.B) {
	f := newFederation(b, 200)
	for i := range 1000 {
		if _, err := f.Admin().VMs.CreateVM(context.Background(), &apiv1.CreateVMRequest{Vm: f.VM(fmt.Sprintf("vm-%04d", i), "web")}); err != nil {
			b.Fatal(err)
		}
	}
	measure := func(name string, list func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				if err := list(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
	request := &apiv1.ListVMsRequest{Project: "web", PageSize: 100}
	list := func(c *client.Services) func() error {
		return func() error {
			_, err := c.VMs.ListVMs(context.Background(), request)
			return err
		}
	}
	measure("local", list(f.Admin()))
	measure("grpc", list(f.dial(f.tls(f.admin()))))
	rest := f.asAdmin()
	measure("rest", func() error {
		r, err := rest.http.Get("https://" + f.address + "/v1/vms?project=web&page_size=100")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		_, err = io.Copy(io.Discard, r.Body)
		return err
	})
}

// BenchmarkChangeToWatchers is one change until all who watch have it.
func BenchmarkChangeToWatchers(b *testing.B) {
	for _, watchers := range []int{100, 1000} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			f := newFederation(b, 1)
			c := f.In("web")
			told := make(chan struct{}, watchers)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			for range watchers {
				stream, err := c.Projects.WatchProjects(ctx, &apiv1.WatchProjectsRequest{})
				if err != nil {
					b.Fatal(err)
				}
				go func() {
					for {
						m, err := stream.Recv()
						if err != nil {
							return
						}
						if m.GetType() == apiv1.WatchType_PUT && m.GetProject().GetDescription() != "" || m.GetType() == apiv1.WatchType_BOOKMARK && m.GetRevision() != "7-0" {
							told <- struct{}{}
						}
					}
				}()
			}
			for range watchers {
				<-told
			}
			b.ResetTimer()
			for i := range b.N {
				_, err := f.Admin().Projects.UpdateProject(context.Background(), &apiv1.UpdateProjectRequest{
					Project: &apiv1.Project{Id: "web", Description: fmt.Sprint(i, "x")}, UpdateMask: mask("description"),
				})
				if err != nil {
					b.Fatal(err)
				}
				for range watchers {
					<-told
				}
			}
		})
	}
}
