package fsm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// deletion deletes a noun of any kind.
func deletion(kind, id, revision string) *commandv1.Command {
	in := &commandv1.DeleteNoun{Id: id, ExpectedRevision: revision}
	c := &commandv1.Command{}
	switch kind {
	case "zone":
		c.Body = &commandv1.Command_DeleteZone{DeleteZone: in}
	case "cluster":
		c.Body = &commandv1.Command_DeleteCluster{DeleteCluster: in}
	case "host":
		c.Body = &commandv1.Command_DeleteHost{DeleteHost: in}
	case "flavor":
		c.Body = &commandv1.Command_DeleteFlavor{DeleteFlavor: in}
	case "image":
		c.Body = &commandv1.Command_DeleteImage{DeleteImage: in}
	case "project":
		c.Body = &commandv1.Command_DeleteProject{DeleteProject: in}
	case "broker":
		c.Body = &commandv1.Command_DeleteBroker{DeleteBroker: in}
	case "server":
		c.Body = &commandv1.Command_DeleteServer{DeleteServer: in}
	case "organization":
		c.Body = &commandv1.Command_DeleteOrganization{DeleteOrganization: in}
	case "user":
		c.Body = &commandv1.Command_DeleteUser{DeleteUser: in}
	case "group":
		c.Body = &commandv1.Command_DeleteGroup{DeleteGroup: in}
	case "approval-policy":
		c.Body = &commandv1.Command_DeleteApprovalPolicy{DeleteApprovalPolicy: in}
	case "access-token":
		c.Body = &commandv1.Command_DeleteAccessToken{DeleteAccessToken: in}
	}
	return c
}

func createBroker(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateBroker{CreateBroker: &commandv1.CreateBroker{Broker: &apiv1.Broker{
		Id: "b-" + name, Name: name, HubAddress: "10.0.0.1:1", Fingerprint: "SHA256:x"}}}}
}

func createToken(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateAccessToken{CreateAccessToken: &commandv1.CreateAccessToken{AccessToken: &apiv1.AccessToken{
		Id: "t-" + name, Name: name, Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business", SecretHash: make([]byte, 32), ExpiresAt: timestamppb.New(start.AddDate(0, 6, 0))}}}}
}

func TestWhatIsDependedOnCannotBeDeleted(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(fullSync(true, "i", 0, 1, seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)))
	p.accept(createBroker("edge"))
	zone := p.zone()
	zone.Broker = "edge"
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: zone}}})
	p.accept(createToken("ci"))
	below := createZone("below")
	below.GetCreateZone().Zone.Parent = "business"
	p.accept(below)
	for _, c := range []struct{ kind, id, says string }{
		{"zone", "z-business", "1 VM (web-1) and 1 cluster (kvm) and 1 access token (ci) and 1 zone (below)"},
		{"cluster", "c-kvm", "1 host (kvm-1) and 1 VM (web-1)"},
		{"host", "h-1", "1 VM (web-1)"},
		{"flavor", "f-s1", "1 VM (web-1)"},
		{"image", "i-tiny", "1 VM (web-1)"},
		{"project", "p-shop", "1 VM (web-1) and 1 access token (ci)"},
		{"broker", "b-edge", "1 zone (business)"},
	} {
		if got := p.refuse(problem.InUse, deletion(c.kind, c.id, "")).GetDetail(); !strings.Contains(got, c.says) {
			t.Errorf("%s: %q does not say %q", c.kind, got, c.says)
		}
	}
	// From the leaves to the root everything can go.
	p.accept(desire(1, apiv1.VM_DELETED, "op-d"))
	p.accept(observe("i", 1, 2, tombstone(1)))
	for _, c := range [][2]string{{"access-token", "t-ci"}, {"host", "h-1"}, {"cluster", "c-kvm"}, {"zone", "z-below"}, {"zone", "z-business"},
		{"flavor", "f-s1"}, {"image", "i-tiny"}, {"project", "p-shop"}, {"broker", "b-edge"}, {"server", "server-1"}} {
		r := p.accept(deletion(c[0], c[1], ""))
		if op := r.GetOperation(); op.GetKind() != c[0]+".delete" || !op.GetDone() || op.GetTarget().GetId() != c[1] {
			t.Errorf("deleting %s answers %v", c[0], op)
		}
		p.refuse(problem.NotFound, deletion(c[0], c[1], ""))
	}
	if got := p.desired(0); len(got) != 0 {
		t.Errorf("a deleted zone should still hold %v", got)
	}
}

