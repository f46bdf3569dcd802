package fsm

import (
	"crypto/sha256"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// maxComments and maxFiles bound what is kept of one request (proto: max_items of files).
	maxComments = 1000
	maxFiles    = 8
	maxFileSize = 256 << 10
	// Of one requester, and of one project: how many requests may be written at once, and how many wait for people. Beyond that it is a
	// program that runs wild, or somebody who wants the others' requests not to be seen.
	maxWrittenOf, maxAskedOf = 100, 1000
	maxWrittenIn, maxAskedIn = 1000, 2000
)

// concerns checks that what a draft is about is there.
func (c *command) concerns(m *apiv1.Request) error {
	if m.GetOnBehalfOf() != "" || m.GetOnBehalfOfId() != "" {
		if err := exists(c.tx.Users, "user", m.GetOnBehalfOfId(), m.GetOnBehalfOf()); err != nil {
			return err
		}
	}
	if m.GetZone() != "" || m.GetZoneId() != "" {
		if err := exists(c.tx.Zones, "zone", m.GetZoneId(), m.GetZone()); err != nil {
			return err
		}
	}
	return c.projectExists(m.GetProjectId(), m.GetProject())
}

// actingUser returns a user who does something now, or for whom it is done: one who is away does nothing.
func (c *command) actingUser(p *commandv1.Person) (*apiv1.User, error) {
	u, err := c.tx.Users.Get(p.GetId())
	if err != nil {
		return nil, orNotFound(err, "user", p.GetName())
	}
	if why := request.Away(u); why != "" {
		return nil, problem.Newf(problem.Forbidden, "Ask an administrator.", "user %s %s", u.GetName(), why)
	}
	if u.GetName() != p.GetName() {
		return nil, invalid("user " + u.GetId() + " is " + u.GetName() + ", not " + p.GetName())
	}
	return u, nil
}

// behind notes who could have written what somebody, by their id, writes now: it is forgotten by their credentials before it is of no
// account for the request.
func (c *command) behind(m *apiv1.Request, ids ...string) error {
	all, err := hold.Behind(c.tx, ids...)
	if err != nil {
		return err
	}
	all = append(all, m.GetBehindIds()...)
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(id string) bool { return slices.Contains(ids, id) })
	if len(all) > maxHolders {
		return problem.Newf(problem.TooMany, "Copy it: naru request copy "+m.GetName()+".", "more than %d people could have written request %s", maxHolders, m.GetName())
	}
	m.BehindIds = all
	return nil
}

func person(u *apiv1.User) request.Person { return request.Person{ID: u.GetId(), Name: u.GetName()} }

