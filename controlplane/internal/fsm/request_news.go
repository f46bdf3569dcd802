package fsm

import (
	"slices"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// putRequest stores a request, frees the room of one that has come to nothing or went back, and tells those whom it concerns what has
// become of it: whatever command has brought that about, it is told by what is different from before.
func (c *command) putRequest(m *apiv1.Request) (*commandv1.Result, error) {
	was, err := c.tx.Requests.Get(m.GetId())
	if err != nil {
		return nil, err
	}
	return c.putRequestAfter(was, m)
}

// putRequestAfter is putRequest of what was as given.
func (c *command) putRequestAfter(was, m *apiv1.Request) (*commandv1.Result, error) {
	if !request.KeepsRoom(m) {
		if err := c.freeRoom(m); err != nil {
			return nil, err
		}
	}
	if err := c.tx.Requests.Put(m); err != nil {
		return nil, err
	}
	for _, tell := range []func(was, is *apiv1.Request) error{c.tellApproval, c.tellStages, c.tellReview, c.tellDecisions, c.tellFulfilment} {
		if err := tell(was, m); err != nil {
			return nil, err
		}
	}
	return made(m, nil)
}

// requestNews is about a request. It is in no zone, and names none but that of what was made, in its results: it says
// nothing else of one that the request's own number does not. It says how the request came in, and by which numbers another
// system knows it and what was decided there.
func requestNews(topic string, m *apiv1.Request, parameters ...*apiv1.Notification_Parameter) news {
	if m.GetIntake() != 0 {
		parameters = append(parameters, parameter("intake", strings.ToLower(m.GetIntake().String())))
	}
	if m.GetExternalRef() != "" {
		parameters = append(parameters, parameter("external_ref", m.GetExternalRef()))
	}
	if refs := numbers(request.ExternalRefs(m)); refs != "" {
		parameters = append(parameters, parameter("decision_ref", refs))
	}
	return news{topic: topic, about: reference("request", m), at: whereabouts{project: m.GetProject(), projectID: m.GetProjectId()}, parameters: parameters}
}

// numbers lists as many as fit into a parameter, each whole: what is cut off one is another one.
func numbers(refs []string) string {
	all := ""
	for _, ref := range refs {
		if all != "" {
			ref = ", " + ref
		}
		if len(all)+len(ref) <= maxParameter {
			all += ref
		}
	}
	return all
}

// concerned are those who asked, for whom it is and who helped write it, but for whoever does it.
func (c *command) concerned(m *apiv1.Request) []string {
	return slices.DeleteFunc(request.Concerned(m), func(id string) bool { return id == c.by })
}

func (c *command) tellApproval(was, is *apiv1.Request) error {
	if was.GetApproval() == is.GetApproval() && was.GetRound() == is.GetRound() {
		return nil
	}
	topic := map[apiv1.Request_Approval]string{
		apiv1.Request_SUBMITTED: "request.submitted", apiv1.Request_RETURNED: "request.returned", apiv1.Request_APPROVED: "request.approved",
		apiv1.Request_REJECTED: "request.rejected", apiv1.Request_CANCELLED: "request.cancelled", apiv1.Request_EXPIRED: "request.expired",
	}[is.GetApproval()]
	if topic == "" {
		return nil
	}
	return c.notify(requestNews(topic, is), c.concerned(is)...)
}

// tellStages tells those who may decide what waits for them, and that nothing does any more.
func (c *command) tellStages(was, is *apiv1.Request) error {
	closed := false
	for _, s := range is.GetStages() {
		before := request.StageOf(was, s.GetName())
		if was.GetRound() != is.GetRound() {
			before = nil // that was of another round
		}
		open := s.GetState() == apiv1.Stage_OPEN && request.Deciding(is)
		closed = closed || before.GetState() == apiv1.Stage_OPEN && !open
		stage := parameter("stage", s.GetName())
		var err error
		switch {
		case open && before.GetState() != apiv1.Stage_OPEN:
			err = c.announce(requestNews("request.waiting", is, stage))
		case open && s.GetEscalatedAt() != nil && before.GetEscalatedAt() == nil:
			err = c.announce(requestNews("request.escalated", is, stage))
		case open && s.GetReminders() > before.GetReminders():
			err = c.announce(requestNews("request.reminded", is, stage))
		case open && s.GetStuck() != "" && before.GetStuck() == "":
			err = c.notify(requestNews("request.stuck", is, stage), c.concerned(is)...)
		}
		if err != nil {
			return err
		}
	}
	if !closed && (request.Deciding(is) || !request.Deciding(was)) {
		return nil
	}
	return c.leaveQueues(is)
}

// tellReview tells that what was let through was not reviewed in time. Who may decide is reminded besides.
func (c *command) tellReview(was, is *apiv1.Request) error {
	if was.GetReviewOverdue() || !is.GetReviewOverdue() {
		return nil
	}
	return c.notify(requestNews("request.review-overdue", is), c.concerned(is)...)
}

// leaveQueues marks as read what said that a decision waits, where it no longer does.
func (c *command) leaveQueues(m *apiv1.Request) error {
	unread, err := c.tx.UnreadAbout(m.GetId(), request.Asking, 8*maxTold)
	if err != nil {
		return err
	}
	return c.markRead(slices.DeleteFunc(unread, func(n *apiv1.Notification) bool { return waitsStill(m, n) }))
}

// waitsStill reports whether the stage of which a notification says that it waits for a decision does.
func waitsStill(m *apiv1.Request, n *apiv1.Notification) bool {
	stage := ""
	for _, p := range n.GetParameters() {
		if p.GetKey() == "stage" {
			stage = p.GetValue()
		}
	}
	return request.Deciding(m) && request.StageOf(m, stage).GetState() == apiv1.Stage_OPEN
}

// tellDecisions tells those in whose place somebody has decided.
func (c *command) tellDecisions(was, is *apiv1.Request) error {
	for _, d := range is.GetDecisions()[min(len(was.GetDecisions()), len(is.GetDecisions())):] {
		if d.GetActingForId() == "" {
			continue
		}
		if err := c.notify(requestNews("request.decided-for-you", is, parameter("stage", d.GetStage())), d.GetActingForId()); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) tellFulfilment(was, is *apiv1.Request) error {
	if was.GetFulfilment() == is.GetFulfilment() {
		return nil
	}
	topic := map[apiv1.Request_Fulfilment]string{
		apiv1.Request_DONE: "request.done", apiv1.Request_FAILED: "request.failed", apiv1.Request_LAPSED: "request.lapsed",
	}[is.GetFulfilment()]
	if topic == "" {
		return nil
	}
	n := requestNews(topic, is)
	if is.GetFulfilment() == apiv1.Request_DONE {
		for _, r := range is.GetResults() {
			n.results = append(n.results, &apiv1.Notification_Made{Kind: r.GetKind(), Id: r.GetId(), Name: r.GetName(), Zone: is.GetZone()})
		}
	}
	return c.notify(n, c.concerned(is)...)
}

// tellComment tells of a comment those whom the request concerns, who have decided on it, and who have commented on it before.
func (c *command) tellComment(m *apiv1.Request, said *apiv1.Comment) error {
	to := request.Concerned(m)
	for _, d := range m.GetDecisions() {
		to = append(to, d.GetActorId())
	}
	earlier, err := c.tx.Comments(m.GetId(), "", maxComments)
	if err != nil {
		return err
	}
	for _, e := range earlier {
		to = append(to, e.GetAuthorId())
	}
	slices.Sort(to)
	to = slices.DeleteFunc(slices.Compact(to), func(id string) bool { return id == said.GetAuthorId() })
	return c.notify(requestNews("request.commented", m), to...)
}
