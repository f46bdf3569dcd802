package fsm

import (
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createCalendar(in *commandv1.CreateCalendar) (*commandv1.Result, error) {
	m := in.GetCalendar()
	if err := mayCreate(c.tx.Calendars, "calendar", m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Calendars, "calendar", m, "", "")
}

func (c *command) updateCalendar(in *commandv1.UpdateCalendar) (*commandv1.Result, error) {
	m := in.GetCalendar()
	was, err := stored(c.tx.Calendars, "calendar", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("calendar", was, m); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	return put(c.tx.Calendars, m)
}

// deleteCalendar is refused while an approval policy names it.
func (c *command) deleteCalendar(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Calendars, "calendar", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var found []string
	for p, err := range c.tx.ApprovalPolicies.All(nil) {
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(p.GetStages(), func(s *apiv1.StageTemplate) bool { return s.GetCalendar() == m.GetName() }) {
			found = append(found, p.GetName())
		}
	}
	var u uses
	u.add(several("approval policy", found), nil)
	if err := u.refuse("calendar", m.GetName()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Calendars, "calendar", m, "", "")
}
