package operators

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/credential"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// telling is a federation whose zone business is told who its operators are.
type telling struct {
	*servicetest.World
	*Controller
	t       *testing.T
	zone    *apiv1.Zone
	private []byte
	now     time.Time
}

func newTelling(t *testing.T) *telling {
	t.Helper()
	w := servicetest.New(t)
	w.NewSite(1)
	w.Roles()
	private, public, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &telling{World: w, t: t, zone: w.Zone("business"), private: private, now: time.Now()}
	w.Observe(s.zone.GetId(), &apiv1.Zone{Id: s.zone.GetId(), SealingKey: public})
	s.Controller = New(Config{Reader: w.DB, Proposer: w, Rights: w.Service, Unseal: w.Service.Secrets.Unseal, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }})
	return s
}

// person makes a person who has a password of their own, where there is one.
func (s *telling) person(name, password string) *apiv1.User {
	s.t.Helper()
	u := s.User(name, apiv1.User_PERSON)
	s.password(u, password, nil)
	return u
}

func (s *telling) password(u *apiv1.User, password string, change func(*commandv1.Credentials)) {
	s.t.Helper()
	kept := &commandv1.Credentials{UserId: u.GetId(), Password: "$argon2id$", Revision: "1-" + password}
	if password != "" {
		kept.LocalSalt = bytes.Repeat([]byte{1}, locallogin.SaltSize)
		root, err := s.Service.Secrets.Seal(credential.LocalRootRole(u.GetId()), locallogin.Root(password, kept.GetLocalSalt()))
		if err != nil {
			s.t.Fatal(err)
		}
		kept.SealedLocalRoot = root
	}
	if change != nil {
		change(kept)
	}
	if err := s.DB.Update(func(tx *state.Tx) error { return tx.PutCredentials(kept) }); err != nil {
		s.t.Fatal(err)
	}
}

