package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var snapshotColumns = []column[*apiv1.Snapshot]{
	{head: "NAME", value: (*apiv1.Snapshot).GetName},
	{head: "VM", value: (*apiv1.Snapshot).GetVm},
	{head: "STATE", value: func(m *apiv1.Snapshot) string { return lower(m.GetState()) }, state: true},
	{head: "TAKEN", value: func(m *apiv1.Snapshot) string { return age(m.GetTakenAt()) }},
	{head: "DISK_GIB", value: func(m *apiv1.Snapshot) string { return strconv.Itoa(int(m.GetDiskGib())) }},
	{head: "ZONE", value: (*apiv1.Snapshot).GetZone},
	{head: "PROJECT", value: (*apiv1.Snapshot).GetProject, wide: true},
	{head: "ID", value: (*apiv1.Snapshot).GetId, wide: true},
	{head: "DESCRIPTION", value: (*apiv1.Snapshot).GetDescription, text: true, wide: true},
	{head: "ERROR", value: func(m *apiv1.Snapshot) string { return m.GetError().GetDetail() }, text: true, wide: true},
}

func (a *app) snapshotNoun() noun[*apiv1.Snapshot] {
	return noun[*apiv1.Snapshot]{
		name: "snapshot", plural: "snapshots", short: "What VMs' disks held", in: []string{"project", "vm"}, filter: "state=ready AND name~update", columns: snapshotColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Snapshot, string, error) {
			r, err := c.Snapshots.ListSnapshots(ctx, &apiv1.ListSnapshotsRequest{Project: q.project, Vm: q.vm, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetSnapshots(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Snapshot, error) {
			r, err := c.Snapshots.GetSnapshot(ctx, &apiv1.GetSnapshotRequest{Snapshot: name, Project: s.project, Vm: s.vm})
			return r.GetSnapshot(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Snapshots.DeleteSnapshot(ctx, &apiv1.DeleteSnapshotRequest{Snapshot: name, Project: s.project, Vm: s.vm})
			return r.GetOperation(), err
		},
	}
}

func (a *app) snapshot() *cobra.Command {
	return command(a, a.snapshotNoun(), a.createSnapshot(), a.restoreSnapshot())
}

// mayStopFlag adds --may-stop.
func mayStopFlag(cmd *cobra.Command, mayStop *bool) {
	cmd.Flags().BoolVar(mayStop, "may-stop", false, "the VM may be stopped for that, and is started again afterwards")
}

func (a *app) createSnapshot() *cobra.Command {
	var mayStop bool
	var description string
	cmd := a.action("snapshot", "create", "Keep what a VM's disk holds", []string{"project", "vm"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.Snapshots.CreateSnapshot(ctx, &apiv1.CreateSnapshotRequest{
			Snapshot: &apiv1.Snapshot{Name: name, Project: s.project, Vm: s.vm, Description: description}, MayStop: mayStop,
		})
		return r.GetOperation(), err
	})
	cmd.ValidArgsFunction = nil // the name is a new one
	cmd.Example = "  naru snapshot create before-update --vm web-1 --may-stop --wait"
	mayStopFlag(cmd, &mayStop)
	cmd.Flags().StringVar(&description, "description", "", "for people")
	return cmd
}

func (a *app) restoreSnapshot() *cobra.Command {
	var mayStop bool
	cmd := a.action("snapshot", "restore", "Put a VM's disk back to what it held; what was written since is lost", []string{"project", "vm"}, func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
		r, err := c.Snapshots.RestoreSnapshot(ctx, &apiv1.RestoreSnapshotRequest{Snapshot: name, Project: s.project, Vm: s.vm, MayStop: mayStop})
		return r.GetOperation(), err
	})
	mayStopFlag(cmd, &mayStop)
	a.asks(cmd, func(args []string) (said, answer string) {
		return "Put the VM's disk back to snapshot " + strings.Join(args, ", ") + "? What was written to it since is lost.", ""
	})
	return cmd
}
