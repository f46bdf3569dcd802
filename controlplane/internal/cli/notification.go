package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/notice"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var notificationColumns = []column[*apiv1.Notification]{
	{head: "WHEN", value: func(m *apiv1.Notification) string { return local(m.GetCreatedAt()) }},
	{head: "NEW", value: func(m *apiv1.Notification) string { return yes(!m.GetRead()) }},
	{head: "WHAT", value: func(m *apiv1.Notification) string { return notice.Sentence(language(), m) }, text: true},
	{head: "BY", value: (*apiv1.Notification).GetBy},
	{head: "PROJECT", value: (*apiv1.Notification).GetProject},
	{head: "TOPIC", value: (*apiv1.Notification).GetTopic, wide: true},
	{head: "ID", value: (*apiv1.Notification).GetId, wide: true},
}

func (a *app) notificationNoun(unread *bool) noun[*apiv1.Notification] {
	filter := func(q query) string {
		switch {
		case !*unread:
			return q.filter
		case q.filter == "":
			return "read=false"
		}
		return "read=false AND " + q.filter
	}
	return noun[*apiv1.Notification]{
		name: "notification", plural: "notifications", short: "What concerns you: what waits for you, and what became of what you asked for", in: []string{},
		filter: "topic=request.waiting", history: true, columns: notificationColumns,
		narrow: func(f *pflag.FlagSet) { f.BoolVar(unread, "unread", false, "only what you have not read") },
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Notification, string, error) {
			r, err := c.Notifications.ListNotifications(ctx, &apiv1.ListNotificationsRequest{Filter: filter(q), OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetNotifications(), r.GetNextPageToken(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Notification], error), error) {
			s, err := c.Notifications.WatchNotifications(ctx, &apiv1.WatchNotificationsRequest{After: after, Filter: filter(q)})
			return client.Changes(s, err, func(m *apiv1.WatchNotificationsResponse) change[*apiv1.Notification] {
				return change[*apiv1.Notification]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetNotification()}
			})
		},
	}
}

func (a *app) notification() *cobra.Command {
	n := a.notificationNoun(new(bool))
	return command(a, n, a.watchNotifications(), a.readNotifications(), a.muteNotifications())
}

// watchNotifications is list --unread --watch, which is what people stay for.
func (a *app) watchNotifications() *cobra.Command {
	unread := true
	n := a.notificationNoun(&unread)
	var q query
	cmd := &cobra.Command{Use: "watch", Short: "Stay and show what you have not read, as it comes", Args: noArguments}
	cmd.Flags().StringVar(&q.filter, "filter", "", "`terms` joined by AND: a column, one of = != < <= > >= ~ (contains), a value")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, noLimit, func(ctx context.Context, c *client.Client) error { return watchNouns(ctx, a, c, n, q) })
	}
	return cmd
}

func (a *app) readNotifications() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "read [ID...]", Short: "Mark as read: those that are named, or with --all what there is now", Args: cobra.ArbitraryArgs}
	cmd.Flags().BoolVar(&all, "all", false, "everything that there is now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return usagef("name those that are read, by their ids (naru notification list -o wide), or give --all")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			in := &apiv1.ReadNotificationsRequest{Notifications: args}
			if all {
				r, err := c.Notifications.ListNotifications(ctx, &apiv1.ListNotificationsRequest{OrderBy: "id desc", PageSize: 1})
				if err != nil || len(r.GetNotifications()) == 0 {
					return err
				}
				in.UpTo = r.GetNotifications()[0].GetId()
			}
			r, err := c.Notifications.ReadNotifications(ctx, in)
			if err == nil {
				fmt.Fprintf(a.err, "Unread: %d.\n", r.GetUnread())
			}
			return err
		})
	}
	return cmd
}

// muteNotifications shows, or says, of what the caller gets no mail.
func (a *app) muteNotifications() *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "mute [TOPIC...]", Short: "Say of which topics you want no mail, all of them: lease.started, lease.*; without any, show which these are", Args: cobra.ArbitraryArgs,
		Long: `Say of which topics you want no mail: all of them, in place of those that you named before. They are listed still. What waits for
your decision, and what was done to your account, is sent all the same.`,
		Example: "  naru notification mute 'lease.*' request.commented",
	}
	cmd.Flags().BoolVar(&none, "none", false, "mute nothing any more")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if none && len(args) > 0 {
			return usagef("--none mutes nothing any more; name no topics with it")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			muted := &apiv1.MuteNotificationsResponse{}
			if none || len(args) > 0 {
				var err error
				if muted, err = c.Notifications.MuteNotifications(ctx, &apiv1.MuteNotificationsRequest{Topics: args}); err != nil {
					return err
				}
			} else {
				r, err := c.Notifications.ListNotifications(ctx, &apiv1.ListNotificationsRequest{PageSize: 1})
				if err != nil {
					return err
				}
				muted.Topics = r.GetMutedTopics()
			}
			if a.documents() {
				return a.message(muted)
			}
			for _, topic := range muted.GetTopics() {
				fmt.Fprintln(a.out, topic)
			}
			if len(muted.GetTopics()) == 0 {
				fmt.Fprintln(a.err, "You get mail of everything.")
			}
			return nil
		})
	}
	return cmd
}