func TestManyDependentsAreCountedAndSomeNamed(t *testing.T) {
	p := furnished(t)
	for n := range 5 {
		p.accept(createVM(n))
	}
	if got := p.refuse(problem.InUse, deletion("project", "p-shop", "")).GetDetail(); !strings.Contains(got, "5 VMs (web-0, web-1, web-2, …)") {
		t.Errorf("%q", got)
	}
}

func TestNamesAreUniqueInTheirScopeOnly(t *testing.T) {
	p := furnished(t)
	p.refuse(problem.NameTaken, func() *commandv1.Command { c := createZone("business"); c.GetCreateZone().Zone.Id = "z-2"; return c }())
	p.refuse(problem.Conflict, func() *commandv1.Command { c := createZone("business"); c.GetCreateZone().Zone.Name = "b2"; return c }())
	p.accept(createZone("internet"))
	cluster := func(id, zone string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_CreateCluster{CreateCluster: &commandv1.CreateCluster{Cluster: &apiv1.Cluster{
			Id: id, Name: "kvm", Zone: zone, ZoneId: "z-" + zone}}}}
	}
	p.accept(cluster("c-2", "internet"))
	p.refuse(problem.NameTaken, cluster("c-3", "internet"))
	host := &commandv1.Command{Body: &commandv1.Command_CreateHost{CreateHost: &commandv1.CreateHost{Host: &apiv1.Host{
		Id: "h-2", Name: "kvm-2", Zone: "internet", ZoneId: "z-internet", Cluster: "kvm", ClusterId: "c-kvm"}}}}
	p.refuse(problem.Invalid, host) // that cluster is the other zone's
	host.GetCreateHost().Host.ClusterId, host.GetCreateHost().Host.Name = "c-2", "kvm-1"
	p.accept(host)
}

func TestAnUpdateExpectsARevisionAndKeepsWhatOthersWrite(t *testing.T) {
	p := furnished(t)
	var host *apiv1.Host
	p.view(func(tx *state.Tx) { host = get(t, tx.Hosts, "h-1") })
	p.accept(fullSync(true, "i", 0, 1, hostSeen("h-1", apiv1.Host_AVAILABLE)))
	update := func(revision string, change func(*apiv1.Host)) *commandv1.Command {
		m := proto.CloneOf(host)
		change(m)
		return &commandv1.Command{Body: &commandv1.Command_UpdateHost{UpdateHost: &commandv1.UpdateHost{Host: m, ExpectedRevision: revision}}}
	}
	p.refuse(problem.Conflict, update(host.GetRevision(), func(m *apiv1.Host) { m.AdminState = apiv1.Host_CORDONED }))
	p.accept(update("", func(m *apiv1.Host) {
		m.AdminState = apiv1.Host_CORDONED
		m.Health = apiv1.Host_DOWN
		m.ClusterId = "c-x"
	}))
	p.refuse(problem.Invalid, update("", func(m *apiv1.Host) { m.Name = "other" }))
	p.refuse(problem.NotFound, update("", func(m *apiv1.Host) { m.Id = "h-9" }))
	p.view(func(tx *state.Tx) { host = get(t, tx.Hosts, "h-1") })
	if host.GetAdminState() != apiv1.Host_CORDONED || host.GetHealth() != apiv1.Host_AVAILABLE || host.GetClusterId() != "c-kvm" || host.GetCreatedAt() == nil {
		t.Errorf("stored is %v", host)
	}
	objects := p.desired(0)
	if down := objects[len(objects)-1].GetHost(); down.GetAdminState() != apiv1.Host_CORDONED || down.GetHealth() != 0 {
		t.Errorf("down goes %v", down)
	}
}

