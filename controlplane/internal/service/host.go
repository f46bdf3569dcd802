package service

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type hostService struct {
	apiv1.UnimplementedHostServiceServer
	*Service
}

func hostChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Host) proto.Message {
	return &apiv1.WatchHostsResponse{Type: kind, Revision: revision, Host: m}
}

func (s hostService) ListHosts(ctx context.Context, r *apiv1.ListHostsRequest) (*apiv1.ListHostsResponse, error) {
	items, next, err := s.hosts.list(ctx, r, place{zone: r.GetZone(), cluster: r.GetCluster()})
	return &apiv1.ListHostsResponse{Hosts: items, NextPageToken: next}, err
}

func (s hostService) GetHost(ctx context.Context, r *apiv1.GetHostRequest) (*apiv1.GetHostResponse, error) {
	m, err := s.hosts.get(ctx, r.GetHost(), place{zone: r.GetZone(), cluster: r.GetCluster()})
	return &apiv1.GetHostResponse{Host: m}, err
}

func (s hostService) WatchHosts(r *apiv1.WatchHostsRequest, stream grpc.ServerStreamingServer[apiv1.WatchHostsResponse]) error {
	return s.hosts.watch(r, place{zone: r.GetZone(), cluster: r.GetCluster()}, stream)
}

func (s hostService) CreateHost(ctx context.Context, r *apiv1.CreateHostRequest) (*apiv1.CreateHostResponse, error) {
	result, err := s.hosts.create(ctx, r, r.GetHost(), func(tx *state.Tx, h *apiv1.Host) (state.Scope, error) {
		z, err := s.zones.find(ctx, tx, h.GetZone(), place{})
		if err != nil {
			return nil, inField(err, "zone")
		}
		c, err := s.clusters.within(tx, h.GetCluster(), state.Scope{"zone_id": z.GetId()})
		if err != nil {
			return nil, inField(err, "cluster")
		}
		h.Zone, h.ZoneId, h.Cluster, h.ClusterId = z.GetName(), z.GetId(), c.GetName(), c.GetId()
		return state.Scope{"cluster_id": c.GetId()}, nil
	}, func(c *commandv1.Command, m *apiv1.Host) {
		c.Body = &commandv1.Command_CreateHost{CreateHost: &commandv1.CreateHost{Host: m}}
	})
	op, err := s.hosts.made(ctx, result, err)
	return &apiv1.CreateHostResponse{Operation: op}, err
}

func (s hostService) UpdateHost(ctx context.Context, r *apiv1.UpdateHostRequest) (*apiv1.UpdateHostResponse, error) {
	m, err := s.hosts.update(ctx, r, r.GetHost(), r.GetUpdateMask(), place{zone: r.GetZone(), cluster: r.GetCluster()}, nil, func(c *commandv1.Command, m *apiv1.Host, expected string) {
		c.Body = &commandv1.Command_UpdateHost{UpdateHost: &commandv1.UpdateHost{Host: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateHostResponse{Host: m}, err
}

func (s hostService) DeleteHost(ctx context.Context, r *apiv1.DeleteHostRequest) (*apiv1.DeleteHostResponse, error) {
	op, err := s.hosts.remove(ctx, r, r.GetHost(), place{zone: r.GetZone(), cluster: r.GetCluster()}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteHost{DeleteHost: d}
	})
	return &apiv1.DeleteHostResponse{Operation: op}, err
}

// DeclareHostLost says that a host is gone for good.
func (s hostService) DeclareHostLost(ctx context.Context, r *apiv1.DeclareHostLostRequest) (*apiv1.DeclareHostLostResponse, error) {
	m, err := s.declare(ctx, r, r, true)
	return &apiv1.DeclareHostLostResponse{Host: m}, err
}

// DeclareHostFound takes that back.
func (s hostService) DeclareHostFound(ctx context.Context, r *apiv1.DeclareHostFoundRequest) (*apiv1.DeclareHostFoundResponse, error) {
	m, err := s.declare(ctx, r, r, false)
	return &apiv1.DeclareHostFoundResponse{Host: m}, err
}

func (s hostService) declare(ctx context.Context, req proto.Message, r interface {
	GetHost() string
	GetZone() string
	GetCluster() string
	GetReason() string
}, lost bool) (*apiv1.Host, error) {
	result, err := s.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.hosts.find(ctx, tx, r.GetHost(), place{zone: r.GetZone(), cluster: r.GetCluster()})
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_DeclareHost{DeclareHost: &commandv1.DeclareHost{HostId: m.GetId(), Lost: lost, Reason: r.GetReason()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return s.hosts.shown(ctx, result)
}

// TopHosts returns the newest sample of each host, the live ones first, of these the busiest. What is said of a host is taken
// from its own zone only. A host of which nothing is kept is there without figures, so that a zone that is away is not missed.
func (s hostService) TopHosts(ctx context.Context, r *apiv1.TopHostsRequest) (*apiv1.TopHostsResponse, error) {
	var hosts []*apiv1.Host
	zones := map[string]*apiv1.Zone{}
	err := s.read(ctx, func(tx *state.Tx) error {
		hosts = nil
		scope, err := s.hosts.scope(ctx, tx, place{zone: r.GetZone()})
		if err != nil {
			return err
		}
		table, err := s.hosts.narrowed(ctx, tx)
		if err != nil {
			return err
		}
		for h, err := range table.All(scope) {
			if err != nil {
				return err
			}
			hosts = append(hosts, h)
		}
		return zonesInto(tx, zones)
	})
	if err != nil {
		return nil, err
	}
	samples, err := s.Samples.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	found := newest(samples, (*apiv1.HostSample).GetHostId, zones)
	out := make([]*apiv1.HostSample, 0, len(hosts))
	for _, h := range hosts {
		m := &apiv1.HostSample{SeenAt: lastHeard(zones[h.GetZone()])}
		if kept, ok := found[origin{h.GetId(), h.GetZone()}]; ok {
			m = proto.CloneOf(kept)
		}
		m.HostId, m.Host, m.Zone, m.Cluster = h.GetId(), h.GetName(), h.GetZone(), h.GetCluster()
		m.Freshness = h.GetFreshness()
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *apiv1.HostSample) int {
		return cmp.Or(busier(a, b), cmp.Compare(a.GetZone(), b.GetZone()), cmp.Compare(a.GetHost(), b.GetHost()), cmp.Compare(a.GetHostId(), b.GetHostId()))
	})
	return &apiv1.TopHostsResponse{Samples: out}, nil
}
