package state

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

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
	crossings      *spec[*apiv1.Crossing]
	quotas         *spec[*apiv1.Quota]
	leases         *spec[*apiv1.Lease]
	reservations   *spec[*apiv1.Reservation]
	snapshots      *spec[*apiv1.Snapshot]
	usageRecords   *spec[*apiv1.UsageRecord]

	notifications        *spec[*apiv1.Notification]
	notificationChannels *spec[*apiv1.NotificationChannel]
	deliveries           *spec[*apiv1.Delivery]

	identityProviders *spec[*apiv1.IdentityProvider]
	identities        *spec[*apiv1.Identity]

	kinds map[string]finder
}

func newNouns() *nouns {
	n := &nouns{
		offerings: offerings().build(), calendars: calendars().build(), approvalPolicies: approvalPolicies().build(),
		zones: zones().build(), clusters: clusters().build(), hosts: hosts().build(), flavors: flavors().build(),
		images: images().build(), projects: projects().build(), brokers: brokers().build(), vms: vms().build(),
		operations: operations().build(), events: events().build(), servers: servers().build(),
		accessTokens: accessTokens().build(), administrators: administrators().build(),
		organizations: organizations().build(), users: users().build(), groups: groups().build(), sessions: sessions().build(),
		roles: roles().build(), roleBindings: roleBindings().build(),
		requests: requests().build(), delegations: delegations().build(), crossings: crossings().build(), quotas: quotas().build(), leases: leases().build(),
		reservations: reservations().build(), snapshots: vmSnapshots().build(), usageRecords: usageRecords().build(),
		notifications: notifications().build(), notificationChannels: notificationChannels().build(), deliveries: deliveries().build(),
		identityProviders: identityProviders().build(), identities: identities().build(),
		kinds: map[string]finder{},
	}
	for _, s := range n.stores() {
		if f, ok := s.(finder); ok {
			n.kinds[f.kind()] = f
		}
	}
	return n
}

// stores returns every table in the order in which snapshots hold them.
func (n *nouns) stores() []store {
	return append([]store{
		n.offerings, n.calendars, n.approvalPolicies,
		n.zones, n.clusters, n.hosts, n.flavors, n.images, n.projects, n.brokers, n.vms, n.operations, n.events,
		n.servers, n.accessTokens, n.administrators, n.organizations, n.users, n.groups, n.sessions,
		n.roles, n.roleBindings, n.reservations, n.snapshots, n.requests, n.delegations, n.crossings, n.quotas, n.leases,
		n.notifications, n.notificationChannels, n.deliveries, n.usageRecords, n.identityProviders, n.identities,
	}, plainStores()...)
}

// finder is a table whose rows references name.
type finder interface {
	// kind is what a reference calls its rows: role-binding.
	kind() string
	find(tx *Tx, id string) (proto.Message, error)
}

func (s *spec[M]) kind() string { return strings.ReplaceAll(s.noun, "_", "-") }

func (s *spec[M]) find(tx *Tx, id string) (proto.Message, error) {
	m, err := Table[M]{tx, s}.Get(id)
	if !errors.Is(err, ErrNotFound) {
		return m, err
	}
	err = tx.query("SELECT message, crc FROM tombstones WHERE noun=? AND revision=? AND id=?", func(row *sqlite.Stmt) error {
		m = s.zero()
		return decodeInto(row, m, "tombstones")
	}, s.noun, tx.meta.Revision, id)
	if err == nil && m.GetId() == "" {
		err = ErrNotFound
	}
	return m, err
}

// Noun returns what a reference names by its kind and id; what was deleted by the newest revision is as it was. Errors: ErrNotFound, also
// where there is no such kind.
func (tx *Tx) Noun(kind, id string) (proto.Message, error) {
	if f := tx.kinds[kind]; f != nil {
		return f.find(tx, id)
	}
	return nil, ErrNotFound
}
