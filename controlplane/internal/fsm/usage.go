package fsm

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/metering"
	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// acceptUsage makes a record of what a zone says that one of its VMs used, and adjusts what does not fit what is known. Records stay for
// ever.
func (c *command) acceptUsage(zone *apiv1.Zone, origin string, u *linkv1.Usage) (string, error) {
	if why := metering.Fault(u); why != "" {
		return why, nil
	}
	vm, why, err := c.mayUse(zone, u.GetVmId())
	if err != nil || why != "" {
		return why, err
	}
	h, err := c.tx.UsageHead(u.GetVmId())
	if err != nil && !missing(err) {
		return "", err
	}
	if err := c.placeUsage(h, zone, vm, u.GetVmId()); err != nil {
		return "", err
	}
	out := metering.Take(h, origin, u, vm.GetCreatedAt().GetSeconds(), c.now.GetSeconds())
	if vm != nil && !h.GetEnded() {
		h.Gone = 0 // it is made anew
	}
	if h.GetOf().GetProjectId() == "" {
		out.Marks = append(out.Marks, apiv1.UsageRecord_UNKNOWN_VM)
	}
	m := c.usageOf(h, out.Span)
	m.Kind, m.Marks, m.Number, m.IncarnationId, m.ClockId = out.Kind, out.Marks, u.GetNumber(), origin, u.GetClockId()
	m.NextState, m.NextSize = u.GetState(), u.GetSize()
	if err := c.tx.UsageRecords.Put(m); err != nil {
		return "", err
	}
	if err := c.adjustUsage(h, m.GetId(), out.Marks, out.Adjustments); err != nil {
		return "", err
	}
	return "", c.tx.PutUsageHead(h)
}

// placeUsage says in a head whose and where its VM is; what is known of one that is gone stays.
func (c *command) placeUsage(h *commandv1.UsageHead, zone *apiv1.Zone, vm *apiv1.VM, id string) error {
	if h.GetOf() == nil {
		h.Of = &apiv1.UsageRecord{Vm: id, VmId: id, Zone: zone.GetName(), ZoneId: zone.GetId()}
	}
	if vm == nil || !request.Whole(vm) {
		return nil
	}
	h.Of = &apiv1.UsageRecord{
		Vm: vm.GetName(), VmId: vm.GetId(), Project: vm.GetProject(), ProjectId: vm.GetProjectId(), Zone: zone.GetName(), ZoneId: zone.GetId(),
		Cluster: vm.GetCluster(), ClusterId: vm.GetClusterId(), Request: vm.GetRequest(),
		Offering: vm.GetOffering(), OfferingId: vm.GetOfferingId(), OfferingVersion: vm.GetOfferingVersion(),
	}
	project, err := c.tx.Projects.Get(vm.GetProjectId())
	if missing(err) {
		return nil
	}
	h.Of.Organization, h.Of.OrganizationId = project.GetOrganization(), project.GetOrganizationId()
	return err
}

// usageOf is a record of a span of a VM's use, without kind.
func (c *command) usageOf(h *commandv1.UsageHead, s metering.Span) *apiv1.UsageRecord {
	m := proto.CloneOf(h.GetOf())
	m.Id, m.RecordedAt = c.nextID(), c.now
	m.StartsAt, m.EndsAt = &timestamppb.Timestamp{Seconds: s.From}, &timestamppb.Timestamp{Seconds: s.Until}
	m.State, m.Size = s.State, s.Size
	return m
}

// adjustUsage writes adjustments of a record, and tells people.
func (c *command) adjustUsage(h *commandv1.UsageHead, record string, marks []apiv1.UsageRecord_Mark, all []metering.Adjustment) error {
	for _, a := range all {
		m := c.usageOf(h, a.Span)
		m.Kind, m.Subtracts, m.AdjustsId, m.Marks = apiv1.UsageRecord_ADJUSTMENT, a.Subtracts, record, marks
		if err := c.tx.UsageRecords.Put(m); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return nil
	}
	of := h.GetOf()
	return c.tell(apiv1.Event_WARNING, "usage.adjusted", where(of), &apiv1.Reference{Kind: "vm", Id: of.GetVmId(), Name: of.GetVm()},
		"what zone "+of.GetZone()+" says of the use of VM "+of.GetVm()+" was adjusted ("+markWords(marks)+"): naru usage list --vm "+of.GetVmId())
}

func markWords(marks []apiv1.UsageRecord_Mark) string {
	var words []string
	for _, m := range marks {
		words = append(words, strings.ReplaceAll(strings.ToLower(m.String()), "_", " "))
	}
	return strings.Join(words, ", ")
}

// usageGone notes that a VM is gone: what goes on of it does so no longer. Its last link may still come.
func (c *command) usageGone(m *apiv1.VM, zone *apiv1.Zone) error {
	h, err := c.tx.UsageHead(m.GetId())
	if err != nil && !missing(err) {
		return err
	}
	if err := c.placeUsage(h, zone, m, m.GetId()); err != nil {
		return err
	}
	h.Gone = c.now.GetSeconds()
	return c.tx.PutUsageHead(h)
}