// told has the zone be told, and returns what it is told of each operator by name.
func (s *telling) told() map[string]*linkv1.Operator {
	s.t.Helper()
	if err := s.Round(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	out := map[string]*linkv1.Operator{}
	s.View(func(tx *state.Tx) error {
		objects, _, _, err := tx.DesiredSince(s.zone.GetId(), 0, 1000)
		for _, object := range objects {
			l := object.GetLocalOperator()
			if l == nil {
				continue
			}
			o := &linkv1.Operator{}
			if err := sealed.OpenMessage(s.private, sealed.ForOperator(s.zone.GetId(), l.GetId()), l.GetSealed(), o); err != nil {
				s.t.Fatal(err)
			}
			out[o.GetUser()] = o
		}
		return err
	})
	return out
}

func names(told map[string]*linkv1.Operator) string {
	var out []string
	for name := range told {
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAZoneIsToldOfItsOwnOperatorsAndOfNobodyElse(t *testing.T) {
	s := newTelling(t)
	for _, name := range []string{"named", "grouped", "everywhere", "in-project", "elsewhere", "disabled", "without", "deciding", "former"} {
		password := "the password of " + name
		if name == "without" {
			password = ""
		}
		s.person(name, password)
	}
	service := s.User("service", apiv1.User_SERVICE)
	user := func(name string) *apiv1.User { return &apiv1.User{Id: "u-" + name, Name: name} }
	s.Bind("b-1", "zone-operator", user("named"), apiv1.RoleBinding_ZONE, "business")
	s.Bind("b-2", "zone-operator", user("everywhere"), apiv1.RoleBinding_FEDERATION, "")
	s.Bind("b-3", "project-operator", user("in-project"), apiv1.RoleBinding_PROJECT, "web")
	s.Bind("b-4", "zone-operator", user("elsewhere"), apiv1.RoleBinding_ZONE, "internet")
	s.Bind("b-5", "zone-operator", user("disabled"), apiv1.RoleBinding_ZONE, "business")
	s.Bind("b-6", "zone-operator", user("without"), apiv1.RoleBinding_ZONE, "business")
	s.Bind("b-7", "zone-operator", service, apiv1.RoleBinding_ZONE, "business")
	s.Bind("b-8", "approver", user("deciding"), apiv1.RoleBinding_ZONE, "business")
	s.Do(&commandv1.Command{Body: &commandv1.Command_CreateGroup{CreateGroup: &commandv1.CreateGroup{Group: &apiv1.Group{Id: "g-ops", Name: "ops"}}}})
	s.Do(&commandv1.Command{Body: &commandv1.Command_AddGroupMember{AddGroupMember: &commandv1.AddGroupMember{GroupId: "g-ops", UserId: "u-grouped"}}})
	end := timestamppb.New(s.now.Add(time.Hour).Truncate(time.Second))
	bind := func(id string, b *apiv1.RoleBinding) {
		b.Id, b.Role, b.RoleId, b.Scope, b.Place, b.PlaceId = id, "zone-administrator", "r-zone-administrator", apiv1.RoleBinding_ZONE, "business", s.zone.GetId()
		s.Do(&commandv1.Command{Body: &commandv1.Command_CreateRoleBinding{CreateRoleBinding: &commandv1.CreateRoleBinding{RoleBinding: b}}})
	}
	bind("b-9", &apiv1.RoleBinding{Group: "ops", GroupId: "g-ops", ExpiresAt: end})
	bind("b-10", &apiv1.RoleBinding{User: "former", UserId: "u-former", ExpiresAt: timestamppb.New(s.now.Add(time.Minute))})
	s.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-disabled"}}})
	s.now = s.now.Add(2 * time.Minute)
	told := s.told()
	// Who decides in the zone reads what is in it.
	if got := names(told); got != "deciding grouped named" {
		t.Fatalf("the zone is told of %s", got)
	}
	named := told["named"]
	key, err := locallogin.Key(locallogin.Root("the password of named", named.GetSalt()), s.zone.GetId())
	if err != nil || !bytes.Equal(key.Public().(ed25519.PublicKey), named.GetPublicKey()) {
		t.Errorf("it cannot know named by the password: %v", err)
	}
	if got := strings.Join(named.GetPermissions(), " "); got != "cluster.read host.read operation.read vm.read vm.start vm.stop zone.read" || named.GetUntil() != nil || named.GetDeviceNeeded() {
		t.Errorf("named: %v", named)
	}
	if got := strings.Join(told["deciding"].GetPermissions(), " "); got != "cluster.read operation.read vm.read zone.read" {
		t.Errorf("deciding may %s", got)
	}
	if !told["grouped"].GetUntil().AsTime().Equal(end.AsTime()) {
		t.Errorf("grouped: %v", told["grouped"])
	}
	proposed := s.Proposes()
	if s.told(); s.Proposes() != proposed {
		t.Error("the same is told twice")
	}
	s.Unbind("b-1")
	if got := names(s.told()); got != "deciding grouped" {
		t.Errorf("without the binding the zone is told of %s", got)
	}
	s.Do(&commandv1.Command{Body: &commandv1.Command_DisableUser{DisableUser: &commandv1.DisableUser{UserId: "u-grouped"}}})
	var left int
	s.View(func(tx *state.Tx) error {
		all, err := tx.LocalOperators(s.zone.GetId())
		left = len(all)
		return err
	})
	if left != 1 {
		t.Errorf("who is disabled stays until somebody looks: %d are left", left)
	}
}

func TestAnOperatorIsToldAnewWhenPasswordMachinesOrTheZonesKeyChange(t *testing.T) {
	s := newTelling(t)
	kim := s.person("kim", "the first password")
	s.Bind("b", "zone-operator", kim, apiv1.RoleBinding_ZONE, "business")
	first := s.told()["kim"]
	device := sha256.Sum256([]byte("machine"))
	s.password(kim, "the first password", func(c *commandv1.Credentials) {
		c.Devices = []*commandv1.Credentials_Device{{Hash: device[:]}}
		c.SealedAuthenticator = []byte("sealed")
	})
	second := s.told()["kim"]
	if !second.GetDeviceNeeded() || len(second.GetDevices()) != 1 || !bytes.Equal(second.GetDevices()[0], locallogin.Device(device[:], s.zone.GetId())) || !bytes.Equal(first.GetPublicKey(), second.GetPublicKey()) {
		t.Errorf("with a machine and an authenticator: %v", second)
	}
	s.password(kim, "the second password", nil)
	third := s.told()["kim"]
	if bytes.Equal(third.GetPublicKey(), first.GetPublicKey()) {
		t.Error("the zone knows the old password")
	}
	var public []byte
	var err error
	if s.private, public, err = sealed.NewKey(); err != nil {
		t.Fatal(err)
	}
	s.Observe(s.zone.GetId(), &apiv1.Zone{Id: s.zone.GetId(), SealingKey: public})
	if got := names(s.told()); got != "kim" {
		t.Errorf("with another key the zone is told of %q", got)
	}
}

// TestWhatWasReadBeforeThePasswordChangedIsNotTold: the command is refused for that operator, and the next round tells.
func TestWhatWasReadBeforeThePasswordChangedIsNotTold(t *testing.T) {
	s := newTelling(t)
	kim := s.person("kim", "the first password")
	s.Bind("b", "zone-operator", kim, apiv1.RoleBinding_ZONE, "business")
	s.Do(&commandv1.Command{Body: &commandv1.Command_SetLocalOperators{SetLocalOperators: &commandv1.SetLocalOperators{ZoneId: s.zone.GetId(), Operators: []*commandv1.LocalOperator{
		{UserId: kim.GetId(), Sealed: []byte("of an older password"), Fingerprint: []byte("x"), Credentials: "1-older"},
		{UserId: "u-nobody", Sealed: []byte("of nobody"), Fingerprint: []byte("x")},
	}}}})
	s.View(func(tx *state.Tx) error {
		all, err := tx.LocalOperators(s.zone.GetId())
		if len(all) != 0 {
			t.Errorf("the zone is told of %v", all)
		}
		return err
	})
}

// TestAZoneWithAKeyThatIsNoneKeepsNobodyFromBeingTold, nor an operator whose secret cannot be opened.
func TestAZoneWithAKeyThatIsNoneKeepsNobodyFromBeingTold(t *testing.T) {
	s := newTelling(t)
	kim, lee, gone := s.person("kim", "the password of kim"), s.person("lee", "the password of lee"), s.person("gone", "the password of gone")
	s.Bind("b-kim", "zone-operator", kim, apiv1.RoleBinding_ZONE, "business")
	s.Bind("b-gone", "zone-operator", gone, apiv1.RoleBinding_ZONE, "business")
	if got := names(s.told()); got != "gone kim" {
		t.Fatalf("the zone is told of %q", got)
	}
	internet := s.Zone("internet")
	s.Observe(internet.GetId(), &apiv1.Zone{Id: internet.GetId(), SealingKey: make([]byte, 32)})
	s.Bind("b-lee", "zone-operator", lee, apiv1.RoleBinding_ZONE, "internet")
	s.Bind("b-lee-too", "zone-operator", lee, apiv1.RoleBinding_ZONE, "business")
	s.password(kim, "the password of kim", func(c *commandv1.Credentials) { c.SealedLocalRoot = []byte("rubbish") })
	s.Unbind("b-gone")
	if err := s.Round(t.Context()); err == nil {
		t.Error("nothing is said of what went wrong")
	}
	var left []string
	s.View(func(tx *state.Tx) error {
		all, err := tx.LocalOperators(s.zone.GetId())
		for _, m := range all {
			left = append(left, m.GetUserId())
		}
		return err
	})
	if strings.Join(left, " ") != "u-lee" {
		t.Errorf("the zone is left with %v", left)
	}
}
