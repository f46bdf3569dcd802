package service

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// CreateRequest keeps a draft, and submits it where that is asked. Of what is to be submitted and is wrong in itself no draft is kept.
func (s requestService) CreateRequest(ctx context.Context, r *apiv1.CreateRequestRequest) (*apiv1.CreateRequestResponse, error) {
	var result *commandv1.Result
	var err error
	if r.GetSubmit() {
		result, err = s.begin(ctx, r)
	} else {
		result, err = s.draft(ctx, r, r.GetRequest(), alone)
	}
	m := s.answer(ctx, result, &err)
	if err != nil || !r.GetSubmit() || !request.Editable(m) {
		return &apiv1.CreateRequestResponse{Request: m}, err
	}
	out, err := s.submit(ctx, nil, m.GetId())
	return &apiv1.CreateRequestResponse{Request: out}, kept(err, m)
}

// kept says of a request that was refused at its submission that what was written is not lost.
func kept(err error, m *apiv1.Request) error {
	var refused *problem.Error
	if !errors.As(err, &refused) || m.GetRound() > 0 {
		return err
	}
	own := &problem.Error{Problem: proto.CloneOf(refused.Problem)}
	own.Problem.Draft = m.GetName()
	if problem.IsPlain(err) {
		return problem.Plain(own)
	}
	return own
}

// writing fills in the command that keeps what somebody has written.
type writing func(ctx context.Context, tx *state.Tx, c *commandv1.Command, m *apiv1.Request, by *apiv1.User) error

// alone keeps a draft on purpose: whoever asks for the same does not take it up.
func alone(ctx context.Context, tx *state.Tx, c *commandv1.Command, m *apiv1.Request, by *apiv1.User) error {
	if m.GetExternalRef() == "" {
		m.SentSha256 = nil
	}
	return unsubmitted(ctx, tx, c, m, by)
}

// unsubmitted keeps as a draft what was to be submitted.
func unsubmitted(_ context.Context, _ *state.Tx, c *commandv1.Command, m *apiv1.Request, _ *apiv1.User) error {
	c.Body = &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: m}}
	return nil
}

func (s requestService) draft(ctx context.Context, req proto.Message, sent *apiv1.Request, write writing) (*commandv1.Result, error) {
	if err := schema.CheckCreate(sent); err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(sent)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b)
	id := newID()
	return s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return nil, err
		}
		m := proto.CloneOf(sent)
		m.Id, m.Requester, m.RequesterId, m.SentSha256 = id, me.GetName(), me.GetId(), digest[:]
		if err := takenIn(m, me); err != nil {
			return nil, err
		}
		if err := s.name(ctx, tx, m); err != nil {
			return nil, err
		}
		if err := s.requests.mayMake(ctx, tx, m); err != nil {
			return nil, err
		}
		return nil, write(ctx, tx, c, m, me)
	})
}

// takenIn says how a request came in. That another system asks, only a service of it says: policies go by it.
func takenIn(m *apiv1.Request, by *apiv1.User) error {
	switch {
	case m.GetIntake() == apiv1.Intake_VALUE_UNSPECIFIED:
		m.Intake = apiv1.Intake_API
	case request.Recorded(m):
		return problem.New(problem.Invalid, "what was done without a request is recorded by itself, and nobody sends such a record",
			"Leave intake out, or send PORTAL or API.").With("intake", "is "+m.GetIntake().String())
	case m.GetIntake() != apiv1.Intake_ITSM:
	case by.GetKind() != apiv1.User_SERVICE:
		return problem.Newf(problem.Forbidden, "Leave intake out; external_ref can be given all the same. Another system asks by the token of a service.",
			"%s is a person, and what a person asks for does not come from another system", by.GetName()).With("intake", "is ITSM")
	case m.GetExternalRef() == "":
		return problem.New(problem.Invalid, "what another system asks for has a number there", "Send external_ref.").With("external_ref", "is required of ITSM")
	}
	return nil
}

// name finds what the names in a draft stand for: people, project, zone.
func (s requestService) name(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	if m.Kind = intake.KindOf(m.GetSpecification()); m.GetKind() == apiv1.RequestKind_DELETE {
		return problem.New(problem.Invalid, "nothing is deleted for good by a request", "Ask that the VM goes to the trash: reclaim, with the days that it is kept.").
			With("specification.delete", "is in records alone")
	}
	project, err := s.projects.find(ctx, tx, m.GetProject(), place{})
	if err != nil {
		return inField(err, "project")
	}
	m.Project, m.ProjectId, m.Organization, m.OrganizationId = project.GetName(), project.GetId(), project.GetOrganization(), project.GetOrganizationId()
	if m.OnBehalfOfId = ""; m.GetOnBehalfOf() != "" {
		u, err := s.beneficiary(ctx, tx, m)
		if err != nil {
			return inField(err, "on_behalf_of")
		}
		m.OnBehalfOf, m.OnBehalfOfId = u.GetName(), u.GetId()
	}
	if m.ZoneId = ""; m.GetZone() != "" {
		zone, err := s.zones.find(ctx, tx, m.GetZone(), place{})
		if err != nil {
			return inField(err, "zone")
		}
		m.Zone, m.ZoneId = zone.GetName(), zone.GetId()
	}
	if err := asked(ctx, tx, m); err != nil {
		return err
	}
	if ask := m.GetSpecification().GetCrossZone(); ask != nil {
		if err := s.source(ctx, tx, m, ask); err != nil {
			return inField(err, "specification.cross_zone.source_zone")
		}
	}
	if keys := m.GetSpecification().GetCreate(); keys != nil {
		vm := &apiv1.VM{SshKeys: keys.GetSshKeys(), Affinities: keys.GetAffinities()}
		return cmp.Or(checkKeys(vm), checkGroups(vm))
	}
	return nil
}

