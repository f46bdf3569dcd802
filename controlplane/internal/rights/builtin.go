package rights

import (
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Edition is that of the built-in roles here. It grows by one with each change of them, so that a server of an older version
// does not put the older ones back. A test holds that.
const Edition = 5

// Names of built-in roles that Naru itself relies on.
const (
	// FederationAdministrator is what an administrator's certificate gives. Somebody has it always.
	FederationAdministrator = "federation-administrator"
	// ProjectOperator is what an access token gives in its project.
	ProjectOperator = "project-operator"
)

var (
	catalogue = []string{"zone.read", "cluster.read", "flavor.read", "image.read", "offering.read", "calendar.read", "role.read"}
	reading   = append([]string{"project.read", "vm.read", "snapshot.read", "operation.read", "event.read", "request.read", "quota.read", "lease.read", "crossing.read", "usage.read"}, catalogue...)
)

func of(lists ...[]string) []string { return slices.Concat(lists...) }

// BuiltIn returns the roles that come with Naru, without ids.
func BuiltIn() []*apiv1.Role {
	zoneOperator := of([]string{
		"zone.read", "cluster.read", "cluster.update", "host.read", "host.update", "host.declare-lost", "host.declare-found",
		"vm.read", "vm.start", "vm.stop", "vm.reboot", "snapshot.read", "operation.read", "operation.resolve", "event.read",
	}, catalogue)
	all := []*apiv1.Role{
		{
			Name: "user", Title: "사용자", AtEdges: true,
			Description: "Sees a project and what is in it, and asks for more.",
			Permissions: of(reading, []string{"request.create", "request.comment"}),
		},
		{
			Name: ProjectOperator, Title: "프로젝트 운영자", AtEdges: true,
			Description: "Makes, changes and deletes the VMs of a project without asking. Access tokens of a project have it.",
			Permissions: of(reading, []string{"request.create", "request.comment", "vm.*", "snapshot.*", "lease.shorten"}),
		},
		{
			Name: "reviewer", Title: "담당자", AtEdges: true,
			Description: "Reviews what is asked for, and returns or passes it on.",
			Permissions: of(reading, []string{"request.decide", "request.comment"}),
		},
		{
			Name: "approver", Title: "승인자", AtEdges: true,
			Description: "Approves or rejects what is asked for.",
			Permissions: of(reading, []string{"request.decide", "request.comment", "lease.shorten", "role-binding.shorten", "crossing.shorten"}),
		},
		{
			Name: "zone-operator", Title: "존 운영자", AtEdges: true,
			Description: "Looks after a zone's hosts and what runs on them.",
			Permissions: zoneOperator,
		},
		{
			Name: "zone-administrator", Title: "존 관리자", AtEdges: true,
			Description: "Sets up a zone: its agents, clusters and hosts, what it shows, and who may work in it.",
			Permissions: of(zoneOperator, []string{
				"zone.update", "zone.create-join-token", "zone.list-join-requests", "zone.accept-agent", "zone.quarantine", "zone.lift-quarantine",
				"cluster.*", "host.*", "crossing.read", "crossing.delete", "crossing.shorten", "lease.read", "lease.shorten", "usage.read", "request.read", "request.decide", "request.comment", "role.read", "role-binding.*",
			}),
		},
		{
			Name: FederationAdministrator, Title: "연합 관리자",
			Description: "May do everything, in the control network.",
			Permissions: []string{"*"},
		},
		{
			Name: "auditor", Title: "감사자",
			Description: "Sees everything and the record of it, and changes nothing.",
			Permissions: []string{"*.read", "audit.*", "role.explain", "zone.list-join-requests"},
		},
		{
			Name: "billing", Title: "과금 담당자",
			Description: "Sees what is used and what it costs.",
			Permissions: of(reading, []string{"organization.read"}),
		},
	}
	for _, r := range all {
		r.BuiltIn, r.Edition = true, Edition
		slices.Sort(r.Permissions)
		r.Permissions = slices.Compact(r.Permissions)
	}
	return all
}

// builtIn returns one of them.
func builtIn(name string) *apiv1.Role {
	all := BuiltIn()
	return all[slices.IndexFunc(all, func(r *apiv1.Role) bool { return r.GetName() == name })]
}
