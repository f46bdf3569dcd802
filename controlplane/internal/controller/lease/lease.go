// Package lease takes the steps of leases as they come due: a lease begins when its VM can be used, people are warned, the VM is stopped,
// and goes to the trash. Only the leader does; what the step is, and that it is due, the state machine judges, and each rests on the
// revision that was read, so that two leaders take none twice. What is in the trash for its time upkeep deletes.
//
// Each lease is looked at by itself: one that gets stuck is logged, and holds up no other.
package lease

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how often it is looked what is due.
	every = time.Second
	// stepTime is how long stopping, or putting into the trash, may take.
	stepTime = 15 * time.Minute
	// retryAfter is how long a lease whose step was refused is left alone.
	retryAfter = time.Minute
	page       = 100
	actor      = "lease"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Config is what the controller is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Log      *slog.Logger
	Now      func() time.Time
}

// Controller runs on the leader only.
type Controller struct {
	Config
	later map[string]time.Time // until when a lease is left alone, by id; of the loop alone
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller { return &Controller{Config: c, later: map[string]time.Time{}} }

// Run goes on until ctx ends. What fails is tried again.
func (c *Controller) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := c.Turn(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("leases were not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Turn takes one step of each lease of which one is due.
func (c *Controller) Turn(ctx context.Context) error {
	now := c.Now()
	for after := ""; ; {
		var steps []*commandv1.PassLease
		last := ""
		if err := c.Reader.View(ctx, func(tx *state.Tx) error {
			steps, last = nil, ""
			due, err := tx.DueLeases(now.UnixMicro(), after, page)
			if err != nil {
				return err
			}
			for _, m := range due {
				last = m.GetId()
				vm, err := tx.VMs.Get(m.GetVmId())
				if err != nil {
					c.Log.Warn("the VM of a lease is not there", "lease", m.GetId(), "vm", m.GetVm(), "error", err)
					continue
				}
				if step := next(m, vm); step != commandv1.PassLease_STEP_UNSPECIFIED {
					steps = append(steps, &commandv1.PassLease{LeaseId: m.GetId(), ExpectedRevision: m.GetRevision(), Step: step})
				}
			}
			return nil
		}); err != nil {
			return err
		}
		for _, in := range steps {
			if now.Before(c.later[in.GetLeaseId()]) {
				continue
			}
			delete(c.later, in.GetLeaseId())
			if err := c.take(ctx, in); err != nil && ctx.Err() == nil {
				c.later[in.GetLeaseId()] = now.Add(retryAfter)
				c.Log.Warn("a lease does not get on", "lease", in.GetLeaseId(), "step", in.GetStep().String(), "error", err)
			}
		}
		if last == "" || ctx.Err() != nil {
			return nil
		}
		after = last
	}
}

// next is the step that comes next, of a lease that may be due.
func next(m *apiv1.Lease, vm *apiv1.VM) commandv1.PassLease_Step {
	aside := vm.GetDesiredState() == apiv1.VM_TRASHED || vm.GetDesiredState() == apiv1.VM_DELETED
	switch m.GetState() {
	case apiv1.Lease_PENDING:
		if vm.GetUsableAt() != nil {
			return commandv1.PassLease_START
		}
	case apiv1.Lease_ACTIVE:
		return commandv1.PassLease_WARN
	case apiv1.Lease_WARNED:
		if !aside {
			return commandv1.PassLease_EXPIRE
		}
	case apiv1.Lease_EXPIRED:
		if !aside {
			return commandv1.PassLease_TRASH
		}
	}
	return commandv1.PassLease_STEP_UNSPECIFIED
}

// take proposes a step. One that rested on what has changed meanwhile is judged anew at the next turn.
func (c *Controller) take(ctx context.Context, in *commandv1.PassLease) error {
	id := uuid.Must(uuid.NewV7())
	in.OperationId, in.Deadline = uuid.Must(uuid.NewV7()).String(), timestamppb.New(c.Now().Add(stepTime))
	r, err := c.Proposer.Propose(ctx, &commandv1.Command{Id: id[:], Actor: actor, Body: &commandv1.Command_PassLease{PassLease: in}})
	if err == nil {
		err = problem.FromProto(r.GetProblem())
	}
	if problem.Is(err, problem.Conflict) {
		return nil
	}
	return err
}
