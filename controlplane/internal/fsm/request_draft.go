package fsm

import (
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// createRequest keeps a draft, or what it becomes by its submission. What comes again with a number that its requester has given
// already is the request that has it: so a system that asks twice gets one. What was returned it corrects.
func (c *command) createRequest(in *commandv1.CreateRequest) (*commandv1.Result, error) {
	m := in.GetRequest()
	if m.GetExternalRef() != "" {
		known, err := c.tx.RequestOf(m.GetRequesterId(), m.GetExternalRef())
		if err == nil {
			return c.askAgain(known, m)
		} else if !missing(err) {
			return nil, err
		}
	}
	if m.GetId() == "" || request.Recorded(m) {
		return nil, invalid("a request without id, or that is a record, cannot be created")
	}
	if _, err := c.tx.Requests.Get(m.GetId()); err == nil {
		return nil, problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another request", m.GetId())
	} else if !missing(err) {
		return nil, err
	}
	if _, err := c.actingUser(&commandv1.Person{Id: m.GetRequesterId(), Name: m.GetRequester()}); err != nil {
		return nil, err
	}
	if err := c.concerns(m); err != nil {
		return nil, err
	}
	if err := c.mayWriteAnother(m); err != nil {
		return nil, err
	}
	n, err := c.tx.NextRequestNumber()
	if err != nil {
		return nil, err
	}
	m.Name = "r-" + strconv.FormatInt(n, 10)
	m.Approval, m.Fulfilment, m.CreatedAt, m.Round, m.SentRound, m.BehindIds = apiv1.Request_DRAFT, apiv1.Request_NONE, c.now, 0, 0, nil
	if err := c.behind(m, m.GetRequesterId()); err != nil {
		return nil, err
	}
	if in.GetSubmit() == nil {
		return put(c.tx.Requests, m)
	}
	draft := proto.CloneOf(m)
	if err := c.submitted(m, in.GetSubmit()); err != nil {
		return nil, err
	}
	return c.putRequestAfter(draft, m)
}

// askAgain answers what comes under a number that is known: the same body with the request itself; another one corrects what
// was returned, and else it is refused, so that nobody takes the request for what they sent.
func (c *command) askAgain(known, m *apiv1.Request) (*commandv1.Result, error) {
	switch {
	case string(known.GetSentSha256()) == string(m.GetSentSha256()):
		return made(known, nil)
	case known.GetApproval() != apiv1.Request_RETURNED:
		return nil, problem.Newf(problem.Contradiction, "Look at it: naru request show "+known.GetName()+". A draft is changed by naru request update; what is something else has a number of its own.",
			"request %s was asked for under the number %s, and what was sent now under that number is something else", known.GetName(), known.GetExternalRef()).
			With("external_ref", "is that of request "+known.GetName())
	}
	known.SentSha256, known.SentRound = m.GetSentSha256(), known.GetRound()
	if err := c.tx.Requests.Put(known); err != nil {
		return nil, err
	}
	m.Id = known.GetId()
	return c.updateRequest(&commandv1.UpdateRequest{Request: m, By: &commandv1.Person{Id: m.GetRequesterId(), Name: m.GetRequester()}})
}

// mayWriteAnother refuses a draft where too many stand already.
func (c *command) mayWriteAnother(m *apiv1.Request) error {
	own, err := c.tx.RequestsOf(m.GetRequesterId())
	if err != nil {
		return err
	}
	all, err := c.tx.RequestsIn(m.GetProjectId())
	switch {
	case err != nil:
		return err
	case own.Written >= maxWrittenOf:
		return problem.Newf(problem.TooMany, "Submit or delete some that you no longer need: naru request list --mine --filter approval=draft.",
			"%s has %d drafts and returned requests, and no more are kept of one requester", m.GetRequester(), own.Written)
	case all.Written >= maxWrittenIn:
		return problem.Newf(problem.TooMany, "Have some submitted or deleted by those who wrote them, and delete those of people who have left: naru request list --project "+m.GetProject()+" --filter approval=draft.",
			"project %s has %d drafts and returned requests, and no more are kept of one project", m.GetProject(), all.Written)
	}
	return nil
}

// mayAskMore refuses a submission where too many wait for people already.
func (c *command) mayAskMore(m *apiv1.Request) error {
	own, err := c.tx.RequestsOf(m.GetRequesterId())
	if err != nil {
		return err
	}
	all, err := c.tx.RequestsIn(m.GetProjectId())
	switch {
	case err != nil:
		return err
	case own.Asked >= maxAskedOf:
		return problem.Newf(problem.TooMany, "Wait until some are decided, or withdraw some: naru request list --mine --filter approval=submitted.",
			"%s has %d requests that wait for a decision, and no more are taken of one requester", m.GetRequester(), own.Asked)
	case all.Asked >= maxAskedIn:
		return problem.Newf(problem.TooMany, "Wait until some are decided, or have some withdrawn: naru request list --project "+m.GetProject()+" --filter approval=submitted.",
			"project %s has %d requests that wait for a decision, and no more are taken of one project", m.GetProject(), all.Asked)
	}
	return nil
}

// writtenBy returns a request that is being written, and who so helps write it now. A revision that is given has to be its newest.
func (c *command) writtenBy(id, revision string, p *commandv1.Person) (*apiv1.Request, *apiv1.User, error) {
	m, err := stored(c.tx.Requests, "request", id, revision)
	if err != nil {
		return nil, nil, err
	}
	by, err := c.actingUser(p)
	if err != nil {
		return nil, nil, err
	}
	return m, by, request.Edit(m, person(by))
}

func (c *command) updateRequest(in *commandv1.UpdateRequest) (*commandv1.Result, error) {
	m, by, err := c.writtenBy(in.GetRequest().GetId(), in.GetExpectedRevision(), in.GetBy())
	if err != nil {
		return nil, err
	}
	is, was := in.GetRequest(), m.GetProjectId()
	m.Title, m.Reason, m.RoleCluster, m.ChangeType = is.GetTitle(), is.GetReason(), is.GetRoleCluster(), is.GetChangeType()
	m.OnBehalfOf, m.OnBehalfOfId = is.GetOnBehalfOf(), is.GetOnBehalfOfId()
	m.Project, m.ProjectId, m.Organization, m.OrganizationId = is.GetProject(), is.GetProjectId(), is.GetOrganization(), is.GetOrganizationId()
	m.SourceZone, m.SourceZoneId = is.GetSourceZone(), is.GetSourceZoneId()
	m.Zone, m.ZoneId, m.Kind, m.Specification = is.GetZone(), is.GetZoneId(), is.GetKind(), is.GetSpecification()
	m.LeaseDays, m.DesiredStart, m.DecideBy, m.CarryOutBy = is.GetLeaseDays(), is.GetDesiredStart(), is.GetDecideBy(), is.GetCarryOutBy()
	if err := c.concerns(m); err != nil {
		return nil, err
	}
	if was != m.GetProjectId() {
		if err := c.mayKeep(m, 0); err != nil {
			return nil, err
		}
	}
	if err := c.behind(m, by.GetId()); err != nil {
		return nil, err
	}
	return put(c.tx.Requests, m)
}

// deleteRequest deletes a draft that was never submitted. What was, is history.
func (c *command) deleteRequest(in *commandv1.DeleteRequest) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if err := request.OfRecord(m, "deleted"); err != nil {
		return nil, err
	}
	if m.GetApproval() != apiv1.Request_DRAFT || m.GetRound() > 0 {
		return nil, problem.Newf(problem.WrongState, "Withdraw it: naru request withdraw "+m.GetName()+". Its history stays.",
			"request %s was submitted, and only a draft is deleted", m.GetName())
	}
	if err := c.tx.ForgetComments(m.GetId()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Requests, "request", m)
}
