package api_test

import (
	"bytes"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// examples has for every method of the API a request that succeeds for an administrator, about project web's VM web-1
// where there is a VM in it. A method without one fails the test.
func examples(w *servicetest.World, operation string) map[string]proto.Message {
	return map[string]proto.Message{
		apiv1.ZoneService_ListZones_FullMethodName:        &apiv1.ListZonesRequest{},
		apiv1.ZoneService_GetZone_FullMethodName:          &apiv1.GetZoneRequest{Zone: "business"},
		apiv1.ZoneService_WatchZones_FullMethodName:       &apiv1.WatchZonesRequest{},
		apiv1.ZoneService_CreateZone_FullMethodName:       &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "other"}},
		apiv1.ZoneService_UpdateZone_FullMethodName:       &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Description: "x"}, UpdateMask: mask("description")},
		apiv1.ZoneService_DeleteZone_FullMethodName:       &apiv1.DeleteZoneRequest{Zone: "spare"},
		apiv1.ZoneService_CreateJoinToken_FullMethodName:  &apiv1.CreateJoinTokenRequest{Zone: "business"},
		apiv1.ZoneService_ListJoinRequests_FullMethodName: &apiv1.ListJoinRequestsRequest{},
		apiv1.ZoneService_AcceptAgent_FullMethodName:      nil, // needs an agent; see notInMatrix
		apiv1.ZoneService_QuarantineZone_FullMethodName:   &apiv1.QuarantineZoneRequest{Zone: "internet", Reason: "test"},
		apiv1.ZoneService_LiftQuarantine_FullMethodName:   nil, // needs a quarantined zone; see notInMatrix
		apiv1.ZoneService_RevokeZone_FullMethodName:       &apiv1.RevokeZoneRequest{Zone: "internet"},

		apiv1.ClusterService_ListClusters_FullMethodName:  &apiv1.ListClustersRequest{},
		apiv1.ClusterService_GetCluster_FullMethodName:    &apiv1.GetClusterRequest{Cluster: "kvm", Zone: "business"},
		apiv1.ClusterService_WatchClusters_FullMethodName: &apiv1.WatchClustersRequest{},
		apiv1.ClusterService_CreateCluster_FullMethodName: &apiv1.CreateClusterRequest{Cluster: &apiv1.Cluster{Name: "other", Zone: "business", Hypervisor: "sim"}},
		apiv1.ClusterService_UpdateCluster_FullMethodName: &apiv1.UpdateClusterRequest{Cluster: &apiv1.Cluster{Id: "kvm", Purpose: "DB"}, Zone: "business", UpdateMask: mask("purpose")},
		apiv1.ClusterService_DeleteCluster_FullMethodName: &apiv1.DeleteClusterRequest{Cluster: "spare", Zone: "business"},

		apiv1.HostService_ListHosts_FullMethodName:        &apiv1.ListHostsRequest{},
		apiv1.HostService_GetHost_FullMethodName:          &apiv1.GetHostRequest{Host: "kvm-1", Zone: "business"},
		apiv1.HostService_WatchHosts_FullMethodName:       &apiv1.WatchHostsRequest{},
		apiv1.HostService_CreateHost_FullMethodName:       &apiv1.CreateHostRequest{Host: &apiv1.Host{Name: "other", Zone: "business", Cluster: "kvm", Endpoint: "sim://"}},
		apiv1.HostService_UpdateHost_FullMethodName:       &apiv1.UpdateHostRequest{Host: &apiv1.Host{Id: "kvm-1", AdminState: apiv1.Host_ENABLED}, Zone: "business", UpdateMask: mask("admin_state")},
		apiv1.HostService_DeleteHost_FullMethodName:       &apiv1.DeleteHostRequest{Host: "kvm-1", Zone: "internet"},
		apiv1.HostService_DeclareHostLost_FullMethodName:  &apiv1.DeclareHostLostRequest{Host: "kvm-1", Zone: "business", Reason: "it burnt"},
		apiv1.HostService_DeclareHostFound_FullMethodName: &apiv1.DeclareHostFoundRequest{Host: "kvm-1", Zone: "business", Reason: "it did not"},
		apiv1.HostService_TopHosts_FullMethodName:         &apiv1.TopHostsRequest{},

		apiv1.AdministratorService_ListAdministrators_FullMethodName:  &apiv1.ListAdministratorsRequest{},
		apiv1.AdministratorService_GetAdministrator_FullMethodName:    &apiv1.GetAdministratorRequest{Administrator: "lee"},
		apiv1.AdministratorService_CreateAdministrator_FullMethodName: &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: "other"}, Csr: []byte("other")},
		apiv1.AdministratorService_RenewAdministrator_FullMethodName:  &apiv1.RenewAdministratorRequest{Administrator: "lee", Csr: []byte("lee")},
		apiv1.AdministratorService_DeleteAdministrator_FullMethodName: &apiv1.DeleteAdministratorRequest{Administrator: "lee"},

		apiv1.OfferingService_ListOfferings_FullMethodName:        &apiv1.ListOfferingsRequest{},
		apiv1.OfferingService_GetOffering_FullMethodName:          &apiv1.GetOfferingRequest{Offering: "spare"},
		apiv1.OfferingService_WatchOfferings_FullMethodName:       &apiv1.WatchOfferingsRequest{},
		apiv1.OfferingService_ListOfferingVersions_FullMethodName: &apiv1.ListOfferingVersionsRequest{Offering: "spare"},
		apiv1.OfferingService_PreviewOffering_FullMethodName:      &apiv1.PreviewOfferingRequest{Offering: "spare"},
		apiv1.OfferingService_CreateOffering_FullMethodName:       &apiv1.CreateOfferingRequest{Offering: &apiv1.Offering{Name: "other", Image: "tiny", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1"}}}},
		apiv1.OfferingService_UpdateOffering_FullMethodName:       &apiv1.UpdateOfferingRequest{Offering: &apiv1.Offering{Id: "spare", Category: "x"}, UpdateMask: mask("category")},
		apiv1.OfferingService_DeleteOffering_FullMethodName:       &apiv1.DeleteOfferingRequest{Offering: "draft"},
		apiv1.OfferingService_PublishOffering_FullMethodName:      &apiv1.PublishOfferingRequest{Offering: "draft"},
		apiv1.OfferingService_RetireOffering_FullMethodName:       &apiv1.RetireOfferingRequest{Offering: "spare"},

		apiv1.CalendarService_ListCalendars_FullMethodName:  &apiv1.ListCalendarsRequest{},
		apiv1.CalendarService_GetCalendar_FullMethodName:    &apiv1.GetCalendarRequest{Calendar: "spare"},
		apiv1.CalendarService_WatchCalendars_FullMethodName: &apiv1.WatchCalendarsRequest{},
		apiv1.CalendarService_CreateCalendar_FullMethodName: &apiv1.CreateCalendarRequest{Calendar: workdays("other")},
		apiv1.CalendarService_UpdateCalendar_FullMethodName: &apiv1.UpdateCalendarRequest{Calendar: &apiv1.Calendar{Id: "spare", Title: "x"}, UpdateMask: mask("title")},
		apiv1.CalendarService_DeleteCalendar_FullMethodName: &apiv1.DeleteCalendarRequest{Calendar: "spare"},

		apiv1.QuotaService_ListQuotas_FullMethodName:  &apiv1.ListQuotasRequest{},
		apiv1.QuotaService_GetQuota_FullMethodName:    &apiv1.GetQuotaRequest{Quota: "project.web"},
		apiv1.QuotaService_WatchQuotas_FullMethodName: &apiv1.WatchQuotasRequest{},
		apiv1.QuotaService_CreateQuota_FullMethodName: &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Grade: apiv1.Zone_OPEN, Limit: &apiv1.Amounts{Vms: proto.Uint32(1)}}},
		apiv1.QuotaService_UpdateQuota_FullMethodName: &apiv1.UpdateQuotaRequest{Quota: &apiv1.Quota{Id: "project.web", Limit: &apiv1.Amounts{Vms: proto.Uint32(2)}}, UpdateMask: mask("limit")},
		apiv1.QuotaService_DeleteQuota_FullMethodName: &apiv1.DeleteQuotaRequest{Quota: "project.web"},

		apiv1.LeaseService_ListLeases_FullMethodName:   &apiv1.ListLeasesRequest{},
		apiv1.LeaseService_GetLease_FullMethodName:     &apiv1.GetLeaseRequest{Lease: "l-spare"},
		apiv1.LeaseService_WatchLeases_FullMethodName:  &apiv1.WatchLeasesRequest{},
		apiv1.LeaseService_CreateLease_FullMethodName:  &apiv1.CreateLeaseRequest{Lease: &apiv1.Lease{Vm: "web-1", Project: "web", Days: 9}},
		apiv1.LeaseService_ShortenLease_FullMethodName: &apiv1.ShortenLeaseRequest{Lease: "l-spare", Reason: "x", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))},

		apiv1.UsageService_ListUsageRecords_FullMethodName: &apiv1.ListUsageRecordsRequest{},
		apiv1.UsageService_GetUsageRecord_FullMethodName:   &apiv1.GetUsageRecordRequest{UsageRecord: usedRecord(w)},
		apiv1.UsageService_SummarizeUsage_FullMethodName:   &apiv1.SummarizeUsageRequest{By: apiv1.SummarizeUsageRequest_BY_VM},

		apiv1.NotificationChannelService_ListNotificationChannels_FullMethodName:     &apiv1.ListNotificationChannelsRequest{},
		apiv1.NotificationChannelService_GetNotificationChannel_FullMethodName:       &apiv1.GetNotificationChannelRequest{NotificationChannel: "spare"},
		apiv1.NotificationChannelService_WatchNotificationChannels_FullMethodName:    &apiv1.WatchNotificationChannelsRequest{},
		apiv1.NotificationChannelService_CreateNotificationChannel_FullMethodName:    &apiv1.CreateNotificationChannelRequest{NotificationChannel: &apiv1.NotificationChannel{Name: "other", Webhook: &apiv1.Webhook{Url: "https://example.org/"}}},
		apiv1.NotificationChannelService_UpdateNotificationChannel_FullMethodName:    &apiv1.UpdateNotificationChannelRequest{NotificationChannel: &apiv1.NotificationChannel{Id: "spare", Topics: []string{"request.*"}}, UpdateMask: mask("topics")},
		apiv1.NotificationChannelService_SetNotificationChannelSecret_FullMethodName: &apiv1.SetNotificationChannelSecretRequest{NotificationChannel: "spare", Secret: "0123456789abcdef"},
		apiv1.NotificationChannelService_TestNotificationChannel_FullMethodName:      &apiv1.TestNotificationChannelRequest{NotificationChannel: "spare"},
		apiv1.IdentityProviderService_ListIdentityProviders_FullMethodName:           &apiv1.ListIdentityProvidersRequest{},
		apiv1.IdentityProviderService_GetIdentityProvider_FullMethodName:             &apiv1.GetIdentityProviderRequest{IdentityProvider: "spare"},
		apiv1.IdentityProviderService_WatchIdentityProviders_FullMethodName:          &apiv1.WatchIdentityProvidersRequest{},
		apiv1.IdentityProviderService_CreateIdentityProvider_FullMethodName:          &apiv1.CreateIdentityProviderRequest{IdentityProvider: directory("other")},
		apiv1.IdentityProviderService_UpdateIdentityProvider_FullMethodName:          &apiv1.UpdateIdentityProviderRequest{IdentityProvider: &apiv1.IdentityProvider{Id: "spare", Title: "x"}, UpdateMask: mask("title")},
		apiv1.IdentityProviderService_SetIdentityProviderSecret_FullMethodName:       &apiv1.SetIdentityProviderSecretRequest{IdentityProvider: "spare", Secret: "x"},
		apiv1.IdentityProviderService_LinkIdentity_FullMethodName:                    &apiv1.LinkIdentityRequest{IdentityProvider: "spare", Subject: "7", User: "spare"},
		apiv1.IdentityProviderService_ListIdentities_FullMethodName:                  &apiv1.ListIdentitiesRequest{},
		apiv1.IdentityProviderService_DeleteIdentityProvider_FullMethodName:          &apiv1.DeleteIdentityProviderRequest{IdentityProvider: "spare"},

		apiv1.NotificationChannelService_DeleteNotificationChannel_FullMethodName: &apiv1.DeleteNotificationChannelRequest{NotificationChannel: "spare"},

		apiv1.DeliveryService_ListDeliveries_FullMethodName:               &apiv1.ListDeliveriesRequest{},
		apiv1.IdentityProviderService_TestIdentityProvider_FullMethodName: nil, apiv1.IdentityProviderService_UnlinkIdentity_FullMethodName: nil, // see notInMatrix
		apiv1.DeliveryService_GetDelivery_FullMethodName: nil, apiv1.DeliveryService_RetryDelivery_FullMethodName: nil, apiv1.DeliveryService_DropDelivery_FullMethodName: nil, // see notInMatrix

		apiv1.ApprovalPolicyService_ListApprovalPolicies_FullMethodName:       &apiv1.ListApprovalPoliciesRequest{},
		apiv1.ApprovalPolicyService_GetApprovalPolicy_FullMethodName:          &apiv1.GetApprovalPolicyRequest{ApprovalPolicy: "spare"},
		apiv1.ApprovalPolicyService_WatchApprovalPolicies_FullMethodName:      &apiv1.WatchApprovalPoliciesRequest{},
		apiv1.ApprovalPolicyService_ListApprovalPolicyVersions_FullMethodName: &apiv1.ListApprovalPolicyVersionsRequest{ApprovalPolicy: "spare"},
		apiv1.ApprovalPolicyService_CreateApprovalPolicy_FullMethodName:       &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: anybodyDecides("other")},
		apiv1.ApprovalPolicyService_UpdateApprovalPolicy_FullMethodName:       &apiv1.UpdateApprovalPolicyRequest{ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "spare", Description: "x"}, UpdateMask: mask("description")},
		apiv1.ApprovalPolicyService_DeleteApprovalPolicy_FullMethodName:       &apiv1.DeleteApprovalPolicyRequest{ApprovalPolicy: "spare"},
		apiv1.ApprovalPolicyService_TestApprovalPolicy_FullMethodName:         &apiv1.TestApprovalPolicyRequest{ApprovalPolicy: "spare", Case: &apiv1.PolicyCase{}},

		apiv1.FlavorService_ListFlavors_FullMethodName:  &apiv1.ListFlavorsRequest{},
		apiv1.FlavorService_GetFlavor_FullMethodName:    &apiv1.GetFlavorRequest{Flavor: "s1"},
		apiv1.FlavorService_WatchFlavors_FullMethodName: &apiv1.WatchFlavorsRequest{},
		apiv1.FlavorService_CreateFlavor_FullMethodName: &apiv1.CreateFlavorRequest{Flavor: &apiv1.Flavor{Name: "other", Cores: 1, MemoryMib: 64, DiskGib: 1}},
		apiv1.FlavorService_UpdateFlavor_FullMethodName: &apiv1.UpdateFlavorRequest{Flavor: &apiv1.Flavor{Id: "s1", Description: "x"}, UpdateMask: mask("description")},
		apiv1.FlavorService_DeleteFlavor_FullMethodName: &apiv1.DeleteFlavorRequest{Flavor: "huge"},

		apiv1.ImageService_ListImages_FullMethodName:  &apiv1.ListImagesRequest{},
		apiv1.ImageService_GetImage_FullMethodName:    &apiv1.GetImageRequest{Image: "tiny"},
		apiv1.ImageService_WatchImages_FullMethodName: &apiv1.WatchImagesRequest{},
		apiv1.ImageService_CreateImage_FullMethodName: &apiv1.CreateImageRequest{Image: &apiv1.Image{Name: "other", Sha256: strings.Repeat("0", 64)}},
		apiv1.ImageService_UpdateImage_FullMethodName: &apiv1.UpdateImageRequest{Image: &apiv1.Image{Id: "tiny", Os: "x"}, UpdateMask: mask("os")},
		apiv1.ImageService_DeleteImage_FullMethodName: &apiv1.DeleteImageRequest{Image: "spare"},

		apiv1.ProjectService_ListProjects_FullMethodName:  &apiv1.ListProjectsRequest{},
		apiv1.ProjectService_GetProject_FullMethodName:    &apiv1.GetProjectRequest{Project: "web"},
		apiv1.ProjectService_WatchProjects_FullMethodName: &apiv1.WatchProjectsRequest{},
		apiv1.ProjectService_CreateProject_FullMethodName: &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "other"}},
		apiv1.ProjectService_UpdateProject_FullMethodName: &apiv1.UpdateProjectRequest{Project: &apiv1.Project{Id: "web", Description: "x"}, UpdateMask: mask("description")},
		apiv1.ProjectService_DeleteProject_FullMethodName: &apiv1.DeleteProjectRequest{Project: "spare"},

		apiv1.BrokerService_ListBrokers_FullMethodName:  &apiv1.ListBrokersRequest{},
		apiv1.BrokerService_GetBroker_FullMethodName:    &apiv1.GetBrokerRequest{Broker: "spare"},
		apiv1.BrokerService_WatchBrokers_FullMethodName: &apiv1.WatchBrokersRequest{},
		apiv1.BrokerService_CreateBroker_FullMethodName: &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{Name: "other", HubAddress: "h:1", Fingerprint: "SHA256:" + strings.Repeat("b", 43)}},
		apiv1.BrokerService_UpdateBroker_FullMethodName: &apiv1.UpdateBrokerRequest{Broker: &apiv1.Broker{Id: "spare", Description: "x"}, UpdateMask: mask("description")},
		apiv1.BrokerService_DeleteBroker_FullMethodName: &apiv1.DeleteBrokerRequest{Broker: "spare"},

		apiv1.VMService_ListVMs_FullMethodName:  &apiv1.ListVMsRequest{},
		apiv1.VMService_GetVM_FullMethodName:    &apiv1.GetVMRequest{Vm: "web-1"},
		apiv1.VMService_WatchVMs_FullMethodName: &apiv1.WatchVMsRequest{},
		apiv1.VMService_CreateVM_FullMethodName: &apiv1.CreateVMRequest{Vm: w.VM("web-2", "web")},
		apiv1.VMService_StartVM_FullMethodName:  &apiv1.StartVMRequest{Vm: "web-1"},
		apiv1.VMService_StopVM_FullMethodName:   &apiv1.StopVMRequest{Vm: "web-1"},
		apiv1.VMService_RebootVM_FullMethodName: &apiv1.RebootVMRequest{Vm: "web-1"},
		apiv1.VMService_UpdateVM_FullMethodName: &apiv1.UpdateVMRequest{Vm: &apiv1.VM{Id: "web-1", Description: "the shop"}, UpdateMask: mask("description")},
		apiv1.VMService_DeleteVM_FullMethodName: &apiv1.DeleteVMRequest{Vm: "web-1"},
		apiv1.VMService_TopVMs_FullMethodName:   &apiv1.TopVMsRequest{},

		apiv1.VMService_ResizeVM_FullMethodName:  &apiv1.ResizeVMRequest{Vm: "web-1", Flavor: "s1"},
		apiv1.VMService_TrashVM_FullMethodName:   &apiv1.TrashVMRequest{Vm: "web-1"},
		apiv1.VMService_UntrashVM_FullMethodName: &apiv1.UntrashVMRequest{Vm: "web-trashed"},

		apiv1.SnapshotService_ListSnapshots_FullMethodName:   &apiv1.ListSnapshotsRequest{},
		apiv1.SnapshotService_GetSnapshot_FullMethodName:     &apiv1.GetSnapshotRequest{Snapshot: "before"},
		apiv1.SnapshotService_CreateSnapshot_FullMethodName:  &apiv1.CreateSnapshotRequest{Snapshot: &apiv1.Snapshot{Name: "other", Vm: "web-1"}, MayStop: true},
		apiv1.SnapshotService_DeleteSnapshot_FullMethodName:  &apiv1.DeleteSnapshotRequest{Snapshot: "before"},
		apiv1.SnapshotService_RestoreSnapshot_FullMethodName: &apiv1.RestoreSnapshotRequest{Snapshot: "before", MayStop: true},

		apiv1.OperationService_ListOperations_FullMethodName:   &apiv1.ListOperationsRequest{},
		apiv1.OperationService_GetOperation_FullMethodName:     &apiv1.GetOperationRequest{Operation: operation},
		apiv1.OperationService_WatchOperations_FullMethodName:  &apiv1.WatchOperationsRequest{},
		apiv1.OperationService_ResolveOperation_FullMethodName: &apiv1.ResolveOperationRequest{Operation: operation, Outcome: apiv1.ResolveOperationRequest_FAIL, Reason: "test"},

		apiv1.AuditService_ListAuditEntries_FullMethodName:   &apiv1.ListAuditEntriesRequest{},
		apiv1.AuditService_ListAuditLogs_FullMethodName:      &apiv1.ListAuditLogsRequest{},
		apiv1.AuditService_GetAuditCheckpoint_FullMethodName: nil, // needs one that was signed; see notInMatrix

		apiv1.OrganizationService_ListOrganizations_FullMethodName:  &apiv1.ListOrganizationsRequest{},
		apiv1.OrganizationService_GetOrganization_FullMethodName:    &apiv1.GetOrganizationRequest{Organization: "default"},
		apiv1.OrganizationService_WatchOrganizations_FullMethodName: &apiv1.WatchOrganizationsRequest{},
		apiv1.OrganizationService_CreateOrganization_FullMethodName: &apiv1.CreateOrganizationRequest{Organization: &apiv1.Organization{Name: "other"}},
		apiv1.OrganizationService_UpdateOrganization_FullMethodName: &apiv1.UpdateOrganizationRequest{Organization: &apiv1.Organization{Id: "default", Title: "x"}, UpdateMask: mask("title")},
		apiv1.OrganizationService_DeleteOrganization_FullMethodName: &apiv1.DeleteOrganizationRequest{Organization: "spare"},

		apiv1.UserService_ListUsers_FullMethodName:           &apiv1.ListUsersRequest{},
		apiv1.UserService_GetUser_FullMethodName:             &apiv1.GetUserRequest{User: "spare"},
		apiv1.UserService_WatchUsers_FullMethodName:          &apiv1.WatchUsersRequest{},
		apiv1.UserService_CreateUser_FullMethodName:          &apiv1.CreateUserRequest{User: &apiv1.User{Name: "other"}},
		apiv1.UserService_UpdateUser_FullMethodName:          &apiv1.UpdateUserRequest{User: &apiv1.User{Id: "spare", Title: "x"}, UpdateMask: mask("title")},
		apiv1.UserService_DeleteUser_FullMethodName:          &apiv1.DeleteUserRequest{User: "spare"},
		apiv1.UserService_DisableUser_FullMethodName:         &apiv1.DisableUserRequest{User: "spare", Reason: "test"},
		apiv1.UserService_EnableUser_FullMethodName:          nil, // needs a disabled one; see notInMatrix
		apiv1.UserService_ResetPassword_FullMethodName:       &apiv1.ResetPasswordRequest{User: "spare", ReplyKey: bytes.Repeat([]byte{9}, 32)},
		apiv1.UserService_RemoveAuthenticator_FullMethodName: nil, // needs one who has one; see notInMatrix

		apiv1.GroupService_ListGroups_FullMethodName:        &apiv1.ListGroupsRequest{},
		apiv1.GroupService_GetGroup_FullMethodName:          &apiv1.GetGroupRequest{Group: "spare"},
		apiv1.GroupService_WatchGroups_FullMethodName:       &apiv1.WatchGroupsRequest{},
		apiv1.GroupService_CreateGroup_FullMethodName:       &apiv1.CreateGroupRequest{Group: &apiv1.Group{Name: "other"}},
		apiv1.GroupService_UpdateGroup_FullMethodName:       &apiv1.UpdateGroupRequest{Group: &apiv1.Group{Id: "spare", Title: "x"}, UpdateMask: mask("title")},
		apiv1.GroupService_DeleteGroup_FullMethodName:       &apiv1.DeleteGroupRequest{Group: "spare"},
		apiv1.GroupService_ListGroupMembers_FullMethodName:  &apiv1.ListGroupMembersRequest{Group: "spare"},
		apiv1.GroupService_AddGroupMember_FullMethodName:    &apiv1.AddGroupMemberRequest{Group: "spare", User: "spare"},
		apiv1.GroupService_RemoveGroupMember_FullMethodName: nil, // needs a member; see notInMatrix

		apiv1.SessionService_ListSessions_FullMethodName:   &apiv1.ListSessionsRequest{},
		apiv1.SessionService_DeleteSession_FullMethodName:  nil, // needs one; see notInMatrix
		apiv1.SessionService_RevokeSessions_FullMethodName: &apiv1.RevokeSessionsRequest{User: "spare"},
		apiv1.AuditService_ExportAudit_FullMethodName:      nil,

		apiv1.RequestService_ListRequests_FullMethodName:    &apiv1.ListRequestsRequest{},
		apiv1.RequestService_WatchRequests_FullMethodName:   &apiv1.WatchRequestsRequest{},
		apiv1.RequestService_GetRequest_FullMethodName:      &apiv1.GetRequestRequest{Request: "asked"},
		apiv1.RequestService_ListComments_FullMethodName:    &apiv1.ListCommentsRequest{Request: "asked"},
		apiv1.RequestService_GetAttachment_FullMethodName:   &apiv1.GetAttachmentRequest{Request: "asked", Comment: "plan"},
		apiv1.CrossingService_ListCrossings_FullMethodName:  &apiv1.ListCrossingsRequest{},
		apiv1.CrossingService_WatchCrossings_FullMethodName: &apiv1.WatchCrossingsRequest{},
		apiv1.CrossingService_GetCrossing_FullMethodName:    &apiv1.GetCrossingRequest{Crossing: "cr-spare"},
		apiv1.CrossingService_CreateCrossing_FullMethodName: &apiv1.CreateCrossingRequest{Crossing: &apiv1.Crossing{
			Project: "web", SourceZone: "internet", Zone: "business", Permissions: []string{"vm.start"}, EndsAt: timestamppb.New(time.Now().AddDate(0, 0, 1))}},
		apiv1.CrossingService_ShortenCrossing_FullMethodName: &apiv1.ShortenCrossingRequest{Crossing: "cr-spare", Reason: "x", EndsAt: timestamppb.New(time.Now().Add(time.Hour))},
		apiv1.CrossingService_DeleteCrossing_FullMethodName:  &apiv1.DeleteCrossingRequest{Crossing: "cr-spare"},

		apiv1.DelegationService_ListDelegations_FullMethodName:  &apiv1.ListDelegationsRequest{},
		apiv1.DelegationService_WatchDelegations_FullMethodName: &apiv1.WatchDelegationsRequest{},
		apiv1.DelegationService_GetDelegation_FullMethodName:    &apiv1.GetDelegationRequest{Delegation: "d-spare"},
		apiv1.DelegationService_DeleteDelegation_FullMethodName: &apiv1.DeleteDelegationRequest{Delegation: "d-spare"},

		apiv1.EventService_ListEvents_FullMethodName:  &apiv1.ListEventsRequest{},
		apiv1.EventService_WatchEvents_FullMethodName: &apiv1.WatchEventsRequest{},

		apiv1.ServerService_ListServers_FullMethodName:       &apiv1.ListServersRequest{},
		apiv1.ServerService_GetServer_FullMethodName:         &apiv1.GetServerRequest{Server: "controlplane-1"},
		apiv1.ServerService_DeleteServer_FullMethodName:      nil, // the last server stays
		apiv1.ServerService_CreateServerToken_FullMethodName: &apiv1.CreateServerTokenRequest{},
		apiv1.ServerService_BackUp_FullMethodName:            &apiv1.BackUpRequest{},
		apiv1.ServerService_ConfirmBackUp_FullMethodName:     &apiv1.ConfirmBackUpRequest{Backup: "newest"},

		apiv1.AccessTokenService_ListAccessTokens_FullMethodName: &apiv1.ListAccessTokensRequest{},
		apiv1.AccessTokenService_GetAccessToken_FullMethodName:   &apiv1.GetAccessTokenRequest{AccessToken: "spare"},
		apiv1.AccessTokenService_CreateAccessToken_FullMethodName: &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
			Name: "other", Project: "web", ExpiresAt: timestamppb.New(timestamppb.Now().AsTime().AddDate(0, 0, 1)),
		}},
		apiv1.AccessTokenService_DeleteAccessToken_FullMethodName: &apiv1.DeleteAccessTokenRequest{AccessToken: "spare"},
		apiv1.AccessTokenService_WhoAmI_FullMethodName:            &apiv1.WhoAmIRequest{},

		apiv1.RoleService_ListRoles_FullMethodName:     &apiv1.ListRolesRequest{},
		apiv1.RoleService_GetRole_FullMethodName:       &apiv1.GetRoleRequest{Role: "spare"},
		apiv1.RoleService_WatchRoles_FullMethodName:    &apiv1.WatchRolesRequest{},
		apiv1.RoleService_CreateRole_FullMethodName:    &apiv1.CreateRoleRequest{Role: &apiv1.Role{Name: "other", Permissions: []string{"vm.read"}}},
		apiv1.RoleService_UpdateRole_FullMethodName:    &apiv1.UpdateRoleRequest{Role: &apiv1.Role{Id: "spare", Title: "x"}, UpdateMask: mask("title")},
		apiv1.RoleService_DeleteRole_FullMethodName:    &apiv1.DeleteRoleRequest{Role: "unbound"},
		apiv1.RoleService_ExplainAccess_FullMethodName: &apiv1.ExplainAccessRequest{Method: "VMService/StartVM", What: "federation"},

		apiv1.RoleBindingService_ListRoleBindings_FullMethodName:  &apiv1.ListRoleBindingsRequest{},
		apiv1.RoleBindingService_GetRoleBinding_FullMethodName:    &apiv1.GetRoleBindingRequest{RoleBinding: "b-spare"},
		apiv1.RoleBindingService_WatchRoleBindings_FullMethodName: &apiv1.WatchRoleBindingsRequest{},
		apiv1.RoleBindingService_CreateRoleBinding_FullMethodName: &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
			Role: "spare", User: "choi", Scope: apiv1.RoleBinding_PROJECT, Place: "web"}},
		apiv1.RoleBindingService_ShortenRoleBinding_FullMethodName: &apiv1.ShortenRoleBindingRequest{RoleBinding: "b-spare", Reason: "x", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))},
		apiv1.RoleBindingService_DeleteRoleBinding_FullMethodName:  &apiv1.DeleteRoleBindingRequest{RoleBinding: "b-spare"},
	}
}

