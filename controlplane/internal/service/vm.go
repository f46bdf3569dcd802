package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

type vmService struct {
	apiv1.UnimplementedVMServiceServer
	*Service
}

func vmChange(kind apiv1.WatchType_Value, revision string, m *apiv1.VM) proto.Message {
	return &apiv1.WatchVMsResponse{Type: kind, Revision: revision, Vm: m}
}

func (s vmService) ListVMs(ctx context.Context, r *apiv1.ListVMsRequest) (*apiv1.ListVMsResponse, error) {
	items, next, err := s.vms.list(ctx, r, place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.ListVMsResponse{Vms: items, NextPageToken: next}, err
}

func (s vmService) GetVM(ctx context.Context, r *apiv1.GetVMRequest) (*apiv1.GetVMResponse, error) {
	m, err := s.vms.get(ctx, r.GetVm(), place{project: r.GetProject(), zone: r.GetZone()})
	return &apiv1.GetVMResponse{Vm: m}, err
}

func (s vmService) WatchVMs(r *apiv1.WatchVMsRequest, stream grpc.ServerStreamingServer[apiv1.WatchVMsResponse]) error {
	return s.vms.watch(r, place{project: r.GetProject(), zone: r.GetZone()}, stream)
}

// CreateVM accepts a VM for a zone: it finds what the request names, makes sure as far as can be seen from here that some
// host can take it, and has it written down as wanted. The zone then places and builds it.
func (s vmService) CreateVM(ctx context.Context, r *apiv1.CreateVMRequest) (*apiv1.CreateVMResponse, error) {
	sent := r.GetVm()
	if p := callOf(ctx).Principal; sent.GetProject() == "" && p.Project != "" {
		sent = proto.CloneOf(sent)
		sent.Project = p.Project
	}
	if err := cmp.Or(checkKeys(sent), checkGroups(sent)); err != nil {
		return nil, err
	}
	operation := newID()
	var reads []*commandv1.Read
	var seen uint64
	result, err := s.vms.createTold(ctx, r, sent, func(tx *state.Tx, vm *apiv1.VM) (_ state.Scope, err error) {
		seen = tx.Meta().Revision
		reads, err = s.resolve(ctx, tx, vm)
		return state.Scope{"project_id": vm.GetProjectId()}, err
	}, func(ctx context.Context, vm *apiv1.VM) error {
		return s.choose(ctx, vm, seen)
	}, func(c *commandv1.Command, vm *apiv1.VM) {
		vm.Operation = operation
		c.Body = &commandv1.Command_CreateVm{CreateVm: &commandv1.CreateVM{
			Vm: vm, OperationId: operation, Deadline: timestamppb.New(time.Now().Add(operationTime)), Reads: reads,
		}}
	})
	op, err := s.vms.made(ctx, result, err)
	return &apiv1.CreateVMResponse{Operation: op}, err
}

// checkGroups refuses a VM that is to stand both apart from a group and together with it: with a second one no host is left.
func checkGroups(vm *apiv1.VM) error {
	rules := map[string]apiv1.VM_Affinity_Rule{}
	for i, a := range vm.GetAffinities() {
		if rule, named := rules[a.GetGroup()]; named && rule != a.GetRule() {
			return problem.Newf(problem.Invalid, "Name the group under one rule only: apart or together.",
				"the VM cannot stand both apart from group %s and together with it", a.GetGroup()).
				With(fmt.Sprintf("affinities[%d]", i), "names a group that is named under another rule")
		}
		rules[a.GetGroup()] = a.GetRule()
	}
	return nil
}

// resolve puts into the VM what its names stand for: ids, the flavor's size, the image's bits. It returns the versions that
// this rests on.
func (s vmService) resolve(ctx context.Context, tx *state.Tx, vm *apiv1.VM) ([]*commandv1.Read, error) {
	project, err := s.projects.find(ctx, tx, vm.GetProject(), place{})
	if err != nil {
		return nil, inField(err, "project")
	}
	flavor, err := s.flavors.find(ctx, tx, vm.GetFlavor(), place{})
	if err != nil {
		return nil, inField(err, "flavor")
	}
	image, err := s.images.find(ctx, tx, vm.GetImage(), place{})
	if err != nil {
		return nil, inField(err, "image")
	}
	zone, err := s.zones.find(ctx, tx, vm.GetZone(), place{})
	if err != nil {
		return nil, inField(err, "zone")
	}
	if err := takesVMs(zone); err != nil {
		return nil, err
	}
	size := &apiv1.Resources{Cores: flavor.GetCores(), MemoryMib: flavor.GetMemoryMib(), DiskGib: flavor.GetDiskGib()}
	if err := catalog.Fits(flavor.GetName(), size, image); err != nil {
		return nil, err
	}
	if vm.GetCluster() != "" {
		cluster, err := s.clusters.within(tx, vm.GetCluster(), state.Scope{"zone_id": zone.GetId()})
		if err != nil {
			return nil, inField(err, "cluster")
		}
		vm.Cluster, vm.ClusterId = cluster.GetName(), cluster.GetId()
	}
	if err := grade.Stands(vm, project, image, zone); err != nil {
		return nil, err
	}
	vm.Project, vm.ProjectId = project.GetName(), project.GetId()
	vm.Zone, vm.ZoneId = zone.GetName(), zone.GetId()
	vm.Flavor, vm.Size = flavor.GetName(), size
	vm.Image, vm.ImageSha256, vm.ImageFormat = image.GetName(), image.GetSha256(), image.GetFormat()
	vm.DesiredState = apiv1.VM_RUNNING
	if err := roomFor(tx, vm, project.GetGrade(), image.GetGrade()); err != nil {
		return nil, err
	}
	return []*commandv1.Read{
		{Noun: reference("project", project), Revision: project.GetRevision()},
		{Noun: reference("flavor", flavor), Revision: flavor.GetRevision()},
		{Noun: reference("image", image), Revision: image.GetRevision()},
	}, nil
}

// takesVMs refuses a zone in which nothing new may begin. One that is merely out of reach takes VMs: they are built when it
// is back.
func takesVMs(z *apiv1.Zone) error {
	switch z.GetState() {
	case apiv1.Zone_RETIRED, apiv1.Zone_QUARANTINED, apiv1.Zone_MAINTENANCE:
		why := z.GetStateReason()
		if why != "" {
			why = ": " + why
		}
		return problem.Newf(problem.ZoneUnavailable, "Choose another zone, or ask an administrator when this one takes VMs again.",
			"zone %s is %s%s", z.GetName(), lower(z.GetState()), why).With("zone", "takes no VMs now")
	}
	return nil
}

// choose settles the cluster. It may have to wait for the picture of hosts, so no snapshot may be held meanwhile.
func (s vmService) choose(ctx context.Context, vm *apiv1.VM, after uint64) error {
	id, err := s.Chooser.Choose(ctx, vm, after)
	if err != nil || id == vm.GetClusterId() {
		return err
	}
	return s.view(ctx, func(tx *state.Tx) error {
		c, err := s.clusters.within(tx, id, state.Scope{"zone_id": vm.GetZoneId()})
		if err != nil {
			return problem.New(problem.Unavailable, "the cluster that was chosen is gone meanwhile", "Try again.")
		}
		vm.Cluster, vm.ClusterId = c.GetName(), c.GetId()
		return nil
	})
}

// UpdateVM changes what is said of a VM.
func (s vmService) UpdateVM(ctx context.Context, r *apiv1.UpdateVMRequest) (*apiv1.UpdateVMResponse, error) {
	m, err := s.vms.update(ctx, r, r.GetVm(), r.GetUpdateMask(), place{project: r.GetProject()}, nil, func(c *commandv1.Command, m *apiv1.VM, expected string) {
		c.Body = &commandv1.Command_UpdateVm{UpdateVm: &commandv1.UpdateVM{Vm: m, ExpectedRevision: expected}}
	})
	var refused *problem.Error
	if errors.As(err, &refused) && refused.Code() == problem.Invalid && slices.Contains(r.GetUpdateMask().GetPaths(), "flavor") {
		refused.Problem.Next = "A VM gets another flavor by being resized: naru vm resize " + r.GetVm().GetId() + " --flavor FLAVOR."
	}
	return &apiv1.UpdateVMResponse{Vm: m}, err
}

func (s vmService) StartVM(ctx context.Context, r *apiv1.StartVMRequest) (*apiv1.StartVMResponse, error) {
	op, err := s.want(ctx, r, r.GetVm(), r.GetProject(), apiv1.VM_RUNNING, false)
	return &apiv1.StartVMResponse{Operation: op}, err
}

func (s vmService) StopVM(ctx context.Context, r *apiv1.StopVMRequest) (*apiv1.StopVMResponse, error) {
	op, err := s.want(ctx, r, r.GetVm(), r.GetProject(), apiv1.VM_STOPPED, r.GetForce())
	return &apiv1.StopVMResponse{Operation: op}, err
}

func (s vmService) DeleteVM(ctx context.Context, r *apiv1.DeleteVMRequest) (*apiv1.DeleteVMResponse, error) {
	op, err := s.want(ctx, r, r.GetVm(), r.GetProject(), apiv1.VM_DELETED, false)
	return &apiv1.DeleteVMResponse{Operation: op}, err
}

// wish is how one asks for a desired state: directly, and by a request where that can be.
type wish struct {
	kind, already string
	verb          apiv1.PowerVM_Verb
}

var wishes = map[apiv1.VM_State]wish{
	apiv1.VM_RUNNING: {"vm.start", "it runs already", apiv1.PowerVM_START},
	apiv1.VM_STOPPED: {"vm.stop", "it is stopped already", apiv1.PowerVM_STOP},
	apiv1.VM_DELETED: {kind: "vm.delete", already: "it is deleted already"},
}

// want changes what is wanted of a VM. Asking for what is wanted already is no error: it answers with the operation that is
// under way, or with one that says that there was nothing to do.
func (s vmService) want(ctx context.Context, req proto.Message, name, project string, desired apiv1.VM_State, force bool) (*apiv1.Operation, error) {
	operation := newID()
	w := wishes[desired]
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		vm, err := s.vms.find(ctx, tx, name, place{project: project})
		if err != nil {
			return nil, err
		}
		if err := s.vms.matches(ctx, vm); err != nil {
			return nil, err
		}
		if op, err := s.already(ctx, tx, vm, desired, force); op != nil || err != nil {
			return &commandv1.Result{Operation: op}, err
		}
		if w.verb != 0 {
			what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Verb: w.verb}}}
			if _, err := intake.Possible(tx, what, vm); err != nil {
				return nil, err
			}
		}
		set := &commandv1.SetVMDesired{
			VmId: vm.GetId(), Desired: desired, Force: force, OperationId: operation, Kind: w.kind,
			Deadline: timestamppb.New(time.Now().Add(operationTime)),
		}
		if callOf(ctx).IfMatch != "" {
			set.ExpectedRevision = vm.GetRevision()
		}
		c.Body = &commandv1.Command_SetVmDesired{SetVmDesired: set}
		return nil, nil
	})
	return s.ended(ctx, w.kind, nil, result, err)
}

