package desk

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

// Reader reads the zone's own picture of its nouns: what the control plane last wished, with what the zone observes. Safe for
// concurrent use.
type Reader struct{ picture Picture }

// NewReader returns what reads the picture.
func NewReader(p Picture) *Reader { return &Reader{p} }

// all returns the nouns of one kind, merged and by name.
func all[M interface {
	proto.Message
	GetName() string
	GetId() string
}](l *Reader, kind string, keep func(M) bool) []M {
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

// Sight is what somebody sees of a zone: the VMs of one project, by name, or with Whole everything.
type Sight struct {
	Project string
	Whole   bool
}

func (s Sight) sees(vm *apiv1.VM) bool { return s.Whole || s.Project == vm.GetProject() }

// Read answers a request from the zone's own store, of a zone that is cut off since then, to somebody who sees this much. What it
// tells is what the zone knows now; only what the control plane wishes may be old, and is as fresh as the link was.
func (l *Reader) Read(req, reply proto.Message, who Sight, since time.Time) error {
	switch r := req.(type) {
	case *apiv1.ListVMsRequest:
		if err := simple(r.GetFilter(), r.GetOrderBy(), r.GetPageToken()); err != nil {
			return err
		}
		reply.(*apiv1.ListVMsResponse).Vms = l.vms(who, r.GetProject(), r.GetZone())
		return nil
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
		return nil
	case *apiv1.GetZoneRequest:
		for _, z := range all(l, "zone", func(z *apiv1.Zone) bool { return z.GetId() == r.GetZone() || z.GetName() == r.GetZone() }) {
			cutOff(z, since)
			reply.(*apiv1.GetZoneResponse).Zone = z
			return nil
		}
		return problem.Newf(problem.NotFound, "The zone is cut off and knows itself only.", "there is no zone %q", r.GetZone())
	case *apiv1.GetOperationRequest:
		op, err := l.readOperation(who, r.GetOperation())
		reply.(*apiv1.GetOperationResponse).Operation = op
		return err
	}
	if who.Whole {
		return l.readHosts(req, reply)
	}
	return notRead()
}

func notRead() error {
	return problem.New(problem.LinkDown, "this cannot be read while the zone is cut off", "Try again when the link is up.")
}

// readHosts answers a request for hosts and clusters.
func (l *Reader) readHosts(req, reply proto.Message) error {
	is := func(asked, id, name string) bool { return asked == "" || asked == id || asked == name }
	hosts := func(zone, cluster, host string) []*apiv1.Host {
		return all(l, "host", func(h *apiv1.Host) bool {
			return is(zone, h.GetZoneId(), h.GetZone()) && is(cluster, h.GetClusterId(), h.GetCluster()) && is(host, h.GetId(), h.GetName())
		})
	}
	clusters := func(zone, cluster string) []*apiv1.Cluster {
		return all(l, "cluster", func(c *apiv1.Cluster) bool {
			if c.Freshness = apiv1.Freshness_LIVE; c.GetOwner() == "" {
				c.Freshness = apiv1.Freshness_STALE
			}
			return is(zone, c.GetZoneId(), c.GetZone()) && is(cluster, c.GetId(), c.GetName())
		})
	}
	switch r := req.(type) {
	case *apiv1.ListHostsRequest:
		if err := simple(r.GetFilter(), r.GetOrderBy(), r.GetPageToken()); err != nil {
			return err
		}
		reply.(*apiv1.ListHostsResponse).Hosts = hosts(r.GetZone(), r.GetCluster(), "")
	case *apiv1.ListClustersRequest:
		if err := simple(r.GetFilter(), r.GetOrderBy(), r.GetPageToken()); err != nil {
			return err
		}
		reply.(*apiv1.ListClustersResponse).Clusters = clusters(r.GetZone(), "")
	case *apiv1.GetHostRequest:
		found := hosts(r.GetZone(), r.GetCluster(), r.GetHost())
		if len(found) != 1 {
			return problem.Newf(problem.NotFound, "Say its id, or its cluster: naru host list.", "%d hosts of this zone are called %q", len(found), r.GetHost())
		}
		reply.(*apiv1.GetHostResponse).Host = found[0]
	case *apiv1.GetClusterRequest:
		found := clusters(r.GetZone(), r.GetCluster())
		if len(found) != 1 {
			return problem.Newf(problem.NotFound, "See naru cluster list.", "%d clusters of this zone are called %q", len(found), r.GetCluster())
		}
		reply.(*apiv1.GetClusterResponse).Cluster = found[0]
	default:
		return notRead()
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

// vms returns the zone's VMs that the caller sees. A project or zone that is asked for narrows them.
func (l *Reader) vms(who Sight, project, zone string) []*apiv1.VM {
	return all(l, "vm", func(vm *apiv1.VM) bool {
		asked := (project == "" || project == vm.GetProject() || project == vm.GetProjectId()) &&
			(zone == "" || zone == vm.GetZone() || zone == vm.GetZoneId())
		if !asked || !who.sees(vm) {
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
		return problem.New(problem.LinkDown, "the zone is cut off; it can list what it has, without filter, order and paging", "Ask without them, or try again when the link is up.")
	}
	return nil
}
