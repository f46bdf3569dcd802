package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type clusterService struct {
	apiv1.UnimplementedClusterServiceServer
	*Service
}

func clusterChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Cluster) proto.Message {
	return &apiv1.WatchClustersResponse{Type: kind, Revision: revision, Cluster: m}
}

func (s clusterService) ListClusters(ctx context.Context, r *apiv1.ListClustersRequest) (*apiv1.ListClustersResponse, error) {
	items, next, err := s.clusters.list(ctx, r, place{zone: r.GetZone()})
	return &apiv1.ListClustersResponse{Clusters: items, NextPageToken: next}, err
}

func (s clusterService) GetCluster(ctx context.Context, r *apiv1.GetClusterRequest) (*apiv1.GetClusterResponse, error) {
	m, err := s.clusters.get(ctx, r.GetCluster(), place{zone: r.GetZone()})
	return &apiv1.GetClusterResponse{Cluster: m}, err
}

func (s clusterService) WatchClusters(r *apiv1.WatchClustersRequest, stream grpc.ServerStreamingServer[apiv1.WatchClustersResponse]) error {
	return s.clusters.watch(r, place{zone: r.GetZone()}, stream)
}

func (s clusterService) CreateCluster(ctx context.Context, r *apiv1.CreateClusterRequest) (*apiv1.CreateClusterResponse, error) {
	result, err := s.clusters.create(ctx, r, r.GetCluster(), func(tx *state.Tx, c *apiv1.Cluster) (state.Scope, error) {
		z, err := s.zones.find(ctx, tx, c.GetZone(), place{})
		if err != nil {
			return nil, inField(err, "zone")
		}
		c.Zone, c.ZoneId = z.GetName(), z.GetId()
		return state.Scope{"zone_id": z.GetId()}, nil
	}, func(c *commandv1.Command, m *apiv1.Cluster) {
		c.Body = &commandv1.Command_CreateCluster{CreateCluster: &commandv1.CreateCluster{Cluster: m}}
	})
	op, err := s.clusters.made(ctx, result, err)
	return &apiv1.CreateClusterResponse{Operation: op}, err
}

func (s clusterService) UpdateCluster(ctx context.Context, r *apiv1.UpdateClusterRequest) (*apiv1.UpdateClusterResponse, error) {
	m, err := s.clusters.update(ctx, r, r.GetCluster(), r.GetUpdateMask(), place{zone: r.GetZone()}, nil, func(c *commandv1.Command, m *apiv1.Cluster, expected string) {
		c.Body = &commandv1.Command_UpdateCluster{UpdateCluster: &commandv1.UpdateCluster{Cluster: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateClusterResponse{Cluster: m}, err
}

func (s clusterService) DeleteCluster(ctx context.Context, r *apiv1.DeleteClusterRequest) (*apiv1.DeleteClusterResponse, error) {
	op, err := s.clusters.remove(ctx, r, r.GetCluster(), place{zone: r.GetZone()}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteCluster{DeleteCluster: d}
	})
	return &apiv1.DeleteClusterResponse{Operation: op}, err
}
