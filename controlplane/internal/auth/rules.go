package auth

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// rule says who may call a method.
type rule int

const (
	// nobody is the default.
	nobody rule = iota
	// admin: administrators of the federation.
	admin
	// project: administrators, and tokens within their project.
	project
	// anyone: whoever is known; what it shows belongs to no project.
	anyone
)

// String names the rule.
func (r rule) String() string { return [...]string{"nobody", "admin", "project", "anyone"}[r] }

// RuleOf says who may call a method: nobody, admin, project or anyone. Tests make their matrix of it.
func RuleOf(method string) string { return rules[method].String() }

// rules is the whole of what may be called by whom. A test holds that every method of the API has its row.
var rules = map[string]rule{
	apiv1.ZoneService_ListZones_FullMethodName:        anyone,
	apiv1.ZoneService_GetZone_FullMethodName:          anyone,
	apiv1.ZoneService_WatchZones_FullMethodName:       anyone,
	apiv1.ZoneService_CreateZone_FullMethodName:       admin,
	apiv1.ZoneService_UpdateZone_FullMethodName:       admin,
	apiv1.ZoneService_DeleteZone_FullMethodName:       admin,
	apiv1.ZoneService_CreateJoinToken_FullMethodName:  admin,
	apiv1.ZoneService_ListJoinRequests_FullMethodName: admin,
	apiv1.ZoneService_AcceptAgent_FullMethodName:      admin,
	apiv1.ZoneService_QuarantineZone_FullMethodName:   admin,
	apiv1.ZoneService_LiftQuarantine_FullMethodName:   admin,
	apiv1.ZoneService_RevokeZone_FullMethodName:       admin,

	apiv1.ClusterService_ListClusters_FullMethodName:  anyone,
	apiv1.ClusterService_GetCluster_FullMethodName:    anyone,
	apiv1.ClusterService_WatchClusters_FullMethodName: anyone,
	apiv1.ClusterService_CreateCluster_FullMethodName: admin,
	apiv1.ClusterService_UpdateCluster_FullMethodName: admin,
	apiv1.ClusterService_DeleteCluster_FullMethodName: admin,

	// What a host is and how full it is says something of every project on it.
	apiv1.HostService_ListHosts_FullMethodName:        admin,
	apiv1.HostService_GetHost_FullMethodName:          admin,
	apiv1.HostService_WatchHosts_FullMethodName:       admin,
	apiv1.HostService_CreateHost_FullMethodName:       admin,
	apiv1.HostService_UpdateHost_FullMethodName:       admin,
	apiv1.HostService_DeleteHost_FullMethodName:       admin,
	apiv1.HostService_DeclareHostLost_FullMethodName:  admin,
	apiv1.HostService_DeclareHostFound_FullMethodName: admin,
	apiv1.HostService_TopHosts_FullMethodName:         admin,

	apiv1.FlavorService_ListFlavors_FullMethodName:  anyone,
	apiv1.FlavorService_GetFlavor_FullMethodName:    anyone,
	apiv1.FlavorService_WatchFlavors_FullMethodName: anyone,
	apiv1.FlavorService_CreateFlavor_FullMethodName: admin,
	apiv1.FlavorService_UpdateFlavor_FullMethodName: admin,
	apiv1.FlavorService_DeleteFlavor_FullMethodName: admin,

	apiv1.ImageService_ListImages_FullMethodName:  anyone,
	apiv1.ImageService_GetImage_FullMethodName:    anyone,
	apiv1.ImageService_WatchImages_FullMethodName: anyone,
	apiv1.ImageService_CreateImage_FullMethodName: admin,
	apiv1.ImageService_UpdateImage_FullMethodName: admin,
	apiv1.ImageService_DeleteImage_FullMethodName: admin,

	apiv1.ProjectService_ListProjects_FullMethodName:  project,
	apiv1.ProjectService_GetProject_FullMethodName:    project,
	apiv1.ProjectService_WatchProjects_FullMethodName: project,
	apiv1.ProjectService_CreateProject_FullMethodName: admin,
	apiv1.ProjectService_UpdateProject_FullMethodName: admin,
	apiv1.ProjectService_DeleteProject_FullMethodName: admin,

	apiv1.BrokerService_ListBrokers_FullMethodName:  admin,
	apiv1.BrokerService_GetBroker_FullMethodName:    admin,
	apiv1.BrokerService_WatchBrokers_FullMethodName: admin,
	apiv1.BrokerService_CreateBroker_FullMethodName: admin,
	apiv1.BrokerService_UpdateBroker_FullMethodName: admin,
	apiv1.BrokerService_DeleteBroker_FullMethodName: admin,

	apiv1.VMService_ListVMs_FullMethodName:  project,
	apiv1.VMService_GetVM_FullMethodName:    project,
	apiv1.VMService_WatchVMs_FullMethodName: project,
	apiv1.VMService_CreateVM_FullMethodName: project,
	apiv1.VMService_UpdateVM_FullMethodName: project,
	apiv1.VMService_DeleteVM_FullMethodName: project,
	apiv1.VMService_StartVM_FullMethodName:  project,
	apiv1.VMService_StopVM_FullMethodName:   project,
	apiv1.VMService_RebootVM_FullMethodName: project,
	apiv1.VMService_TopVMs_FullMethodName:   project,

	apiv1.OperationService_ListOperations_FullMethodName:   project,
	apiv1.OperationService_GetOperation_FullMethodName:     project,
	apiv1.OperationService_WatchOperations_FullMethodName:  project,
	apiv1.OperationService_ResolveOperation_FullMethodName: admin,

	apiv1.EventService_ListEvents_FullMethodName:  project,
	apiv1.EventService_WatchEvents_FullMethodName: project,

	apiv1.ServerService_ListServers_FullMethodName:       admin,
	apiv1.ServerService_GetServer_FullMethodName:         admin,
	apiv1.ServerService_DeleteServer_FullMethodName:      admin,
	apiv1.ServerService_CreateServerToken_FullMethodName: admin,
	apiv1.ServerService_BackUp_FullMethodName:            admin,
	apiv1.ServerService_ConfirmBackUp_FullMethodName:     admin,

	apiv1.AdministratorService_ListAdministrators_FullMethodName:  admin,
	apiv1.AdministratorService_GetAdministrator_FullMethodName:    admin,
	apiv1.AdministratorService_CreateAdministrator_FullMethodName: admin,
	apiv1.AdministratorService_RenewAdministrator_FullMethodName:  admin,
	apiv1.AdministratorService_DeleteAdministrator_FullMethodName: admin,

	apiv1.AccessTokenService_ListAccessTokens_FullMethodName:  admin,
	apiv1.AccessTokenService_GetAccessToken_FullMethodName:    admin,
	apiv1.AccessTokenService_CreateAccessToken_FullMethodName: admin,
	apiv1.AccessTokenService_DeleteAccessToken_FullMethodName: admin,
	apiv1.AccessTokenService_WhoAmI_FullMethodName:            anyone,
}