// notInMatrix are requests that no site makes succeed for an administrator; what refuses them is not who calls.
var notInMatrix = map[string]proto.Message{
	apiv1.UserService_EnableUser_FullMethodName:          &apiv1.EnableUserRequest{User: "spare", Reason: "test"},
	apiv1.UserService_RemoveAuthenticator_FullMethodName: &apiv1.RemoveAuthenticatorRequest{User: "spare"},
	apiv1.GroupService_RemoveGroupMember_FullMethodName:  &apiv1.RemoveGroupMemberRequest{Group: "spare", User: "spare"},
	apiv1.SessionService_DeleteSession_FullMethodName:    &apiv1.DeleteSessionRequest{Session: "nobodys"},
	apiv1.AuditService_GetAuditCheckpoint_FullMethodName: &apiv1.GetAuditCheckpointRequest{},
	apiv1.AuditService_ExportAudit_FullMethodName:        &apiv1.ExportAuditRequest{},

	apiv1.IdentityProviderService_TestIdentityProvider_FullMethodName: &apiv1.TestIdentityProviderRequest{IdentityProvider: "spare"},
	apiv1.IdentityProviderService_UnlinkIdentity_FullMethodName:       &apiv1.UnlinkIdentityRequest{Identity: "nobodys"},

	apiv1.DeliveryService_GetDelivery_FullMethodName:   &apiv1.GetDeliveryRequest{Delivery: "nobodys"},
	apiv1.DeliveryService_RetryDelivery_FullMethodName: &apiv1.RetryDeliveryRequest{Delivery: "nobodys"},
	apiv1.DeliveryService_DropDelivery_FullMethodName:  &apiv1.DropDeliveryRequest{Delivery: "nobodys"},

	apiv1.ZoneService_AcceptAgent_FullMethodName:    &apiv1.AcceptAgentRequest{Zone: "business", Agent: "a", Fingerprint: "SHA256:x"},
	apiv1.ServerService_DeleteServer_FullMethodName: &apiv1.DeleteServerRequest{Server: "controlplane-1"},
	apiv1.ZoneService_LiftQuarantine_FullMethodName: &apiv1.LiftQuarantineRequest{Zone: "business", Reason: "test"},
}

