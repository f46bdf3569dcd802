package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createImage(in *commandv1.CreateImage) (*commandv1.Result, error) {
	m := in.GetImage()
	if err := mayCreate(c.tx.Images, "image", m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	r, err := create(c, c.tx.Images, "image", m)
	if err != nil {
		return nil, err
	}
	return r, c.tx.Regrade("", m.GetName()) // VMs that were adopted may name it already
}

func (c *command) updateImage(in *commandv1.UpdateImage) (*commandv1.Result, error) {
	m := in.GetImage()
	was, err := stored(c.tx.Images, "image", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("image", was, m); err != nil {
		return nil, err
	}
	if err := c.mayGrade("image", m.GetName(), m.GetGrade(), state.Scope{"image": m.GetName()}); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	r, err := put(c.tx.Images, m)
	if err != nil || m.GetGrade() == was.GetGrade() {
		return r, err
	}
	return r, c.tx.Regrade("", m.GetName())
}

// deleteImage is refused while a VM names it: rebuilding the VM needs the bits.
func (c *command) deleteImage(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Images, "image", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"image": m.GetName()}))
	u.add(c.offeringsThat(func(o *apiv1.Offering) bool { return o.GetImage() == m.GetName() }))
	if err := u.refuse("image", m.GetName()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Images, "image", m)
}
