package service

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type sessionService struct {
	apiv1.UnimplementedSessionServiceServer
	*Service
}

// Session returns a session by its id, with its internal fields, for whoever checks bearers. It is shared and read-only.
func (s *Service) Session(ctx context.Context, id string) (*apiv1.Session, error) {
	m, age := s.stays.get(id)
	if m != nil {
		return m, nil
	}
	err := s.view(ctx, func(tx *state.Tx) (err error) {
		m, err = tx.Sessions.Get(id)
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil, problem.New(problem.NotFound, "there is no session "+id, "naru session list shows which there are.")
	}
	if err != nil {
		return nil, err
	}
	s.stays.put(id, m, age)
	return m, nil
}

// ListSessions returns the caller's own sessions, or those of a user. A caller who is no user sees all where none is named.
func (s sessionService) ListSessions(ctx context.Context, r *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	out := &apiv1.ListSessionsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		scope := state.Scope{}
		if own := callOf(ctx).Principal.UserID; own != "" {
			scope["user_id"] = own
		}
		if r.GetUser() != "" {
			user, err := s.ownOrSeen(ctx, tx, r.GetUser())
			if err != nil {
				return inField(err, "user")
			}
			scope["user_id"] = user.GetId()
		}
		table, err := s.sessions.narrowed(ctx, tx)
		if err != nil {
			return err
		}
		out.Sessions, out.NextPageToken, err = table.List(state.Query{
			Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		})
		return err
	})
	return out, err
}

// DeleteSession ends a session of the caller's, or somebody else's.
func (s sessionService) DeleteSession(ctx context.Context, r *apiv1.DeleteSessionRequest) (*apiv1.DeleteSessionResponse, error) {
	target := &apiv1.Reference{Kind: "session"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.sessions.find(ctx, tx, r.GetSession(), place{})
		if err != nil {
			return nil, err
		}
		target.Id = m.GetId()
		c.Body = &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: m.GetId()}}
		return nil, nil
	})
	op, err := s.ended(ctx, "session.delete", target, result, err)
	return &apiv1.DeleteSessionResponse{Operation: op}, err
}

// LogOut ends the session with which it is called.
func (s sessionService) LogOut(ctx context.Context, r *apiv1.LogOutRequest) (*apiv1.LogOutResponse, error) {
	id, err := ownSession(ctx)
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, r, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: id}}
	})
	if problem.Is(err, problem.TokenInvalid) {
		err = nil // somebody else ended it meanwhile
	}
	return &apiv1.LogOutResponse{}, err
}

// RevokeSessions ends every session of a user.
func (s sessionService) RevokeSessions(ctx context.Context, r *apiv1.RevokeSessionsRequest) (*apiv1.RevokeSessionsResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		if err := s.everywhere(ctx); err != nil {
			return nil, err
		}
		user, err := s.users.within(tx, r.GetUser(), nil)
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RevokeSessions{RevokeSessions: &commandv1.RevokeSessions{UserId: user.GetId(), Reason: r.GetReason()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.RevokeSessionsResponse{}
	return out, proto.Unmarshal(result.GetNoun(), out)
}

// ownSession is the id of the session with which a method is called.
func ownSession(ctx context.Context) (string, error) {
	p := callOf(ctx).Principal
	if p.SessionID == "" {
		return "", problem.New(problem.WrongState, p.Name+" is not logged in with a session", "Log in as a user: naru login.")
	}
	return p.SessionID, nil
}
