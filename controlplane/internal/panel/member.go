package panel

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Member is a user with what their eligibility rests on.
type Member struct {
	*apiv1.PolicyPerson
	// Reads are the versions of the user, of all their bindings and of the roles; Groups the ids of the groups that they are
	// in.
	Reads  []*commandv1.Read
	Groups []string
	reach  rights.Reach // of deciding
	rights *rights.Rights
	// belongs: some role is theirs in the project, or in an organization above it.
	belongs bool
}

// Decided reports whether a member, or somebody in their place, has decided on a request in this round.
func (m *Member) Decided(r *apiv1.Request) bool {
	return request.DecidedBy(r, m.GetUser()) != nil
}

// Member returns a user as stages judge them. Errors: state.ErrNotFound.
func (p *Panel) Member(userID string) (*Member, error) {
	if m := p.known[userID]; m != nil {
		return m, nil
	}
	user, err := p.tx.Users.Get(userID)
	if err != nil {
		return nil, err
	}
	m := &Member{PolicyPerson: &apiv1.PolicyPerson{User: user}}
	m.Reads = append(m.Reads, &commandv1.Read{Noun: &apiv1.Reference{Kind: "user", Id: user.GetId(), Name: user.GetName()}, Revision: user.GetRevision()})
	if m.Groups, err = p.tx.GroupsOf(userID); err != nil {
		return nil, err
	}
	for _, id := range m.Groups {
		g, err := p.tx.Groups.Get(id)
		if err != nil {
			return nil, err
		}
		if p.meant(g.GetCreatedAt()) {
			m.PolicyPerson.Groups = append(m.PolicyPerson.Groups, g.GetName())
		}
	}
	if err := p.grants(m); err != nil {
		return nil, err
	}
	p.known[userID] = m
	return m, nil
}

// grants finds what bindings that cover the request give a member, and as what they hold their roles.
func (p *Panel) grants(m *Member) error {
	user := m.GetUser()
	who := rights.Subject{
		Kind: user.GetKind().String(), ID: user.GetId(), Name: user.GetName(), Organization: user.GetOrganization(), Disabled: request.Away(user) != "",
		Edge: p.edge, Zones: p.zones,
	}
	var all, bindings []*apiv1.RoleBinding // collected first: a snapshot runs one statement of a kind at a time
	for b, err := range p.tx.RoleBindingsOf(user.GetId()) {
		if err != nil {
			return err
		}
		all = append(all, b)
		at := p.covers(b)
		if len(at) > 0 {
			bindings = append(bindings, b)
		}
		m.belongs = m.belongs || slices.Contains(at, apiv1.Eligibility_PROJECT)
	}
	m.Reads = append(m.Reads, &commandv1.Read{
		Noun: &apiv1.Reference{Kind: "role-bindings-of-user", Id: user.GetId(), Name: user.GetName()}, Revision: state.RoleBindingsRevision(all)})
	for _, b := range bindings {
		role, err := p.tx.Roles.Get(b.GetRoleId())
		if err != nil {
			return err
		}
		who.Grants = append(who.Grants, rights.Grant{
			Role: role, Binding: b, Scope: b.GetScope(), Zone: rights.Ref{ID: b.GetPlaceId(), Name: b.GetPlace()},
			// Of all that the place has, this is what is asked about.
			Organizations: []rights.Ref{{ID: p.r.GetOrganizationId(), Name: p.r.GetOrganization()}},
			Projects:      []rights.Project{{Ref: rights.Ref{ID: p.r.GetProjectId(), Name: p.r.GetProject()}, Organization: p.r.GetOrganization()}},
		})
		m.Reads = append(m.Reads, &commandv1.Read{Noun: &apiv1.Reference{Kind: "role", Id: role.GetId(), Name: role.GetName()}, Revision: role.GetRevision()})
	}
	r := rights.New(who)
	m.reach, m.rights = r.Reach(decide().Permission, decide()), r
	for _, g := range who.Grants {
		holds := r.Holds(g, decide())
		for _, at := range p.covers(g.Binding) {
			if p.meant(g.Role.GetCreatedAt()) && holds.Contains(p.place(at), decide().Permission) {
				m.Roles = append(m.Roles, &apiv1.HeldRole{Role: g.Binding.GetRole(), At: at})
			}
		}
	}
	return nil
}

