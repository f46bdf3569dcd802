package servicetest

import (
	"context"
	"slices"
	"sync"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Outbox stands for all that notification channels lead to. Safe for concurrent use.
type Outbox struct {
	mu   sync.Mutex
	sent []outbound.Message
	fail func(ctx context.Context, ch *apiv1.NotificationChannel, m outbound.Message) error
}

// Send keeps a message, unless it fails.
func (o *Outbox) Send(ctx context.Context, ch *apiv1.NotificationChannel, _ [][]byte, m outbound.Message) error {
	o.mu.Lock()
	fail := o.fail
	o.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, ch, m); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, m)
	return nil
}

// Fail has f decide what fails from now on; nil lets everything through.
func (o *Outbox) Fail(f func(ctx context.Context, ch *apiv1.NotificationChannel, m outbound.Message) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = f
}

// Sent returns what was sent.
func (o *Outbox) Sent() []outbound.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.sent)
}
