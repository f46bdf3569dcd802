package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// errProposed stands for a command that would have been proposed: whoever comes so far is let in, and nothing is changed.
var errProposed = errors.New("proposed")

// bound is a place in which a role is bound.
type bound struct {
	scope apiv1.RoleBinding_Scope
	place string
}

var (
	boundPlaces = []bound{
		{apiv1.RoleBinding_FEDERATION, ""}, {apiv1.RoleBinding_ORGANIZATION, "default"}, {apiv1.RoleBinding_ORGANIZATION, "other"},
		{apiv1.RoleBinding_PROJECT, "web"}, {apiv1.RoleBinding_PROJECT, "db"}, {apiv1.RoleBinding_ZONE, "business"}, {apiv1.RoleBinding_ZONE, "internet"},
	}
	waysIn = []string{"", "business", "internet"}
)

// reaches says, without asking the code that is tested, whether something is in a place: projects web, db and spare are of
// organization default.
func (b bound) reaches(project, zone string) bool {
	switch b.scope {
	case apiv1.RoleBinding_FEDERATION:
		return true
	case apiv1.RoleBinding_ORGANIZATION:
		return b.place == "default" && project != ""
	case apiv1.RoleBinding_PROJECT:
		return project == b.place
	}
	return zone == b.place
}

// about says whose and where the object of a request in the matrix is. A list is about nothing: whoever has the permission
// anywhere may ask, and sees what is theirs. What is nobody's and everybody's is common.
func about(name string, request proto.Message) (project, zone string, list bool) {
	service, call, _ := strings.Cut(strings.TrimPrefix(name, "/naru.api.v1."), "/")
	if call == "ListComments" {
		return "web", "business", false
	}
	if strings.HasPrefix(call, "List") || strings.HasPrefix(call, "Watch") || strings.HasPrefix(call, "Top") || strings.HasPrefix(call, "Summarize") {
		return "", "", call != "ListGroupMembers" && call != "ListApprovalPolicyVersions"
	}
	text := func(field string) string {
		f := request.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field))
		if f == nil || f.Kind() != protoreflect.StringKind {
			return ""
		}
		return request.ProtoReflect().Get(f).String()
	}
	switch service {
	case "VMService", "SnapshotService", "RequestService", "LeaseService", "UsageService":
		return "web", "business", false
	case "CrossingService":
		return "web", "business", false
	case "UserService":
		return "home", "", false // in organization default, as projects are
	case "OrganizationService":
		if call == "GetOrganization" || call == "UpdateOrganization" {
			return "home", "", false
		}
	case "OperationService":
		return "web", "business", false
	case "ProjectService":
		if call == "DeleteProject" {
			return "spare", "", false
		}
		if call == "CreateProject" {
			return "new", "", false // in organization default
		}
		return "web", "", false
	case "AccessTokenService", "QuotaService":
		return "web", "", false
	case "RoleBindingService":
		if call == "CreateRoleBinding" {
			return "web", "", false
		}
		return "", "", false // in the federation
	case "ZoneService":
		if zone = text("zone"); call == "UpdateZone" {
			zone = "business"
		}
		return "", zone, false
	case "ClusterService":
		return "", "business", false
	case "HostService":
		if zone = text("zone"); zone == "" {
			zone = "business"
		}
		return "", zone, false
	}
	return "", "", false
}

