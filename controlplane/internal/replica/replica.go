// Package replica keeps the control plane's servers alike: each write is a command that a majority has in its log before it
// is carried out, by one deterministic function, in the same order everywhere. It alone knows Raft; the state behind it is a
// Machine.
//
// New checks and repairs what a crash may have left, and starts. Run lives until its context ends, or something happens
// after which the server must not go on; it returns why. Propose writes, ReadIndex makes a read up to date, WhileLeader runs
// what only one server may do.
package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/naru-project/naru/controlplane/internal/replica/raftlog"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// cacheEntries is how many of the newest entries are kept in memory for followers: twice what one message may carry.
const cacheEntries = 2 * maxBatch

// stopTimeout is how long Close waits for what is under way.
const stopTimeout = 10 * time.Second

// Replica is one server's part in the federation. Its methods may be called concurrently, from New on.
type Replica struct {
	c         Config
	metrics   *metrics
	folder    *folder
	log       *raftlog.Log
	fabric    fabric
	raft      *raft.Raft
	applier   *applier
	progress  *progress
	pending   *pending
	gatherer  gatherer
	clock     *clock
	witnesses *witnesses
	reads     *readRounds
	couriers  *couriers
	hashes    *hashes

	leadership *leadership
	// elections carries Raft's word that this server was elected or no longer leads. Raft waits until it is taken.
	elections       chan bool
	leftOut         chan struct{} // a committed configuration is without this server
	snapshotDamaged chan struct{}
	unsnapped       uint64 // bytes of log after the newest snapshot, on start

	failed   chan error      // why the server must not go on
	stopping context.Context // ends first of all when the server stops
	stop     context.CancelFunc
	running  chan struct{} // closed when raft is set
	closing  atomic.Bool
	closed   chan struct{}
	closeErr error

	removing sync.RWMutex // read-locked while this server is removed by its own word

	// handing is full while Raft is asked to let another server lead. What it has been asked, and not looked at when it ends, it never answers.
	handing chan struct{}

	spawning sync.Mutex // no task begins once stopping has ended
	tasks    sync.WaitGroup
}

// New opens the data folder, brings log, snapshots and state together, listens, and starts to follow. After an error nothing
// is left open.
func New(c Config) (*Replica, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.Tuning.check(); err != nil {
		return nil, err
	}
	if c.Join == nil || c.Local == nil {
		return nil, errors.New("a replica needs a join handler and a local view")
	}
	return start(c, func(c *Config, expected func(string) (string, bool), m *metrics) (fabric, error) {
		return newNetwork(c, expected, m)
	})
}

// weave makes a server's fabric.
type weave func(c *Config, expected func(address string) (serverID string, known bool), m *metrics) (fabric, error)

