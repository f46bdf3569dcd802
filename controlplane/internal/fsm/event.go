package fsm

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// tell stores an event that this command causes.
func (c *command) tell(severity apiv1.Event_Severity, kind, zone, project string, target *apiv1.Reference, message string) error {
	return c.tx.Events.Put(c.event(severity, kind, zone, project, target, message))
}

func (c *command) event(severity apiv1.Event_Severity, kind, zone, project string, target *apiv1.Reference, message string) *apiv1.Event {
	return &apiv1.Event{
		Id: c.nextID(), Time: c.now, Severity: severity, Type: kind, Zone: zone, Project: project, Target: target, Message: message,
	}
}
