package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What could not be done is tried again after retryFirst, then after twice as long each time, up to retryMost.
const (
	retryFirst = 10 * time.Millisecond
	retryMost  = 250 * time.Millisecond
	// attemptTime is how long the leader, this server or another, may take to answer before it is asked again.
	attemptTime = 5 * time.Second
	// answerTime is how long before its caller's deadline a call gives up, at most.
	answerTime = 500 * time.Millisecond
)

// errStopping ends what waits when the server stops.
var errStopping = errors.New("this server is stopping")

// errMoved ends an attempt whose leader is no longer the one, or has refused entries while it tried to be.
var errMoved = errors.New("the leader changed")

// errUnanswered ends an attempt that took too long: Raft may have refused the entry, and tells nobody who does not wait for it
// without end.
var errUnanswered = errors.New("the leader's log did not take the command in time")

// Propose has cmd carried out once, whichever server leads, and returns what the state machine answered. It gives cmd an id
// when it has none, which makes a repetition harmless; the leader sets the stamp. cmd belongs to Propose from then on.
//
// When it returns, this server has applied cmd too: who reads here sees it. A refusal comes back as its problem, with the
// result. Of the other errors, UNAVAILABLE means that nothing was carried out, and TIMEOUT and CANCELLED that this is
// unknown: the same command may be proposed again.
func (r *Replica) Propose(ctx context.Context, cmd *commandv1.Command) (*commandv1.Result, error) {
	return r.carryOut(ctx, cmd, func(ctx context.Context, leader Leader, changed <-chan struct{}) (*commandv1.Result, error) {
		if leader.Self {
			return r.proposeHere(ctx, changed, cmd)
		}
		return r.forward(ctx, leader, changed, cmd)
	}, true)
}

// carryOut calls do with whoever leads until it is known what became of cmd, and then waits until this server has applied
// it where that is asked.
func (r *Replica) carryOut(ctx context.Context, cmd *commandv1.Command, do func(context.Context, Leader, <-chan struct{}) (*commandv1.Result, error), applied bool) (*commandv1.Result, error) {
	if err := ensureID(cmd); err != nil {
		return nil, err
	}
	ctx, cancel := r.inTime(ctx)
	defer cancel()
	var result *commandv1.Result
	attempts := 0
	err := r.withLeader(ctx, func(leader Leader, changed <-chan struct{}) (err error) {
		if attempts++; attempts > 1 {
			r.metrics.retried.Inc()
		}
		result, err = do(ctx, leader, changed)
		return err
	})
	if err == nil && applied {
		err = r.progress.wait(ctx, result.GetIndex())
	}
	switch {
	case err == nil:
		return result, problem.FromProto(result.GetProblem())
	case ctx.Err() == nil && !errors.Is(err, errStopping):
		return nil, err
	case attempts == 0:
		return nil, r.noLeader(err)
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, problem.Newf(problem.Cancelled, "", "the caller went away before it was known whether the command was carried out: %w", err)
	}
	return nil, problem.Newf(problem.Timeout, "Try again; with the same Idempotency-Key nothing is done twice.",
		"it was not known in time whether the command was carried out: %w", err)
}

func ensureID(cmd *commandv1.Command) error {
	if len(cmd.GetId()) == len(commandID{}) {
		return nil
	}
	if len(cmd.GetId()) != 0 {
		return problem.Newf(problem.Invalid, "Leave the id out.", "a command's id has %d bytes, and this one %d", len(commandID{}), len(cmd.GetId()))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a command's id: %w", err)
	}
	cmd.Id = id[:]
	return nil
}

// inTime bounds ctx so that whoever waits for the answer still gets it, and the reason in it, within a deadline of its own.
func (r *Replica) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, r.c.Tuning.ProposeTimeout)
	}
	return context.WithDeadline(ctx, end.Add(-min(time.Until(end)/10, answerTime)))
}

const bringServersBack = "Try again when a majority of the servers runs and they reach one another; \"naru server list\" shows them."

func (r *Replica) noLeader(err error) error {
	return problem.Newf(problem.Unavailable, bringServersBack, "no server has led since %s: %w", r.Leader().Since.UTC().Format(time.RFC3339), err)
}