func start(c Config, weave weave) (*Replica, error) {
	r := &Replica{
		c: c, metrics: newMetrics(c.Metrics), progress: &progress{}, pending: &pending{}, witnesses: newWitnesses(), hashes: &hashes{}, leadership: newLeadership(),
		elections: make(chan bool), leftOut: make(chan struct{}, 1), snapshotDamaged: make(chan struct{}, 1), failed: make(chan error, 1),
		running: make(chan struct{}), closed: make(chan struct{}), handing: make(chan struct{}, 1),
	}
	r.stopping, r.stop = context.WithCancel(context.Background())
	r.clock = newClock(r.clockJumped)
	r.reads = &readRounds{ask: r.readIndex, ctx: r.stopping, spawn: r.spawn}
	if err := r.open(weave); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Replica) open(weave weave) (err error) {
	if r.folder, err = openFolder(r.c.Dir, identity{Server: r.c.ServerID, Federation: r.c.Federation}); err != nil {
		return err
	}
	snapshots, err := openSnapshots(r.c.Dir, logger{to: r.c.Logger}, r.noteDamaged)
	if err != nil {
		return err
	}
	if r.c.snapshotKept != nil {
		snapshots.kept = r.c.snapshotKept
	}
	if r.log, err = raftlog.Open(r.folder.log(), raftlog.Options{
		SegmentBytes: r.c.Tuning.SegmentBytes, Logger: logger{to: r.c.Logger}, Fail: func(err error) { r.fail(fmt.Errorf("%w. %s", err, restart)) }, NoSpace: r.noSpace(),
		Files: r.c.files,
	}); err != nil {
		return fmt.Errorf("%w. %s", err, rejoin)
	}
	kept, err := snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	newest := &raft.SnapshotMeta{}
	if len(kept) > 0 {
		newest = kept[0]
	}
	if r.unsnapped, err = r.log.Verify(newest.Index); err != nil {
		return fmt.Errorf("%w. %s", err, rejoin)
	}
	applied, err := bringTogether(r.c.Machine, r.log, snapshots, r.c.Logger)
	if err != nil {
		return err
	}
	r.progress.advance(applied)
	r.metrics.applied.Set(float64(applied))
	r.applier = &applier{machine: r.c.Machine, progress: r.progress, pending: r.pending, metrics: r.metrics, log: r.c.Logger,
		fail: r.fail, stopping: r.stopping, reconfigured: r.reconfigured, heed: r.heed, epoch: time.Now()}

	woven, err := weave(&r.c, r.serverAt, r.metrics)
	if err != nil {
		return err
	}
	r.fabric = woven
	cached, err := raft.NewLogCache(cacheEntries, r.log)
	if err != nil {
		return err
	}
	r.couriers = newCouriers(r.fabric.transport(), r.c.ServerID, r.members, r.spawn)
	log := &anchoredLog{LogStore: cached}
	log.anchor(newest.Index, newest.Term)
	r.applier.applied, r.applier.restored, r.applier.persisted = r.couriers.applied, log.replaced, log.anchor
	transport := witnessed{raftTransport: r.fabric.transport(), witnesses: r.witnesses, couriers: r.couriers, stalled: r.stalled}
	r.log.Serve()
	// Futures are not waited for: some are never answered when Raft stops.
	r.gatherer.put = func(l raft.Log, patience time.Duration) { r.raft.ApplyLog(l, patience) }
	if r.raft, err = raft.NewRaft(r.c.raft(r.elections), r.applier, log, r.log, snapshots, transport); err != nil {
		return fmt.Errorf("start Raft: %w", err)
	}
	close(r.running)
	r.fabric.serve(service{Replica: r})
	return nil
}

// Run takes part in the federation until ctx ends; then it hands the leadership over, closes everything and returns nil. It
// returns an error when the server must not go on: a write that failed, a damaged log, ErrRemoved.
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.stopping, cancel)() // Close ends Run, too
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case err := <-r.failed:
			return err
		case <-running.Done():
			return nil
		}
	})
	group.Go(func() error { return r.followLeadership(running) })
	group.Go(func() error { return r.takeSnapshots(running) })
	group.Go(func() error { return r.watchMembership(running) })
	group.Go(func() error { return r.watchClock(running) })
	group.Go(func() error { return r.WhileLeader(running, r.compareStates) })
	group.Go(func() error {
		<-running.Done()
		if context.Cause(running) == context.Cause(ctx) { // asked to stop, and in order
			r.leaveOffice()
		}
		return nil
	})
	err := group.Wait()
	return errors.Join(err, r.Close())
}

// leaveOffice lets another server lead before this one stops, so that nobody has to wait for an election.
func (r *Replica) leaveOffice() {
	if r.raft.State() != raft.Leader || len(r.members()) < 2 {
		return
	}
	done := make(chan struct{})
	begun := r.spawn(func() {
		defer close(done)
		r.handOver("this server stops")
	})
	if !begun {
		return
	}
	select {
	case <-done:
	case <-time.After(r.c.Tuning.ElectionTimeout):
	}
}

// Close stops a Replica whose Run was never called; Run calls it itself. It returns when all has ended.
func (r *Replica) Close() error {
	if r.closing.CompareAndSwap(false, true) {
		r.closeErr = r.close()
		close(r.closed)
	}
	<-r.closed
	return r.closeErr
}

