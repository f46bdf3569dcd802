package service

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// rightsTopics are the tables that what somebody may do rests on. What zones are like is not among them: rights that rest on it
// are not kept.
var rightsTopics = []string{"roles", "role_bindings", "crossings", "users", "groups", state.TopicMembers, "organizations", "projects"}

// Authorize decides whether a call may be carried out at all. What it then reaches is decided where the objects are.
func (s *Service) Authorize(ctx context.Context, c Call) error {
	m, known := rights.MethodOf(c.Method)
	if !known {
		m = rights.Method{Name: c.Method}
	}
	r, err := s.rightsOf(WithCall(ctx, c), nil)
	if err != nil {
		return err
	}
	return r.Admit(m)
}

// rightsOf returns what the caller may do. tx is the call's snapshot; without one, this server's newest is read.
func (s *Service) rightsOf(ctx context.Context, tx *state.Tx) (*rights.Rights, error) {
	call := callOf(ctx)
	edge, err := s.edge(ctx, call.ViaZoneID)
	if err != nil {
		return nil, err
	}
	return s.rightsAt(ctx, tx, call.Principal, edge)
}

// edge is what a zone lets its edge do; the zero value in the control network.
func (s *Service) edge(ctx context.Context, zoneID string) (rights.Edge, error) {
	if zoneID == "" {
		return rights.Edge{}, nil
	}
	book, err := s.zonesNow(ctx)
	if err != nil {
		return rights.Edge{}, err
	}
	z := book.byID[zoneID]
	if z == nil {
		return rights.Edge{}, problem.New(problem.Forbidden, "there is no zone with the id "+zoneID, "Ask an administrator.")
	}
	return rights.Edge{Zone: z.GetName(), ZoneID: zoneID, Methods: z.GetPolicy().GetMethods()}, nil
}

// rightsAt returns what somebody may do who calls at an edge.
func (s *Service) rightsAt(ctx context.Context, tx *state.Tx, p auth.Principal, edge rights.Edge) (*rights.Rights, error) {
	key := strings.Join(append([]string{string(p.Kind), p.Name, p.UserID, p.ProjectID, edge.ZoneID}, edge.Methods...), "\x00")
	r, age := s.rights.get(key)
	now := s.Now()
	if r != nil && r.Fresh(now) {
		return r, nil
	}
	subject := rights.Subject{Edge: edge}
	load := func(tx *state.Tx) error {
		if err := load(tx, p, now, &subject); err != nil {
			return err
		}
		return loadCrossings(tx, now, &subject)
	}
	var err error
	if tx != nil {
		err = load(tx)
	} else {
		err = s.view(ctx, load)
	}
	if err != nil {
		return nil, err
	}
	if r = rights.New(subject); !r.Conditional() {
		s.rights.put(key, r, age)
	}
	return r, nil
}

// load reads what a decision about somebody rests on.
func load(tx *state.Tx, p auth.Principal, now time.Time, s *rights.Subject) error {
	*s = rights.Subject{Edge: s.Edge, Name: p.Name, From: now}
	switch {
	case p.Kind == auth.Admin:
		s.Kind, s.ID = rights.Administrator, "administrator/"+p.Name
		s.Grants = []rights.Grant{rights.Holder(rights.FederationAdministrator)}
		return nil
	case p.Kind != auth.AccessToken && p.Kind != auth.User:
		return nil
	}
	project := rights.Project{Ref: rights.Ref{ID: p.ProjectID, Name: p.Project}}
	if p.Kind == auth.AccessToken && p.ProjectID != "" {
		s.Only = &project
	}
	if p.UserID == "" {
		if p.Kind == auth.AccessToken {
			s.Kind, s.ID = rights.Token, "token/"+p.Name
			if s.Only != nil {
				s.Grants = []rights.Grant{rights.Holder(rights.ProjectOperator, project)}
			}
		}
		return nil
	}
	return loadUser(tx, p.UserID, now, s)
}

// loadCrossings reads what may be changed from the edge in other zones.
func loadCrossings(tx *state.Tx, now time.Time, s *rights.Subject) error {
	if s.Edge.ZoneID == "" {
		return nil
	}
	all, err := tx.CrossingsFrom(s.Edge.ZoneID, timestamppb.New(now))
	for _, m := range all {
		s.Crossings = append(s.Crossings, rights.Crossing{
			Project: rights.Ref{ID: m.GetProjectId(), Name: m.GetProject()}, Zone: rights.Ref{ID: m.GetZoneId(), Name: m.GetZone()}, Permissions: m.GetPermissions(),
		})
		if end := m.GetEndsAt().AsTime(); s.Until.IsZero() || end.Before(s.Until) {
			s.Until = end
		}
	}
	return err
}

