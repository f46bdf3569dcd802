// Package intake says what a request comes to, on a snapshot of the state: what its names stand for, its price, its grade and its
// parts; which approval policy decides on it, and with which stages. It is for those who propose.
package intake

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/approval"
	"github.com/naru-project/naru/controlplane/internal/calendar"
	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// KindOf is the kind that a specification is of.
func KindOf(s *apiv1.RequestSpecification) apiv1.RequestKind_Value {
	switch s.GetWhat().(type) {
	case *apiv1.RequestSpecification_Create:
		return apiv1.RequestKind_CREATE
	case *apiv1.RequestSpecification_Resize:
		return apiv1.RequestKind_RESIZE
	case *apiv1.RequestSpecification_Extend:
		return apiv1.RequestKind_EXTEND
	case *apiv1.RequestSpecification_Power:
		return apiv1.RequestKind_POWER
	case *apiv1.RequestSpecification_Snapshot:
		return apiv1.RequestKind_SNAPSHOT
	case *apiv1.RequestSpecification_Restore:
		return apiv1.RequestKind_RESTORE
	case *apiv1.RequestSpecification_Reclaim:
		return apiv1.RequestKind_RECLAIM
	case *apiv1.RequestSpecification_AccessForTime:
		return apiv1.RequestKind_ACCESS
	case *apiv1.RequestSpecification_CrossZone:
		return apiv1.RequestKind_CROSS_ZONE
	case *apiv1.RequestSpecification_Delete:
		return apiv1.RequestKind_DELETE
	}
	return apiv1.RequestKind_VALUE_UNSPECIFIED
}

// Resolve writes into a request what it comes to now. Project, zone and people are resolved already. The error says in which field
// something is wrong.
func Resolve(tx *state.Tx, r *apiv1.Request) ([]*commandv1.Read, error) {
	project, err := tx.Projects.Get(r.GetProjectId())
	if err != nil {
		return nil, gone(err, "project", r.GetProject())
	}
	r.Organization, r.OrganizationId = project.GetOrganization(), project.GetOrganizationId()
	if r.ChangeType == apiv1.ChangeType_VALUE_UNSPECIFIED {
		r.ChangeType = apiv1.ChangeType_NORMAL
	}
	r.MonthlyCost, r.MonthlyCostBefore, r.ExtensionCost, r.Amount, r.Parts = nil, nil, nil, nil, nil
	switch ask := r.GetSpecification().GetWhat().(type) {
	case *apiv1.RequestSpecification_Create:
		return resolveCreate(tx, r, project)
	case *apiv1.RequestSpecification_AccessForTime:
		reads, err := resolveAccess(tx, r, ask.AccessForTime, project)
		return reads, problem.Plain(err)
	case *apiv1.RequestSpecification_CrossZone:
		return resolveCrossing(tx, r, ask.CrossZone, project)
	case nil:
	default:
		return resolveVMs(tx, r, project)
	}
	return nil, problem.New(problem.Invalid, "the request does not say what is asked for", "Fill in a specification.").With("specification", "is required")
}

// Command is what the command line calls a kind of noun.
func Command(kind string) string {
	if kind == "offering" {
		return "catalog"
	}
	return kind
}

func gone(err error, kind, name string) error {
	if errors.Is(err, state.ErrNotFound) {
		return problem.Newf(problem.NotFound, "naru "+Command(kind)+" list shows which there are.", "there is no %s %s", kind, name)
	}
	return err
}

