package request

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// maxDecisions bounds what is kept of a request (proto: max_items); a round begins only while one fits.
const maxDecisions = 512

// Person is somebody who does something.
type Person struct{ ID, Name string }

// is reports whether two are one: by id where both have one, else by name, however it is written.
func (p Person) is(o Person) bool {
	if p.ID != "" && o.ID != "" {
		return p.ID == o.ID
	}
	return same(p.Name, o.Name)
}

// same reports whether two names are one and say something, however they are written.
func same(a, b string) bool {
	a = strings.TrimSpace(a)
	return a != "" && strings.EqualFold(a, strings.TrimSpace(b))
}

// Called reports whether a user is called so: by their name, their title or their mail address. Of who decides in another
// system no more is known here than what that system calls them.
func Called(u *apiv1.User, name string) bool {
	return same(u.GetName(), name) || same(u.GetTitle(), name) || same(u.GetEmail(), name)
}

// Edit notes that somebody changed what r asks for, or added to it. Whoever it is, beside the requester, has helped write it
// from now on.
func Edit(r *apiv1.Request, by Person) error {
	if !Editable(r) {
		return wrongState(r, "Have it returned first, or withdraw it and copy it: naru request copy "+r.GetName()+".", "changed")
	}
	return contribute(r, by)
}

func contribute(r *apiv1.Request, by Person) error {
	if by.ID == "" {
		return problem.New(problem.Forbidden, "only a user changes a request", "Log in as one: naru login.")
	}
	if by.ID == r.GetRequesterId() || slices.Contains(r.GetContributorIds(), by.ID) {
		return nil
	}
	if len(r.GetContributorIds()) == 64 {
		return problem.Newf(problem.Invalid, "Copy it: naru request copy "+r.GetName()+".", "64 people have written on request %s, and there is no room for more", r.GetName())
	}
	r.Contributors, r.ContributorIds = append(r.GetContributors(), by.Name), append(r.GetContributorIds(), by.ID)
	return nil
}

// Submission is what the proposer found for a request that is submitted.
type Submission struct {
	By Person
	// Stages as the policy asks for them, with what each takes; none where the policy approves by itself.
	Stages []*apiv1.Stage
	// Automatic is why no person is asked; empty where people are.
	Automatic string
	// AtOnce lets an emergency through, and its stages review it afterwards.
	AtOnce bool
	// Openings says when stages would be due.
	Openings []Opening
	Now      *timestamppb.Timestamp
}

// Opening is when a stage would be due, if it were opened now; nil for never.
type Opening struct {
	Stage           string
	RemindAt, DueAt *timestamppb.Timestamp
}

