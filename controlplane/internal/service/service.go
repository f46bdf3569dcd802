// Package service is what the control plane can be asked to do: the use cases behind the API, one file a noun.
//
// A read looks at a snapshot of this server's state, after making sure that it holds everything that was acknowledged
// before. A write decides on such a snapshot: it resolves names to ids, checks, makes ids, and proposes a typed command
// with the versions it read; the state machine checks again what must never be wrong. Where a version has moved on
// meanwhile, it decides again.
//
// The methods have the signatures of the gRPC services, and nothing else of gRPC: who calls, and what a request says
// besides its message, is in a Call that the API puts into the context. Errors are problems.
package service

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/naru-project/naru/controlplane/internal/credential"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/door"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Proposer is all that is known here of consensus.
type Proposer interface {
	// Propose has a command carried out once, and returns when this server's state holds its effect.
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
	// ReadIndex returns when this server's state holds everything that was acknowledged before the call.
	ReadIndex(context.Context) error
}

// Servers is what is known of the servers besides the state.
type Servers interface {
	// Servers returns each server that takes part as it is seen now: id, role, voter, healthy, applied_index, version,
	// sessions.
	Servers(context.Context) ([]*apiv1.Server, error)
	// RemoveServer takes a server out of the quorum, where it is in it, and then has a command carried out.
	RemoveServer(ctx context.Context, id string, then *commandv1.Command) (*commandv1.Result, error)
	// Brokers returns what is seen of brokers now: of each as many as there are servers that answer, with its id, a connection
	// whose zones are ids, and what the broker said of itself.
	Brokers(context.Context) ([]*apiv1.Broker, error)
	// BackUp writes a backup.
	BackUp(context.Context, io.Writer) error
}

// Samples is the newest of what zones relayed, over all servers: several of one host or VM where its zone was at several. Of a
// zone whose session at a server has ended, what that server has is STALE.
type Samples interface {
	Hosts(context.Context) ([]*apiv1.HostSample, error)
	VMs(context.Context) ([]*apiv1.VMSample, error)
}

// Chooser looks at the zones' hosts as they were last observed.
type Chooser interface {
	// Choose returns the id of the cluster in which the VM should be placed: its own where it names one. It returns a
	// problem NO_HOST_FITS that explains itself where no host can take the VM; that rests on everything up to the revision
	// after.
	Choose(ctx context.Context, vm *apiv1.VM, after uint64) (clusterID string, err error)
	// ChooseAll is Choose of several VMs that are to be there together.
	ChooseAll(ctx context.Context, vms []*apiv1.VM, after uint64) (clusterIDs []string, err error)
	// Resize returns a problem NO_HOST_FITS where the host of a VM has no room for its size, as that is in vm.
	Resize(ctx context.Context, vm *apiv1.VM, after uint64) error
	// Free is what the hosts of a cluster that take VMs have free together.
	Free(clusterID string) *apiv1.Resources
	// Picture returns the number of what it looks at, which holds everything up to the revision after: one number, the same answers.
	Picture(ctx context.Context, after uint64) (number uint64, err error)
}

// JoinTokens makes tokens with which agents and servers ask to join.
type JoinTokens interface {
	// NewJoinToken returns what is kept of a new token, its secret sealed, and the text that is shown once. role is zone or
	// server; zoneID is empty for a server's.
	NewJoinToken(role, zoneID string, expires time.Time) (record *commandv1.JoinToken, text string, err error)
}

// Certificates issues certificates to administrators.
type Certificates interface {
	// KeyOfRequest returns the fingerprint of the key that a certificate request (PKCS #10, DER) proves.
	KeyOfRequest(csr []byte) (fingerprint string, err error)
	// IssueAdministrator issues a certificate for that key, good until a time: DER, leaf first, root last.
	IssueAdministrator(ctx context.Context, name string, csr []byte, until time.Time) (chain [][]byte, err error)
}

// Config is what a service is made of. Every field must be set.
type Config struct {
	Reader       Reader
	Proposer     Proposer
	Servers      Servers
	Samples      Samples
	Chooser      Chooser
	JoinTokens   JoinTokens
	Certificates Certificates
	Secrets      Secrets
	Outbound     Outbound
	Providers    Providers
	// Now is the time by which is reckoned what time ends: that of the commands which this server would stamp.
	Now func() time.Time
}

