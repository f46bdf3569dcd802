package api_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// spare makes what the matrix deletes, and a VM of project web that runs.
func spare(t *testing.T, w *servicetest.World, site *servicetest.Site) (operation string) {
	t.Helper()
	a, ctx := w.Admin(), t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(a.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "spare"}}))
	check(a.Clusters.CreateCluster(ctx, &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{Name: "spare", Zone: "business", Hypervisor: "sim"}}))
	check(a.Images.CreateImage(ctx, &apiv1.CreateImageRequest{Image: &apiv1.Image{Name: "spare", Sha256: strings.Repeat("1", 64)}}))
	check(a.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "spare"}}))
	check(a.Organizations.CreateOrganization(ctx, &apiv1.CreateOrganizationRequest{Organization: &apiv1.Organization{Name: "spare"}}))
	check(a.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: "spare"}}))
	check(a.Groups.CreateGroup(ctx, &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: "spare"}}))
	check(a.Quotas.CreateQuota(ctx, &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{Vms: proto.Uint32(1000)}}}))
	check(a.NotificationChannels.CreateNotificationChannel(ctx, &apiv1.CreateNotificationChannelRequest{NotificationChannel: &apiv1.NotificationChannel{Name: "spare", Webhook: &apiv1.Webhook{Url: "https://example.org/"}}}))
	check(a.IdentityProviders.CreateIdentityProvider(ctx, &apiv1.CreateIdentityProviderRequest{IdentityProvider: directory("spare")}))
	check(a.Calendars.CreateCalendar(ctx, &apiv1.CreateCalendarRequest{Calendar: workdays("spare")}))
	check(a.ApprovalPolicies.CreateApprovalPolicy(ctx, &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: anybodyDecides("spare")}))
	for _, name := range []string{"spare", "draft"} {
		check(a.Offerings.CreateOffering(ctx, &apiv1.CreateOfferingRequest{Offering: &apiv1.Offering{Name: name, Image: "tiny", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1"}}}}))
	}
	check(a.Offerings.PublishOffering(ctx, &apiv1.PublishOfferingRequest{Offering: "spare"}))
	check(a.Brokers.CreateBroker(ctx, &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{Name: "spare", HubAddress: "h:1", Fingerprint: "SHA256:" + strings.Repeat("a", 43)}}))
	for _, name := range []string{"kim", "lee"} {
		check(a.Administrators.CreateAdministrator(ctx, &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: name}, Csr: []byte(name)}))
	}
	check(a.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: "spare", Project: "web", ExpiresAt: timestamppb.New(timestamppb.Now().AsTime().AddDate(0, 0, 1)),
	}}))
	people(w)
	w.Do(&commandv1.Command{Body: &commandv1.Command_BeginBackup{BeginBackup: &commandv1.Backup{Id: "newest"}}})
	made, err := a.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")})
	check(made, err)
	got, err := a.VMs.GetVM(ctx, &apiv1.GetVMRequest{Vm: "web-1", Project: "web"})
	check(got, err)
	vm := got.GetVm()
	w.Observe(site.Business.GetId(), &apiv1.VM{
		Id: vm.GetId(), Name: vm.GetName(), State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Host: "kvm-1", HostId: site.Hosts[0].GetId(), Reached: vm.GetGeneration(),
		Snapshots: &apiv1.VM_Snapshots{Items: []*apiv1.VM_Snapshots_Item{{Id: "s-before", Name: "before"}}},
	})
	w.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: site.Business.GetId(), Batch: &linkv1.JournalBatch{
		Origin: "life", Stream: "kvm", Entries: []*linkv1.JournalEntry{{Sequence: 1, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{
			VmId: vm.GetId(), State: apiv1.VM_RUNNING, Size: vm.GetSize(), Number: 1, At: timestamppb.Now()}}}}}}}})
	trashed, err := a.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: w.VM("web-trashed", "web")})
	check(trashed, err)
	id, step := trashed.GetOperation().GetTarget().GetId(), ""
	w.Observe(site.Business.GetId(), &apiv1.VM{Id: id, Name: "web-trashed", State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, UsableAt: timestamppb.Now(), Host: "kvm-1", HostId: site.Hosts[0].GetId()})
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateLease{CreateLease: &commandv1.CreateLease{Lease: &apiv1.Lease{Id: "l-spare", VmId: id, Days: 9}}}})
	w.View(func(tx *state.Tx) error {
		m, err := tx.Leases.Get("l-spare")
		step = m.GetRevision()
		return err
	})
	w.Do(&commandv1.Command{Body: &commandv1.Command_PassLease{PassLease: &commandv1.PassLease{LeaseId: "l-spare", ExpectedRevision: step, Step: commandv1.PassLease_START}}})
	check(a.VMs.TrashVM(ctx, &apiv1.TrashVMRequest{Vm: "web-trashed", Project: "web"}))
	asked(t, w, vm)
	return made.GetOperation().GetId()
}

