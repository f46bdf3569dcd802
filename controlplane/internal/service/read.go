package service

import (
	"context"
	"errors"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
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
