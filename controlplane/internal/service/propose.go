package service

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// operationTime is how long an operation may take where nobody said otherwise.
const operationTime = 15 * time.Minute

// newID makes an id. Ids are in the order of time, so that new rows stand together.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// answered returns the result that an earlier request with the same idempotency key had; nil where there was none, and an
// error where that was another request. What is decided on a snapshot would refuse the repetition of what has succeeded.
func (s *Service) answered(ctx context.Context, tx *state.Tx, req proto.Message) (*commandv1.Result, error) {
	key, err := idempotency(ctx, req)
	if key == nil || err != nil {
		return nil, err
	}
	o, err := tx.OutcomeByKey(cmp.Or(callOf(ctx).Principal.ID, callOf(ctx).Principal.Actor), key.GetKey())
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case !bytes.Equal(o.RequestHash, key.GetRequestHash()):
		return nil, problem.Newf(problem.IdempotencyMismatch, "Send the same request again, or another key.",
			"the Idempotency-Key %s came with another request before", key.GetKey())
	}
	callOf(ctx).Asked.note() // then, and it is the same caller's
	return o.Result, nil
}

// idempotency returns what the command carries of the caller's key; nil where there is none.
func idempotency(ctx context.Context, req proto.Message) (*commandv1.Idempotency, error) {
	call := callOf(ctx)
	if call.IdempotencyKey == "" || req == nil {
		return nil, nil
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	// Each method has a request message of its own.
	fmt.Fprintf(hash, "%s\x00%s\x00", req.ProtoReflect().Descriptor().FullName(), call.IfMatch)
	hash.Write(body)
	return &commandv1.Idempotency{Key: call.IdempotencyKey, RequestHash: hash.Sum(nil)}, nil
}

// propose has a command carried out; fill sets its body. A refusal of the state machine is returned as the problem it is.
// req is the request that the idempotency key belongs to; nil where a repetition does no harm.
func (s *Service) propose(ctx context.Context, req proto.Message, fill func(*commandv1.Command)) (*commandv1.Result, error) {
	c, err := command(ctx, req, fill)
	if err != nil {
		return nil, err
	}
	r, err := s.Proposer.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	if r.GetProblem() != nil && c.GetRecordAudit() == nil {
		call := callOf(ctx)
		call.Asked.noteRecorded() // the state machine writes what it refuses, but of what was to be an entry itself
	}
	return r, problem.FromProto(r.GetProblem())
}

// command makes the command of a call.
func command(ctx context.Context, req proto.Message, fill func(*commandv1.Command)) (_ *commandv1.Command, err error) {
	call := callOf(ctx)
	id := uuid.Must(uuid.NewV7())
	c := &commandv1.Command{Id: id[:], Actor: call.Principal.Actor, TraceId: call.TraceID, Origin: call.origin()}
	fill(c)
	c.Idempotency, err = idempotency(ctx, req)
	return c, err
}

// look decides on a snapshot: it fills in the command, or returns a result that answers already, and then nothing is proposed.
type look func(*state.Tx, *commandv1.Command) (*commandv1.Result, error)

// decider is decideSettled or decideTold.
type decider func(ctx context.Context, req proto.Message, look look, settle func(context.Context, *commandv1.Command) error) (*commandv1.Result, error)

// decide looks at a snapshot, proposes, and begins again where what it saw was changed meanwhile.
func (s *Service) decide(ctx context.Context, req proto.Message, look look) (*commandv1.Result, error) {
	return s.decideSettled(ctx, req, look, nil)
}

// decideSettled is decide with a last step after the snapshot was let go, which may be nil: snapshots are few, and nobody may
// wait on one.
func (s *Service) decideSettled(ctx context.Context, req proto.Message, look look, settle func(context.Context, *commandv1.Command) error) (*commandv1.Result, error) {
	var last error
	for range maxTries {
		r, _, err := s.attempt(ctx, req, s.read, look, settle)
		if !problem.Is(err, problem.Conflict) || callOf(ctx).IfMatch != "" {
			return r, err
		}
		last = err
	}
	return nil, last
}

// decideTold is decideSettled for a command that says all that it rests on, names with the ids that were found for them, so
// that the state machine refuses it where any of that is old. Then a first attempt may do with what this server knows, which
// saves asking a majority whether that is the newest. A refusal of it does not count; an outcome that is not known does: what was
// made may be there, and another attempt would find its name taken.
func (s *Service) decideTold(ctx context.Context, req proto.Message, look look, settle func(context.Context, *commandv1.Command) error) (*commandv1.Result, error) {
	if r, proposed, err := s.attempt(ctx, req, s.view, look, settle); proposed && (err == nil || unknown(err)) {
		return r, err
	}
	return s.decideSettled(ctx, req, look, settle)
}

// unknown reports whether what was proposed may be carried out all the same.
func unknown(err error) bool {
	return problem.Is(err, problem.Timeout) || problem.Is(err, problem.Cancelled)
}

// attempt looks once, on a snapshot that see shows, and proposes.
func (s *Service) attempt(ctx context.Context, req proto.Message, see func(context.Context, func(*state.Tx) error) error, look look, settle func(context.Context, *commandv1.Command) error) (_ *commandv1.Result, proposed bool, err error) {
	var known *commandv1.Result
	next := &commandv1.Command{}
	err = see(ctx, func(tx *state.Tx) (err error) {
		next.Reset()
		if known, err = s.answered(ctx, tx, req); known != nil || err != nil {
			return err
		}
		known, err = look(tx, next)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if known != nil {
		return known, false, problem.FromProto(known.GetProblem())
	}
	if settle != nil {
		if err := settle(ctx, next); err != nil {
			return nil, false, err
		}
	}
	r, err := s.propose(ctx, req, func(c *commandv1.Command) { c.Body = next.Body })
	return r, true, err
}

// ended is the operation of what was decided: the one that the state machine keeps, else one that is finished, because what
// was asked is done.
func (s *Service) ended(ctx context.Context, kind string, target *apiv1.Reference, r *commandv1.Result, err error) (*apiv1.Operation, error) {
	if err != nil {
		return nil, err
	}
	if r.GetOperation() != nil {
		return r.GetOperation(), nil
	}
	return finished(ctx, kind, target, ""), nil
}

// finished is the operation of what needed nothing to be done, or was done at once. It is kept nowhere, so it has no id.
func finished(ctx context.Context, kind string, target *apiv1.Reference, said string) *apiv1.Operation {
	now := timestamppb.Now()
	return &apiv1.Operation{
		Kind: kind, Target: target, Done: true, Progress: 100,
		Steps:     []*apiv1.Operation_Step{{Name: "done", State: apiv1.Operation_Step_DONE, Message: said, At: now}},
		CreatedBy: callOf(ctx).Principal.Actor, CreatedAt: now, FinishedAt: now,
	}
}
