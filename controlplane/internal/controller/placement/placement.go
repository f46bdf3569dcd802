// Package placement keeps a picture of all zones' hosts, as they were last observed, and answers from it where a VM could
// go: which cluster to ask, or why no host would do. The zone decides in the end; this spares a person the wait for what is
// hopeless.
//
// The picture follows the state change by change. It may be a moment old, and is never the ground of anything that must
// not be wrong.
package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/placement"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// chunk is how many changes are read at once.
const chunk = 512

// patience is how long a refusal waits for the picture to become current.
const patience = 2 * time.Second

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Chooser answers where a VM could go. Run has to be running. Safe for concurrent use.
type Chooser struct {
	reader Reader
	log    *slog.Logger
	ask    chan struct{} // wakes Run though nothing of its tables changed

	mu      sync.Mutex
	picture *placement.Picture
	epoch   uint64
	drawn   uint64        // the picture holds everything up to this revision
	number  uint64        // of the picture: another one after each change
	moved   chan struct{} // closed when the picture has changed
}

// New returns a chooser that knows nothing yet.
func New(r Reader, log *slog.Logger) *Chooser {
	return &Chooser{reader: r, log: log, ask: make(chan struct{}, 1), moved: make(chan struct{}), picture: placement.New()}
}

// Choose returns the id of the cluster in which a VM of this size, zone and affinity should be placed: its own where it
// names one. Where no host can take it, the error is a problem NO_HOST_FITS that says so host by host. A refusal rests on
// everything up to the revision after; an acceptance may rest on a little less.
func (c *Chooser) Choose(ctx context.Context, vm *apiv1.VM, after uint64) (clusterID string, err error) {
	ids, err := c.ChooseAll(ctx, []*apiv1.VM{vm}, after)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// ChooseAll is Choose of several VMs that are to be there together: none is promised the room of another. Their ids have to differ.
func (c *Chooser) ChooseAll(ctx context.Context, vms []*apiv1.VM, after uint64) (clusterIDs []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		clusterIDs, current, moved, err := c.try(vms, after)
		if err == nil || current {
			return clusterIDs, err
		}
		if err := c.awaitMove(ctx, moved); err != nil {
			return nil, err
		}
	}
}

// try asks the picture as it is; current reports whether that holds everything up to after, moved is closed when it changes.
func (c *Chooser) try(vms []*apiv1.VM, after uint64) (clusterIDs []string, current bool, moved <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	current = c.epoch != 0 && c.drawn >= after
	for i, vm := range vms {
		id, err := c.choose(vm)
		if err != nil {
			return nil, current, c.moved, err
		}
		if clusterIDs = append(clusterIDs, id); i == len(vms)-1 {
			break // nothing is to be chosen beside it
		}
		if _, placed := c.picture.HostOf(vm.GetId()); !placed {
			there := proto.CloneOf(vm)
			there.ClusterId = id
			c.picture.Place(there)
			defer c.picture.Release(vm.GetId())
		}
	}
	return clusterIDs, current, c.moved, nil
}

func (c *Chooser) choose(vm *apiv1.VM) (clusterID string, err error) {
	if vm.GetClusterId() != "" {
		if _, ok := c.picture.Choose(vm); ok {
			return vm.GetClusterId(), nil
		}
		return "", refusal(c.picture.Explain(vm)).With("cluster", "cluster "+vm.GetCluster()+" has no host that can take the VM")
	}
	if id, _, ok := c.picture.ChooseCluster(vm, apiv1.Cluster_SPREAD); ok {
		return id, nil
	}
	return "", refusal(c.picture.ExplainZone(vm)).With("zone", "zone "+vm.GetZone()+" has no host that can take the VM")
}

// Resize returns a problem NO_HOST_FITS where the host of a VM has no room for its size, as that is in vm. Like Choose it rests on
// everything up to the revision after where it refuses.
func (c *Chooser) Resize(ctx context.Context, vm *apiv1.VM, after uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c.mu.Lock()
		lacks, current, moved := c.picture.Lacks(vm.GetId(), vm.GetSize()), c.epoch != 0 && c.drawn >= after, c.moved
		_, seen := c.picture.HostOf(vm.GetId())
		c.mu.Unlock()
		switch {
		case lacks == "" && (seen || current):
			return nil
		case current:
			return problem.Newf(problem.NoHostFits, "Choose a smaller flavor, or make room on host "+vm.GetHost()+": a VM is resized on the host that it is on.",
				"Host %s of VM %s %s.", vm.GetHost(), vm.GetName(), lacks).With("flavor", "is larger than what host "+vm.GetHost()+" has free")
		}
		if err := c.awaitMove(ctx, moved); err != nil {
			return err
		}
	}
}

// Free is what the hosts of a cluster that take VMs have free together, by the picture as it is.
func (c *Chooser) Free(clusterID string) *apiv1.Resources {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.picture.Free(clusterID)
}

// Picture returns the number of the picture when it holds everything up to the revision after: one number, the same answers.
func (c *Chooser) Picture(ctx context.Context, after uint64) (number uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c.mu.Lock()
		number, current, moved := c.number, c.epoch != 0 && c.drawn >= after, c.moved
		c.mu.Unlock()
		if current {
			return number, nil
		}
		if err := c.awaitMove(ctx, moved); err != nil {
			return 0, err
		}
	}
}

// awaitMove asks for news and waits until the picture has changed.
func (c *Chooser) awaitMove(ctx context.Context, moved <-chan struct{}) error {
	select {
	case c.ask <- struct{}{}:
	default: // somebody has asked already
	}
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return problem.New(problem.Unavailable, "the server has not yet read which hosts there are", "Try again in a moment.")
	}
}

