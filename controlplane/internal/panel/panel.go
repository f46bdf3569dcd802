// Package panel says who may decide on a request, on a snapshot of the state: the people that its frozen stages name, as they are
// now. It is for those who propose; the state machine checks itself what must never be wrong.
//
// Two things have to hold of whoever decides in a stage. The stage means them: by a role, a group or a name. A role counts where it
// is held in the very place that the stage asks for: in the project of the request or an organization above it, in that
// organization or one above it, in the one zone or the other, or in the federation. And they have the permission to decide on
// requests there, by a role that reaches the project in the zone of the stage. So what lets somebody decide is always a right
// that a binding gives, and whoever could take an account over is measured by it.
package panel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/approval"
	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Panel is who may decide on one request. It lives as long as its transaction.
type Panel struct {
	tx     *state.Tx
	r      *apiv1.Request
	now    time.Time
	plan   *approval.Plan
	places places
	zones  []rights.Zone
	edge   rights.Edge
	part   *hold.Parties
	known  map[string]*Member // by user id
}

// Reaches reports whether somebody with this reach of deciding could sit in any stage of a request. It is told before the stages
// are looked at.
func Reaches(reach rights.Reach, r *apiv1.Request) bool {
	return slices.ContainsFunc([]string{r.GetZoneId(), r.GetSourceZoneId()}, func(zone string) bool {
		return reach.Contains(rights.Place{ProjectID: r.GetProjectId(), ZoneID: zone}, decide().Permission)
	})
}

// Reach is where somebody has the permission to decide.
func Reach(r *rights.Rights) rights.Reach { return r.Reach(decide().Permission, decide()) }

// decide is what deciding needs.
var decide = sync.OnceValue(func() rights.Method {
	m, _ := rights.MethodOf(apiv1.RequestService_DecideRequest_FullMethodName)
	return m
})

// places are the ids of what roles may be held in.
type places struct {
	project, zone, source string
	organizations         []string
}

// Case is what policies see of a request. What is gone since is seen by its name.
func Case(tx *state.Tx, r *apiv1.Request) (*apiv1.PolicyCase, error) {
	c := &apiv1.PolicyCase{Request: &apiv1.RequestFacts{
		Kind: r.GetKind(), ChangeType: r.GetChangeType(), Grade: r.GetGrade(), Quantity: request.Quantity(r), Amount: r.GetAmount(),
		Role: r.GetSpecification().GetAccessForTime().GetRole(), Permissions: slices.Concat(r.GetSpecification().GetAccessForTime().GetPermissions(), r.GetSpecification().GetCrossZone().GetPermissions()),
		MonthlyCost: r.GetMonthlyCost(), LeaseDays: r.GetLeaseDays(), Crosses: request.Crosses(r), ExternalRef: r.GetExternalRef(), Intake: r.GetIntake(),
	}}
	if who := r.GetRoleCluster(); who != 0 {
		c.Request.RoleCluster = strings.ToLower(who.String())
	}
	var err error
	fill := func(e error) bool {
		if e != nil && !errors.Is(e, state.ErrNotFound) && err == nil {
			err = e
		}
		return e == nil
	}
	var e error
	if c.Requester, e = tx.Users.Get(r.GetRequesterId()); !fill(e) {
		c.Requester = &apiv1.User{Id: r.GetRequesterId(), Name: r.GetRequester()}
	}
	if c.Beneficiary = c.Requester; r.GetOnBehalfOfId() != "" {
		if c.Beneficiary, e = tx.Users.Get(r.GetOnBehalfOfId()); !fill(e) {
			c.Beneficiary = &apiv1.User{Id: r.GetOnBehalfOfId(), Name: r.GetOnBehalfOf()}
		}
	}
	if c.Organization, e = tx.Organizations.Get(r.GetOrganizationId()); !fill(e) {
		c.Organization = &apiv1.Organization{Id: r.GetOrganizationId(), Name: r.GetOrganization()}
	}
	if c.Project, e = tx.Projects.Get(r.GetProjectId()); !fill(e) {
		c.Project = &apiv1.Project{Id: r.GetProjectId(), Name: r.GetProject()}
	}
	if c.Zone, e = tx.Zones.Get(r.GetZoneId()); !fill(e) {
		c.Zone = &apiv1.Zone{Id: r.GetZoneId(), Name: r.GetZone()}
	}
	if r.GetSourceZoneId() != "" {
		if c.SourceZone, e = tx.Zones.Get(r.GetSourceZoneId()); !fill(e) {
			c.SourceZone = &apiv1.Zone{Id: r.GetSourceZoneId(), Name: r.GetSourceZone()}
		}
	}
	if ask := r.GetSpecification().GetCreate(); ask.GetOfferingId() != "" {
		if c.Offering, e = tx.Offerings.Version(ask.GetOfferingId(), ask.GetOfferingVersion()); !fill(e) {
			c.Offering = &apiv1.Offering{Id: ask.GetOfferingId(), Name: ask.GetOffering(), Version: ask.GetOfferingVersion()}
		}
	}
	return c, err
}