func loadUser(tx *state.Tx, id string, now time.Time, s *rights.Subject) error {
	user, err := tx.Users.Get(id)
	if errors.Is(err, state.ErrNotFound) {
		return problem.New(problem.Revoked, "there is no user "+s.Name+" any more", "Ask an administrator.")
	}
	if err != nil {
		return err
	}
	s.Kind, s.ID, s.Name, s.Organization, s.Disabled = user.GetKind().String(), id, user.GetName(), user.GetOrganization(), user.GetDisabled()
	roles := map[string]*apiv1.Role{}
	for b, err := range tx.RoleBindingsOf(id) {
		if err != nil {
			return err
		}
		if end := b.GetExpiresAt(); end != nil {
			if !now.Before(end.AsTime()) {
				continue
			}
			if s.Until.IsZero() || end.AsTime().Before(s.Until) {
				s.Until = end.AsTime()
			}
		}
		role := roles[b.GetRoleId()]
		if role == nil {
			if role, err = tx.Roles.Get(b.GetRoleId()); err != nil {
				return err
			}
			roles[b.GetRoleId()] = role
		}
		g, err := grant(tx, role, b)
		if err != nil {
			return err
		}
		if zone, _ := rights.Asks(role); zone && s.Zones == nil {
			if s.Zones, err = allZones(tx); err != nil {
				return err
			}
		}
		s.Grants = append(s.Grants, g)
	}
	return nil
}

// grant resolves the place of a binding.
func grant(tx *state.Tx, role *apiv1.Role, b *apiv1.RoleBinding) (rights.Grant, error) {
	g := rights.Grant{Role: role, Binding: b, Group: b.GetGroup(), Scope: b.GetScope()}
	_, owner := rights.Asks(role)
	var err error
	switch b.GetScope() {
	case apiv1.RoleBinding_PROJECT:
		g.Projects, err = ownedBy(tx, state.Bound{{Column: "id", Values: []string{b.GetPlaceId()}}})
		return g, err
	case apiv1.RoleBinding_ORGANIZATION:
		g.Organizations, err = below(tx, b.GetPlaceId())
	case apiv1.RoleBinding_ZONE:
		g.Zone = rights.Ref{ID: b.GetPlaceId(), Name: b.GetPlace()}
	}
	if err != nil || g.Organizations == nil && !owner {
		return g, err
	}
	if g.Organizations == nil {
		if g.Organizations, err = below(tx, ""); err != nil {
			return g, err
		}
	}
	in := state.In{Column: "organization_id"}
	for _, o := range g.Organizations {
		in.Values = append(in.Values, o.ID)
	}
	g.Projects, err = ownedBy(tx, state.Bound{in})
	return g, err
}

// below returns an organization with all that stand below it; without an id, all.
func below(tx *state.Tx, id string) (out []rights.Ref, err error) {
	organizations := tx.Organizations
	if id != "" {
		ids, err := tx.OrganizationsBelow(id)
		if err != nil {
			return nil, err
		}
		organizations = organizations.Within([]state.Bound{{{Column: "id", Values: ids}}})
	}
	for o, err := range organizations.All(nil) {
		if err != nil {
			return nil, err
		}
		out = append(out, rights.Ref{ID: o.GetId(), Name: o.GetName()})
	}
	return out, nil
}

func ownedBy(tx *state.Tx, bound state.Bound) (out []rights.Project, err error) {
	for p, err := range tx.Projects.Within([]state.Bound{bound}).All(nil) {
		if err != nil {
			return nil, err
		}
		out = append(out, rights.Project{Ref: rights.Ref{ID: p.GetId(), Name: p.GetName()}, Organization: p.GetOrganization()})
	}
	return out, nil
}

func allZones(tx *state.Tx) (out []rights.Zone, err error) {
	for z, err := range tx.Zones.All(nil) {
		if err != nil {
			return nil, err
		}
		out = append(out, rights.Zone{Ref: rights.Ref{ID: z.GetId(), Name: z.GetName()}, Kind: z.GetKind(), Grade: z.GetGrade()})
	}
	return out, nil
}

// changes tells watches that somebody may have gained or lost rights.
type changes struct {
	mu   sync.Mutex
	wake chan struct{}
}

func newChanges() *changes { return &changes{wake: make(chan struct{})} }

// next is closed at the next change.
func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake
}

func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.wake)
	c.wake = make(chan struct{})
}

// expiryTime is how often it is looked whether a binding has ended: what is revoked is cut off within two seconds.
const expiryTime = time.Second

// followRights tells of changes of what rights rest on, and of bindings that end, until ctx ends.
func (s *Service) followRights(ctx context.Context) {
	w := s.Reader.Watch(append([]string{"zones"}, rightsTopics...)...)
	defer w.Close()
	tick := time.NewTicker(expiryTime)
	defer tick.Stop()
	last := s.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-w.C():
			if !open {
				return
			}
			s.changed.tell()
		case <-tick.C:
			now := s.Now()
			ended := false
			err := s.view(ctx, func(tx *state.Tx) (err error) {
				ended, err = tx.RoleBindingsEnded(timestamppb.New(last), timestamppb.New(now))
				return err
			})
			if err != nil {
				continue // looked at again at the next tick, from the same time on
			}
			if last = now; ended {
				s.changed.tell()
			}
		}
	}
}