// withLeader calls do with whoever leads, again and again while do's error says that another attempt may help, until ctx
// ends. changed is closed when the leader is no longer the one.
func (r *Replica) withLeader(ctx context.Context, do func(leader Leader, changed <-chan struct{}) error) error {
	rest := retryFirst
	for last := error(nil); ; {
		leader, changed := r.WatchLeader()
		if leader.Self || leader.ID != "" && leader.ID != r.c.ServerID {
			last = do(leader, changed)
			if last == nil || !again(last) {
				return last
			}
		}
		timer := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), last)
		case <-r.stopping.Done():
			timer.Stop()
			return errors.Join(errStopping, last)
		case <-changed:
			timer.Stop()
			rest = retryFirst
		case <-timer.C:
			rest = min(2*rest, retryMost)
		}
	}
}

// again reports whether another attempt may succeed where this error was met.
func again(err error) bool {
	return problem.Is(err, problem.Unavailable) || problem.Is(err, problem.Timeout) || problem.Is(err, problem.Cancelled) ||
		errors.Is(err, errMoved) || errors.Is(err, errUnanswered) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// forward asks the leader to carry cmd out.
func (r *Replica) forward(ctx context.Context, leader Leader, changed <-chan struct{}, cmd *commandv1.Command) (*commandv1.Result, error) {
	r.metrics.forwarded.Inc()
	var resp *commandv1.ProposeResponse
	err := r.ask(ctx, leader, changed, func(ctx context.Context, peer commandv1.PeerServiceClient) (err error) {
		resp, err = peer.Propose(ctx, &commandv1.ProposeRequest{Command: cmd})
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp.GetResult(), nil
}

// ask calls the leader once; the call ends when another one leads.
func (r *Replica) ask(ctx context.Context, leader Leader, changed <-chan struct{}, call func(context.Context, commandv1.PeerServiceClient) error) error {
	peer, err := r.fabric.client(leader.Address)
	if err != nil {
		return problem.Newf(problem.Unavailable, "Try again.", "the leader cannot be asked: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-r.stopping.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return problem.FromStatus(call(ctx, peer))
}

// named returns what a command does: the name of its body's field.
func named(cmd *commandv1.Command) string {
	m := cmd.ProtoReflect()
	if body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); body != nil {
		return string(body.Name())
	}
	return "none"
}

// proposeHere appends cmd to the log, and waits until it is applied here; it gives up when ended is closed, and when it has
// waited so long that the log may not have taken cmd. After an error that again approves of it is unknown what becomes of
// cmd: another leader may still carry it out.
func (r *Replica) proposeHere(ctx context.Context, ended <-chan struct{}, cmd *commandv1.Command) (*commandv1.Result, error) {
	if err := ensureID(cmd); err != nil {
		return nil, err
	}
	start := time.Now()
	cmd.Stamp = timestamppb.New(r.clock.now())
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	if len(data) > r.c.Tuning.CommandBytes {
		return nil, problem.Newf(problem.TooLarge, "Send less at once.", "the command has %d bytes, and %d are the most", len(data), r.c.Tuning.CommandBytes)
	}
	done, forget := r.pending.await(commandID(cmd.GetId()))
	defer forget()
	attempt := time.NewTimer(attemptTime)
	defer attempt.Stop()
	patience := attemptTime
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(min(patience, time.Until(deadline)), time.Millisecond)
	}
	r.metrics.proposed.WithLabelValues(named(cmd)).Inc()
	defer r.gatherer.enter(data, patience)()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return nil, problem.Newf(problem.Unavailable, "Try again.", "this server could not apply the command: %w", o.err)
			}
			r.metrics.commit.Observe(time.Since(start).Seconds())
			return o.result, nil
		case <-ended:
			return nil, errMoved
		case <-attempt.C:
			if r.applier.applying() < attemptTime {
				return nil, errUnanswered
			}
			attempt.Reset(attemptTime) // nothing is applied now, and the log would only grow
		case <-r.stopping.Done():
			return nil, errStopping
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