// refusal is an explanation as a problem.
func refusal(e interface {
	Detail() string
	Next() string
	Refusals() []*apiv1.ClusterRefusal
}) *problem.Error {
	p := problem.New(problem.NoHostFits, e.Detail(), e.Next())
	p.Problem.Clusters = e.Refusals()
	return p
}

// Run keeps the picture current until ctx ends.
func (c *Chooser) Run(ctx context.Context) error {
	w := c.reader.Watch("clusters", "hosts", "vms", "reservations")
	defer w.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-w.C():
			if !open {
				return nil
			}
		case <-c.ask:
		}
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = c.advance(ctx); err != nil {
				c.log.Warn("the picture of hosts is not current", "error", err)
				break // the next change tries again
			}
		}
	}
}

// advance takes the next changes into the picture, and reports whether there may be more.
func (c *Chooser) advance(ctx context.Context) (more bool, err error) {
	err = c.reader.View(ctx, func(tx *state.Tx) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		defer func() {
			close(c.moved)
			c.moved = make(chan struct{})
		}()
		meta := tx.Meta()
		if c.epoch != meta.Epoch || c.drawn > meta.Revision {
			more = false
			return c.redraw(tx)
		}
		var full bool
		full, err := c.catchUp(tx)
		if errors.Is(err, state.ErrCompacted) {
			return c.redraw(tx)
		}
		more = full
		return err
	})
	return more, err
}

// catchUp takes in what changed in the tables, all up to one revision.
func (c *Chooser) catchUp(tx *state.Tx) (full bool, err error) {
	clusters, err := tx.Clusters.Since(c.drawn, chunk)
	if err != nil {
		return false, err
	}
	hosts, err := tx.Hosts.Since(c.drawn, chunk)
	if err != nil {
		return false, err
	}
	vms, err := tx.VMs.Since(c.drawn, chunk)
	if err != nil {
		return false, err
	}
	reservations, err := tx.Reservations.Since(c.drawn, chunk)
	if err != nil {
		return false, err
	}
	through := tx.Meta().Revision
	through, full = bound(clusters, through, full)
	through, full = bound(hosts, through, full)
	through, full = bound(vms, through, full)
	through, full = bound(reservations, through, full)
	if len(clusters)+len(hosts)+len(vms)+len(reservations) > 0 {
		c.number++
	}
	for _, ch := range clusters {
		if ch.Revision <= through {
			c.cluster(ch.Noun, ch.Deleted)
		}
	}
	for _, ch := range hosts {
		if ch.Revision <= through {
			c.host(ch.Noun, ch.Deleted)
		}
	}
	for _, ch := range vms {
		if ch.Revision <= through {
			c.vm(ch.Noun, ch.Deleted)
		}
	}
	for _, ch := range reservations {
		if ch.Revision <= through {
			c.reservation(ch.Noun, ch.Deleted)
		}
	}
	c.drawn = through
	return full, nil
}

// bound lowers through to where a full chunk of changes ends.
func bound[M state.Noun](changes []state.Change[M], through uint64, full bool) (uint64, bool) {
	if len(changes) < chunk {
		return through, full
	}
	return min(through, changes[len(changes)-1].Revision), true
}

// redraw begins anew from everything that is there.
func (c *Chooser) redraw(tx *state.Tx) error {
	c.picture, c.epoch, c.number = placement.New(), 0, c.number+1
	for m, err := range tx.Clusters.All(nil) {
		if err != nil {
			return err
		}
		c.cluster(m, false)
	}
	for m, err := range tx.Hosts.All(nil) {
		if err != nil {
			return err
		}
		c.host(m, false)
	}
	for m, err := range tx.VMs.All(nil) {
		if err != nil {
			return err
		}
		c.vm(m, false)
	}
	for m, err := range tx.Reservations.All(nil) {
		if err != nil {
			return err
		}
		c.reservation(m, false)
	}
	c.epoch, c.drawn = tx.Meta().Epoch, tx.Meta().Revision
	return nil
}

func (c *Chooser) cluster(m *apiv1.Cluster, deleted bool) {
	if deleted {
		c.picture.RemoveCluster(m.GetId())
	} else {
		c.picture.SetCluster(m)
	}
}

func (c *Chooser) host(m *apiv1.Host, deleted bool) {
	if deleted {
		c.picture.RemoveHost(m.GetId())
	} else {
		c.picture.SetHost(m)
	}
}

// reservation counts as taken what a zone holds for VMs that are to come.
func (c *Chooser) reservation(m *apiv1.Reservation, deleted bool) {
	for i := range m.GetQuantity() {
		room := &apiv1.VM{Id: fmt.Sprint(m.GetId(), "#", i), ClusterId: m.GetClusterId(), Size: m.GetSize()}
		if held := !deleted && m.GetState() == apiv1.Reservation_HELD && int(i) < len(m.GetUnits()); held && m.GetUnits()[i].GetVmId() == "" {
			c.picture.Keep(room, m.GetUnits()[i].GetHostId())
		} else {
			c.picture.Release(room.GetId())
		}
	}
}

// vm puts a VM where it is. One that is still to be placed is put where it would go now, so that many that are asked for at
// once are not all promised the same room.
func (c *Chooser) vm(m *apiv1.VM, deleted bool) {
	switch {
	case deleted:
		c.picture.Release(m.GetId())
	case m.GetHostId() != "":
		c.picture.Assign(m, m.GetHostId())
	case m.GetDesiredState() == apiv1.VM_DELETED || m.GetState() == apiv1.VM_ERROR:
		c.picture.Release(m.GetId())
	default:
		if _, placed := c.picture.HostOf(m.GetId()); !placed {
			c.picture.Place(m)
		}
	}
}