func (r *Replica) close() (err error) {
	r.spawning.Lock()
	r.stop()
	r.spawning.Unlock()
	defer r.leadership.set(Leader{}, 0)
	if r.raft != nil {
		if err := r.stopRaft(); err != nil {
			return err // it still uses what would be closed now
		}
	}
	if r.fabric != nil {
		err = r.fabric.close()
	}
	r.tasks.Wait()
	if r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	if r.folder != nil {
		err = errors.Join(err, r.folder.close())
	}
	return err
}

// spawn runs task beside what else runs; Close waits for it. It returns false when the server stops already.
func (r *Replica) spawn(task func()) bool {
	r.spawning.Lock()
	defer r.spawning.Unlock()
	if r.stopping.Err() != nil {
		return false
	}
	r.tasks.Go(task)
	return true
}

// stopRaft waits until Raft's goroutines have ended, though not for ever: a disk may keep one of them.
func (r *Replica) stopRaft() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	done := make(chan error, 1)
	select {
	case r.handing <- struct{}{}: // for good
		go func() { done <- r.raft.Shutdown().Error() }()
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the server did not come to rest within %v: an append or a batch is still under way", stopTimeout)
	}
}

// Applied returns the index of the last entry that was applied here.
func (r *Replica) Applied() uint64 { return r.progress.applied() }

// fail notes why the server must not go on. Run returns the first reason.
func (r *Replica) fail(err error) {
	r.c.Logger.Error("the server has to stop", "error", err)
	select {
	case r.failed <- err:
	default:
	}
}

// noSpace says once that the log's disk is full, and once that it no longer is.
func (r *Replica) noSpace() func(error) {
	var mu sync.Mutex
	full := false
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && !full:
			r.c.Logger.Error("the log cannot grow until there is room on the disk", "dir", r.c.Dir, "error", err)
		case err == nil && full:
			r.c.Logger.Info("there is room on the disk again", "dir", r.c.Dir)
		}
		full = err != nil
	}
}

func (r *Replica) noteDamaged(id string, err error) {
	r.c.Logger.Error("a snapshot is damaged; another one is taken", "snapshot", id, "error", err)
	select {
	case r.snapshotDamaged <- struct{}{}:
	default:
	}
}

func (r *Replica) reconfigured(c raft.Configuration) {
	if !slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return string(s.ID) == r.c.ServerID }) {
		select {
		case r.leftOut <- struct{}{}:
		default:
		}
	}
}

// serverAt returns which server is known to stand at an address.
func (r *Replica) serverAt(address string) (id string, known bool) {
	select {
	case <-r.running:
	default:
		return "", false
	}
	for _, m := range r.members() {
		if string(m.Address) == address {
			return string(m.ID), true
		}
	}
	return "", false
}

// actor is this server as the one who asks.
func (r *Replica) actor() string { return "spiffe://" + r.c.Federation + "/server/" + r.c.ServerID }

func (r *Replica) clockJumped(by time.Duration) {
	r.metrics.clockJumps.Inc()
	r.c.Logger.Error("the wall clock has jumped; what expires goes on as if it had not, until it has stood for a while", "by", by, "for", settleTime)
	r.spawn(func() { // who reads the clock does not wait
		_, err := r.Propose(r.stopping, &commandv1.Command{Actor: r.actor(), Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{
			Event: &apiv1.Event{
				Severity: apiv1.Event_WARNING, Type: "server.clock", Target: &apiv1.Reference{Kind: "server", Id: r.c.ServerID},
				Message: fmt.Sprintf("the wall clock of server %s has jumped by %v; what expires goes on for %v as if it had not", r.c.ServerID, by.Round(time.Millisecond), settleTime),
			},
		}}})
		if err != nil {
			r.c.Logger.Warn("that the wall clock has jumped could not be recorded as an event", "error", err)
		}
	})
}

// Now returns the time for what expires: the wall clock's, which is not followed for ten minutes after it has jumped.
func (r *Replica) Now() time.Time { return r.clock.now() }

// watchClock looks at the clocks also when nothing is proposed.
func (r *Replica) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.clock.now()
		}
	}
}
