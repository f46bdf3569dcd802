package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/state"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// measured carries a command out, with the records of what it changes, and refuses it where it takes more than a quota leaves: what it has
// added is known from the sums themselves, so no command can forget to ask. What only takes note of how things are is never refused for
// that.
func (c *command) measured(in *commandv1.Command) (*commandv1.Result, error) {
	c.tx.Measure()
	r, err := c.run(in)
	if err == nil && !takesNote(in) {
		err = quota.Grew(c.tx)
	}
	if err == nil {
		err = c.recordChanges(in)
	}
	return r, err
}

// takesNote reports whether a command says how things are, or lets time pass, instead of asking for something.
func takesNote(in *commandv1.Command) bool {
	switch in.GetBody().(type) {
	case *commandv1.Command_Observe, *commandv1.Command_AppendJournal, *commandv1.Command_ConsumeWithheld, *commandv1.Command_ResolveOperation,
		*commandv1.Command_ExpireOperations, *commandv1.Command_EmptyTrash, *commandv1.Command_PassRequest, *commandv1.Command_CreateImage, *commandv1.Command_UpdateImage:
		return true
	}
	return false
}

func (c *command) createQuota(in *commandv1.CreateQuota) (*commandv1.Result, error) {
	m := in.GetQuota()
	if (m.GetProjectId() == "") == (m.GetOrganizationId() == "") {
		return nil, invalid("a quota is of a project or of an organization")
	}
	if m.GetProjectId() != "" {
		if err := c.projectExists(m.GetProjectId(), m.GetProject()); err != nil {
			return nil, err
		}
	} else if err := c.organizationExists(m.GetOrganizationId(), m.GetOrganization()); err != nil {
		return nil, err
	}
	if m.GetZoneId() != "" {
		if err := exists(c.tx.Zones, "zone", m.GetZoneId(), m.GetZone()); err != nil {
			return nil, err
		}
	}
	m.Name = state.QuotaName(m)
	if err := mayCreate(c.tx.Quotas, "quota", m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Quotas, "quota", m)
}

func (c *command) updateQuota(in *commandv1.UpdateQuota) (*commandv1.Result, error) {
	m, err := stored(c.tx.Quotas, "quota", in.GetQuota().GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	m.Limit = in.GetQuota().GetLimit()
	return put(c.tx.Quotas, m)
}

func (c *command) deleteQuota(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Quotas, "quota", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	return remove(c, c.tx.Quotas, "quota", m)
}

// holding says which requests hold something in a project: "2 requests (r-1, r-2)", or "" for none.
func (c *command) holding(projectID string) (string, error) {
	ids, err := c.tx.Holding(projectID)
	if err != nil || len(ids) == 0 {
		return "", err
	}
	m, err := c.tx.Requests.Get(ids[0])
	if err != nil {
		return "", err
	}
	name := m.GetName()
	if len(ids) > 1 {
		name += ", …"
	}
	return counted("request", uint64(len(ids))) + " (" + name + ")", nil
}