// already returns the operation that answers a wish which is granted or being granted; nil where there is something to do.
func (s vmService) already(ctx context.Context, tx *state.Tx, vm *apiv1.VM, desired apiv1.VM_State, force bool) (*apiv1.Operation, error) {
	if vm.GetDesiredState() != desired {
		return nil, nil
	}
	w := wishes[desired]
	if force && !vm.GetForce() {
		return nil, nil // now by force
	}
	op, err := tx.Operations.Get(vm.GetOperation())
	switch {
	case err == nil && !op.GetDone():
		return op, nil
	case err != nil && !errors.Is(err, state.ErrNotFound):
		return nil, err
	case vm.GetState() == desired:
		op := finished(ctx, w.kind, reference("vm", vm), w.already)
		op.Project, op.ProjectId, op.Zone = vm.GetProject(), vm.GetProjectId(), vm.GetZone()
		return op, nil
	}
	return nil, nil
}

// RebootVM orders a restart of the guest. An order that is under way is not given again.
func (s vmService) RebootVM(ctx context.Context, r *apiv1.RebootVMRequest) (*apiv1.RebootVMResponse, error) {
	const kind = "vm.reboot"
	operation := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		vm, err := s.vms.find(ctx, tx, r.GetVm(), place{project: r.GetProject()})
		if err != nil {
			return nil, err
		}
		if err := s.vms.matches(ctx, vm); err != nil {
			return nil, err
		}
		what := &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Verb: apiv1.PowerVM_REBOOT}}}
		if _, err := intake.Possible(tx, what, vm); err != nil {
			return nil, err
		}
		open, err := tx.OpenOperations(vm.GetId())
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(open, func(op *apiv1.Operation) bool { return op.GetKind() == kind }); i >= 0 {
			return &commandv1.Result{Operation: open[i]}, nil
		}
		c.Body = &commandv1.Command_OrderVm{OrderVm: reboot(vm, operation, r.GetForce(), kind)}
		return nil, nil
	})
	op, err := s.ended(ctx, kind, nil, result, err)
	return &apiv1.RebootVMResponse{Operation: op}, err
}

