// Package succession is the leader's care for the federation's authorities: each gets a successor in time, and is retired
// when nothing that it issued is valid any more.
package succession

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how often the keyring is looked at; what it waits for takes months.
	every = 10 * time.Minute
	actor = "succession"
)

// Keeper holds the authorities' keys.
type Keeper interface {
	// Succession returns the next step that the keyring needs; nil where it needs none.
	Succession(ctx context.Context) (*commandv1.Command, error)
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Succession runs on the leader only.
type Succession struct {
	keeper   Keeper
	proposer Proposer
	log      *slog.Logger
}

// New returns one that does nothing yet.
func New(k Keeper, p Proposer, log *slog.Logger) *Succession { return &Succession{k, p, log} }

// Run looks at once and then now and again, until ctx ends. What fails is tried again at the next turn.
func (s *Succession) Run(ctx context.Context) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := s.turn(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the federation's authorities could not be looked after", "error", err, "again_in", every)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// turn takes one step after the other until none is needed. Each is decided on what the one before has left; the server has
// applied that when Propose returns.
func (s *Succession) turn(ctx context.Context) error {
	for {
		next, err := s.keeper.Succession(ctx)
		if err != nil || next == nil {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		next.Id, next.Actor = id[:], actor
		result, err := s.proposer.Propose(ctx, next)
		if err != nil {
			return err
		}
		if err := problem.FromProto(result.GetProblem()); err != nil {
			return err
		}
		s.log.Info("the federation's authorities changed", "add", next.GetAddAuthority().GetAuthority().GetRole(), "retire", next.GetRetireAuthority() != nil,
			"sealing_key", next.GetAddSealingKey().GetSealingKey().GetId())
	}
}