// usedRecord is the id of the record that VM web-1 has begun to be used.
func usedRecord(w *servicetest.World) (id string) {
	w.View(func(tx *state.Tx) error {
		for m, err := range tx.UsageRecords.All(nil) {
			if id = m.GetId(); err != nil {
				return err
			}
		}
		return nil
	})
	return id
}

// asked makes the request asked of project web, which waits for an approver of it and has a file, and a delegation; whoever has part in
// them is nobody else in the matrix.
func asked(t *testing.T, w *servicetest.World, vm *apiv1.VM) {
	t.Helper()
	ann, bob := w.User("ann", apiv1.User_PERSON), w.User("bob", apiv1.User_PERSON)
	m := &apiv1.Request{
		Id: "asked", Requester: ann.GetName(), RequesterId: ann.GetId(), Project: vm.GetProject(), ProjectId: vm.GetProjectId(), Organization: ann.GetOrganization(), OrganizationId: ann.GetOrganizationId(),
		Kind: apiv1.RequestKind_POWER, Specification: stopWeb().GetSpecification(), Zone: vm.GetZone(), ZoneId: vm.GetZoneId(),
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: m}}})
	w.Do(&commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: "asked", Content: []byte("x"),
		Comment: &apiv1.Comment{Id: "plan", Author: ann.GetName(), AuthorId: ann.GetId(), File: "plan.txt"}}}})
	w.View(func(tx *state.Tx) (err error) { m, err = tx.Requests.Get("asked"); return err })
	revision := m.GetRevision()
	m.Parts = []*apiv1.Part{{Name: vm.GetName(), VmId: vm.GetId()}}
	m.Stages = []*apiv1.Stage{{Name: "approval", Needed: 1, Eligible: &apiv1.Eligibility{Roles: []string{"approver"}, At: apiv1.Eligibility_PROJECT}}}
	if err := request.Freeze(m); err != nil {
		t.Fatal(err)
	}
	w.Do(&commandv1.Command{Body: &commandv1.Command_SubmitRequest{SubmitRequest: &commandv1.SubmitRequest{
		Request: m, ExpectedRevision: revision, By: &commandv1.Person{Id: ann.GetId(), Name: ann.GetName()}}}})
	c := &commandv1.Command{Origin: &commandv1.Origin{ActorId: bob.GetId(), SessionId: w.Session(bob)}, Body: &commandv1.Command_CreateDelegation{CreateDelegation: &commandv1.CreateDelegation{Delegation: &apiv1.Delegation{
		Id: "d-spare", FromUser: bob.GetName(), FromUserId: bob.GetId(), ToUser: ann.GetName(), ToUserId: ann.GetId(), EndsAt: timestamppb.New(time.Now().AddDate(0, 0, 1))}}}}
	w.Do(c)
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateCrossing{CreateCrossing: &commandv1.CreateCrossing{Crossing: &apiv1.Crossing{
		Id: "cr-spare", Project: vm.GetProject(), ProjectId: vm.GetProjectId(), SourceZone: "internet", SourceZoneId: w.Zone("internet").GetId(),
		Zone: vm.GetZone(), ZoneId: vm.GetZoneId(), Permissions: []string{"snapshot.delete"}, EndsAt: timestamppb.New(time.Now().AddDate(0, 0, 1))}}}})
}

// people makes the built-in roles, roles spare and unbound, an organization bureau with nobody in it, a user choi, and a binding of the two.
func people(w *servicetest.World) {
	w.Roles()
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{
		Id: "r-spare", Name: "spare", Permissions: []string{"vm.read"}}}}})
	w.Do(&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{
		Id: "r-unbound", Name: "unbound", Permissions: []string{"vm.read"}}}}})
	choi := w.User("choi", apiv1.User_PERSON)
	w.Bind("b-spare", "spare", choi, apiv1.RoleBinding_FEDERATION, "")
	if err := w.DB.Update(func(tx *state.Tx) error { // by a request, so that whoever approves shortens it
		b, err := tx.RoleBindings.Get("b-spare")
		if err != nil {
			return err
		}
		b.Request, b.RequestId = "r-1", "asked"
		return tx.RoleBindings.Put(b)
	}); err != nil {
		w.Fatal(err)
	}
}
