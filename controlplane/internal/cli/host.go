package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var hostColumns = slices.Concat([]column[*apiv1.Host]{
	{head: "NAME", value: (*apiv1.Host).GetName},
	{head: "ZONE", value: (*apiv1.Host).GetZone},
	{head: "CLUSTER", value: (*apiv1.Host).GetCluster},
	{head: "ADMIN", value: hostAdmin, state: true},
	{head: "HEALTH", value: func(m *apiv1.Host) string { return lower(m.GetHealth()) }, state: true},
	{head: "VMS", value: func(m *apiv1.Host) string { return strconv.Itoa(int(m.GetVmCount())) }},
}, shares((*apiv1.Host).GetAllocated, (*apiv1.Host).GetTotal), []column[*apiv1.Host]{
	{head: "FRESH", value: func(m *apiv1.Host) string { return lower(m.GetFreshness()) }, state: true},
	{head: "ENDPOINT", value: (*apiv1.Host).GetEndpoint, text: true, wide: true},
	{head: "HYPERVISOR", value: (*apiv1.Host).GetHypervisorVersion, text: true, wide: true},
	{head: "REASON", value: (*apiv1.Host).GetHealthReason, text: true, wide: true},
	{head: "ID", value: (*apiv1.Host).GetId, wide: true},
})

// hostAdmin is what administrators have said of a host; one of which nothing was said is enabled.
func hostAdmin(m *apiv1.Host) string {
	if m.GetLoss() != nil {
		return "lost"
	}
	return cmp.Or(lower(m.GetAdminState()), "enabled")
}

func (a *app) hostNoun() noun[*apiv1.Host] {
	return noun[*apiv1.Host]{
		name: "host", plural: "hosts", short: "Hosts, which run hypervisors", in: []string{"zone", "cluster"}, filter: "health!=available", columns: hostColumns,
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
			return client.Changes(s, err, func(m *apiv1.WatchHostsResponse) change[*apiv1.Host] {
				return change[*apiv1.Host]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetHost()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Hosts.DeleteHost(ctx, &apiv1.DeleteHostRequest{Host: name, Zone: s.zone, Cluster: s.cluster})
			return r.GetOperation(), err
		},
		make: "Make a host known in a cluster",
		fields: func(f *pflag.FlagSet, m *apiv1.Host) {
			f.StringVar(&m.Endpoint, "endpoint", "", "where the zone's agents find its hypervisor: qemu+tls://HOST/system, sim://…")
			wordFlag(f, m, "admin-state", " (enabled)")
			m.Capacity = &apiv1.Resources{}
			f.Uint32Var(&m.Capacity.Cores, "cores", 0, "cores instead of what the hypervisor reports")
			f.Uint32Var(&m.Capacity.MemoryMib, "memory-mib", 0, "MiB of memory instead of what the hypervisor reports")
			f.Uint32Var(&m.Capacity.DiskGib, "disk-gib", 0, "GiB of disk instead of what the hypervisor reports")
		},
		put: func(m *apiv1.Host, s scope) { m.Zone, m.Cluster = s.zone, s.cluster },
		create: func(ctx context.Context, c *client.Client, m *apiv1.Host) (*apiv1.Operation, error) {
			r, err := c.Hosts.CreateHost(ctx, &apiv1.CreateHostRequest{Host: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Host, mask *fieldmaskpb.FieldMask, s scope) (*apiv1.Host, error) {
			r, err := c.Hosts.UpdateHost(ctx, &apiv1.UpdateHostRequest{Host: m, UpdateMask: mask, Zone: s.zone, Cluster: s.cluster})
			return r.GetHost(), err
		},
	}
}

func (a *app) host() *cobra.Command {
	n := a.hostNoun()
	return command(a, n, append(a.fates(n),
		set(a, n, "cordon", "Place no new VM on a host", "admin_state", func(m *apiv1.Host) { m.AdminState = apiv1.Host_CORDONED }),
		set(a, n, "uncordon", "Place VMs on a host again", "admin_state", func(m *apiv1.Host) { m.AdminState = apiv1.Host_ENABLED }),
		a.topHosts())...)
}

var hostSampleColumns = slices.Concat([]column[*apiv1.HostSample]{
	{head: "HOST", value: (*apiv1.HostSample).GetHost},
	{head: "ZONE", value: (*apiv1.HostSample).GetZone},
	{head: "CLUSTER", value: (*apiv1.HostSample).GetCluster},
}, figures([]column[*apiv1.HostSample]{
	{head: "CPU", value: func(m *apiv1.HostSample) string { return fmt.Sprintf("%.1f %%", 100*m.GetCpuRatio()) }},
	{head: "MEMORY_MIB", value: func(m *apiv1.HostSample) string {
		return fmt.Sprintf("%d/%d", m.GetMemoryUsedMib(), m.GetMemoryTotalMib())
	}},
	{head: "VMS", value: func(m *apiv1.HostSample) string { return strconv.Itoa(int(m.GetVmCount())) }},
}))

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
