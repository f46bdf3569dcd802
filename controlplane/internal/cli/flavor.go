package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var flavorColumns = []column[*apiv1.Flavor]{
	{head: "NAME", value: (*apiv1.Flavor).GetName},
	{head: "CORES", value: func(m *apiv1.Flavor) string { return strconv.Itoa(int(m.GetCores())) }},
	{head: "MEMORY_MIB", value: func(m *apiv1.Flavor) string { return strconv.Itoa(int(m.GetMemoryMib())) }},
	{head: "DISK_GIB", value: func(m *apiv1.Flavor) string { return strconv.Itoa(int(m.GetDiskGib())) }},
	{head: "DESCRIPTION", value: (*apiv1.Flavor).GetDescription, text: true},
	{head: "ID", value: (*apiv1.Flavor).GetId, wide: true},
	{head: "AGE", value: func(m *apiv1.Flavor) string { return age(m.GetCreatedAt()) }, wide: true},
}

func (a *app) flavorNoun() noun[*apiv1.Flavor] {
	return noun[*apiv1.Flavor]{
		name: "flavor", plural: "flavors", short: "Sizes of VMs", in: []string{}, filter: "cores>=4", columns: flavorColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Flavor, string, error) {
			r, err := c.Flavors.ListFlavors(ctx, &apiv1.ListFlavorsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetFlavors(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Flavor, error) {
			r, err := c.Flavors.GetFlavor(ctx, &apiv1.GetFlavorRequest{Flavor: name})
			return r.GetFlavor(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Flavor], error), error) {
			s, err := c.Flavors.WatchFlavors(ctx, &apiv1.WatchFlavorsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchFlavorsResponse) change[*apiv1.Flavor] {
				return change[*apiv1.Flavor]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetFlavor()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Flavors.DeleteFlavor(ctx, &apiv1.DeleteFlavorRequest{Flavor: name})
			return r.GetOperation(), err
		},
		make: "Make a flavor",
		fields: func(f *pflag.FlagSet, m *apiv1.Flavor) {
			f.StringVar(&m.Description, "description", "", "for people")
		},
		fixed: func(f *pflag.FlagSet, m *apiv1.Flavor) {
			f.Uint32Var(&m.Cores, "cores", 1, "virtual cores")
			f.Uint32Var(&m.MemoryMib, "memory-mib", 0, "memory in MiB")
			f.Uint32Var(&m.DiskGib, "disk-gib", 1, "system disk in GiB")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Flavor) (*apiv1.Operation, error) {
			r, err := c.Flavors.CreateFlavor(ctx, &apiv1.CreateFlavorRequest{Flavor: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Flavor, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Flavor, error) {
			r, err := c.Flavors.UpdateFlavor(ctx, &apiv1.UpdateFlavorRequest{Flavor: m, UpdateMask: mask})
			return r.GetFlavor(), err
		},
	}
}

func (a *app) flavor() *cobra.Command {
	return command(a, a.flavorNoun())
}
