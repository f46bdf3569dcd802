package service

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type roleService struct {
	apiv1.UnimplementedRoleServiceServer
	*Service
}

func roleChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Role) proto.Message {
	return &apiv1.WatchRolesResponse{Type: kind, Revision: revision, Role: m}
}

func (s roleService) ListRoles(ctx context.Context, r *apiv1.ListRolesRequest) (*apiv1.ListRolesResponse, error) {
	items, next, err := s.roles.list(ctx, r, place{})
	return &apiv1.ListRolesResponse{Roles: items, NextPageToken: next}, err
}

func (s roleService) GetRole(ctx context.Context, r *apiv1.GetRoleRequest) (*apiv1.GetRoleResponse, error) {
	m, err := s.roles.get(ctx, r.GetRole(), place{})
	return &apiv1.GetRoleResponse{Role: m}, err
}

func (s roleService) WatchRoles(r *apiv1.WatchRolesRequest, stream grpc.ServerStreamingServer[apiv1.WatchRolesResponse]) error {
	return s.roles.watch(r, place{}, stream)
}

// CreateRole makes a role. It may be bound anywhere, so who makes it has all of it in the whole federation.
func (s roleService) CreateRole(ctx context.Context, r *apiv1.CreateRoleRequest) (*apiv1.CreateRoleResponse, error) {
	result, err := s.roles.create(ctx, r, r.GetRole(), func(tx *state.Tx, m *apiv1.Role) (state.Scope, error) {
		return nil, s.mayShape(ctx, tx, m)
	}, func(c *commandv1.Command, m *apiv1.Role) {
		c.Body = &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: m}}
	})
	op, err := s.roles.made(ctx, result, err)
	return &apiv1.CreateRoleResponse{Operation: op}, err
}

