package replica

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/controlplane/internal/state"
)

// failState makes every write to a server's state fail from now on, as on a disk that was set read-only.
func failState(t *testing.T, n *node) {
	t.Helper()
	wal := filepath.Join(n.dir, "state.db-wal")
	readOnly, err := os.Open(wal)
	check(t, err)
	defer readOnly.Close()
	open, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	failing := 0
	for _, e := range open {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil || fd == int(readOnly.Fd()) {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == wal {
			check(t, syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC))
			failing++
		}
	}
	if failing == 0 {
		t.Fatal("nobody writes " + wal)
	}
}

// badDisk is a file system whose syncs fail while bad is set.
type badDisk struct {
	types.VFS
	bad atomic.Bool
}

func (d *badDisk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := d.VFS.Create(dir, name, size)
	return badFile{f, d}, err
}

func (d *badDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	return badFile{f, d}, err
}

type badFile struct {
	types.WritableFile
	disk *badDisk
}

func (f badFile) Sync() error {
	if f.disk.bad.Load() {
		return fmt.Errorf("sync: %w", syscall.EIO)
	}
	return f.WritableFile.Sync()
}

// P19 with the real log and the real state: the server stops and says why, the others go on, and when its disk is well again
// it has all that was acknowledged.
func TestP19AServerWhoseDiskFailsStopsAndLosesNothingThatWasAcknowledged(t *testing.T) {
	disks := map[string]*badDisk{}
	for what, c := range map[string]struct {
		fail func(*testing.T, *node)
		says string
	}{
		"the state": {failState, state.ErrCorrupt.Error()},
		"the log":   {func(_ *testing.T, n *node) { disks[n.id].bad.Store(true) }, "input/output error"},
	} {
		for _, who := range []string{"the leader", "a follower"} {
			t.Run(what+" of "+who, func(t *testing.T) {
				tune := func(c *Config) {
					disks[c.ServerID] = &badDisk{VFS: fs.New()}
					c.files = disks[c.ServerID]
				}
				realSiteTuned(t, 3, tune, func(t *testing.T, s *site, databases map[string]*state.DB) {
					var acknowledged []string
					write := func(n *node, name string) {
						t.Helper()
						s.must(n, createFlavor(name))
						acknowledged = append(acknowledged, name)
					}
					victim := s.leader()
					if who == "a follower" {
						victim = s.follower()
					}
					write(victim, "before")
					c.fail(t, victim)
					others := s.except(victim)
					write(others[0], "meanwhile")
					err := <-victim.ended
					if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "Start the server again") {
						t.Fatalf("it ended with %v", err)
					}
					victim.Replica = nil
					for _, n := range others {
						write(n, "through-"+n.id)
					}
					victim.start()
					write(victim, "after")
					for _, n := range s.nodes {
						check(t, n.ReadIndex(t.Context()))
						for _, name := range acknowledged {
							check(t, databases[n.id].View(t.Context(), func(tx *state.Tx) error {
								_, err := tx.Flavors.ByName(name, nil)
								return err
							}))
						}
					}
					pause(t.Context(), compareEvery+2*compareLook)
					if l := s.leader(); valueOf(t, l.metrics.comparisons) == 0 || valueOf(t, l.metrics.diverged) != 0 {
						t.Error("the servers were not found alike")
					}
				})
			})
		}
	}
}

// The server stops while its state waits for room. What comes after must not be applied over the gap, should there be room then.
func TestP19WhatWaitedForRoomWhenTheServerStoppedLeavesNoGap(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	l := newLedger()
	l.before = func([]Entry) error { return syscall.ENOSPC }
	a := &applier{machine: l, progress: &progress{}, pending: &pending{}, metrics: newMetrics(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
		stopping: stopping, applied: func(uint64, uint64) {}}
	entry := func(index uint64) *raft.Log { return &raft.Log{Index: index, Term: 1, Type: raft.LogNoop} }
	stop()
	a.ApplyBatch([]*raft.Log{entry(1)})
	l.before = nil
	a.ApplyBatch([]*raft.Log{entry(2)})
	if index, _ := l.position(); index != 0 {
		t.Errorf("entry %d was applied, and not those before it", index)
	}
}
