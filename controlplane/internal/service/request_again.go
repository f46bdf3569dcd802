package service

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// lookedThrough is among how many of somebody's drafts, the newest, the same is looked for.
const lookedThrough = 100

// begin keeps what is to be submitted: as submitted, in one command, where nothing is found against that. Else, and where the state
// machine finds something, as a draft: its submission says then what stands in the way.
func (s requestService) begin(ctx context.Context, r *apiv1.CreateRequestRequest) (*commandv1.Result, error) {
	submits := false
	result, err := s.draft(ctx, r, r.GetRequest(), func(ctx context.Context, tx *state.Tx, c *commandv1.Command, m *apiv1.Request, by *apiv1.User) error {
		err := s.anew(ctx, tx, c, m, by)
		submits = c.GetCreateRequest().GetSubmit() != nil
		return err
	})
	if err != nil && submits && !unknown(err) && !problem.Is(err, problem.Unavailable) {
		return s.draft(ctx, r, r.GetRequest(), unsubmitted)
	}
	return result, err
}

// anew fills in the command that keeps what is to be submitted. Who tries the same once more goes on with the draft that is there. What
// another system sends under a number is known by that.
func (s requestService) anew(ctx context.Context, tx *state.Tx, c *commandv1.Command, m *apiv1.Request, by *apiv1.User) error {
	in := &commandv1.CreateRequest{Request: m}
	c.Body = &commandv1.Command_CreateRequest{CreateRequest: in}
	if m.GetExternalRef() != "" {
		if _, err := tx.RequestOf(m.GetRequesterId(), m.GetExternalRef()); !errors.Is(err, state.ErrNotFound) {
			return err
		}
	} else {
		drafts, err := tx.DraftsOf(m.GetRequesterId(), lookedThrough)
		if err != nil {
			return err
		}
		for _, d := range drafts {
			if d.GetRound() == 0 && d.GetComments() == 0 && len(d.GetSentSha256()) > 0 && asksTheSame(d, m) {
				// As it is: written so that the caller's idempotency key stands for it.
				c.Body = &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: d, ExpectedRevision: d.GetRevision(), By: personOf(by)}}
				return nil
			}
		}
	}
	var err error
	in.Submit, err = s.first(ctx, tx, m, by)
	return err
}

// first makes the submission of what is not kept yet. What is wrong in itself is refused, and no draft of it kept, since only its
// author can change that. There is none where something else stands in its way: the submission of the draft says what.
// By this server's clock: where that is off, the log's refuses the submission, and leaves the draft.
func (s requestService) first(ctx context.Context, tx *state.Tx, m *apiv1.Request, by *apiv1.User) (*commandv1.SubmitRequest, error) {
	m = proto.CloneOf(m)
	m.Approval, m.Fulfilment = apiv1.Request_DRAFT, apiv1.Request_NONE
	if err := request.TimesHold(m, timestamppb.New(s.Now())); err != nil {
		return nil, err
	}
	m, reads, err := s.resolve(ctx, tx, m, by)
	if problem.Is(err, problem.Invalid) || problem.Is(err, problem.NotFound) {
		return nil, err
	}
	var in *commandv1.SubmitRequest
	if err == nil {
		in, err = s.plan(tx, m, reads, by)
	}
	var refused *problem.Error
	if errors.As(err, &refused) {
		return nil, nil
	}
	return in, err
}

// asksTheSame reports whether two requests of one requester ask for the same in the same words.
func asksTheSame(a, b *apiv1.Request) bool {
	asks := func(m *apiv1.Request) *apiv1.Request {
		return &apiv1.Request{
			Title: m.GetTitle(), Reason: m.GetReason(), RoleCluster: m.GetRoleCluster(), ChangeType: m.GetChangeType(), Intake: m.GetIntake(),
			ExternalRef: m.GetExternalRef(), OnBehalfOfId: m.GetOnBehalfOfId(), ProjectId: m.GetProjectId(), SourceZoneId: m.GetSourceZoneId(), ZoneId: m.GetZoneId(),
			Kind: m.GetKind(), Specification: m.GetSpecification(), LeaseDays: m.GetLeaseDays(), DesiredStart: m.GetDesiredStart(), DecideBy: m.GetDecideBy(),
			CarryOutBy: m.GetCarryOutBy(),
		}
	}
	return proto.Equal(asks(a), asks(b))
}
