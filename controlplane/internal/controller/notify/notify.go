// Package notify is what the leader does about what people and programs are to be told: it finds out whom a notice concerns where
// only a policy says that, and sends what is to be delivered through channels.
//
// A delivery is sent at least once, always under its own id: a leader that falls between sending and noting it leaves it to the next,
// which sends it again. Each channel has a bounded number under way, so one that hangs never holds up another.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how often it is looked what is due; what changes is looked at when it changes.
	every = time.Second
	// atOnce is how many deliveries of one channel are under way.
	atOnce = 4
	// firstPause is how long a delivery waits after its first failure, longestPause after any; each time twice as long.
	firstPause   = 5 * time.Second
	longestPause = time.Hour
	// retryAfter is how long a notice that cannot be addressed is left alone.
	retryAfter = 5 * time.Second
	page       = 100 // proto: max_items of notices
	// atATime bounds whom the notices of one command reach together: each of them is told in one transaction.
	atATime = 256
	actor   = "notify"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Sender sends one message through a channel.
type Sender interface {
	Send(ctx context.Context, ch *apiv1.NotificationChannel, secrets [][]byte, m outbound.Message) error
}

// Rights says what people may see.
type Rights interface {
	MaySee(ctx context.Context, userID string, about *apiv1.Reference) (bool, error)
}

// Config is what the controller is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Sender   Sender
	Rights   Rights
	// Unseal opens a secret of the state.
	Unseal func(role string, sealed []byte) ([]byte, error)
	Log    *slog.Logger
	Now    func() time.Time
}

// Controller runs on the leader only.
type Controller struct {
	Config
	// later is until when a notice is left alone, by id; of the loop alone.
	later map[string]time.Time

	mu sync.Mutex
	// sending are the deliveries under way, by channel and id.
	sending map[string]map[string]bool
	// resting is until when a delivery is left alone of which it could not be noted what came of it.
	resting map[string]time.Time
	wake    chan struct{}
	under   sync.WaitGroup
}

// New returns a controller that does nothing yet.
func New(c Config) *Controller {
	return &Controller{Config: c, later: map[string]time.Time{}, sending: map[string]map[string]bool{}, resting: map[string]time.Time{}, wake: make(chan struct{}, 1)}
}

// Run goes on until ctx ends, and returns when nothing is under way any more.
func (c *Controller) Run(ctx context.Context) error {
	defer c.Wait()
	changed := c.Reader.Watch(state.TopicNotices, "deliveries", "notification_channels")
	defer changed.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := errors.Join(c.Address(ctx), c.Send(ctx)); err != nil && ctx.Err() == nil {
			c.Log.Warn("what people are to be told was not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-changed.C():
			if !open {
				return nil
			}
		case <-c.wake:
		case <-tick.C:
		}
	}
}

// together is how many of the first notices go in one command. One that has failed before goes alone: it may be what the others failed for.
func (c *Controller) together(found []*commandv1.AddressNotice) int {
	n, people := 0, 0
	for _, in := range found {
		_, failed := c.later[in.GetNoticeId()]
		if people += len(in.GetAddressees()); n > 0 && (failed || people > atATime) {
			break
		}
		if n++; failed {
			break
		}
	}
	return n
}

// Address finds out once for each notice whom it concerns. One of which that cannot be found out never holds up another.
func (c *Controller) Address(ctx context.Context) error {
	now := c.Now()
	for after := ""; ; {
		var found []*commandv1.AddressNotice
		last := ""
		err := c.Reader.View(ctx, func(tx *state.Tx) error {
			found, last = nil, ""
			all, err := tx.Notices(after, page)
			for _, m := range all {
				id := m.GetNotification().GetId()
				if last = id; now.Before(c.later[id]) {
					continue
				}
				to, err := addressees(tx, m.GetNotification(), now)
				if err != nil {
					c.later[id] = now.Add(retryAfter)
					c.Log.Warn("it cannot be found out whom a notice concerns", "topic", m.GetNotification().GetTopic(), "about", m.GetNotification().GetAbout().GetName(), "error", err)
					continue
				}
				found = append(found, &commandv1.AddressNotice{NoticeId: id, Addressees: to})
			}
			return err
		})
		if err != nil {
			return err
		}
		for len(found) > 0 {
			n := c.together(found)
			err := c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_AddressNotices{AddressNotices: &commandv1.AddressNotices{Notices: found[:n]}}})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				c.Log.Warn("notices were not addressed", "notices", n, "first", found[0].GetNoticeId(), "error", err)
			}
			for _, in := range found[:n] {
				if delete(c.later, in.GetNoticeId()); err != nil {
					c.later[in.GetNoticeId()] = now.Add(retryAfter)
				}
			}
			found = found[n:]
		}
		if last == "" {
			return nil
		}
		after = last
	}
}

