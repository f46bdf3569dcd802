package fsm

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// forgotten reports whether a zone has carried out a wish of an earlier epoch that a restore has made this plane forget.
func forgotten(meta state.Meta, m *apiv1.VM) bool {
	reached := m.GetReached()
	return reached != nil && reached.GetEpoch() < meta.Epoch && newer(reached, m.GetGeneration())
}

// follow takes what a zone has reached for what is wanted, under a generation of this epoch.
func (o *observation) follow(m *apiv1.VM) error {
	m.DesiredState, m.Generation = wantedFrom(m.GetState(), m.GetDesiredState()), o.generation()
	o.forgetErrand(m)
	if err := o.tx.VMs.Put(m); err != nil {
		return err
	}
	if err := o.tx.Desire(o.zone.GetId(), reference("vm", m)); err != nil {
		return err
	}
	return o.tellOfVM(apiv1.Event_WARNING, "vm.followed", o.zone, m,
		"VM "+m.GetName()+" was changed after the restored backup; it stays "+m.GetState().String())
}

// wantedFrom is what is wanted of a VM of which only its state is known.
func wantedFrom(reached, otherwise apiv1.VM_State) apiv1.VM_State {
	switch reached {
	case apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_TRASHED:
		return reached
	case apiv1.VM_SUSPENDED:
		return apiv1.VM_STOPPED
	}
	if otherwise == apiv1.VM_STATE_UNSPECIFIED {
		return apiv1.VM_RUNNING
	}
	return otherwise
}

// meetUnknown adopts a VM that the plane does not know, or holds it, unless it knows it to be gone.
func (o *observation) meetUnknown(reported *apiv1.VM) error {
	gone, err := o.tx.IsDesiredGone(o.zone.GetId(), "vm", reported.GetId())
	if err != nil || gone || reported.GetState() == apiv1.VM_DELETED {
		return err
	}
	project, why, err := o.mayAdopt(reported)
	if err != nil {
		return err
	}
	if why != "" {
		if may, err := o.mayHold(); err != nil || !may {
			o.leftOut++
			return err
		}
	}
	if o.full {
		if err := o.tx.MarkObserved(o.zone.GetId(), reported.GetId()); err != nil {
			return err
		}
	}
	if why != "" {
		return o.hold(reported, why)
	}
	return o.adopt(reported, project)
}

// mayAdopt returns the project of a VM that its zone reports whole, and counts it as adopted, or why it is not taken at its
// zone's word: a zone says what its VMs are, not what may be. A VM that this plane can have forgotten was wished in an earlier
// epoch and after the restored backup. Its project has to be there, and to have VMs in the zone already; and its cluster is no
// other zone's.
func (o *observation) mayAdopt(reported *apiv1.VM) (project *apiv1.Project, why string, err error) {
	meta, wished := o.tx.Meta(), reported.GetGeneration()
	switch {
	case !request.Whole(reported):
		return nil, "its zone reports it only in part; update the zone's agents, or delete it", nil
	case meta.EpochBegan == 0 || wished.GetEpoch() >= meta.Epoch || wished.GetIndex() <= meta.EpochBegan:
		return nil, "it is not among what a restored backup has forgotten; delete it when it is not needed", nil
	}
	project, err = o.tx.Projects.Get(reported.GetProjectId())
	if missing(err) {
		return nil, "its project " + strconv.Quote(reported.GetProject()) + " does not exist; delete it when it is not needed", nil
	}
	if err != nil {
		return nil, "", err
	}
	has, asked := o.projects[project.GetId()]
	if !asked {
		if has, err = o.tx.HasVM(o.zone.GetId(), project.GetId()); err != nil {
			return nil, "", err
		}
		o.projects[project.GetId()] = has
	}
	if !has {
		return nil, "it is of project " + project.GetName() + ", of which no VM in the zone is known here; if that is right, " +
			"make one there, and what the zone reports of this one next is taken; else delete it", nil
	}
	cluster, err := o.tx.Clusters.Get(reported.GetClusterId())
	if err != nil && !missing(err) {
		return nil, "", err
	}
	if err == nil && cluster.GetZoneId() != o.zone.GetId() {
		return nil, "it is said to be in cluster " + cluster.GetName() + ", which is another zone's; delete it", nil
	}
	may, err := o.mayAdoptMore(reported)
	if err != nil || may {
		return project, "", err
	}
	return nil, "more was found in its zone than is adopted by itself; delete it when it is not needed", nil
}

