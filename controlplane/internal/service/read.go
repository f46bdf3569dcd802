package service

import (
	"context"
	"errors"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxTries bounds how often a read or a decision is made again because the ground moved under it.
const maxTries = 8

// read shows fn a snapshot that holds everything acknowledged before the call; one of this server's own, perhaps a little
// old, where the caller asked for that. fn may run more than once.
func (s *Service) read(ctx context.Context, fn func(*state.Tx) error) error {
	if !callOf(ctx).Stale {
		if err := s.Proposer.ReadIndex(ctx); err != nil {
			return err
		}
	}
	return s.view(ctx, fn)
}

// shown returns the noun that a result carries as a read shows it.
func (n noun[M]) shown(ctx context.Context, r *commandv1.Result) (M, error) {
	m, err := n.decode(r)
	if err == nil {
		err = n.view(ctx, func(tx *state.Tx) error { return n.table(tx).Derive(m) })
	}
	return m, err
}

// view shows fn this server's newest snapshot. fn may run more than once.
func (s *Service) view(ctx context.Context, fn func(*state.Tx) error) error {
	for range maxTries {
		err := s.Reader.View(ctx, fn)
		switch {
		case errors.Is(err, state.ErrRetry):
			continue
		case errors.Is(err, state.ErrTooLong):
			return problem.New(problem.Timeout, "the state could not be read in time", "Ask for less at once: a smaller page, or a narrower filter.")
		case errors.Is(err, state.ErrClosed):
			return problem.New(problem.Unavailable, "the server stops", "Ask another server.")
		}
		return err
	}
	return problem.New(problem.Unavailable, "the server's state was restored again and again", "Try again in a moment.")
}
