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

type brokerService struct {
	apiv1.UnimplementedBrokerServiceServer
	*Service
}

func brokerChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Broker) proto.Message {
	return &apiv1.WatchBrokersResponse{Type: kind, Revision: revision, Broker: m}
}

func (s brokerService) ListBrokers(ctx context.Context, r *apiv1.ListBrokersRequest) (*apiv1.ListBrokersResponse, error) {
	items, next, err := s.brokers.list(ctx, r, place{})
	if err == nil {
		err = s.overlay(ctx, items)
	}
	return &apiv1.ListBrokersResponse{Brokers: items, NextPageToken: next}, err
}

func (s brokerService) GetBroker(ctx context.Context, r *apiv1.GetBrokerRequest) (*apiv1.GetBrokerResponse, error) {
	m, err := s.brokers.get(ctx, r.GetBroker(), place{})
	if err == nil {
		err = s.overlay(ctx, []*apiv1.Broker{m})
	}
	return &apiv1.GetBrokerResponse{Broker: m}, err
}

// overlay writes into brokers what servers see of them now. Each server has its own side of a broker; what a broker says of
// itself is the same to all, and of certificates' ends the last one counts: it is told to one server before the others.
func (s brokerService) overlay(ctx context.Context, brokers []*apiv1.Broker) error {
	seen, err := s.Servers.Brokers(ctx)
	if err != nil {
		return err
	}
	zones := map[string]string{} // names by id
	if err := s.read(ctx, func(tx *state.Tx) error {
		for z, err := range tx.Zones.All(nil) {
			if err != nil {
				return err
			}
			zones[z.GetId()] = z.GetName()
		}
		return nil
	}); err != nil {
		return err
	}
	for _, m := range brokers {
		for _, v := range seen {
			if v.GetId() != m.GetId() {
				continue
			}
			for _, c := range v.GetConnections() {
				c = proto.CloneOf(c)
				for i, id := range c.GetZones() {
					c.Zones[i] = cmp.Or(zones[id], id)
				}
				slices.Sort(c.Zones)
				m.Connections = append(m.Connections, c)
			}
			m.Version = cmp.Or(v.GetVersion(), m.GetVersion())
			if end := v.GetCertificateExpiresAt(); end.AsTime().After(m.GetCertificateExpiresAt().AsTime()) {
				m.CertificateExpiresAt = end
			}
		}
		slices.SortFunc(m.Connections, func(a, b *apiv1.Broker_Connection) int { return cmp.Compare(a.GetServer(), b.GetServer()) })
	}
	return nil
}

func (s brokerService) WatchBrokers(r *apiv1.WatchBrokersRequest, stream grpc.ServerStreamingServer[apiv1.WatchBrokersResponse]) error {
	return s.brokers.watch(r, place{}, stream)
}

func (s brokerService) CreateBroker(ctx context.Context, r *apiv1.CreateBrokerRequest) (*apiv1.CreateBrokerResponse, error) {
	result, err := s.brokers.create(ctx, r, r.GetBroker(), anyName[*apiv1.Broker], func(c *commandv1.Command, m *apiv1.Broker) {
		c.Body = &commandv1.Command_CreateBroker{CreateBroker: &commandv1.CreateBroker{Broker: m}}
	})
	op, err := s.brokers.made(ctx, result, err)
	return &apiv1.CreateBrokerResponse{Operation: op}, err
}

func (s brokerService) UpdateBroker(ctx context.Context, r *apiv1.UpdateBrokerRequest) (*apiv1.UpdateBrokerResponse, error) {
	m, err := s.brokers.update(ctx, r, r.GetBroker(), r.GetUpdateMask(), place{}, nil, func(c *commandv1.Command, m *apiv1.Broker, expected string) {
		c.Body = &commandv1.Command_UpdateBroker{UpdateBroker: &commandv1.UpdateBroker{Broker: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateBrokerResponse{Broker: m}, err
}

func (s brokerService) DeleteBroker(ctx context.Context, r *apiv1.DeleteBrokerRequest) (*apiv1.DeleteBrokerResponse, error) {
	op, err := s.brokers.remove(ctx, r, r.GetBroker(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteBroker{DeleteBroker: d}
	})
	return &apiv1.DeleteBrokerResponse{Operation: op}, err
}
