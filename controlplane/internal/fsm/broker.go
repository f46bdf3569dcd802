package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createBroker(in *commandv1.CreateBroker) (*commandv1.Result, error) {
	m := in.GetBroker()
	if err := mayCreate(c.tx.Brokers, "broker", m, nil); err != nil {
		return nil, err
	}
	m.Enrolled, m.CreatedAt = false, c.now
	return create(c, c.tx.Brokers, "broker", m)
}

func (c *command) updateBroker(in *commandv1.UpdateBroker) (*commandv1.Result, error) {
	m := in.GetBroker()
	was, err := stored(c.tx.Brokers, "broker", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("broker", was, m); err != nil {
		return nil, err
	}
	m.Fingerprint, m.Enrolled, m.CreatedAt = was.GetFingerprint(), was.GetEnrolled(), was.GetCreatedAt()
	return put(c.tx.Brokers, m)
}

func (c *command) deleteBroker(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Brokers, "broker", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.Zones, "zone", state.Scope{"broker": m.GetName()}))
	if err := u.refuse("broker", m.GetName()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Brokers, "broker", m)
}

// enrollBroker notes that the broker has been given a certificate.
func (c *command) enrollBroker(in *commandv1.EnrollBroker) (*commandv1.Result, error) {
	m, err := stored(c.tx.Brokers, "broker", in.GetBrokerId(), "")
	if err != nil {
		return nil, err
	}
	if m.GetEnrolled() {
		return made(m, nil)
	}
	m.Enrolled = true
	return put(c.tx.Brokers, m)
}