// Service is all use cases. Run has to be running for watches to go on.
type Service struct {
	Config

	offerings        noun[*apiv1.Offering]
	calendars        noun[*apiv1.Calendar]
	approvalPolicies noun[*apiv1.ApprovalPolicy]

	zones          noun[*apiv1.Zone]
	clusters       noun[*apiv1.Cluster]
	hosts          noun[*apiv1.Host]
	flavors        noun[*apiv1.Flavor]
	images         noun[*apiv1.Image]
	projects       noun[*apiv1.Project]
	brokers        noun[*apiv1.Broker]
	vms            noun[*apiv1.VM]
	operations     noun[*apiv1.Operation]
	events         noun[*apiv1.Event]
	servers        noun[*apiv1.Server]
	accessTokens   noun[*apiv1.AccessToken]
	administrators noun[*apiv1.Administrator]
	organizations  noun[*apiv1.Organization]
	users          noun[*apiv1.User]
	groups         noun[*apiv1.Group]
	sessions       noun[*apiv1.Session]
	roles          noun[*apiv1.Role]
	roleBindings   noun[*apiv1.RoleBinding]
	requests       noun[*apiv1.Request]
	delegations    noun[*apiv1.Delegation]
	crossings      noun[*apiv1.Crossing]

	quotas noun[*apiv1.Quota]
	leases noun[*apiv1.Lease]

	notifications        noun[*apiv1.Notification]
	notificationChannels noun[*apiv1.NotificationChannel]
	deliveries           noun[*apiv1.Delivery]

	identityProviders noun[*apiv1.IdentityProvider]
	identities        noun[*apiv1.Identity]

	refusals refusals
	rooms    rooms
	reads    reads

	feeds []func(context.Context) // of all nouns that can be watched

	passwords *credential.Passwords
	doors     *door.Doors

	snapshots    noun[*apiv1.Snapshot]
	usageRecords noun[*apiv1.UsageRecord]

	tokens *cache[apiv1.AccessToken]   // by id
	people *cache[apiv1.Administrator] // by name
	stays  *cache[apiv1.Session]       // by id
	// zoneBooks keeps one, rights those of who asked, by who asks and where.
	zoneBooks *cache[zoneBook]
	rights    *cache[rights.Rights]
	// changed tells watches that rights may have changed.
	changed *changes
}

