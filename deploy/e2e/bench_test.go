package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// BenchmarkS2 submits VMs to the business zone's fleet through the API of the control network, from 64 clients at once,
// and waits until the control plane shows each of them on a host: its placement is durable in the zone then, and has come
// back; and then until it is told of each that it can be used. CPU is that of all processes of the federation: one server, three brokers, three
// agents with their etcd, and the simulated hosts. The smaller fleet gets as many again, beside those that exist.
//
// The laws of growth compare figures of this run: what a VM costs from its submission until its operation is done, less what
// the processes take at rest in the same time, and the zone's transactions in etcd.
func BenchmarkS2(b *testing.B) {
	var small, again, large round
	b.Run("hosts=1000", func(b *testing.B) {
		s := fleetOf(b, 1_000)
		for b.Loop() {
			small = submitMany(b, s, "first")
			again = submitMany(b, s, "second")
		}
		small.report(b, "")
		again.report(b, "again-")
	})
	b.Run("hosts=10000", func(b *testing.B) {
		s := fleetOf(b, 10_000)
		for b.Loop() {
			large = submitMany(b, s, "first")
		}
		large.report(b, "")
	})
	for _, r := range []round{small, again, large} {
		if r.own == 0 {
			return // not measured
		}
	}
	law := func(what string, is, most float64) {
		b.Logf("%s: %.2f, at most %.2f", what, is, most)
		if is > most {
			b.Errorf("%s: %.2f is more than %.2f", what, is, most)
		}
	}
	law("CPU a VM with 10,000 hosts, × that with 1,000", large.own/small.own, 2)
	law("CPU a VM beside as many that exist, × that of the first", again.own/small.own, 2)
	for hosts, r := range map[int]round{1_000: small, 10_000: large} {
		law(fmt.Sprintf("transactions of the zone's etcd a VM, with %d hosts", hosts), r.transactions, 0.5)
	}
}

func fleetOf(b *testing.B, hosts int) *standing {
	b.Helper()
	needs(b)
	return raise(b, "--servers", "1", "--without-libvirt", "--fleet", strconv.Itoa(hosts))
}

// round is what submitting some VMs took: VMs a second until they were submitted, and placed; CPU in µs a VM until they were
// placed, and until their operations were done, the latter without what the processes take at rest; etcd's transactions a VM.
type round struct{ submitted, placed, cpu, own, transactions float64 }

func (r round) report(b *testing.B, prefix string) {
	b.ReportMetric(r.submitted, prefix+"submitted/s")
	b.ReportMetric(r.placed, prefix+"placed/s")
	b.ReportMetric(r.cpu, prefix+"cpu-µs/VM")
	b.ReportMetric(r.own, prefix+"own-µs/VM")
	b.ReportMetric(r.transactions, prefix+"txns/VM")
}

