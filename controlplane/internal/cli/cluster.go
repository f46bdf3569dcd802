package cli

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var clusterColumns = []column[*apiv1.Cluster]{
	{head: "NAME", value: (*apiv1.Cluster).GetName},
	{head: "ZONE", value: (*apiv1.Cluster).GetZone},
	{head: "PURPOSE", value: (*apiv1.Cluster).GetPurpose},
	{head: "HYPERVISOR", value: (*apiv1.Cluster).GetHypervisor},
	{head: "HOSTS", value: func(m *apiv1.Cluster) string { return strconv.Itoa(int(m.GetHostCount())) }},
	{head: "ALLOCATED", value: func(m *apiv1.Cluster) string { return amount(m.GetAllocated()) }},
	{head: "TOTAL", value: func(m *apiv1.Cluster) string { return amount(m.GetTotal()) }},
	{head: "OWNER", value: (*apiv1.Cluster).GetOwner},
	{head: "STRATEGY", value: func(m *apiv1.Cluster) string { return lower(m.GetStrategy()) }, wide: true},
	{head: "ID", value: (*apiv1.Cluster).GetId, wide: true},
}

func (a *app) clusterNoun() noun[*apiv1.Cluster] {
	return noun[*apiv1.Cluster]{
		name: "cluster", plural: "clusters", short: "Clusters: hosts of one hypervisor kind in a zone", in: []string{"zone"}, columns: clusterColumns,
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
			return received(s, err, func(m *apiv1.WatchClustersResponse) change[*apiv1.Cluster] {
				return change[*apiv1.Cluster]{m.GetType(), m.GetRevision(), m.GetCluster()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Clusters.DeleteCluster(ctx, &apiv1.DeleteClusterRequest{Cluster: name, Zone: s.zone})
			return r.GetOperation(), err
		},
	}
}

func (a *app) cluster() *cobra.Command {
	return command(a, a.clusterNoun(), a.createCluster(), a.cordonCluster(true), a.cordonCluster(false))
}

func (a *app) createCluster() *cobra.Command {
	var w waiting
	m := &apiv1.Cluster{}
	var s scope
	var strategy string
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a cluster in a zone", Args: oneArgument}
	a.scopeFlags(cmd, []string{"zone"}, &s)
	cmd.Flags().StringVar(&m.Purpose, "purpose", "", "WEB, WAS, DB, TEST, Management …")
	cmd.Flags().StringVar(&m.Hypervisor, "hypervisor", "", "libvirt or sim")
	cmd.Flags().StringVar(&strategy, "strategy", "spread", "pack or spread")
	cmd.Flags().Uint32Var(&m.CpuOvercommitPercent, "cpu-overcommit-percent", 0, "virtual cores per hundred real ones (100)")
	cmd.Flags().Uint32Var(&m.MemoryOvercommitPercent, "memory-overcommit-percent", 0, "(100)")
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			m.Name = args[0]
			a.defaults([]string{"zone"}, &s)
			m.Zone = s.zone
			var ok bool
			if m.Strategy, ok = enumOf(apiv1.Cluster_Strategy_value, strategy, apiv1.Cluster_Strategy(0)); !ok {
				return usagef("--strategy %s: it is pack or spread", strategy)
			}
			r, err := c.Clusters.CreateCluster(ctx, &apiv1.CreateClusterRequest{Cluster: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
}

func (a *app) cordonCluster(cordon bool) *cobra.Command {
	use, short := "cordon NAME", "Place no new VM in a cluster"
	if !cordon {
		use, short = "uncordon NAME", "Place VMs in a cluster again"
	}
	var s scope
	cmd := &cobra.Command{Use: use, Short: short, Args: oneArgument}
	a.scopeFlags(cmd, []string{"zone"}, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"zone"}, &s)
			r, err := c.Clusters.UpdateCluster(ctx, &apiv1.UpdateClusterRequest{
				Cluster: &apiv1.Cluster{Id: args[0], Cordoned: cordon}, Zone: s.zone,
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"cordoned"}},
			})
			if err != nil {
				return err
			}
			return printOne(a, r.GetCluster(), clusterColumns)
		})
	}
	return cmd
}
