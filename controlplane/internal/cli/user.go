package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var userColumns = []column[*apiv1.User]{
	{head: "NAME", value: (*apiv1.User).GetName},
	{head: "TITLE", value: (*apiv1.User).GetTitle, text: true},
	{head: "KIND", value: func(m *apiv1.User) string { return lower(m.GetKind()) }},
	{head: "ORGANIZATION", value: (*apiv1.User).GetOrganization},
	{head: "STATE", value: userState},
	{head: "FACTOR", value: func(m *apiv1.User) string { return lower(m.GetSecondFactor()) }, wide: true},
	{head: "EMAIL", value: (*apiv1.User).GetEmail, text: true, wide: true},
	{head: "AGE", value: func(m *apiv1.User) string { return age(m.GetCreatedAt()) }},
	{head: "ID", value: (*apiv1.User).GetId, wide: true},
}

// userState is whether a user can log in, in a word or two.
func userState(m *apiv1.User) string {
	switch {
	case m.GetDisabled():
		return "disabled"
	case m.GetGoneAt() != nil:
		return "gone"
	case m.GetKind() == apiv1.User_PERSON && m.GetPasswordChangedAt() == nil && len(m.GetIdentityProviders()) > 0:
		return "by " + strings.Join(m.GetIdentityProviders(), ", ")
	case m.GetKind() == apiv1.User_PERSON && m.GetPasswordChangedAt() == nil:
		return "no password"
	case m.GetMustChangePassword():
		return "must change"
	}
	return "enabled"
}

func (a *app) userNoun() noun[*apiv1.User] {
	var drop bool
	return noun[*apiv1.User]{
		name: "user", plural: "users", short: "Users: persons, and services that act by themselves", in: []string{}, filter: "organization=home", columns: userColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.User, string, error) {
			r, err := c.Users.ListUsers(ctx, &apiv1.ListUsersRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetUsers(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.User, error) {
			r, err := c.Users.GetUser(ctx, &apiv1.GetUserRequest{User: name})
			return r.GetUser(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.User], error), error) {
			s, err := c.Users.WatchUsers(ctx, &apiv1.WatchUsersRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchUsersResponse) change[*apiv1.User] {
				return change[*apiv1.User]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetUser()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Users.DeleteUser(ctx, &apiv1.DeleteUserRequest{User: name})
			a.sayEnded(name, r.GetEnded())
			return r.GetOperation(), err
		},
		make:  "Make a user; a person then gets a password for one login: naru user reset-password",
		fixed: func(f *pflag.FlagSet, m *apiv1.User) { wordFlag(f, m, "kind", " (person)") },
		fields: func(f *pflag.FlagSet, m *apiv1.User) {
			f.StringVar(&m.Title, "title", "", "what people call them")
			f.StringVar(&m.Email, "email", "", "where they get mail")
			f.StringVar(&m.Language, "language", "", "ko or en")
			f.StringVar(&m.Organization, "organization", "", "where the person belongs, or who owns the service")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.User) (*apiv1.Operation, error) {
			r, err := c.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.User, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.User, error) {
			r, err := c.Users.UpdateUser(ctx, &apiv1.UpdateUserRequest{User: m, UpdateMask: mask, DropRights: drop})
			if err == nil {
				a.printTies(r.GetUser())
			}
			return r.GetUser(), err
		},
		options: func(f *pflag.FlagSet) {
			f.BoolVar(&drop, "drop-rights", false, "with --organization: end the roles, places in groups and delegations that they have by the former one")
		},
	}
}

// printTies says what a user who has got another organization has by the former one.
func (a *app) printTies(m *apiv1.User) {
	list := func(said string, all []*apiv1.Reference) {
		if len(all) == 0 {
			return
		}
		fmt.Fprintln(a.err, m.GetName()+said)
		for _, r := range all {
			fmt.Fprintf(a.err, "  %s %s (%s)\n", r.GetKind(), printable(r.GetName()), r.GetId())
		}
	}
	list(" no longer has by the former organization:", m.GetDropped())
	list(" keeps by the former organization:", m.GetKeeps())
	if len(m.GetKeeps()) > 0 {
		fmt.Fprintf(a.err, "End what is not to be kept: naru role-binding delete ID, naru group remove GROUP %s, naru delegation delete ID, naru token delete NAME.\n", m.GetName())
	}
}

func (a *app) user() *cobra.Command {
	disable := a.userVerb("disable", "Refuse a user from now on: every session and token ends, everywhere, also certificates and tokens of their making", func(ctx context.Context, c *client.Client, name, reason string) (*apiv1.User, error) {
		r, err := c.Users.DisableUser(ctx, &apiv1.DisableUserRequest{User: name, Reason: reason})
		a.sayEnded(name, r.GetEnded())
		return r.GetUser(), err
	})
	enable := a.userVerb("enable", "Let a user in again", func(ctx context.Context, c *client.Client, name, reason string) (*apiv1.User, error) {
		r, err := c.Users.EnableUser(ctx, &apiv1.EnableUserRequest{User: name, Reason: reason})
		return r.GetUser(), err
	})
	return command(a, a.userNoun(), disable, enable, a.resetPassword(), a.enroll(), a.removeAuthenticator())
}

func (a *app) userVerb(verb, short string, do func(ctx context.Context, c *client.Client, name, reason string) (*apiv1.User, error)) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: verb + " NAME --reason TEXT", Short: short, Args: oneArgument}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.MarkFlagRequired("reason")
	a.completeArguments(cmd, "user", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			m, err := do(ctx, c, args[0], reason)
			if err != nil {
				return err
			}
			return printOne(a, m, userColumns)
		})
	}
	return cmd
}