// Submit begins the approval of r, which is frozen.
func Submit(r *apiv1.Request, in Submission) error {
	if !Editable(r) {
		return wrongState(r, "Copy it: naru request copy "+r.GetName()+".", "submitted")
	}
	if err := maySubmit(r, in); err != nil {
		return err
	}
	written := proto.CloneOf(r) // who submits has helped write what people see
	if err := contribute(written, in.By); err != nil {
		return err
	}
	if err := frozen(written); err != nil {
		return err
	}
	r.Contributors, r.ContributorIds = written.GetContributors(), written.GetContributorIds()
	voidDecisions(r)
	r.Round++
	r.SubmittedAt, r.DecidedAt, r.EndedAt = in.Now, nil, nil
	r.Approval, r.ApprovalReason = apiv1.Request_SUBMITTED, ""
	r.Fulfilment, r.FulfilmentReason, r.ReviewedAfterwards, r.ReviewOverdue = apiv1.Request_NONE, "", false, false
	r.Stages = nil
	for _, s := range in.Stages {
		s := proto.CloneOf(s)
		s.State, s.StateReason = apiv1.Stage_WAITING, ""
		s.Needed, s.Denials = max(1, s.GetNeeded()), max(1, s.GetDenials())
		r.Stages = append(r.Stages, s)
	}
	slices.SortStableFunc(r.Stages, func(a, b *apiv1.Stage) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
	switch {
	case in.Automatic != "":
		for _, s := range r.GetStages() {
			s.State, s.StateReason = apiv1.Stage_AUTOMATIC, in.Automatic
		}
		approve(r, "automatic: "+in.Automatic, in.Now)
	case in.AtOnce:
		r.ReviewedAfterwards = true
		approve(r, "an emergency change, which is reviewed afterwards", in.Now)
		open(r, in.Openings, in.Now)
	default:
		open(r, in.Openings, in.Now)
	}
	return nil
}

// maySubmit refuses a submission that would get past people.
func maySubmit(r *apiv1.Request, in Submission) error {
	const ask = "Ask an administrator to correct the approval policy."
	if len(in.Stages) == 0 && in.Automatic == "" {
		return problem.Newf(problem.WrongState, "Ask an administrator for a policy for such requests.", "no policy says who approves request %s", r.GetName())
	}
	if len(r.GetDecisions()) > maxDecisions/2 {
		return problem.Newf(problem.WrongState, "Copy it: naru request copy "+r.GetName()+".", "request %s has been decided on so often that nothing more fits into its record", r.GetName())
	}
	seen := map[string]bool{}
	for _, s := range in.Stages {
		if s.GetName() == "" || seen[s.GetName()] {
			return problem.Newf(problem.WrongState, ask, "the approval policy has two stages called %q", s.GetName())
		}
		seen[s.GetName()] = true
	}
	if is, asked := max(r.GetAuthority(), apiv1.Authority_LOCAL), AuthorityOf(in.Stages); is != asked {
		return problem.Newf(problem.WrongState, ask, "policy %s says that the word of %s lets request %s through, and the stages that it has for it ask for that of %s",
			r.GetPolicy(), authority(is), r.GetName(), authority(asked))
	} else if in.Automatic != "" && is != apiv1.Authority_LOCAL {
		return problem.Newf(problem.WrongState, ask, "the word of %s lets request %s through, and no policy by itself", authority(is), r.GetName())
	}
	if in.AtOnce && r.GetChangeType() != apiv1.ChangeType_EMERGENCY {
		return problem.New(problem.Invalid, "only an emergency is let through at once", "This is a fault of the sender, not of the user; report it.")
	}
	if !Crosses(r) {
		return nil
	}
	if in.Automatic != "" || in.AtOnce {
		return problem.Newf(problem.WrongState, ask, "request %s crosses from zone %s to zone %s, and people on both sides approve that first", r.GetName(), r.GetSourceZone(), r.GetZone())
	}
	for _, side := range []struct {
		at   apiv1.Eligibility_At
		zone string
	}{{apiv1.Eligibility_SOURCE, r.GetSourceZone()}, {apiv1.Eligibility_DESTINATION, r.GetZone()}} {
		if !slices.ContainsFunc(in.Stages, func(s *apiv1.Stage) bool { return !s.GetExternal() && s.GetEligible().GetAt() == side.at }) {
			return problem.Newf(problem.WrongState, ask, "request %s crosses from zone %s to zone %s, and no stage of policy %s asks anybody of zone %s",
				r.GetName(), r.GetSourceZone(), r.GetZone(), r.GetPolicy(), side.zone)
		}
	}
	return nil
}

// authority says in words whose word it is.
func authority(a apiv1.Authority_Value) string {
	switch a {
	case apiv1.Authority_ITSM:
		return "another system alone"
	case apiv1.Authority_BOTH:
		return "people here and of another system"
	}
	return "people here alone"
}

// voidDecisions marks that what was decided so far was decided of something else.
func voidDecisions(r *apiv1.Request) {
	for _, d := range r.GetDecisions() {
		d.Void = true
	}
}

// open opens the first stages that wait.
func open(r *apiv1.Request, openings []Opening, now *timestamppb.Timestamp) {
	first := slices.IndexFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetState() == apiv1.Stage_WAITING })
	if first < 0 {
		return
	}
	for _, s := range r.GetStages()[first:] {
		if s.GetSequence() != r.GetStages()[first].GetSequence() {
			break
		}
		s.State, s.OpenedAt = apiv1.Stage_OPEN, now
		if i := slices.IndexFunc(openings, func(o Opening) bool { return o.Stage == s.GetName() }); i >= 0 {
			s.RemindAt, s.DueAt = openings[i].RemindAt, openings[i].DueAt
		}
	}
}

// approve lets r be carried out.
func approve(r *apiv1.Request, why string, now *timestamppb.Timestamp) {
	r.Approval, r.ApprovalReason, r.DecidedAt = apiv1.Request_APPROVED, shortened(why), now
}

// Copy returns a draft that asks for the same as r, of somebody else or again.
func Copy(r *apiv1.Request) *apiv1.Request {
	out := &apiv1.Request{
		Title: r.GetTitle(), Reason: r.GetReason(), OnBehalfOf: r.GetOnBehalfOf(), Project: r.GetProject(), RoleCluster: r.GetRoleCluster(),
		ChangeType: r.GetChangeType(), Zone: r.GetZone(), Specification: proto.CloneOf(r.GetSpecification()), LeaseDays: r.GetLeaseDays(),
	}
	if c := out.GetSpecification().GetCreate(); c != nil {
		c.OfferingId, c.OfferingVersion, c.ClusterId = "", 0, ""
	}
	switch what := out.GetSpecification().GetWhat().(type) {
	case nil, *apiv1.RequestSpecification_Create:
		return out
	case *apiv1.RequestSpecification_AccessForTime:
		ask := what.AccessForTime
		ask.RoleId, ask.Permissions, ask.Condition, ask.AtEdges = "", nil, "", false
		return out
	case *apiv1.RequestSpecification_CrossZone:
		what.CrossZone.SourceZoneId = ""
		return out
	case *apiv1.RequestSpecification_Resize:
		what.Resize.VmId, what.Resize.Size, what.Resize.SizeBefore = "", nil, nil
	case *apiv1.RequestSpecification_Extend:
		what.Extend.VmId = ""
	case *apiv1.RequestSpecification_Power:
		what.Power.VmId = ""
	case *apiv1.RequestSpecification_Snapshot:
		what.Snapshot.VmId, what.Snapshot.SnapshotId = "", ""
	case *apiv1.RequestSpecification_Restore:
		what.Restore.VmId, what.Restore.SnapshotId = "", ""
	case *apiv1.RequestSpecification_Reclaim:
		what.Reclaim.VmIds = nil
	}
	out.Zone = "" // that of the VMs
	return out
}