func (s roleService) UpdateRole(ctx context.Context, r *apiv1.UpdateRoleRequest) (*apiv1.UpdateRoleResponse, error) {
	m, err := s.roles.update(ctx, r, r.GetRole(), r.GetUpdateMask(), place{}, func(tx *state.Tx, m *apiv1.Role) error {
		return s.mayShape(ctx, tx, m)
	}, func(c *commandv1.Command, m *apiv1.Role, expected string) {
		c.Body = &commandv1.Command_UpdateRole{UpdateRole: &commandv1.UpdateRole{Role: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateRoleResponse{Role: m}, err
}

func (s roleService) DeleteRole(ctx context.Context, r *apiv1.DeleteRoleRequest) (*apiv1.DeleteRoleResponse, error) {
	op, err := s.roles.remove(ctx, r, r.GetRole(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteRole{DeleteRole: d}
	})
	return &apiv1.DeleteRoleResponse{Operation: op}, err
}

// mayShape refuses a role that cannot be asked, and one with more than its maker has.
func (s roleService) mayShape(ctx context.Context, tx *state.Tx, m *apiv1.Role) error {
	if err := rights.CheckRole(m); err != nil {
		return err
	}
	r, err := s.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	return r.MayGive(m, apiv1.RoleBinding_FEDERATION, "", "", time.Time{}, method(ctx))
}

// ExplainAccess says whether somebody may call a method on something, and why. About oneself anybody may ask.
func (s roleService) ExplainAccess(ctx context.Context, r *apiv1.ExplainAccessRequest) (*apiv1.ExplainAccessResponse, error) {
	m, known := rights.MethodOf(r.GetMethod())
	if !known {
		return nil, problem.Newf(problem.Invalid, "Write it as the API names it: VMService/CreateVM. GET /openapi.json lists all.",
			"there is no method %s", r.GetMethod()).With("method", "does not exist")
	}
	out := &apiv1.ExplainAccessResponse{Permission: m.Permission}
	err := s.read(ctx, func(tx *state.Tx) error {
		who, err := s.explained(ctx, tx, r)
		if err != nil {
			return err
		}
		at, what, err := s.thing(ctx, tx, r.GetWhat(), r.GetProject())
		if err != nil {
			return err
		}
		if err := s.mayExplain(ctx, tx, who, at, what); err != nil {
			return err
		}
		edge, err := s.edgeNamed(tx, r.GetZone())
		if err != nil {
			return err
		}
		theirs, err := s.rightsAt(ctx, tx, who, edge)
		if err != nil {
			return err
		}
		out.Allowed, out.Reasons = theirs.Explain(m, at, what)
		if out.Roles, out.Givers = nil, nil; !out.GetAllowed() {
			out.Roles = rights.RolesWith(m.Permission)
			out.Givers, err = s.givers(ctx, tx, at)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// explained is whom an explanation is about: the caller, where nobody is named.
func (s roleService) explained(ctx context.Context, tx *state.Tx, r *apiv1.ExplainAccessRequest) (auth.Principal, error) {
	if r.GetUser() == "" {
		return callOf(ctx).Principal, nil
	}
	user, err := s.ownOrSeen(ctx, tx, r.GetUser())
	return auth.Principal{Kind: auth.User, Name: user.GetName(), UserID: user.GetId()}, inField(err, "user")
}

// ownOrSeen returns the user of a name who is the caller, or whom the caller may read.
func (s *Service) ownOrSeen(ctx context.Context, tx *state.Tx, name string) (*apiv1.User, error) {
	if own := callOf(ctx).Principal.UserID; own != "" {
		if u, err := s.users.within(tx, own, nil); err != nil || u.GetName() == name || u.GetId() == name {
			return u, err
		}
	}
	return s.users.seen(ctx, tx, name, place{})
}

// mayExplain refuses to tell of others where the caller may not ask for that.
func (s roleService) mayExplain(ctx context.Context, tx *state.Tx, who auth.Principal, at rights.Place, what string) error {
	call := callOf(ctx)
	call.Asked.note()
	if who == call.Principal || who.UserID != "" && who.UserID == call.Principal.UserID {
		return nil
	}
	r, err := s.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	if m := method(ctx); !r.Reach(m.Permission, m).Contains(at, m.Permission) {
		return r.Missing(m, what)
	}
	return nil
}

func (s roleService) edgeNamed(tx *state.Tx, name string) (rights.Edge, error) {
	if name == "" {
		return rights.Edge{}, nil
	}
	z, err := s.zones.within(tx, name, nil)
	return rights.Edge{Zone: z.GetName(), ZoneID: z.GetId(), Methods: z.GetPolicy().GetMethods()}, inField(err, "zone")
}

// thing resolves what somebody asks about: federation, or kind/name. What the caller cannot see is not there.
func (s roleService) thing(ctx context.Context, tx *state.Tx, what, project string) (at rights.Place, said string, err error) {
	kind, name, _ := strings.Cut(what, "/")
	said = what
	switch kind {
	case "", "federation":
		return at, "the federation", nil
	case "organization":
		m, err := s.organizations.seen(ctx, tx, name, place{})
		return rights.Place{OrganizationID: m.GetId()}, said, inField(err, "what")
	case "project":
		m, err := s.projects.seen(ctx, tx, name, place{})
		return rights.Place{ProjectID: m.GetId()}, said, inField(err, "what")
	case "zone":
		m, err := s.zones.seen(ctx, tx, name, place{})
		return rights.Place{ZoneID: m.GetId()}, said, inField(err, "what")
	case "cluster":
		m, err := s.clusters.seen(ctx, tx, name, place{})
		return rights.Place{ZoneID: m.GetZoneId()}, said, inField(err, "what")
	case "host":
		m, err := s.hosts.seen(ctx, tx, name, place{})
		return rights.Place{ZoneID: m.GetZoneId()}, said, inField(err, "what")
	case "vm":
		m, err := s.vms.seen(ctx, tx, name, place{project: project})
		return rights.Place{ProjectID: m.GetProjectId(), ZoneID: m.GetZoneId()}, said, inField(err, "what")
	case "user":
		m, err := s.users.seen(ctx, tx, name, place{})
		return rights.Place{OrganizationID: m.GetOrganizationId()}, said, inField(err, "what")
	}
	return at, "", problem.Newf(problem.Invalid, "Write federation, organization/NAME, project/NAME, zone/NAME, cluster/NAME, host/NAME, vm/NAME or user/NAME.",
		"%q is nothing that an explanation can be about", what).With("what", "is of no kind that is known here")
}

// seen is find for what the caller refers to and has to be able to read.
func (n noun[M]) seen(ctx context.Context, tx *state.Tx, name string, at place) (M, error) {
	call := callOf(ctx)
	for _, m := range rights.Methods() {
		if about, _ := rights.MethodOf(m); about.Permission == n.subject()+".read" {
			call.Method = m
			break
		}
	}
	return n.find(WithCall(ctx, call), tx, name, at)
}

// maxGivers bounds who is named that could give something.
const maxGivers = 10

// givers names those who are bound, in a place around at, to a role with which roles are given. Those by certificate are not
// among them.
func (s roleService) givers(ctx context.Context, tx *state.Tx, at rights.Place) (names []string, err error) {
	m, _ := rights.MethodOf(apiv1.RoleBindingService_CreateRoleBinding_FullMethodName)
	roles := state.In{Column: "role_id"}
	for role, err := range tx.Roles.All(nil) {
		if err != nil {
			return nil, err
		}
		if slices.Contains(rights.Expand(role.GetPermissions()), m.Permission) {
			roles.Values = append(roles.Values, role.GetId())
		}
	}
	for b, err := range tx.RoleBindings.Within([]state.Bound{{roles}}).All(nil) {
		if err != nil {
			return nil, err
		}
		role, err := tx.Roles.Get(b.GetRoleId())
		if err != nil {
			return nil, err
		}
		g, err := grant(tx, role, b)
		if err != nil {
			return nil, err
		}
		if len(names) < maxGivers && (b.GetExpiresAt() == nil || b.GetExpiresAt().AsTime().After(s.Now())) && g.Covers(at) {
			name := b.GetUser()
			if name == "" {
				name = "group " + b.GetGroup()
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
