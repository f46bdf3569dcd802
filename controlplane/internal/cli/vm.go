package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var vmColumns = []column[*apiv1.VM]{
	{head: "NAME", value: (*apiv1.VM).GetName},
	{head: "STATE", value: vmState, state: true},
	{head: "POWER", value: func(m *apiv1.VM) string { return lower(m.GetPower()) }, state: true},
	{head: "ZONE", value: (*apiv1.VM).GetZone},
	{head: "HOST", value: (*apiv1.VM).GetHost},
	{head: "ADDRESS", value: (*apiv1.VM).GetAddress},
	{head: "FRESH", value: func(m *apiv1.VM) string { return lower(m.GetFreshness()) }, state: true},
	{head: "PROJECT", value: (*apiv1.VM).GetProject, wide: true},
	{head: "CLUSTER", value: (*apiv1.VM).GetCluster, wide: true},
	{head: "FLAVOR", value: (*apiv1.VM).GetFlavor, wide: true},
	{head: "IMAGE", value: (*apiv1.VM).GetImage, wide: true},
	{head: "GRADE", value: func(m *apiv1.VM) string { return lower(m.GetGrade()) }, wide: true},
	{head: "OFFERING", value: (*apiv1.VM).GetOffering, wide: true},
	{head: "REQUEST", value: (*apiv1.VM).GetRequest, wide: true},
	{head: "EXPIRES", value: func(m *apiv1.VM) string { return local(m.GetExpiresAt()) }, wide: true},
	{head: "AGE", value: func(m *apiv1.VM) string { return age(m.GetCreatedAt()) }, wide: true},
	{head: "ID", value: (*apiv1.VM).GetId, wide: true},
	{head: "DESCRIPTION", value: (*apiv1.VM).GetDescription, text: true, wide: true},
	{head: "ERROR", value: func(m *apiv1.VM) string { return m.GetError().GetDetail() }, text: true, wide: true},
}