// ofUsers are requests that only users make: administrators by certificate and access tokens are refused, whatever they may do
// else.
var ofUsers = map[string]proto.Message{
	apiv1.RequestService_CreateRequest_FullMethodName:     &apiv1.CreateRequestRequest{Request: stopWeb()},
	apiv1.RequestService_UpdateRequest_FullMethodName:     &apiv1.UpdateRequestRequest{Request: &apiv1.Request{Id: "asked", Title: "x"}, UpdateMask: mask("title")},
	apiv1.RequestService_DeleteRequest_FullMethodName:     &apiv1.DeleteRequestRequest{Request: "asked"},
	apiv1.RequestService_SubmitRequest_FullMethodName:     &apiv1.SubmitRequestRequest{Request: "asked"},
	apiv1.RequestService_WithdrawRequest_FullMethodName:   &apiv1.WithdrawRequestRequest{Request: "asked"},
	apiv1.RequestService_DecideRequest_FullMethodName:     &apiv1.DecideRequestRequest{Request: "asked", Verdict: apiv1.Decision_APPROVE, SeenHash: make([]byte, 32)},
	apiv1.RequestService_CommentRequest_FullMethodName:    &apiv1.CommentRequestRequest{Request: "asked", Text: "x"},
	apiv1.RequestService_AttachToRequest_FullMethodName:   &apiv1.AttachToRequestRequest{Request: "asked", File: "x", Content: []byte("x")},
	apiv1.RequestService_DetachFromRequest_FullMethodName: &apiv1.DetachFromRequestRequest{Request: "asked", File: "plan.txt"},
	apiv1.RequestService_CopyRequest_FullMethodName:       &apiv1.CopyRequestRequest{Request: "asked"},
	apiv1.RequestService_RetryRequest_FullMethodName:      &apiv1.RetryRequestRequest{Request: "asked"},
	apiv1.RequestService_PreviewRequest_FullMethodName:    &apiv1.PreviewRequestRequest{Request: stopWeb()},
	apiv1.RequestService_ListApprovals_FullMethodName:     &apiv1.ListApprovalsRequest{},

	apiv1.NotificationService_ListNotifications_FullMethodName:  &apiv1.ListNotificationsRequest{},
	apiv1.NotificationService_WatchNotifications_FullMethodName: &apiv1.WatchNotificationsRequest{},
	apiv1.NotificationService_ReadNotifications_FullMethodName:  &apiv1.ReadNotificationsRequest{UpTo: "x"},
	apiv1.NotificationService_MuteNotifications_FullMethodName:  &apiv1.MuteNotificationsRequest{},
	apiv1.DelegationService_CreateDelegation_FullMethodName:     &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{ToUser: "choi", EndsAt: timestamppb.New(time.Now().AddDate(0, 0, 1))}},
}

