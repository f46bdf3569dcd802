package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type requestService struct {
	apiv1.UnimplementedRequestServiceServer
	*Service
}

func requestChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Request) proto.Message {
	return &apiv1.WatchRequestsResponse{Type: kind, Revision: revision, Request: m}
}

// caller returns the user who calls. Whoever is none asks for nothing and decides nothing: an administrator's certificate and a
// project's token are of nobody who could be told from those who must not decide.
func (s *Service) caller(ctx context.Context, tx *state.Tx) (*apiv1.User, error) {
	p := callOf(ctx).Principal
	if p.UserID == "" {
		return nil, problem.Newf(problem.Forbidden, "Log in as a user: naru login.", "requests are of users, and %s is none", cmp.Or(p.Name, "the caller"))
	}
	u, err := tx.Users.Get(p.UserID)
	if errors.Is(err, state.ErrNotFound) {
		return nil, problem.New(problem.Revoked, "the user who calls is gone", "Ask an administrator.")
	}
	return u, err
}

// inSession refuses what a person does in a session of their own only: tokens are carried by programs.
func inSession(ctx context.Context) error {
	if callOf(ctx).Principal.Kind != auth.User {
		return problem.New(problem.Forbidden, "this is done in a session of one's own only", "Log in as yourself: naru login.")
	}
	return nil
}

func personOf(u *apiv1.User) *commandv1.Person {
	return &commandv1.Person{Id: u.GetId(), Name: u.GetName()}
}

func (s requestService) ListRequests(ctx context.Context, r *apiv1.ListRequestsRequest) (*apiv1.ListRequestsResponse, error) {
	out := &apiv1.ListRequestsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		scope, err := s.requests.scope(ctx, tx, place{project: r.GetProject()})
		if err != nil {
			return err
		}
		table, err := s.requests.narrowed(ctx, tx)
		if err != nil {
			return err
		}
		if r.GetMine() {
			me, err := s.caller(ctx, tx)
			if err != nil {
				return err
			}
			table = tx.Requests.Within([]state.Bound{{{Column: "requester_id", Values: []string{me.GetId()}}}, {{Column: "on_behalf_of_id", Values: []string{me.GetId()}}}})
		}
		out.Requests, out.NextPageToken, err = table.List(state.Query{
			Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		})
		return err
	})
	return out, err
}

// seen returns a request by id or name as the caller may see it: by a role, or because they have a part in it: who asked, for whom,
// who helped write, and who decides or has decided.
func (s requestService) seen(ctx context.Context, tx *state.Tx, name string) (*apiv1.Request, error) {
	m, err := s.requests.find(ctx, tx, name, place{})
	if !problem.Is(err, problem.NotFound) && !problem.Is(err, problem.Forbidden) {
		return m, err
	}
	known, e := s.requests.within(tx, name, nil)
	if e != nil {
		return nil, err
	}
	me, e := s.caller(ctx, tx)
	if e != nil {
		return nil, err
	}
	if part, e := s.hasPart(ctx, tx, known, me); e != nil || !part {
		return nil, cmp.Or(e, err)
	}
	return known, nil
}

func (s requestService) hasPart(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User) (bool, error) {
	if slices.Contains(request.Concerned(m), me.GetId()) {
		return true, nil
	}
	for _, d := range m.GetDecisions() {
		if d.GetActorId() == me.GetId() || d.GetActingForId() == me.GetId() {
			return true, nil
		}
	}
	seats, err := s.seats(ctx, tx, m, me)
	return len(seats) > 0, err
}

// GetRequest returns one request, with what the caller may do and who may decide.
func (s requestService) GetRequest(ctx context.Context, r *apiv1.GetRequestRequest) (*apiv1.GetRequestResponse, error) {
	out := &apiv1.GetRequestResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if out.Request, err = s.seen(ctx, tx, r.GetRequest()); err != nil {
			return err
		}
		return s.describe(ctx, tx, out.Request)
	})
	return out, err
}

func (s requestService) WatchRequests(r *apiv1.WatchRequestsRequest, stream grpc.ServerStreamingServer[apiv1.WatchRequestsResponse]) error {
	return s.requests.watch(r, place{project: r.GetProject()}, stream)
}

// CreateRequest keeps a draft, and submits it where that is asked.
func (s requestService) CreateRequest(ctx context.Context, r *apiv1.CreateRequestRequest) (*apiv1.CreateRequestResponse, error) {
	m, err := s.draft(ctx, r, r.GetRequest())
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
	p := proto.CloneOf(refused.Problem)
	p.Next = strings.TrimSpace(p.GetNext() + " It is kept as the draft " + m.GetName() + ": change it with naru request update " + m.GetName() +
		" and submit it, or delete it.")
	return &problem.Error{Problem: p}
}

