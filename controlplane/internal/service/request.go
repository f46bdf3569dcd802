package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
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
		filter := r.GetFilter()
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
			if filter == "" {
				filter = "asked=true"
			} else {
				filter += " AND asked=true"
			}
		}
		without, err := s.requests.withheld(ctx, scope)
		if err != nil {
			return err
		}
		out.Requests, out.NextPageToken, err = table.Without(without...).List(state.Query{
			Filter: filter, OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
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

// GetRequest returns one request, with what the caller may do, who may decide, and whether there is room for it now.
func (s requestService) GetRequest(ctx context.Context, r *apiv1.GetRequestRequest) (*apiv1.GetRequestResponse, error) {
	out := &apiv1.GetRequestResponse{}
	var room answer
	if err := s.read(ctx, func(tx *state.Tx) (err error) {
		if out.Request, err = s.seen(ctx, tx, r.GetRequest()); err != nil {
			return err
		}
		if err = s.describe(ctx, tx, out.Request); err != nil {
			return err
		}
		room, err = s.fits(tx, out.Request)
		return err
	}); err != nil {
		return nil, err
	}
	if room != nil {
		out.Request.Fit = room(ctx)
	}
	return out, nil
}

func (s requestService) WatchRequests(r *apiv1.WatchRequestsRequest, stream grpc.ServerStreamingServer[apiv1.WatchRequestsResponse]) error {
	return s.requests.watch(r, place{project: r.GetProject()}, stream)
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

func (s requestService) WithdrawRequest(ctx context.Context, r *apiv1.WithdrawRequestRequest) (*apiv1.WithdrawRequestResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		in := &commandv1.WithdrawRequest{RequestId: m.GetId(), By: personOf(me), Reason: r.GetReason()}
		if me.GetId() != m.GetRequesterId() && me.GetId() != m.GetOnBehalfOfId() {
			loss, err := s.abandoned(ctx, tx, m)
			if err != nil {
				return nil, err
			}
			if loss != nil {
				in.Since, in.Reads = loss.Why, loss.Reads
			}
		}
		c.Body = &commandv1.Command_WithdrawRequest{WithdrawRequest: in}
		return nil, nil
	})
	return &apiv1.WithdrawRequestResponse{Request: s.answer(ctx, result, &err)}, err
}

// abandoned says why the caller may end what somebody else asked for, or wrote: they cannot any more. Nil where they can.
func (s requestService) abandoned(ctx context.Context, tx *state.Tx, m *apiv1.Request) (*intake.Loss, error) {
	loss, err := intake.Abandoned(tx, m, s.Now())
	if err != nil || loss == nil {
		return nil, err
	}
	return loss, s.requests.mayMakeBy(ctx, tx, m, "request.create") // to have helped write it is not enough
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

// DetachFromRequest takes a file away, by its name or by the id of the comment that it came with.
func (s requestService) DetachFromRequest(ctx context.Context, r *apiv1.DetachFromRequestRequest) (*apiv1.DetachFromRequestResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, me, err := s.written(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, f := range m.GetFiles() {
			if f.GetFile() == r.GetFile() || f.GetId() == r.GetFile() {
				ids = append(ids, f.GetId())
			}
		}
		switch len(ids) {
		case 1:
			c.Body = &commandv1.Command_DetachRequest{DetachRequest: &commandv1.DetachRequest{RequestId: m.GetId(), CommentId: ids[0], By: personOf(me)}}
			return nil, nil
		case 0:
			return nil, problem.Newf(problem.NotFound, "naru request show "+m.GetName()+" lists its files.", "request %s has no file %s", m.GetName(), r.GetFile())
		}
		return nil, problem.Newf(problem.Invalid, "Name it by its id: naru request comments "+m.GetName()+" -o wide.", "request %s has %d files named %s", m.GetName(), len(ids), r.GetFile()).
			With("file", "is the name of several")
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.Comment{}
	return &apiv1.DetachFromRequestResponse{Comment: out}, proto.Unmarshal(result.GetNoun(), out)
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
		if f := out.Comment; err == nil && f.GetDroppedAt() != nil {
			gone := "is not kept any more"
			if f.GetDroppedBy() != "" {
				gone = "was taken away by " + f.GetDroppedBy()
			}
			return problem.Newf(problem.WrongState, "Whoever kept a copy can show that it is the same by its SHA-256.",
				"file %s of request %s %s, since %s; its SHA-256 is %x", f.GetFile(), m.GetName(), gone, f.GetDroppedAt().AsTime().UTC().Format(time.DateOnly), f.GetSha256())
		}
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
		if err == nil {
			err = request.OfRecord(m, "copied")
		}
		draft = request.Copy(m)
		return err
	}); err != nil {
		return nil, err
	}
	result, err := s.draft(ctx, r, draft, alone)
	return &apiv1.CopyRequestResponse{Request: s.answer(ctx, result, &err)}, err
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
