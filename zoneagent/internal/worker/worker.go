// Package worker makes VMs what they are wanted to be, through the hypervisor drivers, and reports how they are.
//
// # One term
//
// A Term drives one cluster during one ownership of it. It begins with a fresh snapshot of the zone, so it carries on
// where the owner before it stopped: Work says what was begun, observing says what has come of it. One goroutine, the
// loop, knows and decides; it hands out driver calls and commits to others and never waits for them. Per VM one thing
// is under way at a time.
//
// # One step
//
// Observe, compare with what is wanted, advance one step, record it in one fenced transaction (observed noun, Work and
// journal together), and again. Steps that are made in the same moment are recorded together. Every step states an end
// (Ensure…), so a step whose outcome is not known, or was not recorded, is simply looked at and taken again. Errors are
// temporary, and tried again with growing pauses until the work's deadline, or fatal, and end the work.
//
// Work begins when the control plane asks: for a generation above the one that was reached, or for an order. A newer
// generation redirects the next step; an older one changes nothing.
//
// # What is never done
//
//   - A call to a driver without the ownership's deadline ahead: the call's context ends with it, and tells the truth
//     at the moment it is asked. When the ownership is lost nothing is cleaned up.
//   - An action on VMs because a host or a link is silent. A host that does not answer is suspect, then down or (if
//     another agent reaches it) degraded; its VMs are unreachable, and stay what they are. They are not started
//     elsewhere.
//   - An action because something changed behind our back. A VM that was found off is STOPPED and tells so (vm.stopped);
//     what is wanted of it stays, and a start is the control plane's to ask: nobody here can tell a crash from a guest
//     that shut itself down. A VM that its host no longer knows is an ERROR, never built anew over what was lost.
//   - A reboot twice. It is the one deed that leaves no trace to look for, so it is taken up, durably, before it is
//     done; an agent that dies in between leaves it undone or done, and the operation says that this is not known.
package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Store is the zone's store, as the owner of one cluster uses it. Owned makes one.
type Store interface {
	// Follow tells everything in the spaces and then every change, until ctx ends or fn fails.
	Follow(ctx context.Context, fn func(etcdstore.Batch) error, spaces ...etcdstore.Space) error
	// Begin begins a transaction of the owner's.
	Begin() Tx
}