// TestP14EveryMethodForEveryRoleInEveryPlaceByEveryWayIn calls every method as a user who has one role, or none, in one place,
// from the control network and from two zones, and compares what comes of it with what the roles and the places say.
func TestP14EveryMethodForEveryRoleInEveryPlaceByEveryWayIn(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	operation := spare(t, w, site)
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateOrganization{CreateOrganization: &commandv1.CreateOrganization{
		Organization: &apiv1.Organization{Id: "o-other", Name: "other"}}}})
	all := examples(w, operation)
	zones := map[string]string{"business": site.Business.GetId(), "internet": site.Internet.GetId()}
	type caller struct {
		role  *apiv1.Role
		place bound
		user  *apiv1.User
	}
	callers := []caller{{role: &apiv1.Role{Name: "none"}, user: w.User("nobody", apiv1.User_PERSON)}}
	for _, role := range rights.BuiltIn() {
		for i, place := range boundPlaces {
			u := w.User(fmt.Sprintf("%s-%d", role.GetName(), i), apiv1.User_PERSON)
			w.Bind("b-"+u.GetName(), role.GetName(), u, place.scope, place.place)
			callers = append(callers, caller{role, place, u})
		}
	}
	w.FailAll(errProposed)
	cells := 0
	for name, d := range apiMethods() {
		if !slices.Contains(w.API.Dispatcher().Methods(), name) {
			continue // drafted
		}
		if inSessions[name] {
			continue
		}
		request, known := all[name]
		succeeds := request != nil
		if !succeeds {
			request = notInMatrix[name]
		}
		if ofUsers[name] != nil {
			request, known, succeeds = ofUsers[name], true, true
		}
		if !known || request == nil {
			t.Errorf("%s has no request in the matrix: say what it answers to whom", name)
			continue
		}
		m, _ := rights.MethodOf(name)
		project, zone, list := about(name, request)
		own := m.Own && !strings.HasPrefix(name, "/naru.api.v1.RequestService/") && !strings.HasPrefix(name, "/naru.api.v1.DelegationService/") // there nobody here has a part in it
		if decide, ok := request.(*apiv1.DecideRequestRequest); ok {
			w.View(func(tx *state.Tx) error {
				r, err := tx.Requests.Get("asked")
				decide.SeenHash = r.GetFrozenHash()
				return err
			})
		}
		if !list {
			request = adminRequest(request)
		}
		for _, c := range callers {
			has := slices.Contains(rights.Expand(c.role.GetPermissions()), m.Permission)
			for _, way := range waysIn {
				cells++
				may := m.Permission == rights.Public || m.Permission == rights.Self || m.Own && list
				inReach := list || c.place.reaches(project, zone) || rights.Common(m.Permission) && project == "" && zone == ""
				if rights.Common(m.Permission) && c.place.scope != apiv1.RoleBinding_ZONE {
					inReach = true // what belongs to nobody
				}
				if strings.HasPrefix(name, "/naru.api.v1.CrossingService/") && c.place == (bound{apiv1.RoleBinding_ZONE, "internet"}) {
					inReach = true // a crossing is of both its zones
				}
				may = may || has && inReach
				if about, verb, _ := strings.Cut(m.Permission, "."); way == "internet" && !list && verb != "read" && slices.Contains([]string{"vm", "snapshot", "lease", "operation"}, about) {
					may = may && m.Permission == "snapshot.delete" // which a crossing of project web permits
				}
				switch name {
				case apiv1.CrossingService_CreateCrossing_FullMethodName:
					may = has && c.place.scope == apiv1.RoleBinding_FEDERATION // who answers for both sides
				case apiv1.VMService_CreateVM_FullMethodName, apiv1.RequestService_CreateRequest_FullMethodName, apiv1.RequestService_PreviewRequest_FullMethodName,
					apiv1.RequestService_CopyRequest_FullMethodName, apiv1.RequestService_UpdateRequest_FullMethodName:
					may = may && c.place.scope != apiv1.RoleBinding_ZONE // who has a role in a zone only cannot see the project in which to make it
				case apiv1.RequestService_DecideRequest_FullMethodName:
					may = c.role.GetName() == "approver" && (c.place.scope == apiv1.RoleBinding_PROJECT || c.place.scope == apiv1.RoleBinding_ORGANIZATION) && inReach // as its stage says
				}
				if way != "" && (m.Edge == apiv1.Edge_EDGE_UNSPECIFIED || m.Permission != rights.Public && m.Permission != rights.Self && !(m.Own && list) && !own && !c.role.GetAtEdges()) {
					may = false
				}
				answers, err := callFrom(t.Context(), w, zones[way], name, d, request, c.user)
				where := fmt.Sprintf("%s as %s in %s via %q", m.Short(), c.role.GetName(), rights.PlaceOf(c.place.scope, c.place.place), way)
				refused := problem.Is(err, problem.Forbidden) || problem.Is(err, problem.NotFound)
				switch {
				case may && refused && project != "new" && !own && succeeds:
					t.Errorf("%s is refused: %v", where, err)
				case !may && !refused && !own && !(m.Sensitive && (has || m.Own) && err != nil): // its entry comes before the decision about the place
					t.Errorf("%s is let in: %v", where, err)
				}
				if list && has && err == nil {
					for _, a := range answers {
						outside(t, where, a, c.user, c.place, rights.Common(m.Permission))
					}
				}
			}
		}
	}
	if cells < 10_000 {
		t.Errorf("only %d cells", cells)
	}
	t.Logf("%d cells", cells)
}

// callFrom calls a method in the control network, or at the edge of a zone.
func callFrom(ctx context.Context, w *servicetest.World, zoneID, name string, d protoreflect.MethodDescriptor, request proto.Message, user *apiv1.User) ([]proto.Message, error) {
	if zoneID == "" {
		return call(metadata.AppendToOutgoingContext(ctx, "authorization", servicetest.AsUser(user)), w.API.Local(), name, d, proto.Clone(request))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.Output().FullName())
	if err != nil {
		return nil, err
	}
	enough := errors.New("enough")
	var answers []proto.Message
	err = w.API.Dispatcher().Dispatch(ctx, api.LinkCall{ZoneID: zoneID, Method: name, Body: body, Token: servicetest.AsUser(user)}, func(body []byte) error {
		m := mt.New().Interface()
		if err := proto.Unmarshal(body, m); err != nil {
			return err
		}
		answers = append(answers, m)
		if c, ok := m.(interface{ GetType() apiv1.WatchType_Value }); d.IsStreamingServer() && (!ok || c.GetType() == apiv1.WatchType_BOOKMARK) {
			return enough // all that is there was sent
		}
		return nil
	})
	if d.IsStreamingServer() && len(answers) > 0 {
		err = nil
	}
	return answers, err
}

