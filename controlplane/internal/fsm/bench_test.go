package fsm_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// entries makes the log of n creations, with ids in time order and a key each, as the API sends them.
func entries(b *testing.B, p *plane, from, n int) []fsm.Entry {
	b.Helper()
	log := make([]fsm.Entry, n)
	for i := range log {
		log[i] = p.entry(creation(from + i))
	}
	return log
}

func creation(n int) *commandv1.Command {
	m := web(n)
	m.Id = fmt.Sprintf("0199f0c0-0000-7000-8000-%012d", n)
	m.SshKeys = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYmJ5IHRhYmxlcyB3YXMgaGVyZSBhbmQgbGVmdCBh ann@desk"}
	m.ImageSha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	return &commandv1.Command{
		Idempotency: &commandv1.Idempotency{Key: fmt.Sprintf("key-%d", n), RequestHash: make([]byte, 32)},
		Body: &commandv1.Command_CreateVm{CreateVm: &commandv1.CreateVM{Vm: m, Deadline: timestamppb.New(start.Add(time.Hour)),
			OperationId: fmt.Sprintf("0199f0c1-0000-7000-8000-%012d", n)}},
	}
}

// BenchmarkApplyCreateVM: a creation in batches, with ids in time order and names of a fleet that grows.
func BenchmarkApplyCreateVM(b *testing.B) {
	for _, size := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			p := furnished(b)
			log := entries(b, p, 0, b.N)
			b.ReportAllocs()
			measure(b, "command", func() {
				for len(log) > 0 {
					n := min(size, len(log))
					results, err := p.machine.Apply(log[:n])
					if err != nil || results[0].GetProblem() != nil {
						b.Fatal(results, err)
					}
					log = log[n:]
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}

// BenchmarkApplyObserve: reports of 128 VMs that have all changed, in one chunk.
func BenchmarkApplyObserve(b *testing.B) {
	p := furnished(b)
	var objects []*linkv1.Object
	for n := range 128 {
		p.accept(createVM(n))
		objects = append(objects, seen(n, apiv1.VM_RUNNING, apiv1.VM_ON))
	}
	p.accept(fullSync(true, "inc", 0, 1, objects...))
	var log []fsm.Entry
	for i := range b.N {
		for _, o := range objects {
			o.GetVm().Power = apiv1.VM_Power(1 + i%2)
		}
		log = append(log, p.entry(proto.CloneOf(observe("inc", uint64(i)+1, uint64(i)+2, objects...))))
	}
	measure(b, "128-VMs", func() {
		for _, e := range log {
			results, err := p.machine.Apply([]fsm.Entry{e})
			if err != nil || results[0].GetProblem() != nil {
				b.Fatal(results, err)
			}
		}
	})
}

// BenchmarkApplyUsage: links of the use of VMs, 256 in a batch as a zone sends them.
func BenchmarkApplyUsage(b *testing.B) {
	const vms = 256
	p := furnished(b)
	meters := make([]*meter, vms)
	for i := range meters {
		p.accept(createVM(i))
		meters[i] = &meter{vm: fmt.Sprintf("vm-%d", i)}
	}
	var log []fsm.Entry
	for n := 0; n < b.N; n += vms {
		var entries []*linkv1.JournalEntry
		for _, m := range meters {
			entries = append(entries, m.to("i", int64(n), []apiv1.VM_State{apiv1.VM_RUNNING, apiv1.VM_STOPPED}[n/vms%2], 1))
		}
		log = append(log, p.entry(journal("i", "c-kvm", numbered(uint64(n), entries...)...)))
	}
	b.ReportAllocs()
	measure(b, "link", func() {
		for _, e := range log {
			if results, err := p.machine.Apply([]fsm.Entry{e}); err != nil || results[0].GetProblem() != nil {
				b.Fatal(results, err)
			}
		}
	})
}

// BenchmarkRestore: a state of 20,000 VMs from its snapshot.
func BenchmarkRestore(b *testing.B) {
	const vms = 20_000
	p := furnished(b)
	p.replay(entries(b, p, 0, vms), func(left int) int { return min(left, 256) })
	snapshot := p.snapshot()
	b.ReportMetric(float64(len(snapshot))/vms, "bytes/VM")
	measure(b, "20000-VMs", func() {
		for range b.N {
			if err := p.machine.Restore(bytes.NewReader(snapshot)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// S11: what a fleet adds to the process, whose state is in the file, and to the file.
func BenchmarkMemory(b *testing.B) {
	const vms = 50_000
	for range b.N {
		p := furnished(b)
		before := resident(b)
		p.offset, p.log = uint64(len(p.log)), nil
		for n := 0; n < vms; n += 250 {
			p.replay(entries(b, p, n, 250), whole)
			p.offset, p.log = p.offset+uint64(len(p.log)), nil // what is measured is the state, not the test's log
		}
		b.ReportMetric(float64(resident(b)-before)/vms, "resident-bytes/VM")
		if err := p.db.Checkpoint(); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(p.path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/vms, "file-bytes/VM")
	}
}

// measure reports the process's CPU time for each of n things: on a machine that others use as well, it is what counts.
func measure(b *testing.B, unit string, fn func()) {
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	fn()
	b.StopTimer()
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/1000/float64(b.N), "cpu-µs/"+unit)
}

// resident returns the process's resident memory, SQLite's caches included.
func resident(b *testing.B) int64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("no /proc here: ", err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