func (a *app) vmNoun() noun[*apiv1.VM] {
	return noun[*apiv1.VM]{
		name: "vm", plural: "vms", short: "Virtual machines", in: []string{"project", "zone"}, filter: "state=running AND name~web", columns: vmColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.VM, string, error) {
			r, err := c.VMs.ListVMs(ctx, &apiv1.ListVMsRequest{Project: q.project, Zone: q.zone, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetVms(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.VM, error) {
			r, err := c.VMs.GetVM(ctx, &apiv1.GetVMRequest{Vm: name, Project: s.project})
			return r.GetVm(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.VM], error), error) {
			s, err := c.VMs.WatchVMs(ctx, &apiv1.WatchVMsRequest{After: after, Project: q.project, Zone: q.zone, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchVMsResponse) change[*apiv1.VM] {
				return change[*apiv1.VM]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetVm()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.VMs.DeleteVM(ctx, &apiv1.DeleteVMRequest{Vm: name, Project: s.project})
			return r.GetOperation(), err
		},
		fields: vmFields,
		update: func(ctx context.Context, c *client.Client, m *apiv1.VM, mask *fieldmaskpb.FieldMask, s scope) (*apiv1.VM, error) {
			r, err := c.VMs.UpdateVM(ctx, &apiv1.UpdateVMRequest{Vm: m, UpdateMask: mask, Project: s.project})
			return r.GetVm(), err
		},
	}
}

// vmFields are the flags of what can be changed of a VM.
func vmFields(f *pflag.FlagSet, m *apiv1.VM) {
	f.StringVar(&m.Description, "description", "", "for people")
}

func (a *app) vm() *cobra.Command {
	return command(a, a.vmNoun(), a.createVM(), a.startVM(), a.stopVM(), a.rebootVM(), a.resizeVM(), a.trashVM(), a.untrashVM(), a.topVMs())
}

func vmState(vm *apiv1.VM) string {
	var more []string
	if t := lower(vm.GetTask()); t != "" {
		more = append(more, t)
	}
	if leaseOver(vm, time.Now()) {
		more = append(more, "lease over")
	}
	if len(more) == 0 {
		return lower(vm.GetState())
	}
	return lower(vm.GetState()) + " (" + strings.Join(more, ", ") + ")"
}

// leaseOver reports whether a VM stands or runs past the end of its lease, as it does in a zone that is cut off.
func leaseOver(vm *apiv1.VM, now time.Time) bool {
	there := vm.GetState() != apiv1.VM_TRASHED && vm.GetState() != apiv1.VM_DELETED
	return there && vm.GetExpiresAt() != nil && !now.Before(vm.GetExpiresAt().AsTime())
}

func (a *app) createVM() *cobra.Command {
	var w waiting
	var s scope
	var keys, together, apart []string
	var userData string
	vm := &apiv1.VM{}
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Ask for a VM", Args: oneArgument,
		Example: `  naru vm create web-2 --project web --image tiny --flavor s1 --zone business --cluster kvm --ssh-key @key.pub --wait`,
	}
	a.scopeFlags(cmd, []string{"project", "zone", "cluster"}, &s)
	cmd.Flags().StringVar(&vm.Image, "image", "", "id or name of the image")
	cmd.Flags().StringVar(&vm.Flavor, "flavor", "", "id or name of the flavor")
	cmd.Flags().StringArrayVar(&keys, "ssh-key", nil, "line of an authorized_keys file, or @FILE; may be given again")
	cmd.Flags().StringVar(&userData, "user-data", "", "cloud-init user data, or @FILE")
	cmd.Flags().StringArrayVar(&together, "together", nil, "group whose VMs stand on one host")
	cmd.Flags().StringArrayVar(&apart, "apart", nil, "group whose VMs stand on different hosts")
	wordFlag(cmd.Flags(), vm, "grade", ": of what it holds, where that is more than its project's and its image's")
	vmFields(cmd.Flags(), vm)
	a.completeFields(cmd)
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, g := range apart {
			if slices.Contains(together, g) {
				return usagef("--apart %s and --together %s do not go together; give one of them", g, g)
			}
		}
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"project", "zone", "cluster"}, &s)
			vm.Name, vm.Project, vm.Zone, vm.Cluster = args[0], s.project, s.zone, s.cluster
			for _, k := range keys {
				text, err := a.argument(k)
				if err != nil {
					return err
				}
				for line := range strings.Lines(text) {
					if line = strings.TrimSpace(line); line != "" {
						vm.SshKeys = append(vm.SshKeys, line)
					}
				}
			}
			var err error
			if vm.UserData, err = a.argument(userData); err != nil {
				return err
			}
			for _, g := range together {
				vm.Affinities = append(vm.Affinities, &apiv1.VM_Affinity{Group: g, Rule: apiv1.VM_Affinity_TOGETHER})
			}
			for _, g := range apart {
				vm.Affinities = append(vm.Affinities, &apiv1.VM_Affinity{Group: g, Rule: apiv1.VM_Affinity_APART})
			}
			r, err := c.VMs.CreateVM(ctx, &apiv1.CreateVMRequest{Vm: vm})
			if err != nil {
				return err
			}
			if err := a.finish(ctx, c, r.GetOperation(), w); err != nil || !w.wait || a.output != "table" {
				return err
			}
			built, err := c.VMs.GetVM(ctx, &apiv1.GetVMRequest{Vm: r.GetOperation().GetTarget().GetId(), Project: s.project})
			if err != nil {
				return err
			}
			return printOne(a, built.GetVm(), vmColumns)
		})
	}
	return cmd
}

func (a *app) startVM() *cobra.Command {
	return a.action("vm", "start", "Power a VM on", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.StartVM(ctx, &apiv1.StartVMRequest{Vm: name, Project: s.project})
		return r.GetOperation(), err
	})
}

