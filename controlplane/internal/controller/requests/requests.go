// Package requests is what the leader does for requests without anybody's word: it carries out what is approved, reminds, escalates
// and ends what is not decided in time, and shows where too few are left who can decide.
//
// Each request is looked at by itself: one that cannot be judged is logged and never holds up another. Whatever is proposed names
// the revision of the request that it rests on, so that two leaders do nothing twice. Time never approves.
package requests

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how often times are looked at; what changes is looked at when it changes, and what changes within between of the last look
	// together: each look goes through all that is open, and what is found at one goes into few entries of the log.
	every, between = time.Second, 100 * time.Millisecond
	// peopleEvery is how often it is looked at who can decide where no user, group or role has changed: conditions and calendars
	// may say otherwise with time, and bindings end.
	peopleEvery = time.Minute
	// retryAfter is how long a request that could not be carried out is left alone.
	retryAfter = 5 * time.Second
	// askAgainAfter is how long a zone that keeps no room is not asked again; twice as long each time, up to askAtLeast.
	askAgainAfter, askAtLeast = time.Minute, time.Hour
	// holdTime is how long a zone keeps room without further word, and holdAtLeast what is left of that when it is renewed.
	holdTime, holdAtLeast = 24 * time.Hour, 12 * time.Hour
	// carryTime is how long what is carried out may take.
	carryTime = time.Hour
	page      = 100
	// atOnce is how many commands are proposed without waiting for one another.
	atOnce = 32
	actor  = "request"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Chooser says in which clusters VMs should be placed, or why in none, and why a VM cannot have another size where it is.
type Chooser interface {
	ChooseAll(ctx context.Context, vms []*apiv1.VM, after uint64) (clusterIDs []string, err error)
	Resize(ctx context.Context, vm *apiv1.VM, after uint64) error
}

// Config is what the controller is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Chooser  Chooser
	Log      *slog.Logger
	Now      func() time.Time
}

// Controller runs on the leader only.
type Controller struct {
	Config
	later  delays
	looked time.Time // at the people
}

// delays says until when requests are left alone, by id.
type delays struct {
	mu    sync.Mutex
	until map[string]time.Time
	pause map[string]time.Duration // before the next one
}

// longer leaves a request alone for twice as long as the last time.
func (d *delays) longer(id string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pause[id] = min(askAtLeast, max(askAgainAfter, 2*d.pause[id]))
	d.until[id] = now.Add(d.pause[id])
}

// shorter forgets how often a request was left alone.
func (d *delays) shorter(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pause, id)
}

func (d *delays) put(id string, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until[id] = until
}

// end leaves a request alone no longer.
func (d *delays) end(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.until, id)
}

// holds reports whether a request is still to be left alone.
func (d *delays) holds(id string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until[id])
}

// over reports whether a request is not to be left alone any more, and forgets that it was.
func (d *delays) over(id string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.until[id]) {
		return false
	}
	delete(d.until, id)
	return true
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller {
	return &Controller{Config: c, later: delays{until: map[string]time.Time{}, pause: map[string]time.Duration{}}}
}