func TestClustersAndHostsLeaveTombstonesForTheirZone(t *testing.T) {
	p := furnished(t)
	p.accept(deletion("host", "h-1", ""))
	p.accept(deletion("cluster", "c-kvm", ""))
	var gone []string
	for _, o := range p.desired(0) {
		if ref := o.GetTombstone().GetNoun(); ref != nil {
			gone = append(gone, ref.GetKind()+" "+ref.GetName())
		}
	}
	if got := strings.Join(gone, ", "); got != "host kvm-1, cluster kvm" {
		t.Errorf("tombstones of %s", got)
	}
}

func TestAServerIsPutAgainWithWhatHasChanged(t *testing.T) {
	p := bootstrapped(t)
	server := &apiv1.Server{Id: "server-1", Name: "one", PeerAddress: "10.0.0.1:7", Role: apiv1.Server_LEADER, Healthy: true, Sessions: 9}
	c := &commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: server}}}
	p.accept(c)
	p.view(func(tx *state.Tx) {
		if m := get(t, tx.Servers, "server-1"); m.GetPeerAddress() != "10.0.0.1:7" || m.GetRole() != 0 || m.GetSessions() != 0 || m.GetCreatedAt() == nil {
			t.Errorf("stored is %v", m)
		}
	})
	server.Name = "two"
	p.refuse(problem.Invalid, c)
	server.Id, server.Name = "server-2", "one"
	p.refuse(problem.NameTaken, c)
}

func TestABrokerIsEnrolledOnce(t *testing.T) {
	p := bootstrapped(t)
	p.accept(createBroker("edge"))
	enroll := &commandv1.Command{Body: &commandv1.Command_EnrollBroker{EnrollBroker: &commandv1.EnrollBroker{BrokerId: "b-edge"}}}
	p.accept(enroll)
	var revision string
	p.view(func(tx *state.Tx) { revision = get(t, tx.Brokers, "b-edge").GetRevision() })
	p.accept(enroll)
	p.view(func(tx *state.Tx) {
		if m := get(t, tx.Brokers, "b-edge"); !m.GetEnrolled() || m.GetRevision() != revision {
			t.Errorf("stored is %v", m)
		}
	})
	update := createBroker("edge").GetCreateBroker().GetBroker()
	update.Fingerprint = "SHA256:y"
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateBroker{UpdateBroker: &commandv1.UpdateBroker{Broker: update}}})
	p.view(func(tx *state.Tx) {
		if m := get(t, tx.Brokers, "b-edge"); !m.GetEnrolled() || m.GetFingerprint() != "SHA256:x" {
			t.Errorf("an update changed who it is: %v", m)
		}
	})
}

func TestAnAdministratorMovesAZoneIntoMaintenanceAndOutOfIt(t *testing.T) {
	p := furnished(t)
	move := func(to apiv1.Zone_AdminState) *commandv1.Command {
		m := p.zone()
		m.State, m.AdminState, m.AdminReason = apiv1.Zone_RETIRED, to, "the cooling is mended"
		return &commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: m}}}
	}
	is := func(state apiv1.Zone_State) {
		t.Helper()
		if got := p.zone().GetState(); got != state {
			t.Errorf("the zone is %v, not %v", got, state)
		}
	}
	is(apiv1.Zone_JOINING)
	p.accept(move(apiv1.Zone_UNDER_MAINTENANCE))
	is(apiv1.Zone_MAINTENANCE)
	if r := p.refuse(problem.ZoneUnavailable, createVM(1)); !strings.Contains(r.GetDetail(), "the cooling is mended") {
		t.Errorf("the refusal is %v", r)
	}
	p.accept(move(apiv1.Zone_ENABLED))
	is(apiv1.Zone_JOINING)
	p.accept(session(1, true))
	p.accept(createVM(1))
	p.accept(move(apiv1.Zone_UNDER_MAINTENANCE))
	p.accept(session(1, false))
	p.accept(session(2, true))
	is(apiv1.Zone_MAINTENANCE)                       // coming and going of sessions does not end it
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop")) // what is there goes on
	p.accept(move(apiv1.Zone_UNDER_MAINTENANCE))
	p.accept(move(apiv1.Zone_ENABLED))
	is(apiv1.Zone_ONLINE)
	p.accept(createVM(2))
	if e := p.events(); e["zone.maintenance"] != 2 || e["zone.maintenance_ended"] != 2 {
		t.Errorf("events %v", e)
	}
}