func (s requestService) draft(ctx context.Context, req proto.Message, sent *apiv1.Request) (*apiv1.Request, error) {
	if err := schema.CheckCreate(sent); err != nil {
		return nil, err
	}
	if sent.GetIntake() == apiv1.Request_ITSM && sent.GetExternalRef() == "" {
		return nil, problem.New(problem.Invalid, "what another system asks for has a number there", "Send external_ref.").With("external_ref", "is required of ITSM")
	}
	id := newID()
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return nil, err
		}
		m := proto.CloneOf(sent)
		m.Id, m.Requester, m.RequesterId = id, me.GetName(), me.GetId()
		if m.Intake == apiv1.Request_INTAKE_UNSPECIFIED {
			m.Intake = apiv1.Request_API
		}
		if err := s.name(ctx, tx, m); err != nil {
			return nil, err
		}
		if err := s.requests.mayMake(ctx, tx, m); err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: m}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return s.requests.shown(ctx, result)
}

// name finds what the names in a draft stand for: people, project, zone.
func (s requestService) name(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	m.Kind = intake.KindOf(m.GetSpecification())
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

// beneficiary is for whom something is asked: the caller, or somebody with a role in the project. That somebody else has none there, and
// that there is nobody of the name, is one answer.
func (s requestService) beneficiary(ctx context.Context, tx *state.Tx, m *apiv1.Request) (*apiv1.User, error) {
	none := problem.Newf(problem.NotFound, "Name somebody who has a role in the project: naru role-binding list.", "there is no user %s with a role in project %s", m.GetOnBehalfOf(), m.GetProject())
	u, err := s.users.within(tx, m.GetOnBehalfOf(), nil)
	if problem.Is(err, problem.NotFound) {
		return nil, none
	}
	if err != nil || u.GetId() == callOf(ctx).Principal.UserID {
		return u, err
	}
	above, err := tx.OrganizationsAbove(m.GetOrganizationId())
	if err != nil {
		return nil, err
	}
	for b, err := range tx.RoleBindingsOf(u.GetId()) {
		if err != nil {
			return nil, err
		}
		if b.GetExpiresAt() != nil && !b.GetExpiresAt().AsTime().After(time.Now()) {
			continue
		}
		if b.GetScope() == apiv1.RoleBinding_PROJECT && b.GetPlaceId() == m.GetProjectId() ||
			b.GetScope() == apiv1.RoleBinding_ORGANIZATION && slices.Contains(above, b.GetPlaceId()) {
			return u, nil
		}
	}
	return nil, none
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

// answer is the request of a result as it is shown.
func (s requestService) answer(ctx context.Context, result *commandv1.Result, err *error) *apiv1.Request {
	if *err != nil {
		return nil
	}
	m, e := s.requests.shown(ctx, result)
	if e == nil {
		e = s.view(ctx, func(tx *state.Tx) error { return s.describe(ctx, tx, m) })
	}
	*err = e
	return m
}

func (s requestService) DeleteRequest(ctx context.Context, r *apiv1.DeleteRequestRequest) (*apiv1.DeleteRequestResponse, error) {
	target := &apiv1.Reference{Kind: "request"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		if me.GetId() != m.GetRequesterId() {
			return nil, problem.Newf(problem.Forbidden, "Ask "+m.GetRequester()+".", "only who made draft %s deletes it", m.GetName())
		}
		target.Id, target.Name = m.GetId(), m.GetName()
		c.Body = &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteNoun{Id: m.GetId(), ExpectedRevision: m.GetRevision()}}
		return nil, nil
	})
	op, err := s.ended(ctx, "request.delete", target, result, err)
	return &apiv1.DeleteRequestResponse{Operation: op}, err
}

func (s requestService) SubmitRequest(ctx context.Context, r *apiv1.SubmitRequestRequest) (*apiv1.SubmitRequestResponse, error) {
	m, err := s.submit(ctx, r, r.GetRequest())
	return &apiv1.SubmitRequestResponse{Request: m}, err
}

// submit freezes a request and begins its approval. Without a req of its own it is the second half of a creation, whose key has been
// used: a request that the first attempt has submitted is the answer.
func (s requestService) submit(ctx context.Context, req proto.Message, name string) (*apiv1.Request, error) {
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if req == nil && !request.Editable(m) {
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
	revision := m.GetRevision()
	m = proto.CloneOf(m)
	if err := request.Edit(m, request.Person{ID: me.GetId(), Name: me.GetName()}); err != nil {
		return nil, err
	}
	if m.GetKind() != apiv1.RequestKind_CROSS_ZONE { // that says itself from where
		if err := asked(ctx, tx, m); err != nil {
			return nil, err
		}
	}
	reads, err := intake.Resolve(tx, m)
	callOf(ctx).Asked.About(m) // of the zone that it turned out to be for, too
	if err != nil {
		return nil, err
	}
	plan, err := intake.Plan(tx, m, time.Now())
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
		Request: m, ExpectedRevision: revision, By: personOf(me), Automatic: plan.Automatic, AtOnce: plan.AtOnce, Reads: append(reads, plan.Reads...), Openings: plan.Openings,
	}, nil
}

