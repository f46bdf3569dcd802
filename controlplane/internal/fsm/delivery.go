package fsm

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// maxAttempts is how often a delivery is tried before it is given up.
	maxAttempts = 16
	// keptDelivered and keptDead are how many of a channel are kept that were delivered, and that were given up: the newest.
	keptDelivered = 1000
	keptDead      = 10_000
)

// settleDelivery takes in what came of sending. What was tried too often, or for too long, is given up.
func (c *command) settleDelivery(in *commandv1.SettleDelivery) (*commandv1.Result, error) {
	m, err := c.tx.Deliveries.Get(in.GetDeliveryId())
	if err != nil {
		return nil, orNotFound(err, "delivery", in.GetDeliveryId())
	}
	if m.GetState() != apiv1.Delivery_WAITING || m.GetAttempts() != in.GetAttempts() {
		return nil, problem.Newf(problem.Conflict, "", "delivery %s was settled otherwise meanwhile", m.GetId())
	}
	if in.GetState() == apiv1.Delivery_STATE_UNSPECIFIED {
		return &commandv1.Result{}, c.tx.Deliveries.Delete(m.GetId())
	}
	m.State, m.LastError, m.NextAttemptAt = in.GetState(), cut(in.GetError()), nil
	m.Attempts++
	if next := in.GetNextAttemptAt(); m.GetState() == apiv1.Delivery_WAITING {
		if m.GetAttempts() >= maxAttempts || next == nil || later(next, m.GetGiveUpAt()) {
			m.State = apiv1.Delivery_DEAD
		} else {
			m.NextAttemptAt = next
		}
	}
	if m.GetState() == apiv1.Delivery_WAITING {
		return put1(c.tx.Deliveries.Put(m), m)
	}
	m.EndedAt = c.now
	keep := keptDelivered
	if m.GetState() == apiv1.Delivery_DEAD {
		keep = keptDead
		if err := c.tellOfDead(m); err != nil {
			return nil, err
		}
	}
	if err := c.tx.Deliveries.Put(m); err != nil {
		return nil, err
	}
	return put1(c.tx.KeepDeliveries(m.GetChannelId(), m.GetState(), keep), m)
}

func put1(err error, m *apiv1.Delivery) (*commandv1.Result, error) {
	if err != nil {
		return nil, err
	}
	return made(m, nil)
}

// tellOfDead tells of the first delivery of a channel that is given up; the others are in the list.
func (c *command) tellOfDead(m *apiv1.Delivery) error {
	n, err := c.tx.DeliveriesOf(m.GetChannelId(), apiv1.Delivery_DEAD)
	if err != nil || n > 0 {
		return err
	}
	return c.tell(apiv1.Event_WARNING, "delivery.dead", whereabouts{}, &apiv1.Reference{Kind: "notification-channel", Id: m.GetChannelId(), Name: m.GetChannel()},
		cut("a delivery through "+m.GetChannel()+" was given up: "+m.GetLastError()))
}

// retryDelivery has one tried again at once, with all its attempts before it.
func (c *command) retryDelivery(in *commandv1.RetryDelivery) (*commandv1.Result, error) {
	m, err := c.undelivered(in.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	m.State, m.Attempts, m.EndedAt = apiv1.Delivery_WAITING, 0, nil
	m.NextAttemptAt, m.GiveUpAt = c.clock, after(c.clock, giveUpAfter)
	return put1(c.tx.Deliveries.Put(m), m)
}

func (c *command) dropDelivery(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := c.undelivered(in.GetId())
	if err != nil {
		return nil, err
	}
	return removeAs(c, c.tx.Deliveries, "delivery.drop", m, deliveryReference(m))
}

func deliveryReference(m *apiv1.Delivery) *apiv1.Reference {
	return &apiv1.Reference{Kind: "delivery", Id: m.GetId(), Name: m.GetChannel()}
}

func (c *command) undelivered(id string) (*apiv1.Delivery, error) {
	m, err := c.tx.Deliveries.Get(id)
	if err != nil {
		return nil, orNotFound(err, "delivery", id)
	}
	if m.GetState() == apiv1.Delivery_DELIVERED {
		return nil, problem.Newf(problem.WrongState, "naru delivery list --dead shows what was given up.", "delivery %s has been delivered", id)
	}
	return m, nil
}