// submitMany submits VMs, with the timer running until they are placed. The site is at rest before and after.
func submitMany(b *testing.B, s *standing, prefix string) (r round) {
	const vms = 5000
	b.StopTimer()
	rest := atRest(b, s)
	placed := watchPlaced(b, s.admin, vms)
	before, transactions := cpuOf(b, s), s.transactions(b)
	b.StartTimer()
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range vms {
		g.Go(func() error {
			_, err := submit(b.Context(), s.admin, fmt.Sprintf("s2-%s-%04d", prefix, i), "fleet")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	r.submitted = vms / time.Since(began).Seconds()
	if err := placed(); err != nil {
		b.Fatal(err)
	}
	r.placed = vms / time.Since(began).Seconds()
	b.StopTimer()
	r.cpu = float64((cpuOf(b, s) - before).Microseconds()) / vms
	s.until(b, "every operation is done", func(ctx context.Context) (bool, error) {
		running, err := s.admin.Operations.ListOperations(ctx, &apiv1.ListOperationsRequest{Filter: "done=false", PageSize: 1})
		return err == nil && len(running.GetOperations()) == 0, err
	})
	after, took := cpuOf(b, s), time.Since(began)
	r.own = (float64((after - before).Microseconds()) - rest*float64(took.Microseconds())) / vms
	r.transactions = (s.transactions(b) - transactions) / vms
	b.StartTimer()
	return r
}

// atRest returns how much of a processor the site takes while nobody asks for anything.
func atRest(b *testing.B, s *standing) float64 {
	b.Helper()
	const span = 10 * time.Second
	before := cpuOf(b, s)
	select {
	case <-time.After(span):
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	}
	return (cpuOf(b, s) - before).Seconds() / span.Seconds()
}

// transactions returns how many the business zone's agent has sent to etcd.
func (s *standing) transactions(b *testing.B) float64 {
	b.Helper()
	n, err := strconv.ParseFloat(s.metric(b, "agent-business", "naru_etcdstore_commit_operations_count"), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkS3 submits VMs one after another, and takes the time until the API has answered, which it does when the VM is
// durable: durable. Then it submits as many again, each when the one before is seen on a host and the machine has gone to
// rest: rested is the same time for them, placed the time until the control plane shows them on a host. The client sits in
// the control network and asks each server in turn. read is the median of a read that goes before each submission, sync that
// of a bare append and sync in the same folder.
func BenchmarkS3(b *testing.B) {
	const vms = 200
	for _, servers := range []int{1, 3} {
		b.Run(fmt.Sprintf("servers=%d", servers), func(b *testing.B) {
			needs(b)
			c := raise(b, "--servers", strconv.Itoa(servers), "--without-libvirt", "--fleet", "100").desk(b)
			var reads, durable, rested, placed []time.Duration
			timed := func(all *[]time.Duration, do func() error) {
				began := time.Now()
				if err := do(); err != nil {
					b.Fatal(err)
				}
				*all = append(*all, time.Since(began))
			}
			named := 0
			submitted := func() error {
				named++
				_, err := submit(b.Context(), c, fmt.Sprintf("s3-%05d", named), "fleet")
				return err
			}
			read := func() error {
				_, err := c.Flavors.GetFlavor(b.Context(), &apiv1.GetFlavorRequest{Flavor: "s1"})
				return err
			}
			for b.Loop() {
				await := watchPlaced(b, c, vms)
				for range vms {
					timed(&reads, read)
					timed(&durable, submitted)
				}
				if err := await(); err != nil {
					b.Fatal(err)
				}
				for range vms {
					await := watchPlaced(b, c, 1)
					timed(&placed, func() error {
						timed(&rested, submitted)
						return await()
					})
				}
			}
			b.ReportMetric(milliseconds(reads, 50), "read-p50-ms")
			b.ReportMetric(milliseconds(durable, 50), "durable-p50-ms")
			b.ReportMetric(milliseconds(durable, 99), "durable-p99-ms")
			b.ReportMetric(milliseconds(rested, 50), "rested-p50-ms")
			b.ReportMetric(milliseconds(placed, 50), "placed-p50-ms")
			b.ReportMetric(milliseconds(bareSyncs(b, len(durable)), 50), "sync-p50-ms")
		})
	}
}

// BenchmarkS13 asks for a VM on the business zone's real host, and takes the time from the submission until the control
// plane shows that it can be used. Then the same guest is booted by hand with virsh on the same host: the same seed, a disk
// on the same image made by qemu-img, the same definition; until its serial log has the same line. ×by-hand is the ratio of
// the two medians.
func BenchmarkS13(b *testing.B) {
	needs(b, "libvirtd", "qemu-system-x86_64", "qemu-img", "virsh")
	s := raise(b)
	c := s.admin
	s.naru(b, "internet", "vm", "delete", "web-1", "--wait") // the walk's
	var naru, byHand []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		r, err := submit(b.Context(), c, fmt.Sprintf("s13-%d", i), "kvm")
		if err != nil {
			b.Fatal(err)
		}
		id := r.GetOperation().GetTarget().GetId()
		awaitVM(b, c, id, func(vm *apiv1.VM) bool { return vm.GetUsableAt() != nil })
		naru = append(naru, time.Since(began))
		b.StopTimer()
		twin := twinOf(b, s, id)
		if _, err := c.VMs.DeleteVM(b.Context(), &apiv1.DeleteVMRequest{Vm: id}); err != nil {
			b.Fatal(err)
		}
		awaitVM(b, c, id, func(vm *apiv1.VM) bool { return vm == nil })
		byHand = append(byHand, twin.boot(b))
		b.StartTimer()
	}
	b.ReportMetric(milliseconds(naru, 50), "naru-p50-ms")
	b.ReportMetric(milliseconds(byHand, 50), "by-hand-p50-ms")
	// What else runs makes a boot slower, by half and more, and never quicker: the quickest of each are compared.
	b.ReportMetric(float64(slices.Min(naru))/float64(slices.Min(byHand)), "×by-hand")
}

// twin is a guest to be booted by hand that a VM of Naru's was taken as the pattern for.
type twin struct {
	uri, domain, disk, image, serial string
	ready                            string
}

// twinOf copies what a VM consists of, while it is there.
func twinOf(b *testing.B, s *standing, id string) twin {
	b.Helper()
	host := s.path("data", "host-business")
	disks := filepath.Join(host, "pool", "disks")
	t := twin{
		uri:    "qemu+unix:///system?socket=" + filepath.Join(host, "run", "libvirt-sock"),
		domain: filepath.Join(b.TempDir(), "twin.xml"),
		disk:   filepath.Join(disks, "twin.qcow2"),
		serial: filepath.Join(host, "pool", "serial", "twin.log"),
		ready:  "naru-ready " + id,
	}
	xml := run(b, exec.CommandContext(b.Context(), "virsh", "-q", "-c", t.uri, "dumpxml", "--inactive", id))
	var info struct {
		Backing string `json:"backing-filename"`
	}
	if err := json.Unmarshal([]byte(run(b, exec.CommandContext(b.Context(), "qemu-img", "info", "-U", "--output=json", filepath.Join(disks, id+".qcow2")))), &info); err != nil {
		b.Fatal(err)
	}
	t.image = info.Backing
	seed, err := os.ReadFile(filepath.Join(disks, id+".iso"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disks, "twin.iso"), seed, 0o644); err != nil {
		b.Fatal(err)
	}
	for pattern, twin := range map[string]string{
		`(?s)<metadata>.*</metadata>`: "",
		`<name>.*</name>`:             "<name>twin</name>",
		`<uuid>.*</uuid>`:             "<uuid>" + uuid.NewString() + "</uuid>",
		`/` + id + `\.`:               "/twin.",
	} {
		xml = regexp.MustCompile(pattern).ReplaceAllString(xml, twin)
	}
	if err := os.WriteFile(t.domain, []byte(xml), 0o600); err != nil {
		b.Fatal(err)
	}
	return t
}

// boot makes the disk, starts the guest and returns the time until its serial log says that it is ready; then it ends it.
func (t twin) boot(b *testing.B) time.Duration {
	b.Helper()
	if err := os.WriteFile(t.serial, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	run(b, exec.CommandContext(b.Context(), "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", t.image, t.disk, "1G"))
	run(b, exec.CommandContext(b.Context(), "virsh", "-q", "-c", t.uri, "create", t.domain))
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		log, err := os.ReadFile(t.serial)
		if err != nil {
			b.Fatal(err)
		}
		if strings.Contains(string(log), t.ready) {
			break
		}
		if time.Since(began) > 3*time.Minute {
			b.Fatalf("the guest does not come up by hand:\n%s", log)
		}
	}
	took := time.Since(began)
	run(b, exec.CommandContext(b.Context(), "virsh", "-q", "-c", t.uri, "destroy", "twin"))
	return took
}

// awaitVM watches a VM until it is as wanted; nil stands for one that is gone.
func awaitVM(b *testing.B, c *client.Client, id string, wanted func(*apiv1.VM) bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	watch, err := c.VMs.WatchVMs(ctx, &apiv1.WatchVMsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	var vm *apiv1.VM
	for bookmarks := 0; bookmarks < 2 || !wanted(vm); {
		r, err := watch.Recv()
		switch {
		case err != nil:
			b.Fatalf("VM %s: %v: %v", id, vm, err)
		case r.GetType() == apiv1.WatchType_BOOKMARK:
			bookmarks++
		case r.GetVm().GetId() != id:
		case r.GetType() == apiv1.WatchType_DELETE:
			vm = nil
		default:
			vm = r.GetVm()
		}
	}
}

// desk returns an administrator's client that sits in the control network and knows every server.
func (s *standing) desk(b *testing.B) *client.Client {
	b.Helper()
	config, err := client.LoadConfig(s.path("cli", "control.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	r, err := s.admin.Servers.ListServers(b.Context(), &apiv1.ListServersRequest{})
	if err != nil {
		b.Fatal(err)
	}
	var urls []string
	for _, server := range r.GetServers() {
		urls = append(urls, "https://"+server.GetApiAddress())
	}
	config.Server = strings.Join(urls, ",")
	at := named(b, s.namespaces(b), "desk-control")
	c, err := client.New(config, grpc.WithContextDialer(func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = at.Do(func() (err error) {
			var d net.Dialer
			conn, err = d.DialContext(ctx, "tcp", address)
			return err
		})
		return conn, err
	}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func submit(ctx context.Context, c *client.Client, name, cluster string) (*apiv1.CreateVMResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: &apiv1.VM{
		Name: name, Project: "web", Zone: "business", Cluster: cluster, Image: "tiny", Flavor: "s1",
	}})
}

// watchPlaced watches the VMs from now on, and returns what waits until n more of them are on a host.
func watchPlaced(b *testing.B, c *client.Client, n int) func() error {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	watch, err := c.VMs.WatchVMs(ctx, &apiv1.WatchVMsRequest{})
	if err != nil {
		b.Fatal(err)
	}
	placed := map[string]bool{}
	// What is there comes between the first two bookmarks.
	for bookmarks := 0; bookmarks < 2; {
		r, err := watch.Recv()
		if err != nil {
			b.Fatal(err)
		}
		placed[r.GetVm().GetId()] = true
		if r.GetType() == apiv1.WatchType_BOOKMARK {
			bookmarks++
		}
	}
	seen, done := atomic.Int64{}, make(chan error, 1)
	go func() {
		for {
			r, err := watch.Recv()
			if err != nil {
				done <- fmt.Errorf("%d of %d placed: %w", seen.Load(), n, err)
				return
			}
			if vm := r.GetVm(); vm.GetHost() != "" && !placed[vm.GetId()] {
				placed[vm.GetId()] = true
				if seen.Add(1) == int64(n) {
					done <- nil
					return
				}
			}
		}
	}()
	return func() error {
		defer cancel()
		return <-done
	}
}

// cpuOf returns the CPU time that the site's processes have used.
func cpuOf(b *testing.B, s *standing) time.Duration {
	b.Helper()
	var ticks uint64
	for _, p := range s.status(b).Processes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			b.Fatal(err)
		}
		// The second field may hold anything; user and system time are the twelfth and thirteenth after it.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, f := range fields[11:13] {
			n, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			ticks += n
		}
	}
	const ticksPerSecond = 100 // what Linux tells programs, whatever its own clock
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// bareSyncs appends n times to a file and syncs each.
func bareSyncs(b *testing.B, n int) []time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	out := make([]time.Duration, n)
	for i := range out {
		began := time.Now()
		if _, err := f.Write(make([]byte, 512)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		out[i] = time.Since(began)
	}
	return out
}

// milliseconds returns a percentile.
func milliseconds(all []time.Duration, percent int) float64 {
	slices.Sort(all)
	return float64(all[min(len(all)-1, len(all)*percent/100)].Microseconds()) / 1000
}
