// Package schedule puts VMs on hosts, for the clusters that this agent owns, and keeps the book of what hosts and
// guest networks have given: allocations and addresses.
//
// # One term
//
// A Term lasts as long as one ownership of one cluster. It begins with a fresh snapshot of the zone, read after the
// election was won, so it sees all that the owner before it committed; it ends with the ownership. One goroutine keeps
// the picture, decides and commits, so that none of it needs a lock, and nobody else writes allocations or takes
// addresses for the cluster.
//
// # One pass
//
// Everything that waits is placed together, oldest first, each VM seeing the earlier ones, and committed in as few
// transactions as the store's limits allow. While one is under way the next batch gathers by itself: a single VM on an
// idle zone is placed at once, a thousand go together. Nothing is trusted twice: an allocation is written against the
// revision that was read, an address only if nobody has it.
//
// # What is never done
//
// A VM that is on a host is never moved or placed again, nor is one that may be on a host that the store has forgotten
// (see Survey). What the control plane does not name any more is kept: its room and its address stay taken, because
// absence is not an instruction.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Store is the zone's store, as the owner of one cluster uses it. Owned makes one.
type Store interface {
	// Follow tells everything in the spaces and then every change, until ctx ends or fn fails.
	Follow(ctx context.Context, fn func(etcdstore.Batch) error, spaces ...etcdstore.Space) error
	// Begin begins a transaction of the owner's.
	Begin() Tx
	// Incarnation is the store's present life.
	Incarnation() (*zonev1.Incarnation, <-chan struct{})
	// Pressed tells that so much of the quota is used that no new work is to be begun.
	Pressed() bool
}

// Tx is what the scheduler uses of an etcdstore.Tx.
type Tx interface {
	ReadIn(incarnation string)
	PutObserved(noun proto.Message)
	Tombstone(noun *apiv1.Reference, generation *apiv1.Generation)
	PutAllocation(a *zonev1.Allocation, revision int64)
	TakeAddress(a netip.Addr, lease *zonev1.AddressLease)
	FreeAddress(a netip.Addr, revision int64)
	PutWork(w *zonev1.Work)
	DeleteWork(vmID string)
	Journal(entries ...*linkv1.JournalEntry)
	Require(space etcdstore.Space, kind, id string, revision int64)
	Commit(ctx context.Context) (revision int64, err error)
}

// Owned is the store in the hands of a cluster's owner.
func Owned(s *etcdstore.Store, own *etcdstore.Ownership) Store { return owned{s, own} }

type owned struct {
	*etcdstore.Store
	own *etcdstore.Ownership
}

func (o owned) Begin() Tx { return o.Store.Begin(o.own) }

// Config is what a term needs.
type Config struct {
	// Cluster is the id of the cluster that is owned.
	Cluster string
	Store   Store
	// Network is the cluster's guest network; nil: guests ask DHCP, and no address is taken.
	Network *Network
	// Batch is how many VMs go into one transaction at most; 100 by default. It halves when the store finds the
	// transactions too large.
	Batch int
	// OperationTimeout is how long the work on a VM may take from its placement; 10 min by default.
	OperationTimeout time.Duration
	// Patience is how long a VM waits for hosts that have not reported yet or are suspect, before it is refused for want
	// of them; 15 s by default.
	Patience time.Duration
	// Retry is how long to wait before a store that failed is asked again; 200 ms by default.
	Retry   time.Duration
	Logger  *slog.Logger
	Metrics *Metrics
}

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 100
	}
	if c.OperationTimeout == 0 {
		c.OperationTimeout = 10 * time.Minute
	}
	if c.Patience == 0 {
		c.Patience = 15 * time.Second
	}
	if c.Retry == 0 {
		c.Retry = 200 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c
}