func resolveCreate(tx *state.Tx, r *apiv1.Request, project *apiv1.Project) ([]*commandv1.Read, error) {
	ask := r.GetSpecification().GetCreate()
	o, err := offering(tx, ask)
	if err != nil {
		return nil, err
	}
	zone, err := zoneOf(tx, r)
	if err != nil {
		return nil, err
	}
	if zone.GetState() == apiv1.Zone_RETIRED { // where it merely takes no VMs now, what is approved waits
		return nil, problem.Newf(problem.ZoneUnavailable, "Choose another zone.", "zone %s is retired", zone.GetName()).With("zone", "takes no VMs")
	}
	image, err := tx.Images.Get(o.GetImageId())
	if err != nil {
		return nil, gone(err, "image", o.GetImage())
	}
	if err := catalog.MayRunIn(o.Offering, image, zone); err != nil {
		return nil, err
	}
	if !grade.MayStand(project.GetGrade(), zone.GetGrade()) {
		return nil, problem.Newf(problem.GradeForbids, "Choose a zone of that grade or a higher one.", "project %s is %s, and zone %s is %s",
			project.GetName(), grade.Word(project.GetGrade()), zone.GetName(), grade.Word(zone.GetGrade())).With("zone", "is "+grade.Word(zone.GetGrade()))
	}
	if ask.ClusterId = ""; ask.GetCluster() != "" {
		c, err := tx.Clusters.Find(ask.GetCluster(), state.Scope{"zone_id": zone.GetId()})
		if err != nil {
			return nil, gone(err, "cluster", ask.GetCluster())
		}
		ask.Cluster, ask.ClusterId = c.GetName(), c.GetId()
	}
	ask.Quantity = max(ask.GetQuantity(), 1)
	bid, err := o.Bid(wish(r, ask))
	if err != nil {
		return nil, err
	}
	ask.Flavor, r.LeaseDays, r.MonthlyCost, r.Amount = bid.Flavor.GetFlavor(), bid.LeaseDays, bid.Cost, bid.Amount
	r.Grade = grade.Highest(project.GetGrade(), image.GetGrade(), zone.GetGrade())
	names, err := request.Names(ask.GetNamePattern(), ask.GetQuantity(), func(name string) (bool, error) {
		_, err := tx.VMs.ByName(name, state.Scope{"project_id": r.GetProjectId()})
		if errors.Is(err, state.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r.Parts = append(r.Parts, &apiv1.Part{Name: name, VmId: uuid.Must(uuid.NewV7()).String()})
	}
	if err := asVMs(tx, r); err != nil {
		return nil, err
	}
	return []*commandv1.Read{read("project", project), read("zone", zone), read("image", image)}, nil
}

// offering returns the version that is asked for, or the one that can be asked for now, and writes it into what is asked.
func offering(tx *state.Tx, ask *apiv1.CreateVMs) (*catalog.Offering, error) {
	m, err := tx.Offerings.Find(ask.GetOffering(), nil)
	if err != nil {
		return nil, gone(err, "offering", ask.GetOffering())
	}
	if m.GetState() != apiv1.Offering_PUBLISHED {
		return nil, problem.Newf(problem.WrongState, "naru catalog list shows what can be asked for.", "offering %s cannot be asked for now", m.GetName()).With("specification.create.offering", "is not published")
	}
	if v := ask.GetOfferingVersion(); v != 0 && v != m.GetVersion() {
		return nil, problem.Newf(problem.WrongState, "Look at the newest version, and leave the version out: naru catalog show "+m.GetName()+".",
			"version %d of offering %s cannot be asked for any more; version %d can", v, m.GetName(), m.GetVersion()).With("specification.create.offering_version", "is not the newest")
	}
	ask.Offering, ask.OfferingId, ask.OfferingVersion = m.GetName(), m.GetId(), m.GetVersion()
	return catalog.Compile(m)
}

func wish(r *apiv1.Request, ask *apiv1.CreateVMs) catalog.Wish {
	return catalog.Wish{Flavor: ask.GetFlavor(), Quantity: ask.GetQuantity(), Filled: ask.GetForm(), Without: ask.GetWithoutSoftware(), LeaseDays: r.GetLeaseDays()}
}

func read[M interface {
	state.Noun
	GetName() string
}](kind string, m M) *commandv1.Read {
	return &commandv1.Read{Noun: &apiv1.Reference{Kind: kind, Id: m.GetId(), Name: m.GetName()}, Revision: m.GetRevision()}
}

// VM is what the VMs of a request that asks for some have in common, as the offering was when it was submitted.
func VM(tx *state.Tx, r *apiv1.Request) (*apiv1.VM, error) {
	ask := r.GetSpecification().GetCreate()
	m, err := tx.Offerings.Version(ask.GetOfferingId(), ask.GetOfferingVersion())
	if err != nil {
		return nil, gone(err, "offering", ask.GetOffering())
	}
	o, err := catalog.Compile(m)
	if err != nil {
		return nil, err
	}
	bid, err := o.Bid(wish(r, ask))
	if err != nil {
		return nil, err
	}
	image, err := tx.Images.Get(o.GetImageId())
	if err != nil {
		return nil, gone(err, "image", o.GetImage())
	}
	if image.GetSha256() != o.GetImageSha256() {
		return nil, problem.Newf(problem.WrongState, "Ask for it anew.", "image %s is not the one that was approved", image.GetName())
	}
	if err := catalog.Fits(bid.Flavor.GetFlavor(), bid.Flavor.GetSize(), image); err != nil {
		return nil, err
	}
	return &apiv1.VM{
		Project: r.GetProject(), ProjectId: r.GetProjectId(), Zone: r.GetZone(), ZoneId: r.GetZoneId(), Cluster: ask.GetCluster(), ClusterId: ask.GetClusterId(),
		Flavor: bid.Flavor.GetFlavor(), Size: bid.Flavor.GetSize(), Image: image.GetName(), ImageSha256: image.GetSha256(), ImageFormat: image.GetFormat(),
		SshKeys: ask.GetSshKeys(), UserData: bid.UserData, Affinities: ask.GetAffinities(), Description: ask.GetDescription(), DesiredState: apiv1.VM_RUNNING,
	}, nil
}

// asVMs refuses what is asked for where a VM that is made of it would break a rule of VMs: no broker lets such a VM pass.
func asVMs(tx *state.Tx, r *apiv1.Request) error {
	vm, err := VM(tx, r)
	if err != nil {
		return err
	}
	for _, p := range r.GetParts() {
		vm.Name = p.GetName()
		if err := schema.Validate(vm); err != nil {
			return err
		}
	}
	return nil
}

// Planned is what a policy makes of a request.
type Planned struct {
	Automatic string
	AtOnce    bool
	Openings  []*commandv1.DecideRequest_Opening
	Reads     []*commandv1.Read
}

// Plan finds the policy that decides on a request that was resolved, and writes its stages into it. It refuses what nobody could
// approve, and says why.
func Plan(tx *state.Tx, r *apiv1.Request, now time.Time) (*Planned, error) {
	c, err := panel.Case(tx, r)
	if err != nil {
		return nil, err
	}
	policy, trace, err := choose(tx, c)
	if err != nil {
		return nil, err
	}
	plan, err := policy.Plan(c)
	if err != nil {
		return nil, err
	}
	out := &Planned{AtOnce: plan.Afterwards, Reads: []*commandv1.Read{read("approval-policy", policy.ApprovalPolicy)}}
	r.Policy, r.PolicyVersion, r.Authority = policy.GetName(), policy.GetVersion(), max(policy.GetAuthority(), apiv1.Authority_LOCAL)
	if plan.Automatic {
		out.Automatic = plan.Reason
	}
	if request.Crosses(r) || r.GetKind() == apiv1.RequestKind_ACCESS {
		out.Automatic, out.AtOnce = "", false
	}
	if out.Automatic != "" || out.AtOnce {
		parties, err := hold.In(tx, r)
		if err != nil {
			return nil, err
		}
		wrote, err := parties.Author(policy.ApprovalPolicy)
		switch {
		case err != nil:
			return nil, err
		case wrote != "" && len(plan.Stages) == 0:
			return nil, problem.Newf(problem.WrongState, "Ask somebody else who looks after the policies and the catalogue to look at it, and to make the next version: naru approval-policy update, naru catalog update.",
				"policy %s asks nobody about this request, and whoever wrote %s has a part in it", policy.GetName(), wrote)
		case wrote != "":
			out.Automatic, out.AtOnce = "", false
			plan.Trace = append(plan.Trace, "people decide first: whoever wrote "+wrote+" has a part in the request")
		}
	}
	if out.Automatic != "" {
		_, over, err := quota.Daily(tx, policy.GetAutomatic(), r, timestamppb.New(now))
		switch {
		case err != nil:
			return nil, err
		case over != "" && len(plan.Stages) == 0:
			return nil, problem.Newf(problem.TooMany, "Wait until tomorrow, or ask whoever looks after the policies for a stage in which people decide.",
				"policy %s asks nobody about this request, and lets no more through in 24 hours: %s", policy.GetName(), over)
		case over != "":
			out.Automatic = ""
			plan.Trace = append(plan.Trace, "people decide first: "+over)
		}
	}
	r.PolicyTrace = append(trace, plan.Trace...)
	r.PolicyTrace = r.PolicyTrace[max(0, len(r.PolicyTrace)-64):]
	p, err := panel.Planned(tx, r, plan, now)
	if err != nil {
		return nil, err
	}
	if r.Stages, err = Stages(tx, plan, out.AtOnce); err != nil {
		return nil, err
	}
	var needs []request.Need
	for i, s := range r.GetStages() {
		people, err := p.People(s)
		if err != nil {
			return nil, err
		}
		n := request.Need{Stage: s.GetName()}
		for _, m := range people {
			n.People = append(n.People, m.GetUser().GetId())
		}
		n.Needed = plan.Stages[i].Needed(len(people))
		s.Needed = uint32(n.Needed)
		needs = append(needs, n)
	}
	if r.GetKind() == apiv1.RequestKind_ACCESS {
		if err := grantable(tx, r, p, needs, now); err != nil {
			return nil, problem.Plain(err)
		}
	}
	if out.Automatic == "" {
		err := request.Satisfiable(needs, request.Concerned(r))
		if err != nil && !asksZone(r) {
			err = problem.Plain(err)
		}
		if err != nil {
			return nil, err
		}
	}
	out.Openings, err = Openings(r.GetStages(), out.AtOnce, now)
	return out, err
}

func choose(tx *state.Tx, c *apiv1.PolicyCase) (*approval.Policy, []string, error) {
	if name := c.GetOffering().GetApprovalPolicy(); name != "" {
		m, err := tx.ApprovalPolicies.ByName(name, nil)
		if err != nil {
			return nil, nil, gone(err, "approval-policy", name)
		}
		if !m.GetEnabled() {
			return nil, nil, problem.Newf(problem.WrongState, "Ask whoever looks after the catalogue.", "approval policy %s, which offering %s names, is not enabled", name, c.GetOffering().GetName())
		}
		policy, err := approval.Compile(m)
		return policy, []string{"offering " + c.GetOffering().GetName() + " names policy " + name}, err
	}
	var all []*approval.Policy
	for m, err := range tx.ApprovalPolicies.All(nil) {
		if err != nil {
			return nil, nil, err
		}
		if !m.GetEnabled() {
			continue
		}
		policy, err := approval.Compile(m)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, policy)
	}
	return approval.Choose(all, c)
}

// asksZone reports whether people of the zone are asked in a stage: who they are, and how many, is the zone's to tell.
func asksZone(r *apiv1.Request) bool {
	return r.GetZoneId() != "" && slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool { return s.GetEligible().GetAt() == apiv1.Eligibility_DESTINATION })
}