// adopt stores a VM as its zone reports it, under a generation of this epoch. What is wanted of it follows from its state.
func (o *observation) adopt(reported *apiv1.VM, project *apiv1.Project) error {
	m := proto.CloneOf(reported)
	m.Zone, m.ZoneId, m.Project, m.ProjectId = o.zone.GetName(), o.zone.GetId(), project.GetName(), project.GetId()
	m.Operation, m.Force, m.Freshness, m.ExpiresAt = "", false, 0, nil
	m.DesiredState, m.Generation = wantedFrom(m.GetState(), m.GetDesiredState()), o.generation()
	o.forgetErrand(m)
	if m.GetCreatedAt() == nil {
		m.CreatedAt = o.now
	}
	if err := o.tx.VMs.Forget(m.GetId()); err != nil { // one that was held, whose columns differ
		return err
	}
	name, err := o.freeName(m)
	if err != nil {
		return err
	}
	message := "VM " + name + " was found in zone " + o.zone.GetName() + " and was not known; it is kept as it is"
	if name != m.GetName() {
		message += ", under this name because " + strconv.Quote(m.GetName()) + " is another VM's now"
	}
	m.Name = name
	if err := o.tx.VMs.Put(m); err != nil {
		return err
	}
	if err := o.tx.Desire(o.zone.GetId(), reference("vm", m)); err != nil {
		return err
	}
	if err := o.takeSnapshots(m); err != nil {
		return err
	}
	if err := o.attributeUsage(m, o.zone); err != nil {
		return err
	}
	return o.tellOfVM(apiv1.Event_WARNING, "vm.adopted", o.zone, m, message)
}

// forgetErrand takes a VM as it is, where nobody knows what was to be done to it.
func (o *observation) forgetErrand(m *apiv1.VM) {
	m.Errand, m.SizeBefore, m.FlavorBefore = nil, nil, ""
	if m.GetActual() != nil {
		m.Size = m.GetActual()
	}
	o.trashFollowed(m)
}

// freeName is a VM's name, or, where another VM has that, one with the end of its id, which is its random part.
func (o *observation) freeName(m *apiv1.VM) (string, error) {
	const most = 63
	end := m.GetId()[strings.LastIndexByte(m.GetId(), '-')+1:]
	name := m.GetName()
	if name == "" {
		name = "vm-" + end
	}
	for n := 1; ; n++ {
		err := nameFree(o.tx.VMs, "VM", name, state.Scope{"project_id": m.GetProjectId()})
		if !problem.Is(err, problem.NameTaken) {
			return name, err
		}
		tail := "-" + end
		if n > 1 {
			tail += "-" + strconv.Itoa(n)
		}
		name = m.GetName()[:min(len(m.GetName()), max(most-len(tail), 0))] + tail
	}
}

// trim holds what is kept of a VM that is held to its bound: only a problem can be long.
func trim(m *apiv1.VM) {
	if proto.Size(m) > maxHeldBytes {
		m.Error = nil
	}
}

// hold keeps a VM that is not taken at its zone's word: it is shown under its id and in no project, and can be deleted.
// Without a generation nothing of it goes down: its zone keeps its own wish.
func (o *observation) hold(reported *apiv1.VM, why string) error {
	m := &apiv1.VM{Id: reported.GetId(), Name: reported.GetId(), Zone: o.zone.GetName(), ZoneId: o.zone.GetId(), CreatedAt: o.now}
	schema.MergeObserved(m, reported)
	m.DesiredState = wantedFrom(m.GetState(), apiv1.VM_STATE_UNSPECIFIED)
	trim(m)
	if err := o.tx.VMs.Put(m); err != nil {
		return err
	}
	o.held++
	return o.tell(apiv1.Event_WARNING, "vm.held", where(o.zone), reference("vm", m),
		"VM "+strconv.Quote(reported.GetName())+" was found in zone "+o.zone.GetName()+" and is held under its id: "+why)
}
