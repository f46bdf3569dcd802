package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/naru-project/naru/pkg/problem"
)

func TestAFailedBatchStopsTheServerAndNothingIsAppliedAfterIt(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.leader()
		broken := errors.New("checksum mismatch in table vms")
		applied := n.Applied()
		n.ledger.mu.Lock()
		n.ledger.before = func([]Entry) error { return broken }
		n.ledger.mu.Unlock()
		cmd := put("k", "v")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Propose(ctx, cmd); !problem.Is(err, problem.Timeout) {
			t.Errorf("the caller was told %v", err)
		}
		if err := <-n.ended; !errors.Is(err, broken) {
			t.Errorf("the server ended with %v", err)
		}
		if index, _ := n.ledger.position(); index != applied {
			t.Errorf("the state went from entry %d to %d", applied, index)
		}
		n.Replica = nil
		s.must(s.leader(), put("others", "go on"))

		n.ledger.before = nil
		n.start()
		s.must(n, cmd) // the caller tries again
		s.alike()
		if times := n.ledger.times(cmd.GetId()); times != 1 {
			t.Errorf("carried out %d times", times)
		}
	})
}

func TestP19AStateThatCannotBeWrittenWaitsAndLosesNothing(t *testing.T) {
	inMemory(t, 1, nil, func(t *testing.T, s *site, _ *ether) {
		n := s.nodes[0]
		var full atomic.Bool
		n.ledger.mu.Lock()
		n.ledger.before = func([]Entry) error {
			if full.Load() {
				return fmt.Errorf("write ledger: %w", syscall.ENOSPC)
			}
			return nil
		}
		n.ledger.mu.Unlock()
		full.Store(true)
		done := make(chan error, 1)
		go func() {
			_, err := n.Propose(t.Context(), put("k", "v"))
			done <- err
		}()
		pause(t.Context(), 5*time.Second)
		select {
		case err := <-done:
			t.Fatalf("answered %v while nothing could be written", err)
		default:
		}
		if valueOf(t, n.metrics.applyBlocked) != 1 {
			t.Error("the metric does not say so")
		}
		full.Store(false)
		check(t, <-done)
		if n.ledger.get("k") != "v" || valueOf(t, n.metrics.applyBlocked) != 0 {
			t.Error("it did not heal")
		}
	})
}

func TestP19P20ALeaderThatCannotApplyLetsAnotherLead(t *testing.T) {
	inMemory(t, 3, nil, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		release := make(chan struct{})
		old.ledger.mu.Lock()
		old.ledger.before = func([]Entry) error { <-release; return nil }
		old.ledger.mu.Unlock()
		began := time.Now()
		s.must(s.except(old)[0], put("k", "v"))
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the hand-over took %v", d)
		}
		close(release)
		s.alike()
	})
}

func TestP20ALeaderWhoseDiskStallsLetsAnotherLead(t *testing.T) {
	disks := map[string]*slowDisk{}
	inMemory(t, 3, func(c *Config) {
		disks[c.ServerID] = &slowDisk{VFS: fs.New()}
		c.files = disks[c.ServerID]
	}, func(t *testing.T, s *site, _ *ether) {
		old := s.leader()
		disks[old.id].stall.Store(true)
		began := time.Now()
		s.must(s.except(old)[0], put("k", "v"))
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the hand-over took %v", d)
		}
		pause(t.Context(), old.c.Tuning.StallTimeout/2)
		if l := old.Leader(); l.Self {
			t.Errorf("the server with the stalled disk still says that it leads: %+v", l)
		}
		pause(t.Context(), 10*time.Second)
		disks[old.id].stall.Store(false)
		pause(t.Context(), time.Second)
		s.must(old, put("k", "healed"))
		s.alike()
	})
}

// slowDisk is a file system whose syncs take long while stall is set.
type slowDisk struct {
	types.VFS
	stall atomic.Bool
}

func (d *slowDisk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := d.VFS.Create(dir, name, size)
	return slowFile{f, d}, err
}

func (d *slowDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return slowFile{f, d}, err
}

type slowFile struct {
	types.WritableFile
	disk *slowDisk
}

func (f slowFile) Sync() error {
	for f.disk.stall.Load() {
		pause(context.Background(), time.Millisecond)
	}
	return f.WritableFile.Sync()
}

// valueOf returns what a counter or gauge says.
func valueOf(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	check(t, m.Write(&out))
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}
