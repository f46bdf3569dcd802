package cli

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var hostColumns = []column[*apiv1.Host]{
	{head: "NAME", value: (*apiv1.Host).GetName},
	{head: "ZONE", value: (*apiv1.Host).GetZone},
	{head: "CLUSTER", value: (*apiv1.Host).GetCluster},
	{head: "ADMIN", value: func(m *apiv1.Host) string { return lower(m.GetAdminState()) }},
	{head: "HEALTH", value: func(m *apiv1.Host) string { return lower(m.GetHealth()) }},
	{head: "VMS", value: func(m *apiv1.Host) string { return strconv.Itoa(int(m.GetVmCount())) }},
	{head: "ALLOCATED", value: func(m *apiv1.Host) string { return amount(m.GetAllocated()) }},
	{head: "TOTAL", value: func(m *apiv1.Host) string { return amount(m.GetTotal()) }},
	{head: "FRESH", value: func(m *apiv1.Host) string { return lower(m.GetFreshness()) }},
	{head: "ENDPOINT", value: (*apiv1.Host).GetEndpoint, wide: true},
	{head: "HYPERVISOR", value: (*apiv1.Host).GetHypervisorVersion, wide: true},
	{head: "REASON", value: (*apiv1.Host).GetHealthReason, wide: true},
	{head: "ID", value: (*apiv1.Host).GetId, wide: true},
}

func (a *app) hostNoun() noun[*apiv1.Host] {
	return noun[*apiv1.Host]{
		name: "host", plural: "hosts", short: "Hosts, which run hypervisors", in: []string{"zone", "cluster"}, columns: hostColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Host, string, error) {
			r, err := c.Hosts.ListHosts(ctx, &apiv1.ListHostsRequest{Zone: q.zone, Cluster: q.cluster, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetHosts(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Host, error) {
			r, err := c.Hosts.GetHost(ctx, &apiv1.GetHostRequest{Host: name, Zone: s.zone, Cluster: s.cluster})
			return r.GetHost(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Host], error), error) {
			s, err := c.Hosts.WatchHosts(ctx, &apiv1.WatchHostsRequest{After: after, Zone: q.zone, Cluster: q.cluster, Filter: q.filter})
			return received(s, err, func(m *apiv1.WatchHostsResponse) change[*apiv1.Host] {
				return change[*apiv1.Host]{m.GetType(), m.GetRevision(), m.GetHost()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Hosts.DeleteHost(ctx, &apiv1.DeleteHostRequest{Host: name, Zone: s.zone, Cluster: s.cluster})
			return r.GetOperation(), err
		},
	}
}

func (a *app) host() *cobra.Command {
	return command(a, a.hostNoun(), a.createHost(), a.setHost("cordon", "Place no new VM on a host", apiv1.Host_CORDONED), a.setHost("uncordon", "Place VMs on a host again", apiv1.Host_ENABLED), a.topHosts())
}

func (a *app) createHost() *cobra.Command {
	var w waiting
	m := &apiv1.Host{}
	var s scope
	capacity := &apiv1.Resources{}
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a host known in a cluster", Args: oneArgument}
	a.scopeFlags(cmd, []string{"zone", "cluster"}, &s)
	cmd.Flags().StringVar(&m.Endpoint, "endpoint", "", "where the zone's agents find its hypervisor: qemu+tls://HOST/system, sim://…")
	cmd.Flags().Uint32Var(&capacity.Cores, "cores", 0, "instead of what the hypervisor reports")
	cmd.Flags().Uint32Var(&capacity.MemoryMib, "memory-mib", 0, "instead of what the hypervisor reports")
	cmd.Flags().Uint32Var(&capacity.DiskGib, "disk-gib", 0, "instead of what the hypervisor reports")
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			m.Name = args[0]
			a.defaults([]string{"zone", "cluster"}, &s)
			m.Zone, m.Cluster, m.Capacity = s.zone, s.cluster, capacity
			r, err := c.Hosts.CreateHost(ctx, &apiv1.CreateHostRequest{Host: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
}

func (a *app) setHost(verb, short string, state apiv1.Host_AdminState) *cobra.Command {
	var s scope
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Args: oneArgument}
	a.scopeFlags(cmd, []string{"zone", "cluster"}, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"zone", "cluster"}, &s)
			r, err := c.Hosts.UpdateHost(ctx, &apiv1.UpdateHostRequest{
				Host: &apiv1.Host{Id: args[0], AdminState: state}, Zone: s.zone, Cluster: s.cluster,
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"admin_state"}},
			})
			if err != nil {
				return err
			}
			return printOne(a, r.GetHost(), hostColumns)
		})
	}
	return cmd
}

var hostSampleColumns = []column[*apiv1.HostSample]{
	{head: "HOST", value: (*apiv1.HostSample).GetHost},
	{head: "ZONE", value: (*apiv1.HostSample).GetZone},
	{head: "CLUSTER", value: (*apiv1.HostSample).GetCluster},
	{head: "CPU", value: func(m *apiv1.HostSample) string { return fmt.Sprintf("%.1f %%", 100*m.GetCpuRatio()) }},
	{head: "MEMORY_MIB", value: func(m *apiv1.HostSample) string {
		return fmt.Sprintf("%d/%d", m.GetMemoryUsedMib(), m.GetMemoryTotalMib())
	}},
	{head: "VMS", value: func(m *apiv1.HostSample) string { return strconv.Itoa(int(m.GetVmCount())) }},
	{head: "SAMPLED", value: func(m *apiv1.HostSample) string { return age(m.GetTime()) + " ago" }},
}

func (a *app) topHosts() *cobra.Command {
	var s scope
	cmd := &cobra.Command{Use: "top", Short: "Show what the hosts are doing, busiest first", Args: noArguments}
	a.scopeFlags(cmd, []string{"zone"}, &s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"zone"}, &s)
			r, err := c.Hosts.TopHosts(ctx, &apiv1.TopHostsRequest{Zone: s.zone})
			if err != nil {
				return err
			}
			return printList(a, hostSampleColumns, r.GetSamples())
		})
	}
	return cmd
}
