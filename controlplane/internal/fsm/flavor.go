package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createFlavor(in *commandv1.CreateFlavor) (*commandv1.Result, error) {
	m := in.GetFlavor()
	if err := mayCreate(c.tx.Flavors, "flavor", m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Flavors, "flavor", m, "", "")
}

func (c *command) updateFlavor(in *commandv1.UpdateFlavor) (*commandv1.Result, error) {
	m := in.GetFlavor()
	was, err := stored(c.tx.Flavors, "flavor", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("flavor", was, m); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	return put(c.tx.Flavors, m)
}

// deleteFlavor is refused while a VM names it. A VM carries its own size; what would be lost is what it was asked as.
func (c *command) deleteFlavor(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Flavors, "flavor", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"flavor": m.GetName()}))
	u.add(c.offeringsThat(func(o *apiv1.Offering) bool {
		return slices.ContainsFunc(o.GetFlavors(), func(f *apiv1.OfferedFlavor) bool { return f.GetFlavor() == m.GetName() })
	}))
	if err := u.refuse("flavor", m.GetName()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Flavors, "flavor", m, "", "")
}
