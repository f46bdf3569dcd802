package notify

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// load is a delivery with what it takes to send it, as that is now.
type load struct {
	delivery *apiv1.Delivery
	channel  *apiv1.NotificationChannel
	secrets  [][]byte
	message  outbound.Message
	// nobody says that it concerns nobody any more; failed why it cannot be sent now.
	nobody bool
	failed error
}

// prepare reads what it takes to send a delivery; nil where it is not to be sent any more, or not now.
func (c *Controller) prepare(ctx context.Context, id string) (*load, error) {
	l := &load{}
	var kept *commandv1.ChannelSecrets
	err := c.Reader.View(ctx, func(tx *state.Tx) (err error) {
		*l = load{}
		if l.delivery, err = tx.Deliveries.Get(id); err != nil {
			return err
		}
		if l.channel, err = tx.NotificationChannels.Get(l.delivery.GetChannelId()); err != nil {
			return err
		}
		if kept, err = tx.ChannelSecrets(l.channel.GetId()); err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		l.message = outbound.Message{ID: id, Recipients: l.delivery.GetRecipients()}
		if l.message.Notification, err = readable(tx, l.delivery.GetNotification(), l.channel.GetGrade()); err != nil || l.channel.GetMail() == nil {
			return err
		}
		return l.toPerson(tx)
	})
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case l.delivery.GetState() != apiv1.Delivery_WAITING || l.channel.GetDisabled():
		return nil, nil
	}
	if l.channel.GetMail() != nil && !l.nobody {
		sees, err := c.Rights.MaySee(ctx, l.delivery.GetNotification().GetUserId(), l.delivery.GetNotification().GetAbout())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.nobody, l.failed = !sees && err == nil, err
	}
	if kept != nil && !l.nobody && l.failed == nil {
		l.secrets, l.failed = outbound.Secrets(kept, c.Unseal, c.Now())
	}
	return l, nil
}

// toPerson completes a mail, unless what it says concerns the person no longer.
func (l *load) toPerson(tx *state.Tx) error {
	n := l.delivery.GetNotification()
	u, err := tx.Users.Get(n.GetUserId())
	if errors.Is(err, state.ErrNotFound) {
		l.nobody = true
		return nil
	}
	if err != nil {
		return err
	}
	l.message.Address, l.message.Language = u.GetEmail(), u.GetLanguage()
	l.nobody = u.GetEmail() == "" || request.Away(u) != "" && !strings.HasPrefix(n.GetTopic(), "account.")
	if asks(n.GetTopic()) {
		r, err := tx.Requests.Get(n.GetAbout().GetId())
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		l.nobody = l.nobody || !request.Deciding(r) || request.StageOf(r, valueOf(n, "stage")).GetState() != apiv1.Stage_OPEN
	}
	return nil
}

// readable is a notification as it may be read where a channel leads: of a zone, what that zone shows to one of the grade.
func readable(tx *state.Tx, n *apiv1.Notification, grade apiv1.Zone_Grade) (*apiv1.Notification, error) {
	n = proto.CloneOf(n)
	if grade == apiv1.Zone_GRADE_UNSPECIFIED {
		grade = apiv1.Zone_OPEN
	}
	var failed error
	rights.Redact(n, func(zone string) rights.Shown {
		of, err := tx.Zones.ByName(zone, nil)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			failed = err
		}
		return rights.Crosses(of, &apiv1.Zone{Id: "channel", Grade: grade})
	}, rights.RedactProblem)
	return n, failed
}

func valueOf(n *apiv1.Notification, key string) string {
	for _, p := range n.GetParameters() {
		if p.GetKey() == key {
			return p.GetValue()
		}
	}
	return ""
}
