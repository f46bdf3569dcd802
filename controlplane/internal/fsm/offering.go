package fsm

import (
	"strings"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// createOffering begins version 1, which nobody can ask for yet.
func (c *command) createOffering(in *commandv1.CreateOffering) (*commandv1.Result, error) {
	m := in.GetOffering()
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if err := mayCreate(c.tx.Offerings, "offering", m, nil); err != nil {
		return nil, err
	}
	drafted(m, &apiv1.Offering{CreatedBy: c.actor, CreatedAt: c.now}, 1)
	return create(c, c.tx.Offerings, "offering", m)
}

// drafted makes m a version that is being written of an offering that is there.
func drafted(m, of *apiv1.Offering, version uint32) {
	m.State, m.Version, m.NextVersion = apiv1.Offering_DRAFT, version, 0
	m.CreatedBy, m.CreatedAt = of.GetCreatedBy(), of.GetCreatedAt()
	m.PublishedBy, m.PublishedById, m.PublishedAt = "", "", nil
}

// updateOffering writes the version that is being written; it never touches one that was published. It answers with what it
// wrote. The offering's row says which version that is, and has a new revision with it.
func (c *command) updateOffering(in *commandv1.UpdateOffering) (*commandv1.Result, error) {
	m := in.GetOffering()
	head, err := stored(c.tx.Offerings, "offering", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("offering", head, m); err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if head.GetState() == apiv1.Offering_DRAFT {
		drafted(m, head, head.GetVersion())
		return put(c.tx.Offerings, m)
	}
	if head.GetNextVersion() == 0 {
		head.NextVersion = head.GetVersion() + 1
	}
	drafted(m, head, head.GetNextVersion())
	if err := c.tx.Offerings.PutVersion(m, m.GetVersion()); err != nil {
		return nil, err
	}
	if err := c.tx.Offerings.Put(head); err != nil {
		return nil, err
	}
	return made(m, nil)
}

// publishOffering makes a version of what was written, which from then on never changes. A retired one of which nothing was
// written since can be asked for again as it was.
func (c *command) publishOffering(in *commandv1.PublishOffering) (*commandv1.Result, error) {
	m := in.GetOffering()
	head, err := stored(c.tx.Offerings, "offering", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("offering", head, m); err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	version := head.GetNextVersion()
	switch head.GetState() {
	case apiv1.Offering_DRAFT:
		version = head.GetVersion()
	case apiv1.Offering_RETIRED:
		if version == 0 {
			head.State = apiv1.Offering_PUBLISHED
			return put(c.tx.Offerings, head)
		}
	default:
		if version == 0 {
			return nil, problem.Newf(problem.WrongState, "Change it first: naru catalog update "+head.GetName()+".",
				"version %d of offering %s is published, and nothing was written since", head.GetVersion(), head.GetName())
		}
	}
	drafted(m, head, version)
	m.State, m.PublishedBy, m.PublishedById, m.PublishedAt = apiv1.Offering_PUBLISHED, c.actor, c.by, c.now
	if err := c.tx.Offerings.PutVersion(m, version); err != nil {
		return nil, err
	}
	return put(c.tx.Offerings, m)
}

func (c *command) retireOffering(in *commandv1.RetireOffering) (*commandv1.Result, error) {
	m, err := stored(c.tx.Offerings, "offering", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	switch m.GetState() {
	case apiv1.Offering_DRAFT:
		return nil, problem.Newf(problem.WrongState, "Delete it: naru catalog delete "+m.GetName()+".", "offering %s was never published", m.GetName())
	case apiv1.Offering_RETIRED:
		return made(m, nil)
	}
	m.State = apiv1.Offering_RETIRED
	return put(c.tx.Offerings, m)
}

// deleteOffering deletes one that was never published, or drops the version that is being written. What was published is
// named for ever by what was asked of it.
func (c *command) deleteOffering(in *commandv1.DeleteOffering) (*commandv1.Result, error) {
	m, err := stored(c.tx.Offerings, "offering", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if m.GetState() == apiv1.Offering_DRAFT {
		return remove(c, c.tx.Offerings, "offering", m)
	}
	if !in.GetDraft() {
		return nil, problem.Newf(problem.InUse, "Retire it, so that nobody can ask for it: naru catalog retire "+m.GetName()+".",
			"offering %s was published, and what was asked of it names it", m.GetName())
	}
	if m.GetNextVersion() == 0 {
		return nil, problem.Newf(problem.NotFound, "naru catalog versions "+m.GetName()+" shows which there are.", "no version of offering %s is being written", m.GetName())
	}
	if err := c.tx.Offerings.ForgetVersion(m.GetId(), m.GetNextVersion()); err != nil {
		return nil, err
	}
	m.NextVersion = 0
	if err := c.tx.Offerings.Put(m); err != nil {
		return nil, err
	}
	op, err := c.done("offering.delete", reference("offering", m), whereabouts{})
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// offeringsThat says what offerings name something: those that can be asked for or are being written. Retired ones, and
// versions before the newest, keep no hold on anything: what was asked of them has what it needs.
func (c *command) offeringsThat(name func(*apiv1.Offering) bool) (string, error) {
	var found []string
	for m, err := range c.tx.Offerings.All(nil) {
		if err != nil {
			return "", err
		}
		is := m.GetState() != apiv1.Offering_RETIRED && name(m)
		if !is && m.GetNextVersion() != 0 {
			next, err := c.tx.Offerings.Version(m.GetId(), m.GetNextVersion())
			if err != nil {
				return "", err
			}
			is = name(next)
		}
		if is {
			found = append(found, m.GetName())
		}
	}
	return several("offering", found), nil
}

// several is a sentence as dependents has it.
func several(kind string, names []string) string {
	n := len(names)
	switch {
	case n == 0:
		return ""
	case n > 3:
		names = append(names[:3:3], "…")
	}
	return counted(kind, uint64(n)) + " (" + strings.Join(names, ", ") + ")"
}