// New returns a service.
func New(c Config) *Service {
	s := &Service{Config: c, passwords: credential.NewPasswords(time.Now, rand.Reader), doors: door.New(time.Now, rand.Reader), stays: newCache[apiv1.Session](c.Reader, "sessions"),
		tokens: newCache[apiv1.AccessToken](c.Reader, "access_tokens"), people: newCache[apiv1.Administrator](c.Reader, "administrators", "users"),
		zoneBooks: newCache[zoneBook](c.Reader, "zones"), rights: newCache[rights.Rights](c.Reader, rightsTopics...), changed: newChanges()}
	s.zones = noun[*apiv1.Zone]{Service: s, kind: "zone", topic: "zones", zone: "name", table: func(tx *state.Tx) state.Table[*apiv1.Zone] { return tx.Zones }}.watched(zoneChange)
	s.offerings = noun[*apiv1.Offering]{Service: s, kind: "offering", topic: "offerings", table: func(tx *state.Tx) state.Table[*apiv1.Offering] { return tx.Offerings }}.watched(offeringChange)
	s.calendars = noun[*apiv1.Calendar]{Service: s, kind: "calendar", topic: "calendars", table: func(tx *state.Tx) state.Table[*apiv1.Calendar] { return tx.Calendars }}.watched(calendarChange)
	s.approvalPolicies = noun[*apiv1.ApprovalPolicy]{Service: s, kind: "approval-policy", topic: "approval_policies",
		table: func(tx *state.Tx) state.Table[*apiv1.ApprovalPolicy] { return tx.ApprovalPolicies }}.watched(approvalPolicyChange)
	s.clusters = noun[*apiv1.Cluster]{Service: s, kind: "cluster", topic: "clusters", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Cluster] { return tx.Clusters }}.watched(clusterChange)
	s.hosts = noun[*apiv1.Host]{Service: s, kind: "host", topic: "hosts", zone: "zone_id", cluster: "cluster_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Host] { return tx.Hosts }}.watched(hostChange)
	s.flavors = noun[*apiv1.Flavor]{Service: s, kind: "flavor", topic: "flavors", table: func(tx *state.Tx) state.Table[*apiv1.Flavor] { return tx.Flavors }}.watched(flavorChange)
	s.images = noun[*apiv1.Image]{Service: s, kind: "image", topic: "images", table: func(tx *state.Tx) state.Table[*apiv1.Image] { return tx.Images }}.watched(imageChange)
	s.projects = noun[*apiv1.Project]{Service: s, kind: "project", topic: "projects", project: "name", organization: "organization", under: projectUnder,
		table: func(tx *state.Tx) state.Table[*apiv1.Project] { return tx.Projects }}.watched(projectChange)
	s.brokers = noun[*apiv1.Broker]{Service: s, kind: "broker", topic: "brokers", table: func(tx *state.Tx) state.Table[*apiv1.Broker] { return tx.Brokers }}.watched(brokerChange)
	s.vms = noun[*apiv1.VM]{Service: s, kind: "vm", topic: "vms", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.VM] { return tx.VMs }}.watched(vmChange)
	s.operations = noun[*apiv1.Operation]{Service: s, kind: "operation", topic: "operations", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Operation] { return tx.Operations }}.watched(operationChange)
	s.events = noun[*apiv1.Event]{Service: s, kind: "event", topic: "events", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Event] { return tx.Events }}.watched(eventChange)
	s.servers = noun[*apiv1.Server]{Service: s, kind: "server", table: func(tx *state.Tx) state.Table[*apiv1.Server] { return tx.Servers }}
	s.accessTokens = noun[*apiv1.AccessToken]{Service: s, kind: "token", project: "project_id", table: func(tx *state.Tx) state.Table[*apiv1.AccessToken] { return tx.AccessTokens }}
	s.administrators = noun[*apiv1.Administrator]{Service: s, kind: "admin", table: func(tx *state.Tx) state.Table[*apiv1.Administrator] { return tx.Administrators }}
	s.organizations = noun[*apiv1.Organization]{Service: s, kind: "organization", topic: "organizations", organization: "name", parent: "parent", under: organizationUnder,
		table: func(tx *state.Tx) state.Table[*apiv1.Organization] { return tx.Organizations }}.watched(organizationChange)
	s.users = noun[*apiv1.User]{Service: s, kind: "user", topic: "users", organization: "organization_id", own: "id", guard: s.mayActAs,
		table: func(tx *state.Tx) state.Table[*apiv1.User] { return tx.Users }}.watched(userChange)
	s.groups = noun[*apiv1.Group]{Service: s, kind: "group", topic: "groups", table: func(tx *state.Tx) state.Table[*apiv1.Group] { return tx.Groups }}.watched(groupChange)
	s.roles = noun[*apiv1.Role]{Service: s, kind: "role", topic: "roles", table: func(tx *state.Tx) state.Table[*apiv1.Role] { return tx.Roles }}.watched(roleChange)
	s.roleBindings = noun[*apiv1.RoleBinding]{Service: s, kind: "role-binding", topic: "role_bindings", project: "project_id", organization: "organization_id",
		zone: "zone_id", own: "user_id", columns: placeOfBinding,
		table: func(tx *state.Tx) state.Table[*apiv1.RoleBinding] { return tx.RoleBindings }}.watched(bindingChange)
	s.requests = noun[*apiv1.Request]{Service: s, kind: "request", topic: "requests", project: "project_id", organization: "organization_id", zone: "zone_id", own: "requester_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Request] { return tx.Requests }}.watched(requestChange)
	s.delegations = noun[*apiv1.Delegation]{Service: s, kind: "delegation", topic: "delegations", own: "from_user_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Delegation] { return tx.Delegations }}.watched(delegationChange)
	s.crossings = noun[*apiv1.Crossing]{Service: s, kind: "crossing", topic: "crossings", project: "project_id", zone: "zone_id", source: "source_zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Crossing] { return tx.Crossings }}.watched(crossingChange)
	s.quotas = noun[*apiv1.Quota]{Service: s, kind: "quota", topic: "quotas", project: "project_id", organization: "organization_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Quota] { return tx.Quotas }}.watched(quotaChange)
	s.leases = noun[*apiv1.Lease]{Service: s, kind: "lease", topic: "leases", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.Lease] { return tx.Leases }}.watched(leaseChange)
	s.notifications = noun[*apiv1.Notification]{Service: s, kind: "notification", topic: "notifications", own: "user_id", private: true, veil: s.veil,
		table: func(tx *state.Tx) state.Table[*apiv1.Notification] { return tx.Notifications }}.watched(notificationChange)
	s.notificationChannels = noun[*apiv1.NotificationChannel]{Service: s, kind: "notification-channel", topic: "notification_channels",
		table: func(tx *state.Tx) state.Table[*apiv1.NotificationChannel] { return tx.NotificationChannels }}.watched(notificationChannelChange)
	s.deliveries = noun[*apiv1.Delivery]{Service: s, kind: "delivery", table: func(tx *state.Tx) state.Table[*apiv1.Delivery] { return tx.Deliveries }}
	s.identityProviders = noun[*apiv1.IdentityProvider]{Service: s, kind: "identity-provider", topic: "identity_providers", guard: s.mayMindProviders,
		table: func(tx *state.Tx) state.Table[*apiv1.IdentityProvider] { return tx.IdentityProviders }}.watched(identityProviderChange)
	s.identities = noun[*apiv1.Identity]{Service: s, kind: "identity", table: func(tx *state.Tx) state.Table[*apiv1.Identity] { return tx.Identities }}
	s.snapshots = snapshotsOf(s)
	s.usageRecords = noun[*apiv1.UsageRecord]{Service: s, kind: "usage", project: "project_id", zone: "zone_id",
		table: func(tx *state.Tx) state.Table[*apiv1.UsageRecord] { return tx.UsageRecords }}
	s.sessions = noun[*apiv1.Session]{Service: s, kind: "session", own: "user_id", table: func(tx *state.Tx) state.Table[*apiv1.Session] { return tx.Sessions }}
	return s
}

// Register puts every service of the API into r.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	apiv1.RegisterOfferingServiceServer(r, offeringService{Service: s})
	apiv1.RegisterCalendarServiceServer(r, calendarService{Service: s})
	apiv1.RegisterApprovalPolicyServiceServer(r, approvalPolicyService{Service: s})
	apiv1.RegisterZoneServiceServer(r, zoneService{Service: s})
	apiv1.RegisterClusterServiceServer(r, clusterService{Service: s})
	apiv1.RegisterHostServiceServer(r, hostService{Service: s})
	apiv1.RegisterFlavorServiceServer(r, flavorService{Service: s})
	apiv1.RegisterImageServiceServer(r, imageService{Service: s})
	apiv1.RegisterProjectServiceServer(r, projectService{Service: s})
	apiv1.RegisterBrokerServiceServer(r, brokerService{Service: s})
	apiv1.RegisterVMServiceServer(r, vmService{Service: s})
	apiv1.RegisterSnapshotServiceServer(r, snapshotService{Service: s})
	apiv1.RegisterOperationServiceServer(r, operationService{Service: s})
	apiv1.RegisterEventServiceServer(r, eventService{Service: s})
	apiv1.RegisterServerServiceServer(r, serverService{Service: s})
	apiv1.RegisterAccessTokenServiceServer(r, accessTokenService{Service: s})
	apiv1.RegisterAdministratorServiceServer(r, administratorService{Service: s})
	apiv1.RegisterOrganizationServiceServer(r, organizationService{Service: s})
	apiv1.RegisterUserServiceServer(r, userService{Service: s})
	apiv1.RegisterGroupServiceServer(r, groupService{Service: s})
	apiv1.RegisterSessionServiceServer(r, sessionService{Service: s})
	apiv1.RegisterAuditServiceServer(r, auditService{Service: s})
	apiv1.RegisterRoleServiceServer(r, roleService{Service: s})
	apiv1.RegisterRoleBindingServiceServer(r, roleBindingService{Service: s})
	apiv1.RegisterRequestServiceServer(r, requestService{Service: s})
	apiv1.RegisterDelegationServiceServer(r, delegationService{Service: s})
	apiv1.RegisterCrossingServiceServer(r, crossingService{Service: s})
	apiv1.RegisterQuotaServiceServer(r, quotaService{Service: s})
	apiv1.RegisterLeaseServiceServer(r, leaseService{Service: s})
	apiv1.RegisterNotificationServiceServer(r, notificationService{Service: s})
	apiv1.RegisterNotificationChannelServiceServer(r, notificationChannelService{Service: s})
	apiv1.RegisterDeliveryServiceServer(r, deliveryService{Service: s})
	apiv1.RegisterUsageServiceServer(r, usageService{Service: s})
	apiv1.RegisterIdentityProviderServiceServer(r, identityProviderService{Service: s})
}