// Run goes on until ctx ends. What fails is tried again at the next turn.
func (c *Controller) Run(ctx context.Context) error {
	people := c.Reader.Watch("users", "groups", state.TopicMembers, "role_bindings", "roles")
	defer people.Close()
	changed := c.Reader.Watch("requests", "zones", "reservations")
	defer changed.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		next := time.After(between)
		if err := c.Turn(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("requests were not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-people.C():
			if !open {
				return nil
			}
			c.looked = time.Time{}
		case _, open := <-changed.C():
			if !open {
				return nil
			}
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

// job is what is to be done for one request: one of its commands.
type job struct {
	id, name, revision string
	pass               *commandv1.PassRequest
	set                *commandv1.SetReservation
	// reserve and carry lack the clusters.
	reserve *commandv1.ReserveRequest
	carry   *commandv1.CarryOutRequest
	vms     []*apiv1.VM // that are to be made, one for each part
	grown   *apiv1.VM   // of a resize for which no room is kept yet: the VM with its new size
	after   uint64      // the revision of the snapshot
}

func (j *job) empty() bool {
	return j.pass == nil && j.set == nil && j.reserve == nil && j.carry == nil
}

// Turn looks once at each request of which something may become. Each is judged on a snapshot of its own: who can decide may take long
// to find, and so takes no time from another. What is found rests on the revision of the request that was read before.
func (c *Controller) Turn(ctx context.Context) error {
	now := c.Now()
	people := now.Sub(c.looked) >= peopleEvery
	for after := ""; ; {
		var open []*apiv1.Request
		err := c.Reader.View(ctx, func(tx *state.Tx) (err error) {
			open, err = tx.OpenRequests(after, page)
			return err
		})
		if err != nil {
			return err
		}
		var jobs []job
		for _, r := range open {
			var j job
			if err := c.Reader.View(ctx, func(tx *state.Tx) (err error) {
				j, err = c.judge(tx, r, now, people)
				return err
			}); err == nil {
				jobs = append(jobs, j)
			} else if ctx.Err() == nil {
				c.Log.Warn("a request cannot be judged", "request", r.GetName(), "error", err)
			}
		}
		commands := make([]*commandv1.Command, len(jobs))
		c.each(jobs, func(i int, j job) (err error) {
			commands[i], err = c.prepare(ctx, j, now)
			return c.putOff(ctx, j, now, err)
		})
		c.each(jobs, func(i int, j job) error { // all at once: so they go into few entries of the log
			if commands[i] == nil {
				return nil
			}
			return c.putOff(ctx, j, now, c.propose(ctx, commands[i]))
		})
		if len(open) == 0 || ctx.Err() != nil {
			break
		}
		after = open[len(open)-1].GetId()
	}
	if people {
		c.looked = now
	}
	return nil
}

// each goes through jobs, some at once, and logs what goes wrong with one.
func (c *Controller) each(jobs []job, do func(i int, j job) error) {
	var together errgroup.Group
	together.SetLimit(atOnce)
	for i, j := range jobs {
		together.Go(func() error {
			if err := do(i, j); err != nil {
				c.Log.Warn("a request does not get on", "request", j.name, "error", err)
			}
			return nil
		})
	}
	_ = together.Wait()
}

// prepare makes the command of what was found; none where nothing is to be done now. It changes the request, so what follows is found at
// the next turn.
func (c *Controller) prepare(ctx context.Context, j job, now time.Time) (*commandv1.Command, error) {
	switch {
	case j.pass != nil:
		switch j.pass.GetWhat() {
		case commandv1.PassRequest_HOLD:
			c.later.shorter(j.id)
		case commandv1.PassRequest_MISS:
			c.later.longer(j.id, now)
		case commandv1.PassRequest_WAIT: // who was away is back: nothing is said then of what it waits for, so it is tried at once
			if j.pass.GetReason() == "" {
				c.later.end(j.id)
			}
		}
		return &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: j.pass}}, nil
	case j.set != nil:
		return &commandv1.Command{Body: &commandv1.Command_SetReservation{SetReservation: j.set}}, nil
	case j.empty() || !c.later.over(j.id, now):
		return nil, nil
	case j.reserve != nil:
		return c.reserveRoom(ctx, j)
	}
	return c.carryOut(ctx, j)
}

// putOff leaves a request alone for a while that could not be carried out, or for which no room could be asked for, and shows why.
func (c *Controller) putOff(ctx context.Context, j job, now time.Time, err error) error {
	if err == nil || problem.Is(err, problem.Conflict) {
		return nil // what it rested on has changed, which wakes this loop
	}
	if j.pass != nil || j.set != nil {
		return err
	}
	c.later.put(j.id, now.Add(retryAfter))
	if problem.Is(err, problem.Unavailable) || problem.Is(err, problem.Timeout) || problem.Is(err, problem.Cancelled) || problem.Of(err).GetCode() == string(problem.Internal) {
		return err // nothing about the request
	}
	return c.wait(ctx, j, problem.Of(err).GetDetail())
}

// wait shows why a request is not carried out yet, or has no room.
func (c *Controller) wait(ctx context.Context, j job, why string) error {
	shown := false
	if err := c.Reader.View(ctx, func(tx *state.Tx) error {
		r, err := tx.Requests.Get(j.id)
		shown = r.GetFulfilmentReason() == shortened(why)
		return err
	}); err != nil || shown {
		return err
	}
	return c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{
		RequestId: j.id, ExpectedRevision: j.revision, What: commandv1.PassRequest_WAIT, Reason: shortened(why)}}})
}

func shortened(s string) string {
	if r := []rune(s); len(r) > 1000 {
		return string(r[:1000])
	}
	return s
}

// carryOut has the VMs written down as wanted, all in one command, where room is kept for them, or where there is room now.
func (c *Controller) carryOut(ctx context.Context, j job) (*commandv1.Command, error) {
	in := j.carry
	if j.grown != nil {
		if err := c.Chooser.Resize(ctx, j.grown, j.after); err != nil {
			return nil, err
		}
	}
	clusters, err := c.choose(ctx, j)
	if err != nil {
		return nil, err
	}
	for i, at := range in.GetParts() {
		at.Cluster, at.ClusterId = clusters[i].GetName(), clusters[i].GetId()
	}
	in.Deadline = timestamppb.New(c.Now().Add(carryTime))
	return &commandv1.Command{Body: &commandv1.Command_CarryOutRequest{CarryOutRequest: in}}, nil
}

