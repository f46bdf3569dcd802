package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// nouns is the tables that hold one noun each.
type nouns struct {
	offerings        *spec[*apiv1.Offering]
	calendars        *spec[*apiv1.Calendar]
	approvalPolicies *spec[*apiv1.ApprovalPolicy]

	zones          *spec[*apiv1.Zone]
	clusters       *spec[*apiv1.Cluster]
	hosts          *spec[*apiv1.Host]
	flavors        *spec[*apiv1.Flavor]
	images         *spec[*apiv1.Image]
	projects       *spec[*apiv1.Project]
	brokers        *spec[*apiv1.Broker]
	vms            *spec[*apiv1.VM]
	operations     *spec[*apiv1.Operation]
	events         *spec[*apiv1.Event]
	servers        *spec[*apiv1.Server]
	accessTokens   *spec[*apiv1.AccessToken]
	administrators *spec[*apiv1.Administrator]
	organizations  *spec[*apiv1.Organization]
	users          *spec[*apiv1.User]
	groups         *spec[*apiv1.Group]
	sessions       *spec[*apiv1.Session]
	roles          *spec[*apiv1.Role]
	roleBindings   *spec[*apiv1.RoleBinding]
	requests       *spec[*apiv1.Request]
	delegations    *spec[*apiv1.Delegation]
	quotas         *spec[*apiv1.Quota]
	leases         *spec[*apiv1.Lease]
	reservations   *spec[*apiv1.Reservation]
	snapshots      *spec[*apiv1.Snapshot]

	notifications        *spec[*apiv1.Notification]
	notificationChannels *spec[*apiv1.NotificationChannel]
	deliveries           *spec[*apiv1.Delivery]

	identityProviders *spec[*apiv1.IdentityProvider]
	identities        *spec[*apiv1.Identity]
}

func newNouns() *nouns {
	return &nouns{
		offerings: offerings().build(), calendars: calendars().build(), approvalPolicies: approvalPolicies().build(),
		zones: zones().build(), clusters: clusters().build(), hosts: hosts().build(), flavors: flavors().build(),
		images: images().build(), projects: projects().build(), brokers: brokers().build(), vms: vms().build(),
		operations: operations().build(), events: events().build(), servers: servers().build(),
		accessTokens: accessTokens().build(), administrators: administrators().build(),
		organizations: organizations().build(), users: users().build(), groups: groups().build(), sessions: sessions().build(),
		roles: roles().build(), roleBindings: roleBindings().build(),
		requests: requests().build(), delegations: delegations().build(), quotas: quotas().build(), leases: leases().build(),
		reservations: reservations().build(), snapshots: vmSnapshots().build(),
		notifications: notifications().build(), notificationChannels: notificationChannels().build(), deliveries: deliveries().build(),
		identityProviders: identityProviders().build(), identities: identities().build(),
	}
}

// stores returns every table in the order in which snapshots hold them.
func (n *nouns) stores() []store {
	return append([]store{
		n.offerings, n.calendars, n.approvalPolicies,
		n.zones, n.clusters, n.hosts, n.flavors, n.images, n.projects, n.brokers, n.vms, n.operations, n.events,
		n.servers, n.accessTokens, n.administrators, n.organizations, n.users, n.groups, n.sessions,
		n.roles, n.roleBindings, n.reservations, n.snapshots, n.requests, n.delegations, n.quotas, n.leases,
		n.notifications, n.notificationChannels, n.deliveries, n.identityProviders, n.identities,
	}, plainStores()...)
}