// give is what giving roles needs.
var give = sync.OnceValue(func() rights.Method {
	m, _ := rights.MethodOf(apiv1.RoleBindingService_CreateRoleBinding_FullMethodName)
	return m
})

// MayGive reports whether a member may give a role until a time: in the project of the request, or in its zone.
func (p *Panel) MayGive(m *Member, role *apiv1.Role, scope apiv1.RoleBinding_Scope, until time.Time) bool {
	at, id := rights.Place{ProjectID: p.places.project}, p.places.project
	if scope == apiv1.RoleBinding_ZONE {
		at, id = rights.Place{ZoneID: p.places.zone}, p.places.zone
	}
	return m.rights.Reach(give().Permission, give()).Contains(at, give().Permission) && m.rights.MayGive(role, scope, id, "", until, give()) == nil
}

// ask is what asking needs.
var ask = sync.OnceValue(func() rights.Method {
	m, _ := rights.MethodOf(apiv1.RequestService_CreateRequest_FullMethodName)
	return m
})

// MayAsk reports whether a member may ask for what the request asks for: in its project, and in its zone where it has one.
func (p *Panel) MayAsk(m *Member) bool {
	return m.rights.Reach(ask().Permission, ask()).Contains(rights.Place{ProjectID: p.places.project, ZoneID: p.places.zone}, ask().Permission)
}

// HasRole reports whether a member has any role in the project of the request.
func (p *Panel) HasRole(m *Member) bool { return m.belongs }

// meant reports whether what was made then can be what the stages name: what is made anew under the name of what was deleted after
// the submission is something else.
func (p *Panel) meant(made *timestamppb.Timestamp) bool {
	return p.r.GetSubmittedAt() == nil || request.Editable(p.r) || !made.AsTime().After(p.r.GetSubmittedAt().AsTime())
}

// covers says as what the place of a binding counts here; nothing where the binding has ended or is for another place.
func (p *Panel) covers(b *apiv1.RoleBinding) []apiv1.Eligibility_At {
	if b.GetExpiresAt() != nil && !p.now.Before(b.GetExpiresAt().AsTime()) {
		return nil
	}
	var out []apiv1.Eligibility_At
	switch id := b.GetPlaceId(); b.GetScope() {
	case apiv1.RoleBinding_PROJECT:
		if id == p.places.project {
			out = append(out, apiv1.Eligibility_PROJECT)
		}
	case apiv1.RoleBinding_ORGANIZATION:
		if slices.Contains(p.places.organizations, id) {
			out = append(out, apiv1.Eligibility_PROJECT, apiv1.Eligibility_ORGANIZATION)
		}
	case apiv1.RoleBinding_ZONE:
		if id == p.places.zone {
			out = append(out, apiv1.Eligibility_DESTINATION)
		}
		if id == p.places.source {
			out = append(out, apiv1.Eligibility_SOURCE)
		}
	case apiv1.RoleBinding_FEDERATION:
		out = append(out, apiv1.Eligibility_FEDERATION)
	}
	return out
}

// place is what whoever decides has to reach: the project of the request, in the zone that it concerns or, where a stage asks at the
// source, in the one that it was asked for in.
func (p *Panel) place(at apiv1.Eligibility_At) rights.Place {
	out := rights.Place{ProjectID: p.places.project, ZoneID: p.places.zone}
	if at == apiv1.Eligibility_SOURCE {
		out.ZoneID = p.places.source
	}
	return out
}
