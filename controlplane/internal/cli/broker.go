package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var brokerColumns = []column[*apiv1.Broker]{
	{head: "NAME", value: (*apiv1.Broker).GetName},
	{head: "HUB_ADDRESS", value: (*apiv1.Broker).GetHubAddress},
	{head: "ENROLLED", value: func(m *apiv1.Broker) string { return strconv.FormatBool(m.GetEnrolled()) }},
	{head: "FINGERPRINT", value: (*apiv1.Broker).GetFingerprint, wide: true},
	{head: "ID", value: (*apiv1.Broker).GetId, wide: true},
}

func (a *app) brokerNoun() noun[*apiv1.Broker] {
	return noun[*apiv1.Broker]{
		name: "broker", plural: "brokers", short: "Brokers, which stand between networks", in: []string{}, filter: "enrolled=false", columns: brokerColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Broker, string, error) {
			r, err := c.Brokers.ListBrokers(ctx, &apiv1.ListBrokersRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetBrokers(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Broker, error) {
			r, err := c.Brokers.GetBroker(ctx, &apiv1.GetBrokerRequest{Broker: name})
			return r.GetBroker(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Broker], error), error) {
			s, err := c.Brokers.WatchBrokers(ctx, &apiv1.WatchBrokersRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchBrokersResponse) change[*apiv1.Broker] {
				return change[*apiv1.Broker]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetBroker()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Brokers.DeleteBroker(ctx, &apiv1.DeleteBrokerRequest{Broker: name})
			return r.GetOperation(), err
		},
		make: "Make a broker known",
		fields: func(f *pflag.FlagSet, m *apiv1.Broker) {
			f.StringVar(&m.HubAddress, "hub-address", "", "HOST:PORT of its hub leg")
			f.StringVar(&m.Description, "description", "", "for people")
		},
		fixed: func(f *pflag.FlagSet, m *apiv1.Broker) {
			f.StringVar(&m.Fingerprint, "fingerprint", "", "SHA256:… as it printed it")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Broker) (*apiv1.Operation, error) {
			r, err := c.Brokers.CreateBroker(ctx, &apiv1.CreateBrokerRequest{Broker: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Broker, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Broker, error) {
			r, err := c.Brokers.UpdateBroker(ctx, &apiv1.UpdateBrokerRequest{Broker: m, UpdateMask: mask})
			return r.GetBroker(), err
		},
	}
}

func (a *app) broker() *cobra.Command {
	return command(a, a.brokerNoun())
}
