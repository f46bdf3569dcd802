package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var identityProviderColumns = []column[*apiv1.IdentityProvider]{
	{head: "NAME", value: (*apiv1.IdentityProvider).GetName},
	{head: "KIND", value: func(m *apiv1.IdentityProvider) string {
		if m.GetOidc() != nil {
			return "oidc"
		}
		return "ldap"
	}},
	{head: "WHERE", value: func(m *apiv1.IdentityProvider) string {
		return cmp.Or(m.GetOidc().GetIssuer(), strings.Join(m.GetLdap().GetUrls(), ","))
	}, text: true},
	{head: "ON", value: func(m *apiv1.IdentityProvider) string { return yes(!m.GetDisabled()) }},
	{head: "MAKES USERS", value: func(m *apiv1.IdentityProvider) string { return yes(m.GetCreateUsers()) }},
	{head: "GROUPS", value: func(m *apiv1.IdentityProvider) string { return fmt.Sprint(len(m.GetGroupMappings())) }},
	{head: "SECRET", value: func(m *apiv1.IdentityProvider) string { return yes(m.GetSecretSetAt() != nil) }},
	{head: "TITLE", value: (*apiv1.IdentityProvider).GetTitle, text: true, wide: true},
	{head: "ID", value: (*apiv1.IdentityProvider).GetId, wide: true},
}

var identityColumns = []column[*apiv1.Identity]{
	{head: "USER", value: (*apiv1.Identity).GetUser},
	{head: "PROVIDER", value: (*apiv1.Identity).GetIdentityProvider},
	{head: "SUBJECT", value: (*apiv1.Identity).GetSubject, text: true},
	{head: "CALLED", value: (*apiv1.Identity).GetLogin, text: true},
	{head: "LAST LOGIN", value: func(m *apiv1.Identity) string { return local(m.GetLastLoginAt()) }},
	{head: "GONE SINCE", value: func(m *apiv1.Identity) string { return local(m.GetGoneAt()) }},
	{head: "ID", value: (*apiv1.Identity).GetId},
}

func (a *app) identityProvider() *cobra.Command {
	n := noun[*apiv1.IdentityProvider]{
		name: "identity-provider", plural: "identity-providers", short: "Identity providers: through whom people log in", in: []string{}, filter: "disabled=false",
		columns: identityProviderColumns, make: "Let people log in through an OpenID Connect provider or an LDAP directory",
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.IdentityProvider, string, error) {
			r, err := c.IdentityProviders.ListIdentityProviders(ctx, &apiv1.ListIdentityProvidersRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetIdentityProviders(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.IdentityProvider, error) {
			r, err := c.IdentityProviders.GetIdentityProvider(ctx, &apiv1.GetIdentityProviderRequest{IdentityProvider: name})
			return r.GetIdentityProvider(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.IdentityProvider], error), error) {
			s, err := c.IdentityProviders.WatchIdentityProviders(ctx, &apiv1.WatchIdentityProvidersRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchIdentityProvidersResponse) change[*apiv1.IdentityProvider] {
				return change[*apiv1.IdentityProvider]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetIdentityProvider()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.IdentityProviders.DeleteIdentityProvider(ctx, &apiv1.DeleteIdentityProviderRequest{IdentityProvider: name})
			return r.GetOperation(), err
		},
	}
	update := func(ctx context.Context, c *client.Client, m *apiv1.IdentityProvider, mask *fieldmaskpb.FieldMask) (*apiv1.IdentityProvider, error) {
		r, err := c.IdentityProviders.UpdateIdentityProvider(ctx, &apiv1.UpdateIdentityProviderRequest{IdentityProvider: m, UpdateMask: mask})
		return r.GetIdentityProvider(), err
	}
	verbs := written(a, n, func(ctx context.Context, c *client.Client, m *apiv1.IdentityProvider) (*apiv1.Operation, error) {
		r, err := c.IdentityProviders.CreateIdentityProvider(ctx, &apiv1.CreateIdentityProviderRequest{IdentityProvider: m})
		return r.GetOperation(), err
	}, update)
	able := func(verb, short string, disabled bool) *cobra.Command {
		cmd := &cobra.Command{Use: verb + " NAME", Short: short, Args: oneArgument}
		a.completeArguments(cmd, n.name, 1, &scope{})
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				m, err := update(ctx, c, &apiv1.IdentityProvider{Id: args[0], Disabled: disabled}, &fieldmaskpb.FieldMask{Paths: []string{"disabled"}})
				if err != nil {
					return err
				}
				return printOne(a, m, n.columns)
			})
		}
		return cmd
	}
	verbs = append(verbs, able("disable", "Let nobody in through it: sessions that were begun through it end, and its places in groups go", true),
		able("enable", "Let people in through it again", false), a.providerSecret(), a.testProvider(), a.listIdentities(), a.linkIdentity(), a.unlinkIdentity())
	return command(a, n, verbs...)
}

