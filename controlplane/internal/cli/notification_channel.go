package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var notificationChannelColumns = []column[*apiv1.NotificationChannel]{
	{head: "NAME", value: (*apiv1.NotificationChannel).GetName},
	{head: "KIND", value: func(m *apiv1.NotificationChannel) string {
		if m.GetMail() != nil {
			return "mail"
		}
		return "webhook"
	}},
	{head: "TO", value: func(m *apiv1.NotificationChannel) string {
		return cmp.Or(m.GetMail().GetServer(), m.GetWebhook().GetUrl())
	}, text: true},
	{head: "TOPICS", value: func(m *apiv1.NotificationChannel) string { return cmp.Or(strings.Join(m.GetTopics(), ","), "all") }, text: true},
	{head: "ON", value: func(m *apiv1.NotificationChannel) string { return yes(!m.GetDisabled()) }},
	{head: "SECRET", value: func(m *apiv1.NotificationChannel) string { return yes(m.GetSecretSetAt() != nil) }},
	{head: "WAITING", value: func(m *apiv1.NotificationChannel) string { return fmt.Sprint(m.GetWaiting()) }},
	{head: "DEAD", value: func(m *apiv1.NotificationChannel) string { return fmt.Sprint(m.GetDead()) }},
	{head: "ID", value: (*apiv1.NotificationChannel).GetId, wide: true},
}

func (a *app) notificationChannel() *cobra.Command {
	return command(a, noun[*apiv1.NotificationChannel]{
		name: "notification-channel", plural: "notification-channels", short: "Channels by which people and programs are told: mail and webhooks", in: []string{}, filter: "disabled=false",
		columns: notificationChannelColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.NotificationChannel, string, error) {
			r, err := c.NotificationChannels.ListNotificationChannels(ctx, &apiv1.ListNotificationChannelsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetNotificationChannels(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.NotificationChannel, error) {
			r, err := c.NotificationChannels.GetNotificationChannel(ctx, &apiv1.GetNotificationChannelRequest{NotificationChannel: name})
			return r.GetNotificationChannel(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.NotificationChannel], error), error) {
			s, err := c.NotificationChannels.WatchNotificationChannels(ctx, &apiv1.WatchNotificationChannelsRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchNotificationChannelsResponse) change[*apiv1.NotificationChannel] {
				return change[*apiv1.NotificationChannel]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetNotificationChannel()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.NotificationChannels.DeleteNotificationChannel(ctx, &apiv1.DeleteNotificationChannelRequest{NotificationChannel: name})
			return r.GetOperation(), err
		},
	}, a.createChannel(), a.updateChannel(), a.channelSecret(), a.testChannel())
}

// channelFlags adds the flags of a channel to a command. The function that it returns writes those that were given into a channel, and
// returns which fields that changes.
func (a *app) channelFlags(cmd *cobra.Command) func(m *apiv1.NotificationChannel) ([]string, error) {
	f := cmd.Flags()
	given := &apiv1.NotificationChannel{Mail: &apiv1.Mail{}, Webhook: &apiv1.Webhook{}}
	var ca string
	f.StringVar(&given.Mail.Server, "server", "", "mail server, as `HOST:PORT`")
	wordFlag(f, given.Mail, "tls", ": when TLS begins; starttls where nothing is said")
	f.StringVar(&given.Mail.From, "from", "", "`address` from which mail comes")
	f.StringVar(&given.Mail.User, "user", "", "who logs in at the mail server; the password is set by naru notification-channel secret")
	f.StringVar(&given.Mail.Language, "language", "", "ko or en: of mail to people who have chosen none")
	f.StringVar(&given.Webhook.Url, "url", "", "`https://…` of a webhook")
	f.StringVar(&ca, "ca", "", "CA of the server's certificate, in PEM, or `@FILE`; without it those of the machine")
	f.StringSliceVar(&given.Topics, "topics", nil, "only these: request.waiting, request.*; without it everything")
	f.StringSliceVar(&given.Organizations, "organizations", nil, "only what belongs to these, or to those below them")
	f.StringSliceVar(&given.Projects, "projects", nil, "only what belongs to these")
	wordFlag(f, given, "grade", ": how far what is sent may be read; open where nothing is said")
	f.BoolVar(&given.Disabled, "disabled", false, "send nothing")
	return func(m *apiv1.NotificationChannel) (mask []string, err error) {
		changes := func(field string, flags ...string) bool {
			for _, name := range flags {
				if f.Changed(name) {
					mask = append(mask, field)
					return true
				}
			}
			return false
		}
		hook := m.GetWebhook() != nil || m.GetMail() == nil && f.Changed("url")
		if ca, err = a.argument(ca); err != nil {
			return nil, err
		}
		for _, x := range []struct {
			flag string
			hook bool
			set  func()
		}{
			{"server", false, func() { m.Mail.Server = given.Mail.Server }}, {"tls", false, func() { m.Mail.Tls = given.Mail.Tls }},
			{"from", false, func() { m.Mail.From = given.Mail.From }}, {"user", false, func() { m.Mail.User = given.Mail.User }},
			{"language", false, func() { m.Mail.Language = given.Mail.Language }}, {"ca", false, func() { m.Mail.Ca = ca }},
			{"url", true, func() { m.Webhook.Url = given.Webhook.Url }}, {"ca", true, func() { m.Webhook.Ca = ca }},
		} {
			switch {
			case !f.Changed(x.flag) || x.flag == "ca" && x.hook != hook:
				continue
			case x.hook != hook:
				return nil, usagef("--%s is not for a channel of this kind: it is mail or a webhook for ever", x.flag)
			case hook && m.Webhook == nil:
				m.Webhook = &apiv1.Webhook{}
			case !hook && m.Mail == nil:
				m.Mail = &apiv1.Mail{}
			}
			x.set()
		}
		changes("mail", "server", "tls", "from", "user", "language")
		changes("webhook", "url")
		if f.Changed("ca") && !slices.Contains(mask, "mail") && !slices.Contains(mask, "webhook") {
			mask = append(mask, map[bool]string{true: "webhook", false: "mail"}[hook])
		}
		if changes("topics", "topics") {
			m.Topics = given.Topics
		}
		if changes("organizations", "organizations") {
			m.Organizations = given.Organizations
		}
		if changes("projects", "projects") {
			m.Projects = given.Projects
		}
		if changes("grade", "grade") {
			m.Grade = given.Grade
		}
		if changes("disabled", "disabled") {
			m.Disabled = given.Disabled
		}
		return mask, nil
	}
}

func (a *app) createChannel() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a channel: mail with --server and --from, or a webhook with --url", Args: oneArgument,
		Example: "  naru notification-channel create mail --server mail.example.org:587 --from naru@example.org --user naru\n" +
			"  naru notification-channel create desk --url https://desk.example.org/naru --topics 'request.*' --projects web",
	}
	fill := a.channelFlags(cmd)
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("server") == cmd.Flags().Changed("url") {
			return usagef("a channel is mail or a webhook: give --server or --url")
		}
		m := &apiv1.NotificationChannel{Name: args[0]}
		if _, err := fill(m); err != nil {
			return err
		}
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			r, err := c.NotificationChannels.CreateNotificationChannel(ctx, &apiv1.CreateNotificationChannelRequest{NotificationChannel: m})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), w)
		})
	}
	return cmd
}