func stopWeb() *apiv1.Request {
	return &apiv1.Request{Project: "web", Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{
		Power: &apiv1.PowerVM{Vm: "web-1", Verb: apiv1.PowerVM_STOP}}}}
}

func directory(name string) *apiv1.IdentityProvider {
	return &apiv1.IdentityProvider{Name: name, Ldap: &apiv1.Directory{Urls: []string{"ldaps://127.0.0.1:1"}, UserBase: "dc=example"}}
}

func workdays(name string) *apiv1.Calendar {
	return &apiv1.Calendar{Name: name, TimeZone: "Asia/Seoul", Hours: []*apiv1.Hours{{Weekday: 1, From: "09:00", To: "18:00"}}}
}

func anybodyDecides(name string) *apiv1.ApprovalPolicy {
	return &apiv1.ApprovalPolicy{Name: name, Stages: []*apiv1.StageTemplate{{Name: "a", Rule: apiv1.StageTemplate_ANY, Eligible: &apiv1.Eligibility{Condition: "true"}}}}
}

// inSessions are the methods by which somebody logs in, or that are for who has; login_test.go calls them.
var inSessions = map[string]bool{
	apiv1.SessionService_GetLoginOptions_FullMethodName: true, apiv1.SessionService_LogIn_FullMethodName: true,
	apiv1.SessionService_BeginProviderLogin_FullMethodName: true, apiv1.SessionService_FinishProviderLogin_FullMethodName: true,
	apiv1.SessionService_BeginLocalLogin_FullMethodName: true, apiv1.SessionService_LogInLocally_FullMethodName: true,
	apiv1.SessionService_LogOut_FullMethodName: true, apiv1.SessionService_StepUp_FullMethodName: true,
	apiv1.UserService_ChangePassword_FullMethodName: true, apiv1.UserService_EnrollAuthenticator_FullMethodName: true,
	apiv1.UserService_ConfirmAuthenticator_FullMethodName: true,
}

// theirOwn are the methods that a user may call on what is their own; a token of another project finds nothing there.
var theirOwn = map[string]bool{
	apiv1.UserService_GetUser_FullMethodName: true, apiv1.UserService_RemoveAuthenticator_FullMethodName: true,
	apiv1.SessionService_DeleteSession_FullMethodName: true,
	apiv1.RequestService_GetRequest_FullMethodName:    true, apiv1.RequestService_ListComments_FullMethodName: true, apiv1.RequestService_GetAttachment_FullMethodName: true,
	apiv1.DelegationService_GetDelegation_FullMethodName: true, apiv1.DelegationService_DeleteDelegation_FullMethodName: true,
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