func (a *app) providerSecret() *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret NAME", Short: "Set the client's secret, or the password of bind_dn, which is asked for, or read from standard input", Args: oneArgument,
		Example: "  naru identity-provider secret corp < secret",
	}
	a.completeArguments(cmd, "identity-provider", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, noLimit, func(ctx context.Context, c *client.Client) error {
			secret, err := a.line(ctx, "Secret: ", true)
			if err != nil {
				return err
			}
			_, err = c.IdentityProviders.SetIdentityProviderSecret(ctx, &apiv1.SetIdentityProviderSecretRequest{IdentityProvider: args[0], Secret: secret})
			return err
		})
	}
	return cmd
}

func (a *app) testProvider() *cobra.Command {
	var login string
	cmd := &cobra.Command{
		Use: "test NAME", Short: "Ask the provider now; of a directory with --login what it says of somebody", Args: oneArgument,
		Example: "  naru identity-provider test corp\n  naru identity-provider test ldap --login kim",
	}
	cmd.Flags().StringVar(&login, "login", "", "what somebody types there; no password is asked for")
	a.completeArguments(cmd, "identity-provider", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.IdentityProviders.TestIdentityProvider(ctx, &apiv1.TestIdentityProviderRequest{IdentityProvider: args[0], Login: login})
			if err != nil {
				return err
			}
			if a.documents() {
				return a.document(r)
			}
			for _, line := range r.GetFindings() {
				fmt.Fprintln(a.out, line)
			}
			if login == "" {
				return nil
			}
			for _, f := range [][2]string{
				{"subject", r.GetSubject()}, {"login", r.GetLogin()}, {"title", r.GetTitle()}, {"email", r.GetEmail()},
				{"its groups", strings.Join(r.GetProviderGroups(), "; ")}, {"groups here", strings.Join(r.GetGroups(), ", ")},
			} {
				fmt.Fprintf(a.out, "%-12s %s\n", f[0], cmp.Or(f[1], "-"))
			}
			return nil
		})
	}
	return cmd
}

func (a *app) listIdentities() *cobra.Command {
	var filter string
	cmd := &cobra.Command{Use: "identities", Short: "List who of whom providers know is which user", Args: noArguments, Example: "  naru identity-provider identities --filter 'user=kim'"}
	cmd.Flags().StringVar(&filter, "filter", "", "only these: user=kim AND identity_provider=corp")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			var all []*apiv1.Identity
			for token := ""; ; {
				r, err := c.IdentityProviders.ListIdentities(ctx, &apiv1.ListIdentitiesRequest{Filter: filter, PageSize: 1000, PageToken: token})
				if err != nil {
					return err
				}
				all = append(all, r.GetIdentities()...)
				if token = r.GetNextPageToken(); token == "" {
					break
				}
			}
			if len(all) == 0 && !a.documents() {
				fmt.Fprintln(a.err, "Nobody is linked with an identity provider.")
				return nil
			}
			return printList(a, identityColumns, all)
		})
	}
	return cmd
}

func (a *app) linkIdentity() *cobra.Command {
	cmd := &cobra.Command{
		Use: "link NAME SUBJECT USER", Short: "Let somebody whom a provider knows log in as a user that is there", Args: arguments(3, 3),
		Long: "Let somebody whom a provider knows log in as a user that is there. SUBJECT is by which the provider knows them; the refusal of their login says it, " +
			"and of a directory naru identity-provider test.",
	}
	a.completeArguments(cmd, "identity-provider", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.IdentityProviders.LinkIdentity(ctx, &apiv1.LinkIdentityRequest{IdentityProvider: args[0], Subject: args[1], User: args[2]})
			if err != nil {
				return err
			}
			return printOne(a, r.GetIdentity(), identityColumns)
		})
	}
	return cmd
}

func (a *app) unlinkIdentity() *cobra.Command {
	return &cobra.Command{
		Use: "unlink ID", Short: "End that, with the sessions that were begun by it and the places in groups that it gave", Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				_, err := c.IdentityProviders.UnlinkIdentity(ctx, &apiv1.UnlinkIdentityRequest{Identity: args[0]})
				return err
			})
		},
	}
}