// Tx is what the worker uses of an etcdstore.Tx.
type Tx interface {
	ReadIn(incarnation string)
	PutObserved(noun proto.Message)
	Tombstone(noun *apiv1.Reference, generation *apiv1.Generation)
	DeleteAllocation(hostID string, revision int64)
	PutWork(w *zonev1.Work)
	DeleteWork(vmID string)
	ConsumeOrder(id string, revision int64)
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

// Ownership is the hold of the cluster; see etcdstore.Ownership.
type Ownership interface {
	// Deadline is until when no other agent can own. It moves as the ownership is confirmed.
	Deadline() time.Time
	// Lost is closed when the ownership has ended.
	Lost() <-chan struct{}
}

// Ledger keeps the book of what hosts have given. schedule.Term is one.
type Ledger interface {
	// Survey tells what VMs a host has and, of those that have no host in the store, with which addresses, as it was found
	// since the store's incarnation began. It returns at once.
	Survey(incarnation, hostID string, vms map[string]netip.Addr)
	// Depart writes the VM's tombstone, frees its room and address, deletes its work and journals the entries, in one
	// transaction, and returns when that is durable.
	Depart(ctx context.Context, vm *apiv1.VM, entries ...*linkv1.JournalEntry) error
}

// Images is the zone's image store.
type Images interface {
	// Open returns the bits of an image, by their digest. Who reads them verifies them.
	Open(ctx context.Context, sha256 string) (io.ReadCloser, error)
}

// Others are the zone's other agents.
type Others interface {
	// Reach returns the names of those that reach a host now.
	Reach(ctx context.Context, hostID string) (agents []string, err error)
}

// SampleSink takes metrics on their way up. Add returns at once; what cannot be kept is dropped there.
type SampleSink interface {
	Add(hosts []*apiv1.HostSample, vms []*apiv1.VMSample)
}

// Config is what one agent's worker needs.
type Config struct {
	// Agent is this agent's name, Zone the zone's.
	Agent, Zone string
	// Drivers by the hypervisor word of a cluster.
	Drivers map[string]hypervisor.Driver
	Images  Images
	// Others may be nil: then nobody else is asked about a host.
	Others Others
	// Samples may be nil.
	Samples SampleSink
	// Clock is the time by which use is metered, and which clock that is; nil means the machine's.
	Clock func() (at time.Time, id string)
	// Network returns the guest network of a cluster, by its name; nil means the driver's default, with DHCP.
	Network func(cluster string) Network
	Limits  Limits
	Logger  *slog.Logger
	Metrics *Metrics
}

// Limits bound how much the worker does, and for how long. Zero values mean the defaults.
type Limits struct {
	// CallsAtOnce bounds the driver calls that change something, on all hosts together: 32.
	CallsAtOnce int
	// BuildsPerHost bounds the VMs that are built or started on one host at once: 2.
	BuildsPerHost int
	// BootHold is how long a VM that does not come up keeps its place among them: 30 s.
	BootHold time.Duration
	// ObservedAtOnce bounds the hosts that are observed at the same time: 64.
	ObservedAtOnce int
	// ObserveEvery is how often each host is observed, 5 s; InventoryEvery how often it is asked what it has, 1 min.
	ObserveEvery, InventoryEvery time.Duration
	// PollEvery is how often a VM is looked at that is to come up or go off: 200 ms.
	PollEvery time.Duration
	// ObserveTimeout bounds one look at a host: 5 s. What fails is tried once more before it is believed.
	ObserveTimeout time.Duration
	// SuspectRounds is how many silent rounds make a suspect host down or degraded: 2.
	SuspectRounds int
	// CallTimeout bounds a driver call: 30 s. Images and disks may take until the work's deadline.
	CallTimeout time.Duration
	// OperationTimeout is how long work may take that no order bounds: 10 min.
	OperationTimeout time.Duration
	// StopGrace is how long a guest has to power off before its power is cut: 60 s.
	StopGrace time.Duration
	// RetryFirst and RetryMost bound the pause before a failed step is tried again: 500 ms to 15 s.
	RetryFirst, RetryMost time.Duration
	// ReportEvery is how often changes of hosts and clusters are written at most: 1 s.
	ReportEvery time.Duration
}

func (l Limits) withDefaults() Limits {
	number := func(n *int, standard int) {
		if *n == 0 {
			*n = standard
		}
	}
	span := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	number(&l.CallsAtOnce, 32)
	number(&l.BuildsPerHost, 2)
	number(&l.ObservedAtOnce, 64)
	number(&l.SuspectRounds, 2)
	span(&l.BootHold, 30*time.Second)
	span(&l.ObserveEvery, 5*time.Second)
	span(&l.InventoryEvery, time.Minute)
	span(&l.PollEvery, 200*time.Millisecond)
	span(&l.ObserveTimeout, 5*time.Second)
	span(&l.CallTimeout, 30*time.Second)
	span(&l.OperationTimeout, 10*time.Minute)
	span(&l.StopGrace, time.Minute)
	span(&l.RetryFirst, 500*time.Millisecond)
	span(&l.RetryMost, 15*time.Second)
	span(&l.ReportEvery, time.Second)
	return l
}

// Worker drives the clusters of one agent. What its terms share is bounded here.
type Worker struct {
	cfg     Config
	calls   chan struct{} // one in it for each driver call under way
	looks   chan struct{} // one in it for each host under observation
	metrics *Metrics
}

// New returns a worker; its terms do the work.
func New(c Config) (*Worker, error) {
	if c.Agent == "" || len(c.Drivers) == 0 || c.Images == nil {
		return nil, errors.New("worker: an agent's name, drivers and an image store are needed")
	}
	if c.Network == nil {
		c.Network = func(string) Network { return Network{} }
	}
	if c.Clock == nil {
		c.Clock = func() (time.Time, string) { return time.Now(), "machine" }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	c.Limits = c.Limits.withDefaults()
	return &Worker{
		cfg: c, metrics: c.Metrics,
		calls: make(chan struct{}, c.Limits.CallsAtOnce), looks: make(chan struct{}, c.Limits.ObservedAtOnce),
	}, nil
}

// Probe asks a host whether it answers this agent, for another agent's question. The error says why not.
func (w *Worker) Probe(ctx context.Context, hypervisorWord string, host *apiv1.Host) error {
	driver := w.cfg.Drivers[hypervisorWord]
	if driver == nil {
		return noDriver(hypervisorWord)
	}
	h, err := driver.Open(ctx, host)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.Inventory(ctx)
	return err
}
