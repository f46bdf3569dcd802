package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createCluster(in *commandv1.CreateCluster) (*commandv1.Result, error) {
	m := in.GetCluster()
	if err := mayCreate(c.tx.Clusters, "cluster", m, state.Scope{"zone_id": m.GetZoneId()}); err != nil {
		return nil, err
	}
	if _, err := c.openZone(m.GetZoneId(), m.GetZone()); err != nil {
		return nil, err
	}
	schema.MergeObserved(m, &apiv1.Cluster{})
	m.Generation, m.CreatedAt = c.generation(), c.now
	result, err := create(c, c.tx.Clusters, "cluster", m, "", m.GetZone())
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetZoneId(), reference("cluster", m))
}

func (c *command) updateCluster(in *commandv1.UpdateCluster) (*commandv1.Result, error) {
	m := in.GetCluster()
	was, err := stored(c.tx.Clusters, "cluster", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("cluster", was, m); err != nil {
		return nil, err
	}
	schema.MergeObserved(m, was)
	m.Zone, m.ZoneId, m.Hypervisor, m.CreatedAt = was.GetZone(), was.GetZoneId(), was.GetHypervisor(), was.GetCreatedAt()
	m.Generation = c.generation()
	result, err := put(c.tx.Clusters, m)
	if err != nil {
		return nil, err
	}
	return result, c.tx.Desire(m.GetZoneId(), reference("cluster", m))
}

func (c *command) deleteCluster(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Clusters, "cluster", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(dependents(c.tx.Hosts, "host", state.Scope{"cluster_id": m.GetId()}))
	u.add(dependents(c.tx.VMs, "VM", state.Scope{"cluster_id": m.GetId()}))
	u.add(c.reserved(state.Scope{"cluster_id": m.GetId()}))
	if err := u.refuse("cluster", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.DesireGone(m.GetZoneId(), reference("cluster", m)); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Clusters, "cluster", m, "", m.GetZone())
}