// reviewHours are the working hours in which what was let through is reviewed where the policy gives none.
const reviewHours = 24

// Stages are those of a plan as a request keeps them. Where they review what was let through, each is due some time, and whoever
// has to decide is reminded then: there is nothing left that could expire.
func Stages(tx *state.Tx, plan *approval.Plan, review bool) (out []*apiv1.Stage, err error) {
	for _, t := range plan.Stages {
		s := &apiv1.Stage{
			Name: t.GetName(), Title: t.GetTitle(), Sequence: t.GetSequence(), Eligible: t.GetEligible(), Excluded: t.GetExcluded(), Rule: t.GetRule(),
			Denials: uint32(t.DenialsThatEnd()), CommentRequired: t.GetCommentRequired(), StepUp: t.StepUp, OnDue: t.GetOnDue(), DueHours: t.GetDueHours(),
			RemindHours: t.GetRemindHours(), Calendar: t.GetCalendar(), EscalateTo: t.GetEscalateTo(), External: t.GetExternal(), State: apiv1.Stage_WAITING,
		}
		if review && s.GetOnDue() != apiv1.StageTemplate_ESCALATE {
			s.OnDue = apiv1.StageTemplate_REMIND
			s.DueHours = cmp.Or(s.GetDueHours(), reviewHours)
		}
		if s.Hours, err = hours(tx, t.GetCalendar()); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// hours is what counts of the calendar of a name; nil of none.
func hours(tx *state.Tx, name string) (*apiv1.Calendar, error) {
	if name == "" {
		return nil, nil
	}
	m, err := tx.Calendars.ByName(name, nil)
	if err != nil {
		return nil, gone(err, "calendar", name)
	}
	out := &apiv1.Calendar{Id: m.GetId(), Name: m.GetName(), TimeZone: m.GetTimeZone(), Hours: m.GetHours()}
	for _, h := range m.GetHolidays() {
		out.Holidays = append(out.Holidays, &apiv1.Holiday{Date: h.GetDate()})
	}
	return out, nil
}

// Openings says when stages would be due, and their people reminded, if they were opened now. Of a review they are reminded from
// then on in any case.
func Openings(stages []*apiv1.Stage, review bool, now time.Time) ([]*commandv1.DecideRequest_Opening, error) {
	var out []*commandv1.DecideRequest_Opening
	for _, s := range stages {
		c, known, err := Calendar(s)
		if err != nil {
			return nil, err
		}
		if s.GetDueHours() == 0 || !known {
			continue
		}
		o := &commandv1.DecideRequest_Opening{Stage: s.GetName(), DueAt: timestamppb.New(c.Due(now, time.Duration(s.GetDueHours())*time.Hour))}
		if h := s.GetRemindHours(); h > 0 && h < s.GetDueHours() {
			o.RemindAt = timestamppb.New(c.Due(now, time.Duration(s.GetDueHours()-h)*time.Hour))
		} else if review || s.GetOnDue() == apiv1.StageTemplate_REMIND {
			o.RemindAt = o.DueAt
		}
		out = append(out, o)
	}
	return out, nil
}

// Calendar returns the one that a stage counts by: nil, by which every hour counts, where it names none. It is not known of a stage
// that names one and has not kept it, as none does that is submitted now: that is never due.
func Calendar(s *apiv1.Stage) (c *calendar.Calendar, known bool, err error) {
	if s.GetHours() == nil {
		return nil, s.GetCalendar() == "", nil
	}
	c, err = calendar.Compile(s.GetHours())
	return c, true, err
}
