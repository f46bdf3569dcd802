package service

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// lookedThrough is among how many of somebody's drafts, the newest, the same is looked for.
const lookedThrough = 100

// again looks at what is to be submitted at once before a draft of it is kept: who tries the same once more goes on with the
// draft that the first attempt left, which is returned; and what is wrong in itself is refused without one, since only its author can
// change that. What another system sends under a number is known by that.
func (s requestService) again(ctx context.Context, tx *state.Tx, m *apiv1.Request) (*apiv1.Request, error) {
	if m.GetExternalRef() != "" {
		if _, err := tx.RequestOf(m.GetRequesterId(), m.GetExternalRef()); !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		return nil, s.wrong(ctx, tx, m)
	}
	drafts, err := tx.DraftsOf(m.GetRequesterId(), lookedThrough)
	if err != nil {
		return nil, err
	}
	for _, d := range drafts {
		if d.GetRound() == 0 && d.GetComments() == 0 && len(d.GetSentSha256()) > 0 && asksTheSame(d, m) {
			return d, nil
		}
	}
	return nil, s.wrong(ctx, tx, m)
}

// wrong is what the submission would be refused for because of what was written. By this server's clock: where that is off,
// the submission is refused by the log's, and leaves the draft.
func (s requestService) wrong(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	m = proto.CloneOf(m)
	m.Approval, m.Fulfilment = apiv1.Request_DRAFT, apiv1.Request_NONE
	if err := request.TimesHold(m, timestamppb.New(s.Now())); err != nil {
		return err
	}
	_, err := intake.Resolve(tx, m)
	callOf(ctx).Asked.About(m)
	if problem.Is(err, problem.Invalid) || problem.Is(err, problem.NotFound) {
		return err
	}
	return nil // the submission finds it anew
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
