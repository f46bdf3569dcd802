package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/replica/raftlog"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// BenchmarkReplicaS4 is the part of S4 that replication has: the bare log, N entries an append, against commands from N
// proposers at once, through one server and through three over TLS, with a state machine that does nothing and with the real
// one. of-bare is the share of the bare log's entries a second, measured in the same run; cpu-µs/op is the whole process's,
// all servers.
func BenchmarkReplicaS4(b *testing.B) {
	data, err := proto.Marshal(createFlavor("benchmark"))
	check(b, err)
	bare := map[int]float64{}
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("bare/batch=%d", n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "log")
			check(b, os.Mkdir(dir, 0o700))
			log, err := raftlog.Open(dir, raftlog.Options{})
			check(b, err)
			defer log.Close()
			var index uint64
			measure(b, 0, func() int {
				batch := make([]*raft.Log, n)
				for i := range batch {
					index++
					batch[i] = &raft.Log{Index: index, Term: 1, Data: data, AppendedAt: time.Now()}
				}
				check(b, log.StoreLogs(batch))
				return n
			})
			bare[n] = float64(b.N*n) / b.Elapsed().Seconds()
		})
	}
	for _, c := range []struct {
		name    string
		servers int
		through func(*site) *node
		real    bool
	}{
		{"servers=1", 1, (*site).leader, false},
		{"servers=3", 3, (*site).leader, false},
		{"servers=3/follower", 3, (*site).follower, false},
		{"servers=1/real", 1, (*site).leader, true},
		{"servers=3/real", 3, (*site).leader, true},
	} {
		for _, n := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%s/proposers=%d", c.name, n), func(b *testing.B) {
				s, _ := newTLSSite(b, c.servers, func(cfg *Config) {
					cfg.Machine = &tally{}
					cfg.Tuning.SegmentBytes, cfg.Tuning.TrailingEntries = 0, 0
					if c.real {
						m, db := openMachine(b, b.TempDir(), cfg.ServerID)
						b.Cleanup(func() { db.Close() })
						cfg.Machine = realMachine{m}
					}
				})
				through := c.through(s)
				var left atomic.Int64
				left.Store(int64(b.N))
				var names atomic.Int64
				once := false
				measure(b, bare[n], func() int {
					if once {
						return 0
					}
					once = true
					var proposers sync.WaitGroup
					for range n {
						proposers.Go(func() {
							for left.Add(-1) >= 0 {
								if _, err := through.Propose(b.Context(), createFlavor(fmt.Sprintf("f%d", names.Add(1)))); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					proposers.Wait()
					return b.N
				})
				s.close()
			})
		}
	}
}

// BenchmarkReadIndex is what a linearizable read costs, alone and in company.
func BenchmarkReadIndex(b *testing.B) {
	for _, n := range []int{1, 256} {
		for name, through := range map[string]func(*site) *node{"leader": (*site).leader, "follower": (*site).follower} {
			b.Run(fmt.Sprintf("%s/readers=%d", name, n), func(b *testing.B) {
				s, _ := newTLSSite(b, 3, func(c *Config) { c.Machine = &tally{} })
				node := through(s)
				b.SetParallelism(n)
				b.ResetTimer()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						check(b, node.ReadIndex(b.Context()))
					}
				})
				b.StopTimer()
				s.close()
			})
		}
	}
}

// BenchmarkIdle is what three servers cost that have nothing to do: seconds of CPU in a second.
func BenchmarkIdle(b *testing.B) {
	for _, commit := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("commit_timeout=%v", commit), func(b *testing.B) {
			s, _ := newTLSSite(b, 3, func(c *Config) {
				c.Machine = &tally{}
				c.Tuning.CommitTimeout = commit
			})
			before, began := cpu(), time.Now()
			for b.Loop() {
				pause(context.Background(), 100*time.Millisecond)
			}
			b.ReportMetric((cpu()-before).Seconds()/time.Since(began).Seconds()*100, "cpu-%")
			s.close()
		})
	}
}

// measure runs do, which returns how many operations it did, for the benchmark's time, and reports rates. reference is
// another rate to be compared with.
func measure(b *testing.B, reference float64, do func() int) {
	b.Helper()
	before := cpu()
	done := 0
	b.ResetTimer()
	for range b.N {
		done += do()
	}
	b.StopTimer()
	rate := float64(done) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "entries/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(done), "cpu-µs/entry")
	if reference > 0 {
		b.ReportMetric(rate/reference*100, "%-of-bare")
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tally is a state machine that only counts.
type tally struct {
	mu          sync.Mutex
	index, term uint64
}

// Apply implements Machine.
func (t *tally) Apply(entries []Entry) ([]*commandv1.Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	results := make([]*commandv1.Result, len(entries))
	for i, e := range entries {
		results[i] = &commandv1.Result{Index: e.Index}
		t.index, t.term = e.Index, e.Term
	}
	return results, nil
}

// Snapshot implements Machine.
func (t *tally) Snapshot() (Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tallied{t.index, t.term}, nil
}

// Restore implements Machine.
func (t *tally) Restore(r io.Reader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var both [2]uint64
	err := binary.Read(r, binary.BigEndian, &both)
	t.index, t.term = both[0], both[1]
	return err
}

type tallied struct{ index, term uint64 }

func (t tallied) Applied() (index, term uint64) { return t.index, t.term }
func (t tallied) Release()                      {}
func (t tallied) Hash() ([32]byte, error)       { return [32]byte{}, nil }
func (t tallied) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, []uint64{t.index, t.term}); err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}
