package service

import (
	"cmp"
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (s requestService) SubmitRequest(ctx context.Context, r *apiv1.SubmitRequestRequest) (*apiv1.SubmitRequestResponse, error) {
	m, err := s.submit(ctx, r, r.GetRequest())
	return &apiv1.SubmitRequestResponse{Request: m}, err
}

// submit freezes a request and begins its approval. Without a req of its own it is the second half of a creation, whose key has been
// used: a request that the first attempt has submitted is the answer, also where it was returned since and is as it was sent then.
func (s requestService) submit(ctx context.Context, req proto.Message, name string) (*apiv1.Request, error) {
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if req == nil && (!request.Editable(m) || m.GetSentRound() < m.GetRound()) {
			noun, err := proto.Marshal(m)
			return &commandv1.Result{Noun: noun}, err
		}
		if err := s.requests.matches(ctx, m); err != nil {
			return nil, err
		}
		if err := s.requests.mayMake(ctx, tx, m); err != nil {
			return nil, err // who has lost the project since asks for nothing in it any more
		}
		in, err := s.reckon(ctx, tx, m, me)
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_SubmitRequest{SubmitRequest: in}
		return nil, nil
	})
	return s.answer(ctx, result, &err), err
}

// reckon makes the submission of a request as it stands.
func (s requestService) reckon(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User) (*commandv1.SubmitRequest, error) {
	m, reads, err := s.resolve(ctx, tx, m, me)
	if err != nil {
		return nil, err
	}
	return s.plan(tx, m, reads, me)
}

// resolve finds what a request as it stands asks for, and on what that rests.
func (s requestService) resolve(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User) (*apiv1.Request, []*commandv1.Read, error) {
	m = proto.CloneOf(m)
	if err := request.Edit(m, request.Person{ID: me.GetId(), Name: me.GetName()}); err != nil {
		return nil, nil, err
	}
	if m.GetKind() != apiv1.RequestKind_CROSS_ZONE { // that says itself from where
		if err := asked(ctx, tx, m); err != nil {
			return nil, nil, err
		}
	}
	reads, err := intake.Resolve(tx, m)
	callOf(ctx).Asked.About(m) // of the zone that it turned out to be for, too
	return m, reads, err
}

// plan makes the submission of a request that was resolved.
func (s requestService) plan(tx *state.Tx, m *apiv1.Request, reads []*commandv1.Read, me *apiv1.User) (*commandv1.SubmitRequest, error) {
	now := s.Now()
	plan, err := intake.Plan(tx, m, now)
	if err != nil {
		return nil, err
	}
	if err := quota.Allows(tx, m); err != nil {
		return nil, err
	}
	if err := request.Freeze(m); err != nil {
		return nil, err
	}
	return &commandv1.SubmitRequest{
		Request: m, ExpectedRevision: m.GetRevision(), By: personOf(me), Automatic: plan.Automatic, AtOnce: plan.AtOnce, Reads: append(reads, plan.Reads...), Openings: plan.Openings,
		ReckonedAt: timestamppb.New(now),
	}, nil
}

// PreviewRequest says what would become of a request. What stands in its way is part of the answer.
func (s requestService) PreviewRequest(ctx context.Context, r *apiv1.PreviewRequestRequest) (*apiv1.PreviewRequestResponse, error) {
	out := &apiv1.PreviewRequestResponse{}
	var room answer
	err := s.read(ctx, func(tx *state.Tx) error {
		room = nil
		me, err := s.caller(ctx, tx)
		if err != nil {
			return err
		}
		m := proto.CloneOf(r.GetRequest())
		m.Revision, m.Requester, m.RequesterId, m.SourceZoneId, m.Approval, m.Fulfilment = "", me.GetName(), me.GetId(), callOf(ctx).ViaZoneID, apiv1.Request_DRAFT, apiv1.Request_NONE
		if err := takenIn(m, me); err != nil {
			return err
		}
		if err := s.name(ctx, tx, m); err != nil {
			return err
		}
		if err := s.requests.mayMake(ctx, tx, m); err != nil {
			return err
		}
		in, err := s.reckon(ctx, tx, m, me)
		var refused *problem.Error
		switch {
		case errors.As(err, &refused):
			out.Request, out.Problem = m, refused.Problem
			return nil
		case err != nil:
			return err
		}
		m = in.GetRequest()
		if err := request.TimesHold(m, timestamppb.New(s.Now())); errors.As(err, &refused) {
			out.Request, out.Problem = m, refused.Problem
			return nil
		}
		if err := request.Submit(m, request.Submission{
			By: request.Person{ID: me.GetId(), Name: me.GetName()}, Stages: m.GetStages(), Automatic: in.GetAutomatic(), AtOnce: in.GetAtOnce(),
		}); errors.As(err, &refused) {
			out.Problem = refused.Problem
		} else if err != nil {
			return err
		}
		out.Request = m
		if m.Quotas, err = quota.OverRequest(tx, m); err != nil {
			return err
		}
		if err := cmp.Or(s.approvers(tx, m), stands(tx, m)); err != nil {
			return err
		}
		room, err = s.fits(tx, m)
		return err
	})
	if err == nil && room != nil {
		out.Request.Fit = room(ctx)
	}
	return out, err
}
