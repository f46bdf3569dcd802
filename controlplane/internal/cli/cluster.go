package cli

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var clusterColumns = slices.Concat([]column[*apiv1.Cluster]{
	{head: "NAME", value: (*apiv1.Cluster).GetName},
	{head: "ZONE", value: (*apiv1.Cluster).GetZone},
	{head: "PURPOSE", value: (*apiv1.Cluster).GetPurpose},
	{head: "HYPERVISOR", value: (*apiv1.Cluster).GetHypervisor, text: true},
	{head: "HOSTS", value: func(m *apiv1.Cluster) string { return strconv.Itoa(int(m.GetHostCount())) }},
}, shares((*apiv1.Cluster).GetAllocated, (*apiv1.Cluster).GetTotal), []column[*apiv1.Cluster]{
	{head: "FRESH", value: func(m *apiv1.Cluster) string { return lower(m.GetFreshness()) }, state: true},
	{head: "OWNER", value: (*apiv1.Cluster).GetOwner},
	{head: "STRATEGY", value: func(m *apiv1.Cluster) string { return lower(m.GetStrategy()) }, wide: true},
	{head: "CORDONED", value: func(m *apiv1.Cluster) string { return strconv.FormatBool(m.GetCordoned()) }, wide: true},
	{head: "ID", value: (*apiv1.Cluster).GetId, wide: true},
})

func (a *app) clusterNoun() noun[*apiv1.Cluster] {
	return noun[*apiv1.Cluster]{
		name: "cluster", plural: "clusters", short: "Clusters: hosts of one hypervisor kind in a zone", in: []string{"zone"}, filter: "purpose=WEB", columns: clusterColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Cluster, string, error) {
			r, err := c.Clusters.ListClusters(ctx, &apiv1.ListClustersRequest{Zone: q.zone, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetClusters(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Cluster, error) {
			r, err := c.Clusters.GetCluster(ctx, &apiv1.GetClusterRequest{Cluster: name, Zone: s.zone})
			return r.GetCluster(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Cluster], error), error) {
			s, err := c.Clusters.WatchClusters(ctx, &apiv1.WatchClustersRequest{After: after, Zone: q.zone, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchClustersResponse) change[*apiv1.Cluster] {
				return change[*apiv1.Cluster]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetCluster()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Clusters.DeleteCluster(ctx, &apiv1.DeleteClusterRequest{Cluster: name, Zone: s.zone})
			return r.GetOperation(), err
		},
		make: "Make a cluster in a zone",
		fields: func(f *pflag.FlagSet, m *apiv1.Cluster) {
			f.StringVar(&m.Purpose, "purpose", "", "WEB, WAS, DB, TEST, Management …")
			wordFlag(f, m, "strategy", ": how VMs are placed (spread)")
			f.Uint32Var(&m.CpuOvercommitPercent, "cpu-overcommit-percent", 0, "virtual cores for a hundred real ones (100)")
			f.Uint32Var(&m.MemoryOvercommitPercent, "memory-overcommit-percent", 0, "MiB of VMs for a hundred real ones (100)")
			f.BoolVar(&m.Cordoned, "cordoned", false, "no new VM is placed in it")
		},
		fixed: func(f *pflag.FlagSet, m *apiv1.Cluster) {
			f.StringVar(&m.Hypervisor, "hypervisor", "", "libvirt or sim")
		},
		put: func(m *apiv1.Cluster, s scope) { m.Zone = s.zone },
		create: func(ctx context.Context, c *client.Client, m *apiv1.Cluster) (*apiv1.Operation, error) {
			r, err := c.Clusters.CreateCluster(ctx, &apiv1.CreateClusterRequest{Cluster: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Cluster, mask *fieldmaskpb.FieldMask, s scope) (*apiv1.Cluster, error) {
			r, err := c.Clusters.UpdateCluster(ctx, &apiv1.UpdateClusterRequest{Cluster: m, UpdateMask: mask, Zone: s.zone})
			return r.GetCluster(), err
		},
	}
}

func (a *app) cluster() *cobra.Command {
	n := a.clusterNoun()
	return command(a, n,
		set(a, n, "cordon", "Place no new VM in a cluster", "cordoned", func(m *apiv1.Cluster) { m.Cordoned = true }),
		set(a, n, "uncordon", "Place VMs in a cluster again", "cordoned", func(m *apiv1.Cluster) { m.Cordoned = false }))
}
