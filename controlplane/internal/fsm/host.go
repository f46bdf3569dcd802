package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createHost(in *commandv1.CreateHost) (*commandv1.Result, error) {
	m := in.GetHost()
	if err := mayCreate(c.tx.Hosts, "host", m, state.Scope{"cluster_id": m.GetClusterId()}); err != nil {
		return nil, err
	}
	if _, err := c.openZone(m.GetZoneId(), m.GetZone()); err != nil {
		return nil, err
	}
	if err := c.clusterOf(m.GetClusterId(), m.GetCluster(), m.GetZoneId()); err != nil {
		return nil, err
	}
	schema.MergeObserved(m, &apiv1.Host{})
	m.Generation, m.CreatedAt, m.Loss = c.generation(), c.now, nil
	result, err := create(c, c.tx.Hosts, "host", m)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetZoneId(), reference("host", m))
}

func (c *command) updateHost(in *commandv1.UpdateHost) (*commandv1.Result, error) {
	m := in.GetHost()
	was, err := stored(c.tx.Hosts, "host", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("host", was, m); err != nil {
		return nil, err
	}
	schema.MergeObserved(m, was)
	m.Zone, m.ZoneId, m.Cluster, m.ClusterId = was.GetZone(), was.GetZoneId(), was.GetCluster(), was.GetClusterId()
	m.Generation, m.CreatedAt, m.Loss = c.generation(), was.GetCreatedAt(), was.GetLoss()
	result, err := put(c.tx.Hosts, m)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetZoneId(), reference("host", m))
}

func (c *command) deleteHost(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Hosts, "host", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"host_id": m.GetId()}))
	if err := u.refuse("host", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.DesireGone(m.GetZoneId(), reference("host", m)); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Hosts, "host", m)
}

// declareHost notes an administrator's word that a host is lost for good, or takes it back. Its zone acts on it.
func (c *command) declareHost(in *commandv1.DeclareHost) (*commandv1.Result, error) {
	m, err := stored(c.tx.Hosts, "host", in.GetHostId(), "")
	if err != nil {
		return nil, err
	}
	if in.GetReason() == "" {
		return nil, invalid("a host is declared lost, or found, with a reason")
	}
	if (m.GetLoss() != nil) == in.GetLost() {
		return made(m, nil)
	}
	severity, kind, said := apiv1.Event_WARNING, "host.declared_found", "is worked with again, by the word of "
	if m.Loss = nil; in.GetLost() {
		m.Loss = &apiv1.Loss{At: c.now, By: c.actor, Reason: in.GetReason()}
		severity, kind, said = apiv1.Event_ERROR, "host.declared_lost", "was declared lost by "
	}
	m.Generation = c.generation()
	if err := c.tell(severity, kind, where(m), reference("host", m), "host "+m.GetName()+" "+said+c.actor+": "+in.GetReason()); err != nil {
		return nil, err
	}
	result, err := put(c.tx.Hosts, m)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetZoneId(), reference("host", m))
}

// clusterOf checks that a noun names a cluster that exists in its zone.
func (c *command) clusterOf(id, name, zoneID string) error {
	m, err := c.tx.Clusters.Get(id)
	if err != nil {
		return orNotFound(err, "cluster", name)
	}
	if m.GetName() != name || m.GetZoneId() != zoneID {
		return invalid("cluster " + id + " is " + m.GetName() + " of zone " + m.GetZone() + ", not " + name)
	}
	return nil
}