func (a *app) stopVM() *cobra.Command {
	var force bool
	cmd := a.action("vm", "stop", "Shut a VM down", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.StopVM(ctx, &apiv1.StopVMRequest{Vm: name, Project: s.project, Force: force})
		return r.GetOperation(), err
	})
	cmd.Flags().BoolVar(&force, "force", false, "cut the power without asking the guest")
	return cmd
}

func (a *app) rebootVM() *cobra.Command {
	var force bool
	cmd := a.action("vm", "reboot", "Restart a VM's guest", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.RebootVM(ctx, &apiv1.RebootVMRequest{Vm: name, Project: s.project, Force: force})
		return r.GetOperation(), err
	})
	cmd.Flags().BoolVar(&force, "force", false, "reset without asking the guest")
	return cmd
}

func (a *app) resizeVM() *cobra.Command {
	var flavor string
	var mayStop bool
	cmd := a.action("vm", "resize", "Give a VM the size of another flavor", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.ResizeVM(ctx, &apiv1.ResizeVMRequest{Vm: name, Project: s.project, Flavor: flavor, MayStop: mayStop})
		return r.GetOperation(), err
	})
	cmd.Example = "  naru vm resize web-1 --flavor s2 --may-stop --wait"
	cmd.Flags().StringVar(&flavor, "flavor", "", "id or name of the flavor")
	_ = cmd.MarkFlagRequired("flavor")
	a.completeFields(cmd)
	mayStopFlag(cmd, &mayStop)
	return cmd
}

func (a *app) trashVM() *cobra.Command {
	var days uint32
	cmd := a.action("vm", "trash", "Shut a VM down and keep it for a time before it is deleted", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.TrashVM(ctx, &apiv1.TrashVMRequest{Vm: name, Project: s.project, KeepDays: days})
		return r.GetOperation(), err
	})
	cmd.Flags().Uint32Var(&days, "keep-days", 0, "for so many `days` it is kept; 0: 7")
	return cmd
}

func (a *app) untrashVM() *cobra.Command {
	return a.action("vm", "untrash", "Take a VM out of the trash; it is off then", []string{"project"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.VMs.UntrashVM(ctx, &apiv1.UntrashVMRequest{Vm: name, Project: s.project})
		return r.GetOperation(), err
	})
}

var vmSampleColumns = slices.Concat([]column[*apiv1.VMSample]{
	{head: "VM", value: (*apiv1.VMSample).GetVm},
	{head: "PROJECT", value: (*apiv1.VMSample).GetProject},
	{head: "ZONE", value: (*apiv1.VMSample).GetZone},
	{head: "HOST", value: (*apiv1.VMSample).GetHost},
}, figures([]column[*apiv1.VMSample]{
	{head: "CPU", value: func(m *apiv1.VMSample) string { return fmt.Sprintf("%.1f %%", 100*m.GetCpuRatio()) }},
	{head: "MEMORY_MIB", value: func(m *apiv1.VMSample) string { return fmt.Sprint(m.GetMemoryUsedMib()) }},
	{head: "DISK_R/W_KIB_S", value: func(m *apiv1.VMSample) string {
		return fmt.Sprintf("%.0f/%.0f", m.GetDiskReadBytes()/1024, m.GetDiskWriteBytes()/1024)
	}},
	{head: "NET_R/T_KIB_S", value: func(m *apiv1.VMSample) string {
		return fmt.Sprintf("%.0f/%.0f", m.GetNetReceiveBytes()/1024, m.GetNetTransmitBytes()/1024)
	}},
}))

func (a *app) topVMs() *cobra.Command {
	var s scope
	cmd := &cobra.Command{Use: "top", Short: "Show what the VMs are doing, busiest first", Args: noArguments}
	a.scopeFlags(cmd, []string{"project", "zone"}, &s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults([]string{"project", "zone"}, &s)
			r, err := c.VMs.TopVMs(ctx, &apiv1.TopVMsRequest{Project: s.project, Zone: s.zone})
			if err != nil {
				return err
			}
			return printList(a, vmSampleColumns, r.GetSamples())
		})
	}
	return cmd
}