// PreviewRequest says what would become of a request. What stands in its way is part of the answer.
func (s requestService) PreviewRequest(ctx context.Context, r *apiv1.PreviewRequestRequest) (*apiv1.PreviewRequestResponse, error) {
	out := &apiv1.PreviewRequestResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return err
		}
		m := proto.CloneOf(r.GetRequest())
		m.Requester, m.RequesterId, m.SourceZoneId, m.Approval, m.Fulfilment = me.GetName(), me.GetId(), callOf(ctx).ViaZoneID, apiv1.Request_DRAFT, apiv1.Request_NONE
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
		return s.approvers(tx, m)
	})
	return out, err
}

func (s requestService) WithdrawRequest(ctx context.Context, r *apiv1.WithdrawRequestRequest) (*apiv1.WithdrawRequestResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: m.GetId(), By: personOf(me), Reason: r.GetReason()}}
		return nil, nil
	})
	return &apiv1.WithdrawRequestResponse{Request: s.answer(ctx, result, &err)}, err
}

func (s requestService) CommentRequest(ctx context.Context, r *apiv1.CommentRequestRequest) (*apiv1.CommentRequestResponse, error) {
	m, err := s.comment(ctx, r, s.seen, r.GetRequest(), &apiv1.Comment{Text: r.GetText()}, nil)
	return &apiv1.CommentRequestResponse{Comment: m}, err
}

func (s requestService) AttachToRequest(ctx context.Context, r *apiv1.AttachToRequestRequest) (*apiv1.AttachToRequestResponse, error) {
	write := func(ctx context.Context, tx *state.Tx, name string) (*apiv1.Request, error) {
		m, _, err := s.written(ctx, tx, name)
		return m, err
	}
	m, err := s.comment(ctx, r, write, r.GetRequest(), &apiv1.Comment{Text: r.GetText(), File: r.GetFile(), MediaType: r.GetMediaType()}, r.GetContent())
	return &apiv1.AttachToRequestResponse{Comment: m}, err
}

func (s requestService) comment(ctx context.Context, req proto.Message, find func(context.Context, *state.Tx, string) (*apiv1.Request, error), name string, said *apiv1.Comment, content []byte) (*apiv1.Comment, error) {
	said.Id = newID()
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return nil, err
		}
		m, err := find(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		said.Author, said.AuthorId = me.GetName(), me.GetId()
		c.Body = &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: m.GetId(), Comment: said, Content: content}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.Comment{}
	return out, proto.Unmarshal(result.GetNoun(), out)
}

func (s requestService) ListComments(ctx context.Context, r *apiv1.ListCommentsRequest) (*apiv1.ListCommentsResponse, error) {
	out := &apiv1.ListCommentsResponse{}
	size := min(int(cmp.Or(r.GetPageSize(), 100)), 1000)
	err := s.read(ctx, func(tx *state.Tx) error {
		m, err := s.seen(ctx, tx, r.GetRequest())
		if err != nil {
			return err
		}
		if out.Comments, err = tx.Comments(m.GetId(), r.GetPageToken(), size+1); err != nil {
			return err
		}
		if out.NextPageToken = ""; len(out.GetComments()) > size {
			out.Comments = out.Comments[:size]
			out.NextPageToken = out.Comments[size-1].GetId()
		}
		return nil
	})
	return out, err
}

func (s requestService) GetAttachment(ctx context.Context, r *apiv1.GetAttachmentRequest) (*apiv1.GetAttachmentResponse, error) {
	out := &apiv1.GetAttachmentResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		m, err := s.seen(ctx, tx, r.GetRequest())
		if err != nil {
			return err
		}
		out.Comment, out.Content, err = tx.Attachment(m.GetId(), r.GetComment())
		if errors.Is(err, state.ErrNotFound) {
			return problem.Newf(problem.NotFound, "naru request show "+m.GetName()+" lists its files.", "request %s has no file %s", m.GetName(), r.GetComment())
		}
		return err
	})
	return out, err
}

// CopyRequest makes a new draft of a request that the caller can see.
func (s requestService) CopyRequest(ctx context.Context, r *apiv1.CopyRequestRequest) (*apiv1.CopyRequestResponse, error) {
	var draft *apiv1.Request
	if err := s.read(ctx, func(tx *state.Tx) error {
		if _, err := s.caller(ctx, tx); err != nil {
			return err
		}
		m, err := s.seen(ctx, tx, r.GetRequest())
		draft = request.Copy(m)
		return err
	}); err != nil {
		return nil, err
	}
	m, err := s.draft(ctx, r, draft)
	return &apiv1.CopyRequestResponse{Request: m}, err
}

func (s requestService) RetryRequest(ctx context.Context, r *apiv1.RetryRequestRequest) (*apiv1.RetryRequestResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, _, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		if err := s.requests.mayMakeBy(ctx, tx, m, "request.create"); err != nil {
			return nil, err // who has lost the project since has nothing done in it any more
		}
		c.Body = &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: m.GetId()}}
		return nil, nil
	})
	return &apiv1.RetryRequestResponse{Request: s.answer(ctx, result, &err)}, err
}
