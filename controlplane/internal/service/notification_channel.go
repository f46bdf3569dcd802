package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// overlapTime is how long a webhook is signed with the key before as well, where nobody says how long.
const overlapTime = 24 * time.Hour

// Outbound sends one message through a channel.
type Outbound interface {
	Send(ctx context.Context, ch *apiv1.NotificationChannel, secrets [][]byte, m outbound.Message) error
}

type notificationChannelService struct {
	apiv1.UnimplementedNotificationChannelServiceServer
	*Service
}

func notificationChannelChange(kind apiv1.WatchType_Value, revision string, m *apiv1.NotificationChannel) proto.Message {
	return &apiv1.WatchNotificationChannelsResponse{Type: kind, Revision: revision, NotificationChannel: m}
}

func (s notificationChannelService) ListNotificationChannels(ctx context.Context, r *apiv1.ListNotificationChannelsRequest) (*apiv1.ListNotificationChannelsResponse, error) {
	items, next, err := s.notificationChannels.list(ctx, r, place{})
	return &apiv1.ListNotificationChannelsResponse{NotificationChannels: items, NextPageToken: next}, err
}

func (s notificationChannelService) GetNotificationChannel(ctx context.Context, r *apiv1.GetNotificationChannelRequest) (*apiv1.GetNotificationChannelResponse, error) {
	m, err := s.notificationChannels.get(ctx, r.GetNotificationChannel(), place{})
	return &apiv1.GetNotificationChannelResponse{NotificationChannel: m}, err
}

func (s notificationChannelService) WatchNotificationChannels(r *apiv1.WatchNotificationChannelsRequest, stream grpc.ServerStreamingServer[apiv1.WatchNotificationChannelsResponse]) error {
	return s.notificationChannels.watch(r, place{}, stream)
}

func (s notificationChannelService) CreateNotificationChannel(ctx context.Context, r *apiv1.CreateNotificationChannelRequest) (*apiv1.CreateNotificationChannelResponse, error) {
	result, err := s.notificationChannels.create(ctx, r, r.GetNotificationChannel(), func(tx *state.Tx, m *apiv1.NotificationChannel) (state.Scope, error) {
		if (m.GetMail() == nil) == (m.GetWebhook() == nil) {
			return nil, problem.New(problem.Invalid, "a notification channel is mail or a webhook", "Send one of the two.").With("mail", "or webhook is required, and not both")
		}
		return nil, s.resolve(tx, m)
	}, func(c *commandv1.Command, m *apiv1.NotificationChannel) {
		c.Body = &commandv1.Command_CreateNotificationChannel{CreateNotificationChannel: &commandv1.CreateNotificationChannel{NotificationChannel: m}}
	})
	op, err := s.notificationChannels.made(ctx, result, err)
	return &apiv1.CreateNotificationChannelResponse{Operation: op}, err
}

// resolve finds the organizations and projects that a channel is for.
func (s notificationChannelService) resolve(tx *state.Tx, m *apiv1.NotificationChannel) error {
	if err := knownTopics(m.GetTopics()); err != nil {
		return err
	}
	m.OrganizationIds, m.ProjectIds = nil, nil
	for i, name := range m.GetOrganizations() {
		o, err := s.organizations.within(tx, name, nil)
		if err != nil {
			return inField(err, "organizations")
		}
		m.Organizations[i] = o.GetName()
		m.OrganizationIds = append(m.OrganizationIds, o.GetId())
	}
	for i, name := range m.GetProjects() {
		p, err := s.projects.within(tx, name, nil)
		if err != nil {
			return inField(err, "projects")
		}
		m.Projects[i] = p.GetName()
		m.ProjectIds = append(m.ProjectIds, p.GetId())
	}
	return outbound.Check(m)
}

func (s notificationChannelService) UpdateNotificationChannel(ctx context.Context, r *apiv1.UpdateNotificationChannelRequest) (*apiv1.UpdateNotificationChannelResponse, error) {
	m, err := s.notificationChannels.update(ctx, r, r.GetNotificationChannel(), r.GetUpdateMask(), place{}, s.resolve,
		func(c *commandv1.Command, m *apiv1.NotificationChannel, expected string) {
			c.Body = &commandv1.Command_UpdateNotificationChannel{UpdateNotificationChannel: &commandv1.UpdateNotificationChannel{NotificationChannel: m, ExpectedRevision: expected}}
		})
	return &apiv1.UpdateNotificationChannelResponse{NotificationChannel: m}, err
}

