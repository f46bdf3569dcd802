package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var sessionColumns = []column[*apiv1.Session]{
	{head: "ID", value: (*apiv1.Session).GetId},
	{head: "USER", value: (*apiv1.Session).GetUser},
	{head: "ZONE", value: (*apiv1.Session).GetZone},
	{head: "STRENGTH", value: func(m *apiv1.Session) string { return lower(m.GetStrength()) }},
	{head: "SINCE", value: func(m *apiv1.Session) string { return local(m.GetCreatedAt()) }},
	{head: "EXPIRES", value: func(m *apiv1.Session) string { return local(m.GetExpiresAt()) }},
	{head: "PROVIDER", value: (*apiv1.Session).GetIdentityProvider, wide: true},
	{head: "CLIENT", value: (*apiv1.Session).GetClient, text: true, wide: true},
}

func (a *app) session() *cobra.Command {
	var user string
	n := noun[*apiv1.Session]{
		name: "session", plural: "sessions", short: "Sessions of users: your own, or with the right to it everybody's", in: []string{}, filter: "zone=internet", columns: sessionColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Session, string, error) {
			r, err := c.Sessions.ListSessions(ctx, &apiv1.ListSessionsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token, User: user})
			return r.GetSessions(), r.GetNextPageToken(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Sessions.DeleteSession(ctx, &apiv1.DeleteSessionRequest{Session: name})
			return r.GetOperation(), err
		},
	}
	cmd := command(a, n, a.revokeSessions(), a.stepUp())
	for _, verb := range cmd.Commands() {
		if verb.Name() == "list" {
			verb.Flags().StringVar(&user, "user", "", "whose")
		}
	}
	return cmd
}

func (a *app) revokeSessions() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "revoke USER", Short: "End every session of a user, everywhere", Args: oneArgument}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	a.completeArguments(cmd, "user", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Sessions.RevokeSessions(ctx, &apiv1.RevokeSessionsRequest{User: args[0], Reason: reason})
			if err == nil {
				fmt.Fprintf(a.err, "Sessions that ended: %d.\n", r.GetSessions())
			}
			return err
		})
	}
	return cmd
}

func (a *app) stepUp() *cobra.Command {
	return &cobra.Command{
		Use: "step-up", Short: "Show once more who you are, for ten minutes", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asUser(cmd, func(ctx context.Context, c *client.Client, s *client.Session) error {
				typed := &apiv1.Secrets{}
				if p, err := loginProvider(ctx, c, s.Provider); err != nil {
					return err
				} else if p.GetKind() == apiv1.LoginProvider_OIDC {
					if typed, err = a.atProviderAgain(ctx, c, s, p); err != nil {
						return err
					}
				}
				return a.showAgain(ctx, c, s, apiv1.SessionService_StepUp_FullMethodName, typed, func(secrets *apiv1.Sealed) error {
					r, err := c.Sessions.StepUp(ctx, &apiv1.StepUpRequest{Secrets: secrets})
					if err == nil {
						fmt.Fprintf(a.err, "It lasts until %s.\n", r.GetSession().GetSteppedUpUntil().AsTime().Local().Format(time.DateTime))
					}
					return err
				})
			})
		},
	}
}