func (a *app) updateChannel() *cobra.Command {
	var etag string
	cmd := &cobra.Command{Use: "update NAME", Short: "Change what is given of a channel; one that leads to another mail server needs its password again", Args: oneArgument}
	fill := a.channelFlags(cmd)
	etagFlag(cmd, &etag)
	a.completeArguments(cmd, "notification-channel", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			was, err := c.NotificationChannels.GetNotificationChannel(ctx, &apiv1.GetNotificationChannelRequest{NotificationChannel: args[0]})
			if err != nil {
				return err
			}
			m := was.GetNotificationChannel()
			mask, err := fill(m)
			if err != nil {
				return err
			}
			if len(mask) == 0 {
				return usagef("nothing to change was given; see naru notification-channel update --help")
			}
			r, err := c.NotificationChannels.UpdateNotificationChannel(ifMatch(ctx, cmp.Or(etag, m.GetRevision())),
				&apiv1.UpdateNotificationChannelRequest{NotificationChannel: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}})
			if err != nil {
				return err
			}
			return printOne(a, r.GetNotificationChannel(), notificationChannelColumns)
		})
	}
	return cmd
}

func (a *app) channelSecret() *cobra.Command {
	var generate bool
	overlap := 24 * time.Hour
	cmd := &cobra.Command{
		Use: "secret NAME", Short: "Set the password of a mail server or the signing key of a webhook, which is asked for, or read from standard input", Args: oneArgument,
		Example: "  naru notification-channel secret mail < password\n  naru notification-channel secret desk --generate > key",
	}
	cmd.Flags().BoolVar(&generate, "generate", false, "make a signing key, and print it once")
	cmd.Flags().DurationVar(&overlap, "overlap", overlap, "how long a webhook is signed with the key before as well")
	a.completeArguments(cmd, "notification-channel", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, noLimit, func(ctx context.Context, c *client.Client) error {
			key := make([]byte, 32)
			rand.Read(key)
			secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
			if !generate {
				var err error
				if secret, err = a.line(ctx, "Secret: ", true); err != nil {
					return err
				}
			}
			if _, err := c.NotificationChannels.SetNotificationChannelSecret(ctx, &apiv1.SetNotificationChannelSecretRequest{
				NotificationChannel: args[0], Secret: secret, Overlap: durationpb.New(overlap)}); err != nil {
				return err
			}
			if generate {
				fmt.Fprintln(a.out, secret)
			}
			return nil
		})
	}
	return cmd
}

func (a *app) testChannel() *cobra.Command {
	var user string
	cmd := &cobra.Command{Use: "test NAME", Short: "Send one message now", Args: oneArgument}
	cmd.Flags().StringVar(&user, "user", "", "to whom, of mail; you where nobody is named")
	a.completeArguments(cmd, "notification-channel", 1, &scope{})
	a.completeNames(cmd, "user", "user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.NotificationChannels.TestNotificationChannel(ctx, &apiv1.TestNotificationChannelRequest{NotificationChannel: args[0], User: user})
			if err == nil {
				fmt.Fprintf(a.err, "It was sent, as %s.\n", r.GetDelivery())
			}
			return err
		})
	}
	return cmd
}