func (s notificationChannelService) DeleteNotificationChannel(ctx context.Context, r *apiv1.DeleteNotificationChannelRequest) (*apiv1.DeleteNotificationChannelResponse, error) {
	op, err := s.notificationChannels.remove(ctx, r, r.GetNotificationChannel(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteNotificationChannel{DeleteNotificationChannel: d}
	})
	return &apiv1.DeleteNotificationChannelResponse{Operation: op}, err
}

// SetNotificationChannelSecret seals a secret for a channel. It is proposed without the call's idempotency key: with that the state
// would keep a hash of the request, by which whoever has the state could try passwords.
func (s notificationChannelService) SetNotificationChannelSecret(ctx context.Context, r *apiv1.SetNotificationChannelSecretRequest) (*apiv1.SetNotificationChannelSecretResponse, error) {
	overlap := overlapTime
	if r.GetOverlap() != nil {
		overlap = r.GetOverlap().AsDuration()
	}
	result, err := s.decide(ctx, nil, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.notificationChannels.find(ctx, tx, r.GetNotificationChannel(), place{})
		if err != nil {
			return nil, err
		}
		if err := outbound.CheckSecret(m, r.GetSecret()); err != nil {
			return nil, err
		}
		sealed, err := s.Secrets.Seal(outbound.SealingRole(m.GetId()), []byte(r.GetSecret()))
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_SetNotificationChannelSecret{SetNotificationChannelSecret: &commandv1.SetNotificationChannelSecret{
			NotificationChannelId: m.GetId(), Sealed: sealed, OverlapsUntil: timestamppb.New(time.Now().Add(overlap)),
		}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.notificationChannels.shown(ctx, result)
	return &apiv1.SetNotificationChannelSecretResponse{NotificationChannel: m}, err
}

// TestNotificationChannel sends one message now, from this server. That it does is recorded before.
func (s notificationChannelService) TestNotificationChannel(ctx context.Context, r *apiv1.TestNotificationChannelRequest) (*apiv1.TestNotificationChannelResponse, error) {
	var ch *apiv1.NotificationChannel
	var secrets [][]byte
	msg := outbound.Message{ID: newID()}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if ch, err = s.notificationChannels.find(ctx, tx, r.GetNotificationChannel(), place{}); err != nil {
			return err
		}
		kept, err := tx.ChannelSecrets(ch.GetId())
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if secrets, err = outbound.Secrets(kept, s.Secrets.Unseal, time.Now()); err != nil || ch.GetMail() == nil {
			return err
		}
		to, err := s.testReader(ctx, tx, r.GetUser())
		if err != nil {
			return err
		}
		msg.Address, msg.Language, msg.Recipients = to.GetEmail(), to.GetLanguage(), []string{to.GetName()}
		return nil
	})
	if err != nil {
		return nil, err
	}
	msg.Notification = &apiv1.Notification{Id: msg.ID, Topic: "channel.test", By: callOf(ctx).Principal.Name, CreatedAt: timestamppb.Now(),
		About: reference("notification-channel", ch)}
	if err := s.Record(ctx, Deed{Action: "notification-channel.test", Outcome: apiv1.AuditEntry_DONE, Target: msg.Notification.GetAbout(), Message: "to " + kindAndReader(ch, msg)}); err != nil {
		return nil, err
	}
	if err := s.Outbound.Send(ctx, ch, secrets, msg); err != nil {
		return nil, problem.Newf(problem.NotDelivered, "Look at the channel, and at what it leads to.", "the test of channel %s failed: %v", ch.GetName(), err)
	}
	return &apiv1.TestNotificationChannelResponse{Delivery: msg.ID}, nil
}

func kindAndReader(ch *apiv1.NotificationChannel, m outbound.Message) string {
	if ch.GetMail() == nil {
		return "its webhook"
	}
	return "user " + m.Recipients[0]
}

// testReader is to whom the mail of a test goes: the caller, or a user whom the caller can see.
func (s *Service) testReader(ctx context.Context, tx *state.Tx, name string) (u *apiv1.User, err error) {
	if name == "" {
		u, err = s.caller(ctx, tx)
		if err != nil {
			return nil, problem.New(problem.Invalid, "the caller is no user, so nobody is there to write to", "Name a user: --user.").With("user", "is required")
		}
	} else if u, err = s.users.find(ctx, tx, name, place{}); err != nil {
		return nil, inField(err, "user")
	}
	if u.GetEmail() == "" {
		return nil, problem.Newf(problem.Invalid, "Give them one: naru user update "+u.GetName()+" --email ADDRESS; or name another user.", "user %s has no mail address", u.GetName()).With("user", "has no mail address")
	}
	return u, nil
}
