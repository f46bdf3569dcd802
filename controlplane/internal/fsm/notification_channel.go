package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxChannels bounds what everything that happens may have to be written for.
const maxChannels = 32

func (c *command) createNotificationChannel(in *commandv1.CreateNotificationChannel) (*commandv1.Result, error) {
	m := in.GetNotificationChannel()
	if err := mayCreate(c.tx.NotificationChannels, "notification channel", m, nil); err != nil {
		return nil, err
	}
	if (m.GetMail() == nil) == (m.GetWebhook() == nil) {
		return nil, invalid("a notification channel is mail or a webhook")
	}
	n, err := c.tx.NotificationChannels.Count(nil, "")
	if err != nil {
		return nil, err
	}
	if n >= maxChannels {
		return nil, problem.Newf(problem.TooMany, "Delete one that is not needed: naru notification-channel list.", "there are %d notification channels, and no more can be made", n)
	}
	m.CreatedAt = c.now
	return create(c, c.tx.NotificationChannels, "notification-channel", m)
}

// updateNotificationChannel changes a channel. Its secret was given for one mail server and one who logs in there: it is forgotten
// where it would go to another.
func (c *command) updateNotificationChannel(in *commandv1.UpdateNotificationChannel) (*commandv1.Result, error) {
	m := in.GetNotificationChannel()
	was, err := stored(c.tx.NotificationChannels, "notification channel", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("notification channel", was, m); err != nil {
		return nil, err
	}
	if (was.GetMail() == nil) != (m.GetMail() == nil) || (was.GetWebhook() == nil) != (m.GetWebhook() == nil) {
		return nil, problem.Newf(problem.Invalid, "Make another channel.", "notification channel %s is %s for ever", was.GetName(), kindOf(was))
	}
	a, b := was.GetMail(), m.GetMail()
	elsewhere := a.GetServer() != b.GetServer() || a.GetTls() != b.GetTls() || a.GetCa() != b.GetCa() || a.GetUser() != b.GetUser()
	was.Disabled, was.Topics, was.Grade, was.Mail, was.Webhook = m.GetDisabled(), m.GetTopics(), m.GetGrade(), m.GetMail(), m.GetWebhook()
	was.Organizations, was.OrganizationIds, was.Projects, was.ProjectIds = m.GetOrganizations(), m.GetOrganizationIds(), m.GetProjects(), m.GetProjectIds()
	if elsewhere && was.GetSecretSetAt() != nil {
		was.SecretSetAt = nil
		if err := c.tx.ForgetChannelSecrets(was.GetId()); err != nil {
			return nil, err
		}
	}
	return put(c.tx.NotificationChannels, was)
}

func kindOf(m *apiv1.NotificationChannel) string {
	if m.GetMail() != nil {
		return "mail"
	}
	return "a webhook"
}

// deleteNotificationChannel deletes a channel with all that was to be delivered through it.
func (c *command) deleteNotificationChannel(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.NotificationChannels, "notification channel", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.tx.ForgetChannelSecrets(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetDeliveriesOf(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetDropped(m.GetId()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.NotificationChannels, "notification-channel", m)
}

func (c *command) setNotificationChannelSecret(in *commandv1.SetNotificationChannelSecret) (*commandv1.Result, error) {
	m, err := stored(c.tx.NotificationChannels, "notification channel", in.GetNotificationChannelId(), "")
	if err != nil {
		return nil, err
	}
	if len(in.GetSealed()) == 0 {
		return nil, invalid("a secret is not empty")
	}
	was, err := c.tx.ChannelSecrets(m.GetId())
	if err != nil && !missing(err) {
		return nil, err
	}
	next := &commandv1.ChannelSecrets{ChannelId: m.GetId(), Sealed: in.GetSealed()}
	m.SecretSetAt, m.SecretOverlapsUntil = c.now, nil
	if m.GetWebhook() != nil && err == nil && later(in.GetOverlapsUntil(), c.clock) {
		next.SealedBefore, next.BeforeUntil = was.GetSealed(), in.GetOverlapsUntil()
		m.SecretOverlapsUntil = in.GetOverlapsUntil()
	}
	if err := c.tx.PutChannelSecrets(next); err != nil {
		return nil, err
	}
	return put(c.tx.NotificationChannels, m)
}