// Send begins to send what is due, as far as its channels have room.
func (c *Controller) Send(ctx context.Context) error {
	type job struct{ channel, delivery string }
	var jobs []job
	err := c.Reader.View(ctx, func(tx *state.Tx) error {
		jobs = nil
		var channels []string
		for ch, err := range tx.NotificationChannels.All(nil) {
			if err != nil {
				return err
			}
			if !ch.GetDisabled() {
				channels = append(channels, ch.GetId())
			}
		}
		for _, id := range channels {
			busy := c.busy(id)
			due, err := tx.DueDeliveries(id, c.Now().UnixMicro(), atOnce+len(busy))
			if err != nil {
				return err
			}
			for _, d := range due {
				if room := atOnce - len(busy); room > 0 && !busy[d.GetId()] && !c.rests(d.GetId()) {
					busy[d.GetId()] = true
					jobs = append(jobs, job{id, d.GetId()})
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, j := range jobs {
		c.mu.Lock()
		if c.sending[j.channel] == nil {
			c.sending[j.channel] = map[string]bool{}
		}
		c.sending[j.channel][j.delivery] = true
		c.mu.Unlock()
		c.under.Go(func() {
			err := c.deliver(ctx, j.delivery)
			if err != nil && ctx.Err() == nil {
				c.Log.Warn("what came of a delivery was not noted; it may be sent again", "delivery", j.delivery, "error", err)
			}
			c.mu.Lock()
			delete(c.sending[j.channel], j.delivery)
			if delete(c.resting, j.delivery); err != nil {
				c.resting[j.delivery] = c.Now().Add(retryAfter)
			}
			c.mu.Unlock()
			select {
			case c.wake <- struct{}{}:
			default:
			}
		})
	}
	return nil
}

// Wait returns when nothing is under way.
func (c *Controller) Wait() { c.under.Wait() }

// busy returns what is under way for a channel.
func (c *Controller) busy(channel string) map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for id := range c.sending[channel] {
		out[id] = true
	}
	return out
}

// rests reports whether a delivery is left alone for now.
func (c *Controller) rests(delivery string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Now().Before(c.resting[delivery])
}

// deliver sends one delivery, and notes what came of it.
func (c *Controller) deliver(ctx context.Context, id string) error {
	l, err := c.prepare(ctx, id)
	if err != nil || l == nil {
		return err
	}
	in := &commandv1.SettleDelivery{DeliveryId: id, Attempts: l.delivery.GetAttempts(), State: apiv1.Delivery_DELIVERED}
	switch {
	case l.nobody:
		in.State = apiv1.Delivery_STATE_UNSPECIFIED
	case l.failed == nil:
		l.failed = c.Sender.Send(ctx, l.channel, l.secrets, l.message)
	}
	if ctx.Err() != nil {
		return ctx.Err() // it is the next leader's
	}
	if l.failed != nil {
		in.State, in.Error = apiv1.Delivery_WAITING, l.failed.Error()
		in.NextAttemptAt = timestamppb.New(c.Now().Add(pause(l.delivery.GetAttempts())))
		if permanent := (*outbound.Permanent)(nil); errors.As(l.failed, &permanent) {
			in.State = apiv1.Delivery_DEAD
		}
		c.Log.Info("a delivery failed", "delivery", id, "channel", l.channel.GetName(), "attempt", l.delivery.GetAttempts()+1, "error", l.failed)
	}
	err = c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SettleDelivery{SettleDelivery: in}})
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Conflict) {
		return nil // somebody has dropped it, or has it tried anew
	}
	return err
}

// pause is how long to wait after so many failures before: twice as long each time, and up to half as much more by chance, so that
// what failed together is not tried together.
func pause(failures uint32) time.Duration {
	d := longestPause
	if failures < 12 {
		d = min(longestPause, firstPause<<failures)
	}
	return d + rand.N(d/2)
}

func (c *Controller) propose(ctx context.Context, in *commandv1.Command) error {
	id := uuid.Must(uuid.NewV7())
	in.Id, in.Actor = id[:], actor
	r, err := c.Proposer.Propose(ctx, in)
	if err != nil {
		return err
	}
	return problem.FromProto(r.GetProblem())
}