// nobodys are nouns that are of no project, zone or organization: whoever may read them at all reads all of them.
var nobodys = []protoreflect.Name{
	"Flavor", "Image", "Role", "Group", "Offering", "ApprovalPolicy", "Calendar", "IdentityProvider", "NotificationChannel", "Delivery", "Server", "Broker", "Administrator", "Permission",
}

// placesOf says of which projects, zones and organizations something in an answer is, by its descriptor; known is false of a noun that
// says nothing of that, and is not known to be nobody's.
func placesOf(m protoreflect.Message) (projects, zones []string, organization string, known bool) {
	text := func(name protoreflect.Name) string {
		if f := m.Descriptor().Fields().ByName(name); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			known = true
			return m.Get(f).String()
		}
		return ""
	}
	name := func() string { return m.Get(m.Descriptor().Fields().ByName("name")).String() }
	projects, zones, organization = []string{text("project")}, []string{text("zone"), text("source_zone")}, text("organization")
	switch of := m.Interface().(type) {
	case *apiv1.Project:
		projects = []string{name()}
	case *apiv1.Zone:
		zones, known = []string{name()}, true
	case *apiv1.Organization:
		organization, known = name(), true
	case *apiv1.RoleBinding:
		switch known = true; of.GetScope() {
		case apiv1.RoleBinding_ORGANIZATION:
			organization = of.GetPlace()
		case apiv1.RoleBinding_PROJECT:
			projects = []string{of.GetPlace()}
		case apiv1.RoleBinding_ZONE:
			zones = []string{of.GetPlace()}
		}
	}
	return projects, zones, organization, known || slices.Contains(nobodys, m.Descriptor().Name())
}

// outside holds that nothing in an answer lies outside a place, but what is a user's own.
func outside(t *testing.T, where string, answer proto.Message, user *apiv1.User, place bound, common bool) {
	t.Helper()
	answer.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		var items []protoreflect.Message
		switch {
		case f.Message() == nil || f.IsMap() || f.Message().ParentFile().Package() != "naru.api.v1":
		case f.IsList():
			for i := range v.List().Len() {
				items = append(items, v.List().Get(i).Message())
			}
		default:
			items = append(items, v.Message())
		}
		for _, m := range items {
			if own, ok := m.Interface().(interface{ GetUserId() string }); ok && own.GetUserId() == user.GetId() {
				continue
			}
			projects, zones, organization, known := placesOf(m)
			in := place.scope == apiv1.RoleBinding_FEDERATION || place.scope == apiv1.RoleBinding_ORGANIZATION && place.place == organization
			for _, project := range projects {
				for _, zone := range zones {
					in = in || place.reaches(project, zone)
				}
			}
			switch {
			case !known:
				t.Errorf("%s shows a %s: say of which project, zone or organization it is, or that it is nobody's", where, m.Descriptor().Name())
			case slices.Contains(nobodys, m.Descriptor().Name()):
			case !in && !(common && place.scope != apiv1.RoleBinding_ZONE):
				t.Errorf("%s shows %s", where, prototext.Format(m.Interface()))
			}
		}
		return true
	})
}

// TestP12AWatchEndsWhenItsReaderLosesOrGainsRights within two seconds, while nothing else changes.
func TestP12AWatchEndsWhenItsReaderLosesOrGainsRights(t *testing.T) {
	for about, c := range map[string]struct {
		before, change func(w *servicetest.World, kim *apiv1.User)
		code           problem.Code
	}{
		"all of them": {func(w *servicetest.World, kim *apiv1.User) {
			w.Bind("b", "user", kim, apiv1.RoleBinding_PROJECT, "web")
		},
			func(w *servicetest.World, _ *apiv1.User) { w.Unbind("b") }, problem.Forbidden},
		"some of them": {func(w *servicetest.World, kim *apiv1.User) {
			w.Bind("b", "user", kim, apiv1.RoleBinding_PROJECT, "web")
			w.Bind("b-2", "user", kim, apiv1.RoleBinding_PROJECT, "db")
		}, func(w *servicetest.World, _ *apiv1.User) { w.Unbind("b") }, problem.Gone},
		"or gains some": {func(w *servicetest.World, kim *apiv1.User) {
			w.Bind("b", "user", kim, apiv1.RoleBinding_PROJECT, "web")
		},
			func(w *servicetest.World, kim *apiv1.User) {
				w.Bind("b-2", "user", kim, apiv1.RoleBinding_PROJECT, "db")
			}, problem.Gone},
		"or is disabled": {func(w *servicetest.World, kim *apiv1.User) {
			w.Bind("b", "user", kim, apiv1.RoleBinding_PROJECT, "web")
		},
			func(w *servicetest.World, kim *apiv1.User) {
				w.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: kim.GetId(), Reason: "left"}}})
			}, problem.Forbidden},
	} {
		t.Run(about, func(t *testing.T) {
			w := servicetest.New(t)
			w.NewSite(1)
			w.Roles()
			kim := w.User("kim", apiv1.User_PERSON)
			c.before(w, kim)
			stream, err := w.As(kim).VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			c.change(w, kim)
			if _, err := stream.Recv(); !problem.Is(problem.FromStatus(err), c.code) {
				t.Fatalf("it ended with %v", err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
