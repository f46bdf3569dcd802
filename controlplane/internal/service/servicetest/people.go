package servicetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Roles makes the roles that come with Naru, as the leader does.
func (w *World) Roles() {
	w.Helper()
	set := &commandv1.SetBuiltInRoles{Edition: rights.Edition, Roles: rights.BuiltIn()}
	for _, r := range set.GetRoles() {
		r.Id = "r-" + r.GetName()
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_SetBuiltInRoles{SetBuiltInRoles: set}})
}

// User makes a user of the first organization.
func (w *World) User(name string, kind apiv1.User_Kind) *apiv1.User {
	w.Helper()
	var home *apiv1.Organization
	w.look(func(tx *state.Tx) (err error) {
		home, err = tx.Organizations.ByName("default", nil)
		return err
	})
	u := &apiv1.User{Id: "u-" + name, Name: name, Kind: kind, Organization: home.GetName(), OrganizationId: home.GetId()}
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: u}}})
	w.Session(u)
	return u
}

// Session gives a user the session in which they call.
func (w *World) Session(u *apiv1.User) string {
	w.Helper()
	id := "s-" + u.GetId()
	hash := sha256.Sum256([]byte(id))
	if err := w.DB.Update(func(tx *state.Tx) error {
		return tx.Sessions.Put(&apiv1.Session{Id: id, User: u.GetName(), UserId: u.GetId(), SecretHash: hash[:], ExpiresAt: timestamppb.New(time.Now().AddDate(1, 0, 0))})
	}); err != nil {
		w.Fatal(err)
	}
	return id
}

// Bind gives a user a role in a place, by name.
func (w *World) Bind(id, role string, user *apiv1.User, scope apiv1.RoleBinding_Scope, place string) {
	w.Helper()
	b := &apiv1.RoleBinding{Id: id, User: user.GetName(), UserId: user.GetId(), Scope: scope, Place: place}
	w.look(func(tx *state.Tx) error {
		r, err := tx.Roles.ByName(role, nil)
		if err != nil {
			return err
		}
		b.Role, b.RoleId = r.GetName(), r.GetId()
		switch scope {
		case apiv1.RoleBinding_ORGANIZATION:
			m, err := tx.Organizations.ByName(place, nil)
			b.PlaceId = m.GetId()
			return err
		case apiv1.RoleBinding_PROJECT:
			m, err := tx.Projects.ByName(place, nil)
			b.PlaceId = m.GetId()
			return err
		case apiv1.RoleBinding_ZONE:
			m, err := tx.Zones.ByName(place, nil)
			b.PlaceId = m.GetId()
			return err
		}
		return nil
	})
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRoleBinding{CreateRoleBinding: &commandv1.CreateRoleBinding{RoleBinding: b}}})
}

// Unbind takes a role away.
func (w *World) Unbind(id string) {
	w.Helper()
	w.Do(&commandv1.Command{Body: &commandv1.Command_DeleteRoleBinding{DeleteRoleBinding: &commandv1.DeleteNoun{Id: id}}})
}

// As calls as a user.
func (w *World) As(user *apiv1.User) *client.Services {
	return client.NewServices(as{w.API.Local(), AsUser(user)})
}

// AsUser is what a call says (as authorization) that a user makes.
func AsUser(user *apiv1.User) string { return "user " + user.GetName() + " " + user.GetId() + " ." }

// WithTokenOf calls with an access token of a service, which is good for an hour, and at the edge of one zone only.
func (w *World) WithTokenOf(service *apiv1.User, zone *apiv1.Zone) *client.Services {
	w.Helper()
	id := "t-" + service.GetId()
	hash := sha256.Sum256([]byte(id))
	if err := w.DB.Update(func(tx *state.Tx) error {
		if _, err := tx.AccessTokens.Get(id); !errors.Is(err, state.ErrNotFound) {
			return err
		}
		return tx.AccessTokens.Put(&apiv1.AccessToken{Id: id, Name: id, User: service.GetName(), UserId: service.GetId(), Zone: zone.GetName(), ZoneId: zone.GetId(),
			SecretHash: hash[:], ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))})
	}); err != nil {
		w.Fatal(err)
	}
	return client.NewServices(as{w.API.Local(), AsService(service, zone)})
}

// AsService is what a call says (as authorization) that a service makes, with its token of the id t-ID.
func AsService(service *apiv1.User, zone *apiv1.Zone) string {
	return "token " + service.GetName() + " " + service.GetId() + " " + zone.GetId() + " " + zone.GetName()
}

func (w *World) look(fn func(*state.Tx) error) {
	w.Helper()
	if err := w.DB.View(context.Background(), fn); err != nil {
		w.Fatal(err)
	}
}

// AtEdge calls as a user at the edge of a zone.
func (w *World) AtEdge(zone *apiv1.Zone, user *apiv1.User) *client.Services {
	return client.NewServices(edge{w, zone.GetId(), AsUser(user)})
}

// edge carries calls over a zone's link. It has no streams.
type edge struct {
	w           *World
	zoneID, who string
}

func (e edge) Invoke(ctx context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	body, err := proto.Marshal(in.(proto.Message))
	if err != nil {
		return err
	}
	return e.w.API.Dispatcher().Dispatch(ctx, api.LinkCall{ZoneID: e.zoneID, Method: method, Body: body, Token: e.who}, func(answer []byte) error {
		return proto.Unmarshal(answer, out.(proto.Message))
	})
}

func (e edge) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}
