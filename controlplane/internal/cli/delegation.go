package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var delegationColumns = []column[*apiv1.Delegation]{
	{head: "FROM", value: (*apiv1.Delegation).GetFromUser},
	{head: "TO", value: (*apiv1.Delegation).GetToUser},
	{head: "STARTS", value: func(m *apiv1.Delegation) string { return local(m.GetStartsAt()) }},
	{head: "ENDS", value: func(m *apiv1.Delegation) string { return local(m.GetEndsAt()) }},
	{head: "PROJECT", value: (*apiv1.Delegation).GetProject},
	{head: "ZONE", value: (*apiv1.Delegation).GetZone},
	{head: "REASON", value: (*apiv1.Delegation).GetReason, text: true},
	{head: "ID", value: (*apiv1.Delegation).GetId},
}

func (a *app) delegationNoun() noun[*apiv1.Delegation] {
	return noun[*apiv1.Delegation]{
		name: "delegation", plural: "delegations", short: "Delegations: who decides in whose place, and until when", in: []string{}, filter: "to_user=dan", columns: delegationColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Delegation, string, error) {
			r, err := c.Delegations.ListDelegations(ctx, &apiv1.ListDelegationsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetDelegations(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Delegation, error) {
			r, err := c.Delegations.GetDelegation(ctx, &apiv1.GetDelegationRequest{Delegation: name})
			return r.GetDelegation(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.Delegations.DeleteDelegation(ctx, &apiv1.DeleteDelegationRequest{Delegation: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) delegation() *cobra.Command { return command(a, a.delegationNoun(), a.delegate()) }

func (a *app) delegate() *cobra.Command {
	var s scope
	var to, reason, starts string
	var lasts time.Duration
	cmd := &cobra.Command{Use: "create --to USER --for TIME", Short: "Let somebody decide in your place for a time", Args: noArguments}
	a.scopeFlags(cmd, []string{"project", "zone"}, &s)
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "`user` who decides in your place")
	lifetimeFlag(cmd, &lasts, "for", 0, "how long, as 72h")
	f.StringVar(&starts, "starts", "", "from this time: 2026-12-01T09:00:00+09:00; without it, now")
	f.StringVar(&reason, "reason", "", "why")
	cmd.MarkFlagRequired("to")
	cmd.MarkFlagRequired("for")
	a.completeNames(cmd, "to", "user")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			m := &apiv1.Delegation{ToUser: to, Reason: reason, Project: s.project, Zone: s.zone}
			begins := a.began()
			if starts != "" {
				t, err := time.Parse(time.RFC3339, starts)
				if err != nil {
					return usagef("--starts %s: write it as 2026-12-01T09:00:00+09:00", starts)
				}
				begins, m.StartsAt = t, timestamppb.New(t)
			}
			m.EndsAt = timestamppb.New(begins.Add(lasts))
			r, err := c.Delegations.CreateDelegation(ctx, &apiv1.CreateDelegationRequest{Delegation: m})
			if err != nil {
				return err
			}
			return printOne(a, r.GetOperation(), operationColumns)
		})
	}
	return cmd
}
