package fsm

import (
	"fmt"
	"strings"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// recordEvent stores what happened to a server itself.
func (c *command) recordEvent(in *commandv1.RecordEvent) (*commandv1.Result, error) {
	e := in.GetEvent()
	if e.GetSeverity() == apiv1.Event_SEVERITY_UNSPECIFIED || e.GetType() == "" || e.GetMessage() == "" {
		return nil, invalid("an event has a severity, a type and a message")
	}
	return &commandv1.Result{}, c.tell(e.GetSeverity(), e.GetType(), where(e), e.GetTarget(), e.GetMessage())
}

// reportDivergence tells people that the servers' states differ. Whether a server has to stop for it is for replication to
// say: it knows which hash this server had.
func (c *command) reportDivergence(in *commandv1.ReportDivergence) (*commandv1.Result, error) {
	if len(in.GetServers()) == 0 {
		return nil, invalid("nothing differs where no server is named")
	}
	var had, wrong []string
	for _, s := range in.GetServers() {
		name := s.GetServerId()
		switch server, err := c.tx.Servers.Get(name); {
		case err == nil:
			name = server.GetName()
		case !missing(err):
			return nil, err
		}
		had = append(had, fmt.Sprintf("%s has %x", name, s.GetSum()))
		if string(s.GetSum()) != string(in.GetAgreed()) {
			wrong = append(wrong, name)
		}
	}
	verdict := "no hash is that of most servers, so none stops: bring the other servers back, so that they decide; if there are none, compare the data and keep one server"
	if len(in.GetAgreed()) > 0 {
		verdict = strings.Join(wrong, ", ") + " stops: remove it with \"naru server delete\", give it an empty data folder, and let it join anew"
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_ERROR, "federation.diverged", whereabouts{}, nil,
		fmt.Sprintf("the servers' states differ at entry %d of the log: %s; %s", in.GetIndex(), strings.Join(had, ", "), verdict))
}

// tell stores an event that this command causes.
func (c *command) tell(severity apiv1.Event_Severity, kind string, at whereabouts, target *apiv1.Reference, message string) error {
	return c.keepEvent(c.event(severity, kind, at, target, message))
}

func (c *command) event(severity apiv1.Event_Severity, kind string, at whereabouts, target *apiv1.Reference, message string) *apiv1.Event {
	return &apiv1.Event{
		Id: c.nextID(), Time: c.now, Severity: severity, Type: kind, Zone: at.zone, ZoneId: at.zoneID, Project: at.project, ProjectId: at.projectID,
		Target: target, Message: message,
	}
}