// Term schedules one cluster during one ownership of it. Make it with NewTerm, then Run it once.
type Term struct {
	cfg     Config
	log     *slog.Logger
	book    *book
	changes chan etcdstore.Batch
	leaving chan *departure
	ended   chan struct{}
	failed  error // set before ended is closed

	inbox    sync.Mutex
	surveys  map[string]survey // not taken yet, by host
	surveyed chan struct{}     // there are some

	departures []*departure
	size       int                  // VMs a transaction; smaller where the store finds them too large
	stalled    time.Time            // when to try again what could not be done; zero: nothing is put off
	since      map[string]time.Time // VMs that wait for a host to report, and since when
}

// NewTerm makes a term. It does nothing until it runs.
func NewTerm(c Config) (*Term, error) {
	c = c.withDefaults()
	if c.Cluster == "" || c.Store == nil {
		return nil, errors.New("schedule: a term needs a cluster and a store")
	}
	pool, err := newPool(c.Network)
	if err != nil {
		return nil, fmt.Errorf("schedule: guest network: %w", err)
	}
	return &Term{
		cfg: c, log: c.Logger.With("cluster", c.Cluster), book: newBook(c.Cluster, pool), size: c.Batch,
		changes: make(chan etcdstore.Batch), leaving: make(chan *departure), ended: make(chan struct{}),
		since: map[string]time.Time{}, surveys: map[string]survey{}, surveyed: make(chan struct{}, 1),
	}, nil
}

// Run schedules until ctx ends (nil), the ownership is gone (ErrFenced), or the store fails in a way that only a fresh
// term can mend.
func (t *Term) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		cancel(t.follow(ctx))
	}()
	defer func() {
		cancel(nil)
		<-followed
		t.failed = errors.Join(errEnded, err)
		close(t.ended)
	}()
	for {
		if err := t.gather(ctx); err != nil {
			return ending(ctx, err)
		}
		if err := t.pass(ctx); err != nil {
			return ending(ctx, err)
		}
	}
}

var errEnded = errors.New("the cluster's scheduling has ended")

// ending tells a wished end from a failure.
func ending(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) && errors.Is(cause, context.Canceled) {
		return nil
	}
	return err
}

// spaces are what the book is kept from.
var spaces = []etcdstore.Space{
	etcdstore.Desired, etcdstore.Observed, etcdstore.Allocation, etcdstore.Address, etcdstore.Unclaimed, etcdstore.Cursor,
}

func (t *Term) follow(ctx context.Context) error {
	err := t.cfg.Store.Follow(ctx, func(b etcdstore.Batch) error {
		select {
		case t.changes <- b:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}, spaces...)
	if err == nil {
		err = errors.New("the store ended what it tells")
	}
	return err
}

// gather waits until there is something to do, and takes all that has come meanwhile.
func (t *Term) gather(ctx context.Context) error {
	var again <-chan time.Time
	if wait := time.Until(t.stalled); !t.stalled.IsZero() {
		again = time.After(max(wait, 1)) // not zero: the race detector stumbles over such a timer in a bubble (golang/go#78156)
	}
	var lapse <-chan time.Time
	if wait, some := t.book.nextLapse(time.Now()); some {
		lapse = time.After(max(wait, t.cfg.Retry)) // not at once: what could not be written is not tried all the time
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case b := <-t.changes:
		t.apply(b)
	case d := <-t.leaving:
		t.departures = append(t.departures, d)
	case <-t.surveyed:
	case <-again:
	case <-lapse:
	}
	t.stalled = time.Time{}
	t.drain()
	return nil
}

func (t *Term) drain() {
	for {
		select {
		case b := <-t.changes:
			t.apply(b)
		case d := <-t.leaving:
			t.departures = append(t.departures, d)
		default:
			t.takeSurveys()
			return
		}
	}
}

// apply takes over what the store tells. Only a store that never began anew has forgotten nothing.
func (t *Term) apply(b etcdstore.Batch) {
	if b.Reset {
		life, _ := t.cfg.Store.Incarnation()
		t.book.forgetful = life.GetId() != b.Incarnation || life.GetMintedAt() != nil
	}
	t.book.apply(b)
}

// stall puts off what could not be done; a change of the zone may bring it forward.
func (t *Term) stall() { t.stalled = time.Now().Add(t.cfg.Retry) }