// attributeUsage gives what a VM used before it was known, in no project, to the project that it turned out to be of.
func (c *command) attributeUsage(m *apiv1.VM, zone *apiv1.Zone) error {
	h, err := c.tx.UsageHead(m.GetId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	nobody := proto.CloneOf(h)
	if err := c.placeUsage(h, zone, m, m.GetId()); err != nil {
		return err
	}
	all, err := c.tx.UsageOf(m.GetId())
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.GetProjectId() != "" {
			continue
		}
		s := metering.Span{From: r.GetStartsAt().GetSeconds(), Until: r.GetEndsAt().GetSeconds(), State: r.GetState(), Size: r.GetSize()}
		if s.From == s.Until {
			continue
		}
		for _, to := range []*commandv1.UsageHead{nobody, h} {
			out := c.usageOf(to, s)
			out.Kind, out.AdjustsId, out.Marks = apiv1.UsageRecord_ADJUSTMENT, r.GetId(), []apiv1.UsageRecord_Mark{apiv1.UsageRecord_UNKNOWN_VM}
			out.Subtracts = r.GetSubtracts() == (to == h)
			if err := c.tx.UsageRecords.Put(out); err != nil {
				return err
			}
		}
	}
	return c.tx.PutUsageHead(h)
}

// dropHeldUsage forgets the use of a VM that was held at its zone's word alone, and goes at that word.
func (c *command) dropHeldUsage(m *apiv1.VM, zone *apiv1.Zone) error {
	n, err := c.tx.UsageCount(m.GetId())
	if err != nil || n == 0 {
		return err
	}
	if err := c.tx.ForgetUsage(m.GetId()); err != nil {
		return err
	}
	return c.tell(apiv1.Event_WARNING, "usage.forgotten", where(zone), reference("vm", m),
		strconv.Itoa(n)+" records of use of VM "+m.GetId()+", which zone "+zone.GetName()+" alone knew and had in no project, went with it")
}

// closeUsage ends the use of VMs that went before a time, and whose zones never said when it ended.
func (c *command) closeUsage(before int64) error {
	heads, err := c.tx.GoneUsage(before/1_000_000, pruneAtOnce)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if !h.GetEnded() {
			if err := c.adjustUsage(h, "", []apiv1.UsageRecord_Mark{apiv1.UsageRecord_UNTOLD}, metering.Close(h)); err != nil {
				return err
			}
		}
		if err := c.tx.ForgetUsageHead(h.GetOf().GetVmId()); err != nil {
			return err
		}
	}
	return nil
}

// mayUse returns a VM of which a zone reports use, nil where it is gone, or why that is not the zone's to report. Its last use often
// comes behind its tombstone. One that a restored backup may have forgotten is believed, within a bound.
func (c *command) mayUse(zone *apiv1.Zone, vmID string) (vm *apiv1.VM, why string, err error) {
	vm, err = c.tx.VMs.Get(vmID)
	switch {
	case err == nil && vm.GetZoneId() != zone.GetId():
		return nil, "VM " + vmID + " is not in zone " + zone.GetName(), nil
	case err == nil && !request.Whole(vm):
		why, err := c.mayUseMore(vmID, "held")
		return vm, why, err
	case err == nil || !missing(err):
		return vm, "", err
	}
	former, err := c.tx.FormerVM(vmID)
	switch {
	case err != nil || former == zone.GetId():
		return nil, "", err
	case former != "":
		return nil, "VM " + vmID + " was not in zone " + zone.GetName(), nil
	case c.tx.Meta().EpochBegan == 0:
		return nil, "there never was a VM " + vmID + " in zone " + zone.GetName(), nil
	}
	h, err := c.tx.UsageHead(vmID)
	if err == nil && h.GetOf().GetZoneId() != zone.GetId() {
		return nil, "VM " + vmID + " is not in zone " + zone.GetName(), nil
	}
	if err != nil && !missing(err) {
		return nil, "", err
	}
	if why, err := c.mayUseMore(vmID, "not known"); err != nil || why != "" {
		return nil, why, err
	}
	n, err := c.tx.Tally(zone.GetId(), tallyUsage)
	if err != nil {
		return nil, "", err
	}
	if n >= maxForgottenUsage {
		return nil, "no VM " + vmID + " is known in zone " + zone.GetName() + ", nor can more be believed to be forgotten", nil
	}
	return nil, "", c.tx.AddTally(zone.GetId(), tallyUsage, 1)
}

// mayUseMore says why no more is kept of the use of a VM that is in no project.
func (c *command) mayUseMore(vmID, is string) (why string, err error) {
	n, err := c.tx.UsageCount(vmID)
	if n >= maxHeldUsage {
		return "VM " + vmID + " is " + is + ", and of its use " + strconv.Itoa(n) + " records are kept", err
	}
	return "", err
}
