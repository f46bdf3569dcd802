package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// holder is a process's place: its machine's boot, and the very file that it has locked. A process that has the lock of the
// same file since the same boot knows that whoever noted this before has ended. A copy of the folder has another file, and a
// copy of the machine another boot; there nothing is known.
type holder struct {
	Boot   string `json:"boot"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// heldLeases are the leases that this process has, noted in its folder so that the next process there need not wait for them.
type heldLeases struct {
	file string
	me   holder

	mu  sync.Mutex
	ids []int64
}

// leaseNote is the file's content.
type leaseNote struct {
	holder
	Leases []int64 `json:"leases"`
}

// leases returns what is noted of leases from now on, and those that the process before this one had and can use no more.
func (f *folder) leases() (*heldLeases, []int64) {
	h := &heldLeases{file: filepath.Join(f.dir, "leases.json")}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var stat syscall.Stat_t
	if err == nil && syscall.Fstat(int(f.lock.Fd()), &stat) == nil {
		h.me = holder{strings.TrimSpace(string(boot)), uint64(stat.Dev), stat.Ino}
	}
	var before leaseNote
	raw, err := os.ReadFile(h.file)
	if err != nil || json.Unmarshal(raw, &before) != nil || before.holder != h.me || h.me == (holder{}) {
		return h, nil // then they end by themselves
	}
	return h, before.Leases
}

// add notes a lease before anything is bound to it.
func (h *heldLeases) add(id int64) error {
	return h.change(func(ids []int64) []int64 { return append(ids, id) })
}

// remove forgets a lease that has ended. Noted longer than it lives, it does no harm.
func (h *heldLeases) remove(id int64) {
	_ = h.change(func(ids []int64) []int64 { return slices.DeleteFunc(ids, func(i int64) bool { return i == id }) })
}

func (h *heldLeases) change(how func([]int64) []int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = how(h.ids)
	raw, err := json.Marshal(leaseNote{h.me, h.ids})
	if err != nil {
		return err
	}
	// It need not outlast the machine's end: after another boot it counts for nothing.
	next := h.file + ".next"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, h.file)
}

// endFormer ends the leases that this agent's former process had in the same folder, so that nobody waits for their end. It
// may: that process has ended, for this one has its lock. A call that it had sent to a hypervisor may still come to its end there;
// as after any change of owner, the next one looks before it acts, and a VM does not move.
func (s *Store) endFormer(ctx context.Context) error {
	held, former := s.folder.leases()
	s.held = held
	for _, id := range former {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
		err := s.leases.Revoke(ctx, id)
		cancel()
		if err != nil {
			return errors.Join(held.change(func([]int64) []int64 { return former }), fmt.Errorf("end what this agent's former process owned: %w", err))
		}
	}
	if len(former) > 0 {
		s.log.Info("what this agent's former process owned has ended", "leases", len(former))
	}
	return held.change(func([]int64) []int64 { return nil })
}
