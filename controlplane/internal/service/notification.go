package service

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/notice"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type notificationService struct {
	apiv1.UnimplementedNotificationServiceServer
	*Service
}

func notificationChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Notification) proto.Message {
	return &apiv1.WatchNotificationsResponse{Type: kind, Revision: revision, Notification: m}
}

// told refuses whoever is no user: notifications are of users.
func (s notificationService) told(ctx context.Context) (userID string, err error) {
	p := callOf(ctx).Principal
	if p.UserID == "" {
		return "", problem.Newf(problem.Forbidden, "Log in as a user: naru login.", "notifications are of users, and %s is none", p.Name)
	}
	return p.UserID, nil
}

func (s notificationService) ListNotifications(ctx context.Context, r *apiv1.ListNotificationsRequest) (*apiv1.ListNotificationsResponse, error) {
	me, err := s.told(ctx)
	if err != nil {
		return nil, err
	}
	items, next, err := s.notifications.list(ctx, r, place{})
	if err != nil {
		return nil, err
	}
	out := &apiv1.ListNotificationsResponse{Notifications: items, NextPageToken: next}
	return out, s.view(ctx, func(tx *state.Tx) (err error) {
		for _, m := range items {
			if err := s.veil(ctx, tx, m); err != nil {
				return err
			}
		}
		u, err := tx.Users.Get(me)
		if err != nil {
			return err
		}
		out.MutedTopics = u.GetMutedTopics()
		out.Unread, err = tx.Unread(me)
		return err
	})
}

func (s notificationService) WatchNotifications(r *apiv1.WatchNotificationsRequest, stream grpc.ServerStreamingServer[apiv1.WatchNotificationsResponse]) error {
	if _, err := s.told(stream.Context()); err != nil {
		return err
	}
	return s.notifications.watch(r, place{}, stream)
}

// ReadNotifications marks the caller's own as read.
func (s notificationService) ReadNotifications(ctx context.Context, r *apiv1.ReadNotificationsRequest) (*apiv1.ReadNotificationsResponse, error) {
	me, err := s.told(ctx)
	if err != nil {
		return nil, err
	}
	if (len(r.GetNotifications()) == 0) == (r.GetUpTo() == "") {
		return nil, problem.New(problem.Invalid, "which were read is said by their ids, or by the newest of them", "Send notifications or up_to.").With("notifications", "or up_to is required, and not both")
	}
	result, err := s.propose(ctx, r, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_ReadNotifications{ReadNotifications: &commandv1.ReadNotifications{UserId: me, NotificationIds: r.GetNotifications(), UpTo: r.GetUpTo()}}
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.ReadNotificationsResponse{}
	return out, proto.Unmarshal(result.GetNoun(), out)
}

// MuteNotifications says of what the caller gets no mail.
func (s notificationService) MuteNotifications(ctx context.Context, r *apiv1.MuteNotificationsRequest) (*apiv1.MuteNotificationsResponse, error) {
	me, err := s.told(ctx)
	if err != nil {
		return nil, err
	}
	if err := knownTopics(r.GetTopics()); err != nil {
		return nil, err
	}
	for _, topic := range r.GetTopics() {
		if !request.Mutable(topic) {
			return nil, problem.Newf(problem.Invalid, "Name others: what waits for your decision, and what was done to your account or in your place, is always sent.", "%s cannot be muted", topic).
				With("topics", topic+" cannot be muted")
		}
	}
	result, err := s.propose(ctx, r, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_MuteTopics{MuteTopics: &commandv1.MuteTopics{UserId: me, Topics: slices.Compact(slices.Sorted(slices.Values(r.GetTopics())))}}
	})
	if err != nil {
		return nil, err
	}
	out := &apiv1.MuteNotificationsResponse{}
	return out, proto.Unmarshal(result.GetNoun(), out)
}

// knownTopics refuses what names no topic.
func knownTopics(named []string) error {
	name := notice.Unknown(named)
	if name == "" {
		return nil
	}
	return problem.Newf(problem.Invalid, "docs/notifications.md lists them; request.* is all of a kind.", "there is no topic %s", name).With("topics", "there is no topic "+name)
}

// veil leaves out of a notification what it is about, where the caller may not see that any more, or not here.
func (s *Service) veil(ctx context.Context, tx *state.Tx, m *apiv1.Notification) error {
	sees, err := s.sees(ctx, tx, m.GetAbout())
	switch {
	case err != nil && (ctx.Err() != nil || errors.Is(err, state.ErrRetry)):
		return err
	case sees: // of what cannot be judged nothing is told, and it hides no other
		return nil
	}
	m.About, m.By, m.Parameters = nil, "", nil
	m.Project, m.ProjectId, m.Zone, m.ZoneId = "", "", "", ""
	return nil
}

// sees reports whether the caller may see what a notification is about. A kind of which nothing is said here is seen by nobody.
func (s *Service) sees(ctx context.Context, tx *state.Tx, about *apiv1.Reference) (bool, error) {
	var err error
	switch about.GetKind() {
	case "user":
		return about.GetId() == callOf(ctx).Principal.UserID, nil
	case "delegation", "role-binding":
		return true, nil // it is told to whom it is for, and to nobody else
	case "crossing":
		_, err = s.crossings.find(ctx, tx, about.GetId(), place{})
	case "request":
		_, err = requestService{Service: s}.seen(ctx, tx, about.GetId())
	case "vm":
		_, err = s.vms.find(ctx, tx, about.GetId(), place{})
	default:
		return false, nil
	}
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Forbidden) {
		return false, nil
	}
	return err == nil, err
}

// MaySee reports whether a user may see something in the control network now. It is for whoever tells people of things outside of a
// call.
func (s *Service) MaySee(ctx context.Context, userID string, about *apiv1.Reference) (sees bool, err error) {
	err = s.view(ctx, func(tx *state.Tx) error {
		u, err := tx.Users.Get(userID)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		ctx := WithCall(ctx, Call{Method: apiv1.NotificationService_ListNotifications_FullMethodName,
			Principal: auth.Principal{Kind: auth.User, Name: u.GetName(), Actor: "user:" + u.GetName(), ID: userID, UserID: userID}})
		sees, err = s.sees(ctx, tx, about)
		return err
	})
	return sees, err
}