// sayEnded says which certificates and access tokens ended with a user, so that whoever needs them makes others.
func (a *app) sayEnded(user string, ended []*apiv1.Reference) {
	if len(ended) == 0 {
		return
	}
	fmt.Fprintf(a.err, "With %s ended %d certificates and access tokens. What still needs one gets another: naru token create.\n", user, len(ended))
	for _, m := range ended {
		fmt.Fprintf(a.err, "  %s %s\n", m.GetKind(), m.GetName())
	}
}

func (a *app) resetPassword() *cobra.Command {
	cmd := &cobra.Command{Use: "reset-password NAME", Short: "Give a person a password for one login, and end every session of theirs", Args: oneArgument}
	a.completeArguments(cmd, "user", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			private, public, err := sealed.NewKey()
			if err != nil {
				return err
			}
			r, err := c.Users.ResetPassword(ctx, &apiv1.ResetPasswordRequest{User: args[0], ReplyKey: public})
			if err != nil {
				return err
			}
			password, err := sealed.OpenReply(private, apiv1.UserService_ResetPassword_FullMethodName, r.GetSealedPassword())
			if err != nil {
				return err
			}
			return a.secret("password", password, time.Now().Add(24*time.Hour))
		})
	}
	return cmd
}

// enroll gives the caller a second factor: the authenticator reads the URI, and a code of it confirms.
func (a *app) enroll() *cobra.Command {
	return &cobra.Command{
		Use: "enroll", Short: "Give yourself an authenticator, as a second factor", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asUser(cmd, func(ctx context.Context, c *client.Client, s *client.Session) error {
				private, public, err := sealed.NewKey()
				if err != nil {
					return err
				}
				typed := &apiv1.Secrets{ReplyKey: public}
				var uri string
				err = a.showAgain(ctx, c, s, apiv1.UserService_EnrollAuthenticator_FullMethodName, typed, func(secrets *apiv1.Sealed) error {
					r, err := c.Users.EnrollAuthenticator(ctx, &apiv1.EnrollAuthenticatorRequest{Secrets: secrets})
					if err == nil {
						uri, err = sealed.OpenReply(private, apiv1.UserService_EnrollAuthenticator_FullMethodName, r.GetSealedUri())
					}
					return err
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, uri)
				fmt.Fprintln(a.err, "Give this to your authenticator within ten minutes, and to nobody else. Then type what it shows.")
				typed.ReplyKey = nil
				if typed.Code, err = a.prompt(ctx, "Code: "); err != nil {
					return err
				}
				secrets, err := c.Seal(ctx, s.For(apiv1.UserService_ConfirmAuthenticator_FullMethodName), typed)
				if err != nil {
					return err
				}
				_, err = c.Users.ConfirmAuthenticator(ctx, &apiv1.ConfirmAuthenticatorRequest{Secrets: secrets})
				if err == nil {
					fmt.Fprintln(a.err, "From now on a login asks for a code.")
				}
				return err
			})
		},
	}
}

func (a *app) removeAuthenticator() *cobra.Command {
	cmd := &cobra.Command{Use: "remove-authenticator [NAME]", Short: "Take your authenticator away, or that of somebody who has lost it", Args: arguments(0, 1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if name := strings.Join(args, ""); name != "" {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				_, err := c.Users.RemoveAuthenticator(ctx, &apiv1.RemoveAuthenticatorRequest{User: name})
				return err
			})
		}
		return a.asUser(cmd, func(ctx context.Context, c *client.Client, s *client.Session) error {
			return a.showAgain(ctx, c, s, apiv1.UserService_RemoveAuthenticator_FullMethodName, &apiv1.Secrets{}, func(secrets *apiv1.Sealed) error {
				_, err := c.Users.RemoveAuthenticator(ctx, &apiv1.RemoveAuthenticatorRequest{Secrets: secrets})
				return err
			})
		})
	}
	return cmd
}
