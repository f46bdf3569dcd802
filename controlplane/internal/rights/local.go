package rights

import (
	"slices"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Operator is somebody who may do something in a zone while it is cut off.
type Operator struct {
	*apiv1.User
	// Permissions are what they have on everything in the zone, in order.
	Permissions []string
	// Until is when the first of the roles ends by which they have them; zero: none does.
	Until time.Time
}

// Local returns the permissions of what the zone of the edge answers itself while it is cut off, as far as the subject has them on
// everything in the zone, in order. A zone that is cut off knows of no project and no condition.
func (r *Rights) Local() (permissions []string) {
	zone := r.subject.Edge.ZoneID
	for _, m := range methods() {
		serves := m.Edge == apiv1.Edge_EDGE_LOCAL_READ || m.Edge == apiv1.Edge_EDGE_LOCAL_ACT
		if serves && m.Permission != Public && m.Permission != Self && r.Reach(m.Permission, m).covers(apiv1.RoleBinding_ZONE, zone) {
			permissions = append(permissions, m.Permission)
		}
	}
	slices.Sort(permissions)
	return slices.Compact(permissions)
}
