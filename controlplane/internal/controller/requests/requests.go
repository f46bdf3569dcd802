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
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how often times are looked at; what changes is looked at when it changes.
	every = time.Second
	// peopleEvery is how often it is looked at who can decide where no user, group or role has changed: conditions and calendars
	// may say otherwise with time, and bindings end.
	peopleEvery = time.Minute
	// retryAfter is how long a request that could not be carried out is left alone.
	retryAfter = 5 * time.Second
	// carryTime is how long what is carried out may take.
	carryTime = time.Hour
	page      = 100
	actor     = "request"
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

// Chooser says in which cluster a VM should be placed, or why in none, and why a VM cannot have another size where it is.
type Chooser interface {
	Choose(ctx context.Context, vm *apiv1.VM, after uint64) (clusterID string, err error)
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
	// later is until when a request is left alone, by id; of the loop alone.
	later  map[string]time.Time
	looked time.Time // at the people
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller { return &Controller{Config: c, later: map[string]time.Time{}} }

// Run goes on until ctx ends. What fails is tried again at the next turn.
func (c *Controller) Run(ctx context.Context) error {
	people := c.Reader.Watch("users", "groups", state.TopicMembers, "role_bindings", "roles")
	defer people.Close()
	changed := c.Reader.Watch("requests", "zones")
	defer changed.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
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
	}
}

// job is what is to be done for one request.
type job struct {
	name string
	pass []*commandv1.PassRequest
	// carry is a command that lacks the clusters; after is the revision of the snapshot.
	carry *commandv1.CarryOutRequest
	parts []*apiv1.Part
	grown *apiv1.VM // of a resize: the VM with its new size
	after uint64
}

// Turn looks once at each request of which something may become.
func (c *Controller) Turn(ctx context.Context) error {
	now := c.Now()
	people := now.Sub(c.looked) >= peopleEvery
	for after := ""; ; {
		var jobs []job
		last := ""
		err := c.Reader.View(ctx, func(tx *state.Tx) error {
			jobs = nil
			open, err := tx.OpenRequests(after, page)
			if err != nil {
				return err
			}
			for _, r := range open {
				last = r.GetId()
				j, err := c.judge(tx, r, now, people)
				if err != nil {
					c.Log.Warn("a request cannot be judged", "request", r.GetName(), "error", err)
					continue
				}
				jobs = append(jobs, j)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if err := c.do(ctx, j, now); err != nil {
				c.Log.Warn("a request does not get on", "request", j.name, "error", err)
			}
		}
		if last == "" || ctx.Err() != nil {
			break
		}
		after = last
	}
	if people {
		c.looked = now
	}
	return nil
}

// do proposes what was found, one after the other: each changes the request, so what follows is found at the next turn.
func (c *Controller) do(ctx context.Context, j job, now time.Time) error {
	for _, p := range j.pass {
		_, err := c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: p}})
		return err
	}
	if j.carry == nil || now.Before(c.later[j.carry.GetRequestId()]) {
		return nil
	}
	delete(c.later, j.carry.GetRequestId())
	err := c.carryOut(ctx, j)
	if err == nil || problem.Is(err, problem.Conflict) {
		return nil // what it rested on has changed, which wakes this loop
	}
	c.later[j.carry.GetRequestId()] = now.Add(retryAfter)
	if problem.Is(err, problem.Unavailable) || problem.Is(err, problem.Timeout) || problem.Is(err, problem.Cancelled) || problem.Of(err).GetCode() == string(problem.Internal) {
		return err // nothing about the request
	}
	return c.wait(ctx, j.carry, problem.Of(err).GetDetail())
}

// wait shows why an approved request is not carried out yet.
func (c *Controller) wait(ctx context.Context, in *commandv1.CarryOutRequest, why string) error {
	shown := false
	if err := c.Reader.View(ctx, func(tx *state.Tx) error {
		r, err := tx.Requests.Get(in.GetRequestId())
		shown = r.GetFulfilmentReason() == shortened(why)
		return err
	}); err != nil || shown {
		return err
	}
	_, err := c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{
		RequestId: in.GetRequestId(), ExpectedRevision: in.GetExpectedRevision(), What: commandv1.PassRequest_WAIT, Reason: shortened(why)}}})
	return err
}

func shortened(s string) string {
	if r := []rune(s); len(r) > 1000 {
		return string(r[:1000])
	}
	return s
}

// carryOut chooses a cluster for each VM and has them written down as wanted, all in one command.
func (c *Controller) carryOut(ctx context.Context, j job) error {
	in := j.carry
	if j.grown != nil {
		if err := c.Chooser.Resize(ctx, j.grown, j.after); err != nil {
			return err
		}
	}
	for i, at := range in.GetParts() {
		if in.GetVm() == nil {
			continue
		}
		vm := proto.CloneOf(in.GetVm())
		vm.Id, vm.Name = at.GetVmId(), j.parts[i].GetName()
		id, err := c.Chooser.Choose(ctx, vm, j.after)
		if err != nil {
			return err
		}
		at.ClusterId = id
	}
	if in.GetVm() != nil {
		if err := c.Reader.View(ctx, func(tx *state.Tx) error {
			for _, at := range in.GetParts() {
				cluster, err := tx.Clusters.Get(at.GetClusterId())
				if err != nil {
					return problem.New(problem.Conflict, "the cluster that was chosen is gone meanwhile", "Try again.")
				}
				at.Cluster = cluster.GetName()
			}
			return nil
		}); err != nil {
			return err
		}
	}
	in.Deadline = timestamppb.New(c.Now().Add(carryTime))
	_, err := c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_CarryOutRequest{CarryOutRequest: in}})
	return err
}

// carry makes the command that carries out what is left of a request.
func (c *Controller) carry(tx *state.Tx, r *apiv1.Request) (j job, err error) {
	in := &commandv1.CarryOutRequest{RequestId: r.GetId(), ExpectedRevision: r.GetRevision()}
	if r.GetSpecification().GetCreate() != nil {
		if in.Vm, err = intake.VM(tx, r); err != nil {
			return j, err
		}
	}
	j = job{name: r.GetName(), carry: in, after: tx.Meta().Revision}
	if in.GetVm() == nil {
		if j.grown, err = possible(tx, r); err != nil {
			return j, err
		}
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
		in.Parts, j.parts = append(in.GetParts(), at), append(j.parts, p)
	}
	return j, nil
}

// possible refuses what cannot be done now to the VMs of a request, and returns the VM that gets another size, where one does.
func possible(tx *state.Tx, r *apiv1.Request) (*apiv1.VM, error) {
	for _, p := range r.GetParts() {
		if p.GetDone() {
			continue
		}
		vm, err := tx.VMs.Get(p.GetVmId())
		if errors.Is(err, state.ErrNotFound) {
			return nil, problem.Newf(problem.NotFound, "Withdraw the request.", "VM %s is gone", p.GetName())
		}
		if err != nil {
			return nil, err
		}
		if err := intake.Possible(r.GetSpecification(), vm); err != nil {
			return nil, err
		}
		if ask := r.GetSpecification().GetResize(); ask != nil {
			vm.Size = ask.GetSize()
			return vm, nil
		}
	}
	return nil, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func (c *Controller) propose(ctx context.Context, in *commandv1.Command) (*commandv1.Result, error) {
	id := uuid.Must(uuid.NewV7())
	in.Id, in.Actor = id[:], actor
	r, err := c.Proposer.Propose(ctx, in)
	if err != nil {
		return nil, err
	}
	return r, problem.FromProto(r.GetProblem())
}