// Of returns the panel of a request that has been submitted, by the stages that it was submitted with.
func Of(tx *state.Tx, r *apiv1.Request, now time.Time) (*Panel, error) {
	policy := &apiv1.ApprovalPolicy{Name: r.GetPolicy(), Version: r.GetPolicyVersion(), Authority: request.AuthorityOf(r.GetStages())}
	for _, s := range r.GetStages() {
		policy.Stages = append(policy.Stages, &apiv1.StageTemplate{
			Name: s.GetName(), Title: s.GetTitle(), Sequence: s.GetSequence(), Eligible: s.GetEligible(), Excluded: s.GetExcluded(), Rule: apiv1.StageTemplate_COUNT,
			Needed: s.GetNeeded(), Denials: s.GetDenials(), DueHours: s.GetDueHours(), RemindHours: s.GetRemindHours(), Calendar: s.GetCalendar(), OnDue: s.GetOnDue(),
			EscalateTo: s.GetEscalateTo(), CommentRequired: s.GetCommentRequired(), External: s.GetExternal(),
		})
	}
	compiled, err := compile(policy)
	if err != nil {
		return nil, fmt.Errorf("the stages of request %s: %w", r.GetName(), err)
	}
	c, err := Case(tx, r)
	if err != nil {
		return nil, err
	}
	plan, err := compiled.Plan(c)
	if err != nil {
		return nil, err
	}
	return Planned(tx, r, plan, now)
}

// compiled are stages as they were last, by what they say: many requests have the same. It only saves time.
var compiled = struct {
	sync.Mutex
	policies map[string]*approval.Policy
}{policies: map[string]*approval.Policy{}}

// maxCompiled bounds what is kept.
const maxCompiled = 256

func compile(policy *apiv1.ApprovalPolicy) (*approval.Policy, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(policy)
	if err != nil {
		return nil, err
	}
	compiled.Lock()
	known := compiled.policies[string(b)]
	compiled.Unlock()
	if known != nil {
		return known, nil
	}
	out, err := approval.Compile(policy)
	if err != nil {
		return nil, err
	}
	compiled.Lock()
	defer compiled.Unlock()
	if len(compiled.policies) >= maxCompiled {
		clear(compiled.policies)
	}
	compiled.policies[string(b)] = out
	return out, nil
}

// Planned returns the panel of a request that is to be submitted with the stages of a plan.
func Planned(tx *state.Tx, r *apiv1.Request, plan *approval.Plan, now time.Time) (*Panel, error) {
	p := &Panel{tx: tx, r: r, now: now, plan: plan, known: map[string]*Member{}}
	p.places = places{project: r.GetProjectId(), zone: r.GetZoneId(), source: r.GetSourceZoneId()}
	for _, ref := range []rights.Ref{{ID: r.GetZoneId(), Name: r.GetZone()}, {ID: r.GetSourceZoneId(), Name: r.GetSourceZone()}} {
		if ref.ID == "" || len(p.zones) > 0 && p.zones[0].ID == ref.ID {
			continue
		}
		z, err := tx.Zones.Get(ref.ID)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return nil, err
		}
		p.zones = append(p.zones, rights.Zone{Ref: ref, Kind: z.GetKind(), Grade: z.GetGrade()})
	}
	var err error
	if p.part, err = hold.In(tx, r); err != nil {
		return nil, err
	}
	p.places.organizations, err = tx.OrganizationsAbove(r.GetOrganizationId())
	if r.GetOrganizationId() != "" && !slices.Contains(p.places.organizations, r.GetOrganizationId()) {
		p.places.organizations = append(p.places.organizations, r.GetOrganizationId())
	}
	return p, err
}

// At judges people as they call at a zone's edge; without it, as in the control network.
func (p *Panel) At(edge rights.Edge) { p.edge, p.known = edge, map[string]*Member{} }

func (p *Panel) stage(name string) *approval.Stage {
	for _, s := range p.plan.Stages {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// May reports whether somebody may decide in a stage, and if not, why. What they have decided already, and whether they helped
// write the request, is not looked at.
func (p *Panel) May(stage *apiv1.Stage, m *Member) (bool, string) {
	s := p.stage(stage.GetName())
	if s == nil {
		return false, "there is no such stage"
	}
	if why := request.Away(m.GetUser()); why != "" {
		return false, why
	}
	ok, why := s.Eligible(m.PolicyPerson)
	at := s.GetEligible().GetAt()
	if !ok && stage.GetEscalatedAt() != nil {
		ok, _ = s.EligibleOnceDue(m.PolicyPerson)
		at = s.GetEscalateTo().GetAt()
	}
	if ok && !p.meant(m.GetUser().GetCreatedAt()) && slices.Contains(append(s.GetEligible().GetUsers(), s.GetEscalateTo().GetUsers()...), m.GetUser().GetName()) {
		return false, "is not who was meant: there was no such user at the submission"
	}
	if ok && !m.reach.Contains(p.place(at), decide().Permission) {
		return false, "has no role with " + decide().Permission + " for project " + p.r.GetProject() + " in that zone"
	}
	return ok, why
}

// Impartial refuses a decision of somebody who has a part in the request, or has decided on it already (package hold).
func (p *Panel) Impartial(d *apiv1.Decision) error { return p.part.Impartial(d) }

// Needs says what each stage that is not decided still takes, of people who have not decided yet; ids of people by stage.
func (p *Panel) Needs(stages []*apiv1.Stage) (needs []request.Need, err error) {
	for _, s := range stages {
		people, err := p.People(s)
		if err != nil {
			return nil, err
		}
		n := request.Need{Stage: s.GetName(), Needed: int(request.Lacks(p.r, s))}
		for _, m := range people {
			if !m.Decided(p.r) {
				n.People = append(n.People, m.GetUser().GetId())
			}
		}
		needs = append(needs, n)
	}
	return needs, nil
}

// Undecided returns the stages of a request that are open or wait.
func Undecided(r *apiv1.Request) (out []*apiv1.Stage) {
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING {
			out = append(out, s)
		}
	}
	return out
}
