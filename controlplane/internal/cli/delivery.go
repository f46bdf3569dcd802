package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var deliveryColumns = []column[*apiv1.Delivery]{
	{head: "ID", value: (*apiv1.Delivery).GetId},
	{head: "CHANNEL", value: (*apiv1.Delivery).GetChannel},
	{head: "STATE", value: func(m *apiv1.Delivery) string { return lower(m.GetState()) }, state: true},
	{head: "TOPIC", value: func(m *apiv1.Delivery) string { return m.GetNotification().GetTopic() }},
	{head: "ABOUT", value: func(m *apiv1.Delivery) string { return m.GetNotification().GetAbout().GetName() }},
	{head: "TO", value: func(m *apiv1.Delivery) string { return strings.Join(m.GetRecipients(), ",") }, text: true},
	{head: "TRIES", value: func(m *apiv1.Delivery) string { return fmt.Sprint(m.GetAttempts()) }},
	{head: "NEXT", value: func(m *apiv1.Delivery) string { return local(m.GetNextAttemptAt()) }},
	{head: "ERROR", value: (*apiv1.Delivery).GetLastError, text: true},
	{head: "SINCE", value: func(m *apiv1.Delivery) string { return local(m.GetCreatedAt()) }, wide: true},
}

func (a *app) delivery() *cobra.Command {
	var dead bool
	return command(a, noun[*apiv1.Delivery]{
		name: "delivery", plural: "deliveries", short: "What was sent through channels, what waits, and what was given up", in: []string{}, filter: "channel=mail AND state=waiting",
		history: true, columns: deliveryColumns,
		narrow: func(f *pflag.FlagSet) { f.BoolVar(&dead, "dead", false, "only what was given up") },
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Delivery, string, error) {
			if dead && !strings.HasPrefix(q.filter, "state=dead") {
				q.filter = strings.TrimSuffix("state=dead AND "+q.filter, " AND ")
			}
			r, err := c.Deliveries.ListDeliveries(ctx, &apiv1.ListDeliveriesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetDeliveries(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Delivery, error) {
			r, err := c.Deliveries.GetDelivery(ctx, &apiv1.GetDeliveryRequest{Delivery: name})
			return r.GetDelivery(), err
		},
	}, a.eachDelivery("retry", "Try again at once what was given up, or waits", func(ctx context.Context, c *client.Client, id string) error {
		_, err := c.Deliveries.RetryDelivery(ctx, &apiv1.RetryDeliveryRequest{Delivery: id})
		return err
	}), a.eachDelivery("drop", "Forget what has not been delivered", func(ctx context.Context, c *client.Client, id string) error {
		_, err := c.Deliveries.DropDelivery(ctx, &apiv1.DropDeliveryRequest{Delivery: id})
		return err
	}))
}

// eachDelivery does something to each delivery that is named; one that is refused does not keep the others.
func (a *app) eachDelivery(verb, short string, do func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID...", Short: short, Args: someArguments, Example: "  naru delivery " + verb + " $(naru delivery list --dead -o name)",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) (first error) {
				for _, id := range args {
					switch err := do(ctx, c, id); {
					case err != nil && first == nil:
						first = err
					case err != nil:
						a.explain(err)
					}
				}
				return first
			})
		},
	}
}
