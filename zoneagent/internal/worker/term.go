package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Term drives one cluster during one ownership of it. Make it with NewTerm, then Run it once.
type Term struct {
	w       *Worker
	cluster string
	store   Store
	own     Ownership
	ledger  Ledger
	log     *slog.Logger
	limits  Limits
	fence   fence

	// What the loop alone touches.
	zone     mirror
	hosts    map[string]*host
	due      map[string]bool // machines to be looked at now
	alarms   alarms          // and later
	touched  map[string]bool // hosts to be opened or closed
	dirty    map[string]bool // hosts whose noun is to be written
	outdated bool            // the cluster's noun may have to be written
	flushes  time.Time       // when nouns of hosts and of the cluster may be written next
	writing  bool            // they are being written
	totals   time.Time       // when the cluster's noun may be written next
	counted  time.Time       // when the gauges were set
	samples  sampled         // not sent yet
	sampled  time.Time       // when samples were sent last
	strange  map[string]bool // VMs that were found and nobody knows
	over     error           // the ownership is gone, as a commit found

	// Everything the loop is told comes as a function to be run by it.
	mail chan func()
	jobs sync.WaitGroup
	ctx  context.Context // set by Run
}

// NewTerm makes a term for the cluster's owner. It does nothing until it runs.
func (w *Worker) NewTerm(cluster string, store Store, own Ownership, ledger Ledger) *Term {
	return &Term{
		w: w, cluster: cluster, store: store, own: own, ledger: ledger, limits: w.cfg.Limits,
		log:   w.cfg.Logger.With("cluster", cluster),
		fence: newFence(own, w.calls, w.cfg.Limits.CallTimeout),
		zone:  newMirror(cluster),
		hosts: map[string]*host{}, due: map[string]bool{}, touched: map[string]bool{}, dirty: map[string]bool{}, strange: map[string]bool{},
		mail: make(chan func(), mailbox),
	}
}

// Run drives the cluster until ctx ends (nil), the ownership is gone (ErrFenced), or following the store fails. All
// that was begun has returned when Run returns; nothing is cleaned up.
func (t *Term) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	t.ctx = ctx
	t.jobs.Go(func() { cancel(t.follow()) })
	err := t.loop()
	cancel(err)
	t.jobs.Wait()
	t.fence.leash.close()
	for _, h := range t.hosts {
		h.close(t.log)
	}
	t.w.metrics.forget(t.cluster)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (t *Term) loop() error {
	for {
		timer := time.NewTimer(t.nap())
		select {
		case <-t.ctx.Done():
			timer.Stop()
			return context.Cause(t.ctx)
		case <-t.own.Lost():
			timer.Stop()
			return fmt.Errorf("cluster %s: %w", t.cluster, etcdstore.ErrFenced)
		case tell := <-t.mail:
			timer.Stop()
			tell()
			t.hear()
		case <-timer.C:
		}
		if t.over != nil {
			return t.over
		}
		t.advance()
	}
}

// mailbox is how much the loop may be told before the tellers wait.
const mailbox = 1024

// hear takes what the loop was told meanwhile, so that it looks at its machines once for all of it.
func (t *Term) hear() {
	for range mailbox {
		select {
		case tell := <-t.mail:
			tell()
		default:
			return
		}
		if t.over != nil {
			return
		}
	}
}

// tell has fn run by the loop, unless the term ends first.
func (t *Term) tell(fn func()) {
	select {
	case t.mail <- fn:
	case <-t.ctx.Done():
	}
}

// job runs fn beside the loop, which is told what came of it.
func (t *Term) job(fn func() (then func())) {
	t.jobs.Go(func() {
		if then := fn(); then != nil {
			t.tell(then)
		}
	})
}

func (t *Term) follow() error {
	err := t.store.Follow(t.ctx, func(b etcdstore.Batch) error {
		t.tell(func() { t.applyBatch(b) })
		return t.ctx.Err()
	}, spaces...)
	if err == nil {
		err = errors.New("the store ended what it tells")
	}
	return err
}

// nap is how long there is nothing to do by itself.
func (t *Term) nap() time.Duration {
	next := time.Now().Add(time.Hour)
	if len(t.alarms) > 0 && t.alarms[0].at.Before(next) {
		next = t.alarms[0].at
	}
	if t.unreported() && !t.writing && t.flushes.Before(next) {
		next = t.flushes
	}
	if at := t.sampled.Add(t.limits.ReportEvery); t.samples.some() && at.Before(next) {
		next = at
	}
	return max(time.Until(next), 1) // not zero: the race detector stumbles over such a timer in a bubble (golang/go#78156)
}

// advance does what can be done now.
func (t *Term) advance() {
	if !t.zone.told {
		return
	}
	t.alarms.due(time.Now(), func(id string, at time.Time) {
		if m := t.zone.machines[id]; m != nil && m.wake.Equal(at) {
			m.wake = time.Time{}
			t.due[id] = true
		}
	})
	// In the order of their ids, which is that of their making: who came first has the first place on a host.
	due := slices.Sorted(maps.Keys(t.due))
	clear(t.due)
	for _, id := range due {
		// One that is busy is due again when it no longer is.
		if m := t.zone.machines[id]; m != nil && !m.busy {
			t.consider(m)
		}
	}
	t.flush()
	t.sendSamples()
	t.count()
}

// commit writes a transaction of fn's beside the loop, and tells the loop how it went.
func (t *Term) commit(fn func(Tx), then func(revision int64, err error)) {
	tx, life := t.store.Begin(), t.zone.incarnation
	tx.ReadIn(life)
	fn(tx)
	t.job(func() func() {
		revision, err := tx.Commit(t.ctx)
		return func() {
			if err != nil {
				t.w.metrics.failed(err)
			}
			if errors.Is(err, etcdstore.ErrFenced) {
				t.over = err
				return
			}
			if life != t.zone.incarnation {
				// What was written is forgotten with the life of the store that it was written in.
				revision, err = 0, fmt.Errorf("incarnation %s is over: %w", life, etcdstore.ErrConflict)
			}
			then(revision, err)
		}
	})
}

func reference(kind string, noun interface {
	proto.Message
	GetId() string
	GetName() string
}) *apiv1.Reference {
	return &apiv1.Reference{Kind: kind, Id: noun.GetId(), Name: noun.GetName()}
}