// reboot is the order for the zone.
func reboot(vm *apiv1.VM, operation string, force bool, kind string) *commandv1.OrderVM {
	deadline := timestamppb.New(time.Now().Add(operationTime))
	return &commandv1.OrderVM{
		VmId: vm.GetId(), OperationId: operation, Kind: kind, Deadline: deadline,
		Order: &linkv1.Order{OperationId: operation, Verb: linkv1.Order_REBOOT, VmId: vm.GetId(), Force: force, Deadline: deadline},
	}
}

// lower writes a state as people do.
func lower(state interface{ String() string }) string {
	return strings.ToLower(strings.ReplaceAll(state.String(), "_", " "))
}

// TopVMs returns the newest samples of the VMs that the caller may see, the live ones first, of these the busiest. A sample
// comes from a zone, which may lie: whose a VM is, the state says. Of a zone that is away, VMs that were on are there even
// without figures.
func (s vmService) TopVMs(ctx context.Context, r *apiv1.TopVMsRequest) (*apiv1.TopVMsResponse, error) {
	var mine []*apiv1.VM
	zones := map[string]*apiv1.Zone{}
	err := s.read(ctx, func(tx *state.Tx) error {
		scope, err := s.vms.scope(ctx, tx, place{project: r.GetProject(), zone: r.GetZone()})
		if err != nil {
			return err
		}
		mine = nil
		table, err := s.vms.narrowed(ctx, tx)
		if err != nil {
			return err
		}
		for vm, err := range table.All(scope) {
			if err != nil {
				return err
			}
			mine = append(mine, vm)
		}
		return zonesInto(tx, zones)
	})
	if err != nil {
		return nil, err
	}
	samples, err := s.Samples.VMs(ctx)
	if err != nil {
		return nil, err
	}
	found := newest(samples, (*apiv1.VMSample).GetVmId, zones)
	var out []*apiv1.VMSample
	for _, vm := range mine {
		zone := zones[vm.GetZone()]
		m := &apiv1.VMSample{SeenAt: lastHeard(zone)}
		kept, ok := found[origin{vm.GetId(), vm.GetZone()}]
		switch {
		case ok:
			m = proto.CloneOf(kept)
		case !away(zone) || vm.GetPower() != apiv1.VM_ON:
			continue
		}
		m.VmId, m.Vm, m.Project, m.Zone, m.Host = vm.GetId(), vm.GetName(), vm.GetProject(), vm.GetZone(), vm.GetHost()
		m.Freshness = vm.GetFreshness()
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *apiv1.VMSample) int {
		return cmp.Or(busier(a, b), cmp.Compare(a.GetVm(), b.GetVm()), cmp.Compare(a.GetVmId(), b.GetVmId()))
	})
	return &apiv1.TopVMsResponse{Samples: out}, nil
}