// asked notes at which zone's edge something is asked for, whoever wrote on it before and where.
func asked(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	via := callOf(ctx).ViaZoneID
	if via == "" {
		return nil
	}
	zone, err := tx.Zones.Get(via)
	m.SourceZone, m.SourceZoneId = zone.GetName(), via
	return err
}

// source finds from which zone something is to cross. At an edge it is that one.
func (s requestService) source(ctx context.Context, tx *state.Tx, m *apiv1.Request, ask *apiv1.CrossZone) error {
	name := cmp.Or(ask.GetSourceZone(), callOf(ctx).ViaZoneID)
	if name == "" {
		return problem.New(problem.Invalid, "the request does not say from which zone", "Name a zone.").With("source_zone", "is required")
	}
	zone, err := s.zones.find(ctx, tx, name, place{})
	if err != nil {
		return err
	}
	if via := callOf(ctx).ViaZoneID; via != "" && via != zone.GetId() {
		return problem.Newf(problem.Invalid, "Leave it out; or ask there.", "at the edge of a zone it is asked what may cross from that zone, and not from %s", zone.GetName()).With("source_zone", "is another zone")
	}
	ask.SourceZone, ask.SourceZoneId, m.SourceZone, m.SourceZoneId = zone.GetName(), zone.GetId(), zone.GetName(), zone.GetId()
	return nil
}

// beneficiary is for whom something is asked: who asks, or somebody with a role in the project, as when it is carried out.
// That somebody else has none there, and that there is nobody of the name, is one answer.
func (s requestService) beneficiary(ctx context.Context, tx *state.Tx, m *apiv1.Request) (*apiv1.User, error) {
	none := problem.Newf(problem.NotFound, "Name somebody who has a role in the project: naru role-binding list.", "there is no user %s with a role in project %s", m.GetOnBehalfOf(), m.GetProject())
	u, err := s.users.within(tx, m.GetOnBehalfOf(), nil)
	if problem.Is(err, problem.NotFound) {
		return nil, none
	}
	if err != nil || u.GetId() == m.GetRequesterId() {
		return u, err
	}
	p, err := panel.Planned(tx, m, nil, s.Now())
	if err != nil {
		return nil, err
	}
	member, err := p.Member(u.GetId())
	if err == nil && !p.HasRole(member) {
		err = none
	}
	return u, err
}

// UpdateRequest changes a draft, or what was returned. Who changes it has helped write it.
func (s requestService) UpdateRequest(ctx context.Context, r *apiv1.UpdateRequestRequest) (*apiv1.UpdateRequestResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		stored, me, err := s.written(ctx, tx, r.GetRequest().GetId())
		if err != nil {
			return nil, err
		}
		if err := s.requests.matches(ctx, stored); err != nil {
			return nil, err
		}
		changed := proto.CloneOf(stored)
		if stored.GetKind() == apiv1.RequestKind_CROSS_ZONE { // where it was asked for, it says itself
			changed.SourceZone, changed.SourceZoneId = "", ""
		}
		if err := schema.ApplyUpdate(changed, r.GetRequest(), r.GetUpdateMask()); err != nil {
			return nil, err
		}
		if proto.Equal(stored, changed) {
			noun, err := proto.Marshal(stored)
			return &commandv1.Result{Noun: noun}, err
		}
		if err := s.name(ctx, tx, changed); err != nil {
			return nil, err
		}
		if err := s.requests.mayMake(ctx, tx, changed); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: changed, ExpectedRevision: stored.GetRevision(), By: personOf(me)}}
		return nil, nil
	})
	return &apiv1.UpdateRequestResponse{Request: s.answer(ctx, result, &err)}, err
}

// written returns a request that the caller may write on: by a role, or because they asked for it or it is for them.
func (s requestService) written(ctx context.Context, tx *state.Tx, name string) (*apiv1.Request, *apiv1.User, error) {
	me, err := s.caller(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.requests.find(ctx, tx, name, place{})
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Forbidden) {
		if known, e := s.requests.within(tx, name, nil); e == nil && slices.Contains(request.Concerned(known), me.GetId()) {
			return known, me, nil
		}
	}
	return m, me, err
}

func (s requestService) DeleteRequest(ctx context.Context, r *apiv1.DeleteRequestRequest) (*apiv1.DeleteRequestResponse, error) {
	target := &apiv1.Reference{Kind: "request"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		in := &commandv1.DeleteRequest{Id: m.GetId(), ExpectedRevision: m.GetRevision()}
		if me.GetId() != m.GetRequesterId() {
			loss, err := s.abandoned(ctx, tx, m)
			if err != nil {
				return nil, err
			}
			if loss == nil {
				return nil, problem.Newf(problem.Forbidden, "Ask "+m.GetRequester()+".", "only who made draft %s deletes it", m.GetName())
			}
			in.Reason, in.Reads = loss.Why, loss.Reads
		}
		target.Id, target.Name = m.GetId(), m.GetName()
		c.Body = &commandv1.Command_DeleteRequest{DeleteRequest: in}
		return nil, nil
	})
	op, err := s.ended(ctx, "request.delete", target, result, err)
	return &apiv1.DeleteRequestResponse{Operation: op}, err
}
