package edge

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Picture is what the zone's store holds, as this agent last heard. etcdstore.Picture is one.
type Picture interface {
	// Nouns tells fn each noun of a kind that is wanted, with what is observed of it, or nil. fn changes neither.
	Nouns(kind string, fn func(desired, observed proto.Message))
}

// Local is the zone's own picture of its nouns: what the control plane last wished, with what the zone observes. Safe for
// concurrent use.
type Local struct{ picture Picture }

// NewLocal returns what reads the picture.
func NewLocal(p Picture) *Local { return &Local{p} }

// all returns the nouns of one kind, merged and by name.
func all[M interface {
	proto.Message
	GetName() string
	GetId() string
}](l *Local, kind string, keep func(M) bool) []M {
	var out []M
	l.picture.Nouns(kind, func(desired, observed proto.Message) {
		m := proto.CloneOf(desired.(M))
		if observed != nil {
			schema.MergeObserved(m, proto.Clone(observed))
		}
		if keep(m) {
			schema.Strip(m)
			out = append(out, m)
		}
	})
	slices.SortFunc(out, func(a, b M) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return out
}

// read answers a request from the zone's own store, of a zone that is cut off since then. What it tells is what the zone knows
// now; only what the control plane wishes may be old, and is as fresh as the link was.
func (l *Local) read(req, reply proto.Message, who *apiv1.WhoAmIResponse, since time.Time) error {
	switch r := req.(type) {
	case *apiv1.ListVMsRequest:
		if err := simple(r.GetFilter(), r.GetOrderBy(), r.GetPageToken()); err != nil {
			return err
		}
		reply.(*apiv1.ListVMsResponse).Vms = l.vms(who, r.GetProject(), r.GetZone())
	case *apiv1.GetVMRequest:
		for _, vm := range l.vms(who, r.GetProject(), r.GetZone()) {
			if vm.GetId() == r.GetVm() || vm.GetName() == r.GetVm() {
				reply.(*apiv1.GetVMResponse).Vm = vm
				return nil
			}
		}
		return problem.Newf(problem.NotFound, "The zone is cut off and knows its own VMs only; ask again when the link is up.", "there is no VM %q in this zone", r.GetVm())
	case *apiv1.ListZonesRequest:
		reply.(*apiv1.ListZonesResponse).Zones = all(l, "zone", func(z *apiv1.Zone) bool { cutOff(z, since); return true })
	case *apiv1.GetZoneRequest:
		for _, z := range all(l, "zone", func(z *apiv1.Zone) bool { return z.GetId() == r.GetZone() || z.GetName() == r.GetZone() }) {
			cutOff(z, since)
			reply.(*apiv1.GetZoneResponse).Zone = z
			return nil
		}
		return problem.Newf(problem.NotFound, "The zone is cut off and knows itself only.", "there is no zone %q", r.GetZone())
	default:
		return problem.New(problem.LinkDown, "this cannot be read while the zone is cut off", "Try again when the link is up.")
	}
	return nil
}

// cutOff gives a zone the state that the control plane shows of it too: what was last wished is from before the cut. What an
// administrator has decided stays.
func cutOff(z *apiv1.Zone, since time.Time) {
	z.Freshness = apiv1.Freshness_STALE
	switch z.GetState() {
	case apiv1.Zone_MAINTENANCE, apiv1.Zone_QUARANTINED, apiv1.Zone_RETIRED, apiv1.Zone_DISCONNECTED:
		return
	}
	z.State, z.StateChangedAt = apiv1.Zone_DISCONNECTED, timestamppb.New(since)
	z.StateReason = "the zone has no session with the control plane"
}

// vms returns the zone's VMs of the caller's project. A project or zone that is asked for narrows them.
func (l *Local) vms(who *apiv1.WhoAmIResponse, project, zone string) []*apiv1.VM {
	return all(l, "vm", func(vm *apiv1.VM) bool {
		asked := (project == "" || project == vm.GetProject() || project == vm.GetProjectId()) &&
			(zone == "" || zone == vm.GetZone() || zone == vm.GetZoneId())
		if !asked || vm.GetProject() != who.GetProject() {
			return false
		}
		if vm.Freshness = vm.GetHostFreshness(); vm.Freshness == apiv1.Freshness_LEVEL_UNSPECIFIED {
			vm.Freshness = apiv1.Freshness_STALE
		}
		return true
	})
}

// simple refuses what only the control plane can do.
func simple(filter, order, token string) error {
	if filter != "" || order != "" || token != "" {
		return problem.New(problem.LinkDown, "the zone is cut off; it can list its own VMs, without filter, order and paging", "Ask without them, or try again when the link is up.")
	}
	return nil
}
