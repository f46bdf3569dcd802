package cli

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var tokenColumns = []column[*apiv1.AccessToken]{
	{head: "NAME", value: (*apiv1.AccessToken).GetName},
	{head: "USER", value: (*apiv1.AccessToken).GetUser},
	{head: "PROJECT", value: (*apiv1.AccessToken).GetProject},
	{head: "ZONE", value: (*apiv1.AccessToken).GetZone},
	{head: "EXPIRES", value: func(m *apiv1.AccessToken) string { return local(m.GetExpiresAt()) }},
	{head: "BY", value: (*apiv1.AccessToken).GetCreatedBy, text: true, wide: true},
	{head: "ID", value: (*apiv1.AccessToken).GetId, wide: true},
}

func (a *app) tokenNoun() noun[*apiv1.AccessToken] {
	return noun[*apiv1.AccessToken]{
		name: "token", plural: "tokens", short: "Access tokens, which let their bearer act as a service, or in one project", in: []string{}, filter: "project=web", columns: tokenColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.AccessToken, string, error) {
			r, err := c.AccessTokens.ListAccessTokens(ctx, &apiv1.ListAccessTokensRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetAccessTokens(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.AccessToken, error) {
			r, err := c.AccessTokens.GetAccessToken(ctx, &apiv1.GetAccessTokenRequest{AccessToken: name})
			return r.GetAccessToken(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.AccessTokens.DeleteAccessToken(ctx, &apiv1.DeleteAccessTokenRequest{AccessToken: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) token() *cobra.Command {
	return command(a, a.tokenNoun(), a.createToken())
}

func (a *app) createToken() *cobra.Command {
	var s scope
	var lifetime time.Duration
	var user string
	cmd := &cobra.Command{Use: "create NAME", Short: "Make an access token; its secret is shown once", Args: oneArgument}
	a.scopeFlags(cmd, []string{"project", "zone"}, &s)
	lifetimeFlag(cmd, &lifetime, "lifetime", 24*time.Hour, "how long it is valid")
	cmd.Flags().StringVar(&user, "user", "", "the service as which its bearer acts; without it, the bearer operates one project")
	a.completeNames(cmd, "user", "user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			if user == "" {
				a.defaults([]string{"project"}, &s)
			}
			r, err := c.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
				Name: args[0], User: user, Project: s.project, Zone: s.zone, ExpiresAt: timestamppb.New(a.began().Add(lifetime)),
			}})
			if err != nil {
				return err
			}
			return a.secret("secret", r.GetSecret(), r.GetAccessToken().GetExpiresAt().AsTime())
		})
	}
	return cmd
}

func (a *app) whoami() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say who you are taken for", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				r, err := c.AccessTokens.WhoAmI(ctx, &apiv1.WhoAmIRequest{})
				if err != nil {
					return err
				}
				switch {
				case a.documents():
					return a.message(r)
				case a.output == "name":
					fmt.Fprintln(a.out, r.GetName())
					return nil
				}
				fmt.Fprintf(a.out, "%s %s", r.GetKind(), r.GetName())
				if r.GetUser() != "" && r.GetUser() != r.GetName() {
					fmt.Fprintf(a.out, ", user %s", r.GetUser())
				}
				if r.GetProject() != "" {
					fmt.Fprintf(a.out, ", project %s", r.GetProject())
				}
				if r.GetZone() != "" {
					fmt.Fprintf(a.out, ", at zone %s", r.GetZone())
				}
				if r.GetMustChangePassword() {
					fmt.Fprint(a.out, ", who has to change the password: naru passwd")
				}
				fmt.Fprintln(a.out)
				return nil
			})
		},
	}
}