// submitRequest begins a request's approval, with what the proposer made of it.
func (c *command) submitRequest(in *commandv1.SubmitRequest) (*commandv1.Result, error) {
	if in.GetExpectedRevision() == "" {
		return nil, invalid("a request is submitted at a revision")
	}
	m, err := stored(c.tx.Requests, "request", in.GetRequest().GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.submitted(m, in); err != nil {
		return nil, err
	}
	return c.putRequest(m)
}

// submitted makes of a draft what its submission makes of it, and writes nothing.
func (c *command) submitted(m *apiv1.Request, in *commandv1.SubmitRequest) error {
	if err := c.readsHold(in.GetReads()); err != nil {
		return err
	}
	by, err := c.actingUser(in.GetBy())
	if err != nil {
		return err
	}
	is := in.GetRequest()
	m.SourceZone, m.SourceZoneId = is.GetSourceZone(), is.GetSourceZoneId()
	m.Specification, m.Zone, m.ZoneId, m.Grade, m.LeaseDays = is.GetSpecification(), is.GetZone(), is.GetZoneId(), is.GetGrade(), is.GetLeaseDays()
	m.Organization, m.OrganizationId, m.ChangeType = is.GetOrganization(), is.GetOrganizationId(), is.GetChangeType()
	m.MonthlyCost, m.MonthlyCostBefore, m.ExtensionCost = is.GetMonthlyCost(), is.GetMonthlyCostBefore(), is.GetExtensionCost()
	m.Amount, m.Parts = is.GetAmount(), is.GetParts()
	m.Policy, m.PolicyVersion, m.PolicyTrace, m.Authority = is.GetPolicy(), is.GetPolicyVersion(), is.GetPolicyTrace(), is.GetAuthority()
	m.Frozen, m.FrozenHash = is.GetFrozen(), is.GetFrozenHash()
	if err := c.concerns(m); err != nil {
		return err
	}
	if err := request.TimesHold(m, c.clock); err != nil {
		return err
	}
	if err := c.mayAskMore(m); err != nil {
		return err
	}
	if err := c.maySubmitToday(m); err != nil {
		return err
	}
	if err := quota.Adds(c.tx, m); err != nil {
		return err
	}
	if len(m.GetParts()) == 0 {
		return invalid("a request without parts asks for nothing")
	}
	due, err := c.openings(in.GetOpenings(), in.GetReckonedAt())
	if err != nil {
		return err
	}
	if err := request.Submit(m, request.Submission{
		By: person(by), Stages: is.GetStages(), Automatic: in.GetAutomatic(), AtOnce: in.GetAtOnce(), Openings: due, Now: c.now,
	}); err != nil {
		return err
	}
	if err := c.behind(m, request.Concerned(m)...); err != nil {
		return err
	}
	m.AutomaticAt = nil
	if in.GetAutomatic() != "" || in.GetAtOnce() {
		policy, err := c.judgedBy(m)
		if err == nil && in.GetAutomatic() != "" {
			err = c.letThrough(m, policy)
		}
		if err == nil {
			err = c.disinterested(m, policy)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// judgedBy returns the policy that a request was judged by, which must be the newest version still.
func (c *command) judgedBy(m *apiv1.Request) (*apiv1.ApprovalPolicy, error) {
	policy, err := c.tx.ApprovalPolicies.ByName(m.GetPolicy(), nil)
	if err != nil && !missing(err) {
		return nil, err
	}
	if err != nil || policy.GetVersion() != m.GetPolicyVersion() {
		return nil, problem.Newf(problem.Conflict, "Try again.", "version %d of approval policy %s is not the newest any more", m.GetPolicyVersion(), m.GetPolicy())
	}
	return policy, nil
}

// disinterested refuses what a policy is to let through without people, or before them, where who wrote the policy has a part in it.
func (c *command) disinterested(m *apiv1.Request, policy *apiv1.ApprovalPolicy) error {
	parties, err := hold.In(c.tx, m)
	if err != nil {
		return err
	}
	wrote, err := parties.Author(policy)
	if err == nil && wrote != "" {
		err = problem.Newf(problem.Conflict, "Try again.", "whoever wrote %s has a part in request %s, so people decide", wrote, m.GetName())
	}
	return err
}

func (c *command) withdrawRequest(in *commandv1.WithdrawRequest) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), "")
	if err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	by, err := c.actingUser(in.GetBy())
	if err != nil {
		return nil, err
	}
	if err := request.Withdraw(m, person(by), in.GetSince(), in.GetReason(), c.now); err != nil {
		return nil, err
	}
	return c.putRequest(m)
}

// commentRequest keeps what somebody said, and a file where there is one. A file is part of what is asked for: it is added while
// the request is written, under a name of its own, and by one who so helps write it.
func (c *command) commentRequest(in *commandv1.CommentRequest) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), "")
	if err != nil {
		return nil, err
	}
	said := in.GetComment()
	by, err := c.actingUser(&commandv1.Person{Id: said.GetAuthorId(), Name: said.GetAuthor()})
	if err != nil {
		return nil, err
	}
	if said.GetId() == "" || said.GetText() == "" && said.GetFile() == "" {
		return nil, invalid("a comment says something, and has an id")
	}
	if m.GetComments() >= maxComments {
		return nil, problem.Newf(problem.TooMany, "Copy the request, and go on there.", "request %s has %d comments, and takes no more", m.GetName(), maxComments)
	}
	said.At = c.now
	if said.GetFile() != "" {
		if err := request.Edit(m, person(by)); err != nil {
			return nil, err
		}
		if err := c.behind(m, by.GetId()); err != nil {
			return nil, err
		}
		if err := c.mayKeep(m, len(in.GetContent())); err != nil {
			return nil, err
		}
		switch sum := sha256.Sum256(in.GetContent()); {
		case slices.ContainsFunc(m.GetFiles(), func(f *apiv1.Comment) bool { return f.GetFile() == said.GetFile() }):
			return nil, problem.Newf(problem.NameTaken, "Take that one away first: naru request detach "+m.GetName()+" FILE; or attach this one under another name.",
				"request %s has a file %s", m.GetName(), said.GetFile()).With("file", "is the name of a file that it has")
		case len(m.GetFiles()) >= maxFiles:
			return nil, problem.Newf(problem.TooMany, "Put several files into one, or take one away: naru request detach "+m.GetName()+" FILE.",
				"request %s has %d files, and takes no more", m.GetName(), maxFiles)
		case len(in.GetContent()) == 0 || len(in.GetContent()) > maxFileSize:
			return nil, problem.Newf(problem.TooLarge, "Make it smaller, or say where it can be found.", "a file has 1 to %d bytes, and %s has %d", maxFileSize, said.GetFile(), len(in.GetContent()))
		default:
			said.Size, said.Sha256 = uint32(len(in.GetContent())), sum[:]
		}
		m.Files = append(m.GetFiles(), proto.CloneOf(said))
	}
	m.Comments++
	if err := c.tx.Requests.Put(m); err != nil {
		return nil, err
	}
	if err := c.tx.PutComment(m.GetId(), said, in.GetContent()); err != nil {
		return nil, err
	}
	if err := c.tellComment(m, said); err != nil {
		return nil, err
	}
	return made(said, nil)
}