func TestAMaintenanceDoesNotChangeSinceWhenAZoneIsDisconnected(t *testing.T) {
	p := furnished(t)
	p.accept(session(1, true))
	end := session(1, false)
	end.GetSetZoneSession().Cause = "SILENT"
	p.accept(end)
	since := p.zone().GetStateChangedAt()
	for _, to := range []apiv1.Zone_AdminState{apiv1.Zone_UNDER_MAINTENANCE, apiv1.Zone_ENABLED} {
		m := p.zone()
		m.AdminState, m.AdminReason = to, "new disks"
		p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: m}}})
	}
	if z := p.zone(); z.GetState() != apiv1.Zone_DISCONNECTED || !proto.Equal(z.GetStateChangedAt(), since) {
		t.Errorf("%v since %v, want since %v", z.GetState(), z.GetStateChangedAt().AsTime(), since.AsTime())
	}
}

func TestAQuarantineIsLiftedByAnAdministratorOnly(t *testing.T) {
	p := furnished(t)
	lift := &commandv1.Command{Body: &commandv1.Command_LiftQuarantine{LiftQuarantine: &commandv1.LiftQuarantine{ZoneId: "z-business", Reason: "the copy is gone"}}}
	p.refuse(problem.WrongState, lift)
	p.accept(session(1, true))
	p.accept(&commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: "z-business", Reason: "two epochs"}}})
	p.refuse(problem.ZoneUnavailable, session(2, true))
	p.refuse(problem.ZoneUnavailable, observe("i", 0, 1))
	p.refuse(problem.ZoneUnavailable, createVM(1))
	m := p.zone()
	m.AdminState = apiv1.Zone_ENABLED
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: m}}})
	if z := p.zone(); z.GetState() != apiv1.Zone_QUARANTINED || z.GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("after an update the zone is %v", z)
	}
	p.accept(lift)
	if z := p.zone(); z.GetState() != apiv1.Zone_DISCONNECTED {
		t.Errorf("lifted, the zone is %v", z)
	}
	p.accept(session(2, true))
	if e := p.events(); p.zone().GetState() != apiv1.Zone_ONLINE || e["zone.quarantined"] != 1 || e["zone.quarantine_lifted"] != 1 {
		t.Errorf("the zone is %v, events %v", p.zone(), e)
	}
}

func TestAHostIsDeclaredLostAndFoundByAnAdministrator(t *testing.T) {
	p := furnished(t)
	declare := func(lost bool, reason string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_DeclareHost{DeclareHost: &commandv1.DeclareHost{HostId: "h-1", Lost: lost, Reason: reason}}}
	}
	host := func() (m *apiv1.Host) {
		p.view(func(tx *state.Tx) { m = get(t, tx.Hosts, "h-1") })
		return m
	}
	p.refuse(problem.Invalid, declare(true, ""))
	was := host().GetGeneration().GetIndex()
	p.accept(declare(true, "it burnt"))
	p.accept(declare(true, "it burnt"))
	if h := host(); h.GetLoss().GetBy() != "spiffe://example.test/admin/ann" || h.GetLoss().GetReason() != "it burnt" || h.GetLoss().GetAt() == nil || h.GetGeneration().GetIndex() <= was {
		t.Errorf("declared lost, it is %v", h)
	}
	update := host()
	update.Loss, update.AdminState = nil, apiv1.Host_CORDONED
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateHost{UpdateHost: &commandv1.UpdateHost{Host: update}}})
	if h := host(); h.GetLoss() == nil || h.GetAdminState() != apiv1.Host_CORDONED {
		t.Errorf("an update took the declaration back: %v", h)
	}
	p.accept(declare(false, "it was the switch"))
	if e := p.events(); host().GetLoss() != nil || e["host.declared_lost"] != 1 || e["host.declared_found"] != 1 {
		t.Errorf("declared found, it is %v, events %v", host(), e)
	}
}
