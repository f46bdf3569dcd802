package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var brokerColumns = []column[*apiv1.Broker]{
	{head: "NAME", value: (*apiv1.Broker).GetName},
	{head: "HUB_ADDRESS", value: (*apiv1.Broker).GetHubAddress},
	{head: "ENROLLED", value: func(m *apiv1.Broker) string { return strconv.FormatBool(m.GetEnrolled()) }},
	{head: "STATE", value: brokerState, state: true},
	{head: "SERVERS", value: brokerServers},
	{head: "ZONES", value: brokerZones},
	{head: "SEEN", value: brokerSeen},
	{head: "CERTIFICATE_ENDS", value: func(m *apiv1.Broker) string { return local(m.GetCertificateExpiresAt()) }},
	{head: "VERSION", value: (*apiv1.Broker).GetVersion, wide: true},
	{head: "REASON", value: brokerReason, text: true, wide: true},
	{head: "FINGERPRINT", value: (*apiv1.Broker).GetFingerprint, wide: true},
	{head: "ID", value: (*apiv1.Broker).GetId, wide: true},
}

// connectedTo counts the servers that reach a broker.
func connectedTo(m *apiv1.Broker) (n int) {
	for _, c := range m.GetConnections() {
		if c.GetConnected() {
			n++
		}
	}
	return n
}

// brokerState is how the servers that answered reach a broker; empty where none was asked, as in a watch.
func brokerState(m *apiv1.Broker) string {
	switch n := connectedTo(m); {
	case len(m.GetConnections()) == 0:
		return ""
	case n == 0:
		return "unreachable"
	case n < len(m.GetConnections()):
		return "degraded"
	}
	return "connected"
}

func brokerServers(m *apiv1.Broker) string {
	if len(m.GetConnections()) == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", connectedTo(m), len(m.GetConnections()))
}

// brokerZones are the zones whose sessions go through a broker now.
func brokerZones(m *apiv1.Broker) string {
	var zones []string
	for _, c := range m.GetConnections() {
		zones = append(zones, c.GetZones()...)
	}
	slices.Sort(zones)
	return strings.Join(slices.Compact(zones), ",")
}

// brokerSeen is when any server last heard a broker.
func brokerSeen(m *apiv1.Broker) string {
	var last *timestamppb.Timestamp
	for _, c := range m.GetConnections() {
		if at := c.GetSeenAt(); at != nil && (last == nil || at.AsTime().After(last.AsTime())) {
			last = at
		}
	}
	return ago(last)
}

// brokerReason is why servers do not reach a broker, each reason once.
func brokerReason(m *apiv1.Broker) string {
	var reasons []string
	for _, c := range m.GetConnections() {
		if why := withoutTransport(c.GetReason()); why != "" && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	return strings.Join(reasons, "; ")
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