// detachRequest takes a file away from what is being written, with its content. That it was there and who took it away stays.
func (c *command) detachRequest(in *commandv1.DetachRequest) (*commandv1.Result, error) {
	m, by, err := c.writtenBy(in.GetRequestId(), "", in.GetBy())
	if err != nil {
		return nil, err
	}
	if err := c.behind(m, by.GetId()); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.GetFiles(), func(f *apiv1.Comment) bool { return f.GetId() == in.GetCommentId() })
	if i < 0 {
		return nil, problem.Newf(problem.NotFound, "naru request show "+m.GetName()+" lists its files.", "request %s has no file %s", m.GetName(), in.GetCommentId())
	}
	file := m.GetFiles()[i]
	file.DroppedAt, file.DroppedBy = c.now, by.GetName()
	m.Files = slices.Delete(m.GetFiles(), i, i+1)
	if err := c.tx.DropFile(m.GetId(), file); err != nil {
		return nil, err
	}
	if err := c.tx.Requests.Put(m); err != nil {
		return nil, err
	}
	return made(file, nil)
}

func (c *command) retryRequest(in *commandv1.RetryRequest) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), "")
	if err != nil {
		return nil, err
	}
	if err := request.Retry(m); err != nil {
		return nil, err
	}
	return c.putRequest(m)
}

// passRequest draws what time and the coming and going of people make of a request.
func (c *command) passRequest(in *commandv1.PassRequest) (*commandv1.Result, error) {
	m, err := stored(c.tx.Requests, "request", in.GetRequestId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	told, why := "", in.GetReason() // reminders and what is waited for are shown, and no events
	switch in.GetWhat() {
	case commandv1.PassRequest_EXPIRE:
		told, err = "request.expired", request.Expire(m, c.clock, c.now)
	case commandv1.PassRequest_LAPSE:
		told, err = "request.lapsed", request.Lapse(m, c.clock, c.now)
	case commandv1.PassRequest_REMIND:
		was := m.GetReviewOverdue()
		if err = request.Remind(m, in.GetStage(), in.GetRemindAt(), c.clock); m.GetReviewOverdue() && !was {
			told, why = "request.review-overdue", "it was let through as an emergency, and nobody has reviewed it in time in stage "+in.GetStage()
		}
	case commandv1.PassRequest_ESCALATE:
		told, err = "request.escalated", request.Escalate(m, in.GetStage(), in.GetReason(), c.now)
	case commandv1.PassRequest_STICK:
		if err = request.Stick(m, in.GetStage(), in.GetReason()); in.GetReason() != "" {
			told = "request.stuck"
		}
	case commandv1.PassRequest_WAIT:
		err = request.Wait(m, in.GetReason(), c.clock)
	case commandv1.PassRequest_HOLD:
		err = request.Hold(m)
	case commandv1.PassRequest_MISS:
		if err = c.freeRoom(m); err == nil {
			err = request.Miss(m, in.GetReason())
		}
	case commandv1.PassRequest_FAIL:
		told, err = "request.failed", c.giveUp(m, in)
	case commandv1.PassRequest_ORPHAN:
		err = request.Orphan(m, in.GetReason(), c.clock)
	default:
		err = invalid("a request passes by EXPIRE, LAPSE, REMIND, ESCALATE, STICK, WAIT, FAIL, HOLD, MISS or ORPHAN")
	}
	if err != nil {
		return nil, err
	}
	if told != "" {
		if in.GetWhat() == commandv1.PassRequest_EXPIRE {
			why = m.GetApprovalReason()
		} else if in.GetWhat() == commandv1.PassRequest_LAPSE {
			why = m.GetFulfilmentReason()
		}
		if err := c.tellOfRequest(apiv1.Event_WARNING, told, m, why); err != nil {
			return nil, err
		}
	}
	return c.putRequest(m)
}

// giveUp lets an approved request fail for which nobody stands any more. Who is gone is so for good; whoever was only away,
// or had lost what it takes, may be back since that was found.
func (c *command) giveUp(m *apiv1.Request, in *commandv1.PassRequest) error {
	gone, err := c.goneFor(m)
	if err != nil {
		return err
	}
	if err := request.Fail(m, gone, in.GetReason(), c.clock, c.now); err != nil || gone {
		return err
	}
	if len(in.GetReads()) == 0 {
		return invalid("that a request fails for somebody who is away rests on what was read of them")
	}
	return c.readsHold(in.GetReads())
}

// goneFor reports whether who asked for a request, or for whom it is, is there no more and will not be again.
func (c *command) goneFor(m *apiv1.Request) (bool, error) {
	for _, id := range []string{m.GetRequesterId(), m.GetOnBehalfOfId()} {
		if id == "" {
			continue
		}
		if _, err := c.tx.Users.Get(id); missing(err) {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, nil
}

// tellOfRequest stores an event about a request, which belongs to its project.
func (c *command) tellOfRequest(severity apiv1.Event_Severity, kind string, m *apiv1.Request, why string) error {
	return c.tell(severity, kind, where(m), reference("request", m), cut("request "+m.GetName()+": "+why))
}
