package libvirt

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// logHead is the page of zeros that a log begins with, so that nothing a guest prints stands where the signatures of
// disk formats stand.
const logHead = 4096

// logPart is the most that one look reads of a log.
const logPart = 1 << 20

func logName(vmID string) string { return vmID + ".log" }

// ensureLog makes the VM's serial log and returns where it lies.
func (h *host) ensureLog(ctx context.Context, vmID string) (string, error) {
	pool, err := h.pool(ctx, serialPool)
	if err != nil {
		return "", err
	}
	volume, err := h.volume(ctx, pool, logName(vmID))
	if err != nil {
		return "", err
	}
	if volume == nil {
		made, err := h.create(ctx, pool, raw(logName(vmID), logHead))
		if err != nil {
			return "", err
		}
		volume = &made
	}
	return h.path(ctx, *volume)
}

// freshLog puts an empty log in the place of the one from the VM's last start. The VM is off.
func (h *host) freshLog(ctx context.Context, vmID string) error {
	pool, err := h.pool(ctx, serialPool)
	if err != nil {
		return err
	}
	if err := h.remove(ctx, pool, logName(vmID)); err != nil {
		return err
	}
	_, err = h.create(ctx, pool, raw(logName(vmID), logHead))
	return err
}

// serialLogs is how far a session has read the serial logs of its host.
type serialLogs struct {
	mu  sync.Mutex
	vms map[string]*serialLog
}

// serialLog is how far one log was read, in one run of its VM.
type serialLog struct {
	mu     sync.Mutex
	run    int32 // libvirt's number of the running domain, new with each start
	offset uint64
	tail   []byte // the end of what was read, in which a marker may have begun
	ready  bool
	looked time.Time
}

// of returns the log of a VM in this run, the reading of earlier runs forgotten.
func (l *serialLogs) of(vmID string, run int32) *serialLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.vms[vmID]
	if log == nil || log.run != run {
		log = &serialLog{run: run, offset: logHead}
		l.vms[vmID] = log
	}
	return log
}

func (l *serialLog) isReady() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

func (l *serialLog) lastLook() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looked
}

// keep forgets the logs of all other VMs.
func (l *serialLogs) keep(seen map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for vmID := range l.vms {
		if !seen[vmID] {
			delete(l.vms, vmID)
		}
	}
}

// ready looks at what a running VM has printed since the last look, and reports whether the marker was among it, now or
// before. What cannot be read now is read next time.
func (h *host) ready(ctx context.Context, log *serialLog, vmID string) bool {
	log.mu.Lock()
	defer log.mu.Unlock()
	if log.ready {
		return true
	}
	log.looked = time.Now()
	if err := h.readLog(ctx, log, vmID); err != nil {
		h.log.Debug("the serial log cannot be read now", "vm", vmID, "error", err)
	}
	return log.ready
}

func (h *host) readLog(ctx context.Context, log *serialLog, vmID string) error {
	pool, err := h.pool(ctx, serialPool)
	if err != nil {
		return err
	}
	volume, err := h.volume(ctx, pool, logName(vmID))
	if err != nil || volume == nil {
		return err
	}
	size, err := h.size(ctx, *volume)
	if err != nil {
		return err
	}
	if size < log.offset { // virtlogd has begun a new file
		log.offset, log.tail = 0, nil
	}
	if size <= log.offset {
		return nil
	}
	part, err := h.read(ctx, *volume, log.offset, min(size-log.offset, logPart))
	if err != nil {
		return err
	}
	log.take(part, []byte(hypervisor.ReadyMarker(vmID)))
	return nil
}

// take goes on reading where the last part ended; a marker may lie across two parts.
func (l *serialLog) take(part, marker []byte) {
	l.offset += uint64(len(part))
	text := append(l.tail, part...)
	l.ready = l.ready || bytes.Contains(text, marker)
	l.tail = bytes.Clone(text[max(0, len(text)-len(marker)):])
}