// choose returns the cluster of each VM of a job: the one in which room is kept for it, or one that has room now. Of parts that make
// no VM there is none.
func (c *Controller) choose(ctx context.Context, j job) ([]*apiv1.Cluster, error) {
	var homeless []*apiv1.VM
	for _, vm := range j.vms {
		if vm.GetReservation() == "" {
			homeless = append(homeless, vm)
		}
	}
	if len(homeless) > 0 {
		ids, err := c.Chooser.ChooseAll(ctx, homeless, j.after)
		if err != nil {
			return nil, err
		}
		for i, vm := range homeless {
			vm.ClusterId = ids[i]
		}
	}
	out := make([]*apiv1.Cluster, len(j.carry.GetParts())+len(j.vms))
	return out, c.Reader.View(ctx, func(tx *state.Tx) (err error) {
		for i, vm := range j.vms {
			if out[i], err = tx.Clusters.Get(vm.GetClusterId()); err != nil {
				return problem.New(problem.Conflict, "the cluster that was chosen is gone meanwhile", "Try again.")
			}
		}
		return nil
	})
}

// carry makes the command that carries out what is left of a request.
func (c *Controller) carry(tx *state.Tx, r *apiv1.Request, now time.Time) (j job, err error) {
	in := &commandv1.CarryOutRequest{RequestId: r.GetId(), ExpectedRevision: r.GetRevision()}
	j = newJob(tx, r)
	if r.GetSpecification().GetCreate() != nil {
		if in.Vm, err = intake.VM(tx, r); err != nil {
			return j, err
		}
	}
	j.carry = in
	switch {
	case r.GetSpecification().GetAccessForTime() != nil:
		in.Reads, err = intake.Grant(tx, r, now)
	case in.GetVm() == nil && request.InZone(r):
		if j.grown, in.Reads, err = possible(tx, r); len(request.Rooms(r)) > 0 {
			j.grown = nil // its room is kept
		}
	}
	if err != nil {
		return j, err
	}
	for i, p := range r.GetParts() {
		if p.GetDone() {
			continue
		}
		at := &commandv1.CarryOutRequest_Part{Index: uint32(i), VmId: p.GetVmId(), OperationId: newID()}
		if in.GetVm() != nil {
			// The id of a VM that was deleted is not used again: its zone has a tombstone of it.
			former, err := tx.FormerVM(p.GetVmId())
			if err != nil {
				return j, err
			}
			if former != "" {
				at.VmId = newID()
			}
		}
		in.Parts = append(in.GetParts(), at)
		if in.GetVm() == nil {
			continue
		}
		vm := partOf(in.GetVm(), p)
		vm.Id = at.GetVmId()
		if vm.Reservation = p.GetReservation(); vm.GetReservation() != "" {
			held, err := tx.Reservations.Get(vm.GetReservation())
			if err != nil {
				return j, err
			}
			vm.ClusterId = held.GetClusterId()
		}
		j.vms = append(j.vms, vm)
	}
	return j, nil
}

func newJob(tx *state.Tx, r *apiv1.Request) job {
	return job{id: r.GetId(), name: r.GetName(), revision: r.GetRevision(), after: tx.Meta().Revision}
}

// partOf is the VM of one part.
func partOf(all *apiv1.VM, p *apiv1.Part) *apiv1.VM {
	vm := proto.CloneOf(all)
	vm.Name = p.GetName()
	return vm
}

// possible refuses what cannot be done now to the VMs of a request, and returns on what that rests, with the VM that gets another size,
// where one does.
func possible(tx *state.Tx, r *apiv1.Request) (grown *apiv1.VM, reads []*commandv1.Read, err error) {
	for _, p := range r.GetParts() {
		if p.GetDone() {
			continue
		}
		vm, err := tx.VMs.Get(p.GetVmId())
		if errors.Is(err, state.ErrNotFound) {
			return nil, nil, problem.Newf(problem.NotFound, "Withdraw the request.", "VM %s is gone", p.GetName())
		}
		if err != nil {
			return nil, nil, err
		}
		more, err := intake.Possible(tx, r.GetSpecification(), vm)
		if err != nil {
			return nil, nil, err
		}
		reads = append(reads, more...)
		if ask := r.GetSpecification().GetResize(); ask != nil {
			vm.Size, grown = ask.GetSize(), vm
		}
	}
	return grown, reads, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func (c *Controller) propose(ctx context.Context, in *commandv1.Command) error {
	id := uuid.Must(uuid.NewV7())
	in.Id, in.Actor = id[:], actor
	r, err := c.Proposer.Propose(ctx, in)
	if err != nil {
		return err
	}
	return problem.FromProto(r.GetProblem())
}
