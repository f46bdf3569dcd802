package fsm

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/notice"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// maxTold is how many people one thing is told to (proto: max_items of addressees and recipients).
	maxTold = 256
	// keptNotifications is how many a person has: the newest.
	keptNotifications = 500
	// maxWaiting is how many deliveries of a channel may wait; what is beyond is counted and not written.
	maxWaiting = 10_000
	// giveUpAfter is in seconds: for how long a delivery is tried.
	giveUpAfter = 24 * 3600
)

// news is what this command causes and people should be told of. It is written with its cause.
type news struct {
	topic string
	about *apiv1.Reference
	at    whereabouts
	// organizationID is to whom it belongs where it is about no project.
	organizationID string
	parameters     []*apiv1.Notification_Parameter
	// results are for channels alone: people look them up.
	results []*apiv1.Notification_Made
}

// maxParameter is in bytes (proto: max_len in characters).
const maxParameter = 256

func parameter(key, value string) *apiv1.Notification_Parameter {
	return &apiv1.Notification_Parameter{Key: key, Value: cutTo(value, maxParameter)}
}

// author is who has the command carried out, by name; empty where that is nobody.
func (c *command) author() string {
	kind, name, _ := strings.Cut(actorText(c.actor), ":")
	if kind == "controller" {
		return ""
	}
	return name
}

func (c *command) notification(n news) *apiv1.Notification {
	return &apiv1.Notification{
		Id: c.nextID(), Topic: n.topic, About: n.about, Project: n.at.project, ProjectId: n.at.projectID, Zone: n.at.zone, ZoneId: n.at.zoneID,
		By: cutTo(c.author(), 256), Parameters: n.parameters, Results: n.results, CreatedAt: c.now,
	}
}

// notify tells people, by their ids, and whoever listens on a channel.
func (c *command) notify(n news, userIDs ...string) error {
	var to []*commandv1.AddressNotice_Addressee
	for _, id := range userIDs {
		to = append(to, &commandv1.AddressNotice_Addressee{UserId: id})
	}
	return c.spread(c.notification(n), n.organizationID, to)
}

// announce keeps what is to be told until it is found out to whom: a policy says that, and none is asked here.
func (c *command) announce(n news) error {
	return c.tx.PutNotice(&commandv1.Notice{Notification: c.notification(n), OrganizationId: n.organizationID})
}

// addressNotices tells notices to those whom they concern. What is told already was told by the leader before.
func (c *command) addressNotices(in *commandv1.AddressNotices) (*commandv1.Result, error) {
	for _, n := range in.GetNotices() {
		if err := c.addressNotice(n); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, nil
}

func (c *command) addressNotice(in *commandv1.AddressNotice) error {
	m, err := c.tx.Notice(in.GetNoticeId())
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.tx.ForgetNotice(in.GetNoticeId()); err != nil {
		return err
	}
	if slices.Contains(request.Asking, m.GetNotification().GetTopic()) { // it may have been decided since the addressees were found
		r, err := c.tx.Requests.Get(m.GetNotification().GetAbout().GetId())
		if err != nil && !missing(err) {
			return err
		}
		if err != nil || !waitsStill(r, m.GetNotification()) {
			return nil
		}
	}
	return c.spread(m.GetNotification(), m.GetOrganizationId(), in.GetAddressees())
}

// spread writes what is told: to each person, and for each channel that wants it what is to be delivered.
func (c *command) spread(told *apiv1.Notification, organizationID string, to []*commandv1.AddressNotice_Addressee) error {
	var people []*apiv1.User
	own := map[string]*apiv1.Notification{} // by user id
	for _, a := range to {
		if own[a.GetUserId()] != nil || len(people) == maxTold {
			continue
		}
		u, err := c.tx.Users.Get(a.GetUserId())
		if missing(err) {
			continue
		} else if err != nil {
			return err
		}
		if request.Away(u) != "" && !strings.HasPrefix(told.GetTopic(), "account.") {
			continue
		}
		m := proto.CloneOf(told)
		m.Id, m.UserId, m.Results = c.nextID(), u.GetId(), nil
		if a.GetActingFor() != "" {
			m.Parameters = append(m.GetParameters(), parameter("for", a.GetActingFor()))
		}
		if err := c.tx.Notifications.Put(m); err != nil {
			return err
		}
		if err := c.tx.KeepNotifications(u.GetId(), keptNotifications); err != nil {
			return err
		}
		people, own[u.GetId()] = append(people, u), m
	}
	owners, err := c.ownersOf(told, organizationID)
	if err != nil {
		return err
	}
	channels, err := c.tx.Channels()
	for _, ch := range channels {
		if err == nil && wants(ch, told, owners) {
			err = c.dispatch(ch, told, people, own)
		}
	}
	return err
}

// ownersOf returns the ids of the organizations to which it belongs, the nearest first.
func (c *command) ownersOf(told *apiv1.Notification, organizationID string) ([]string, error) {
	if told.GetProjectId() != "" {
		p, err := c.tx.Projects.Get(told.GetProjectId())
		if err != nil && !missing(err) {
			return nil, err
		}
		organizationID = p.GetOrganizationId()
	}
	return c.tx.OrganizationsAbove(organizationID)
}

// wants reports whether a channel is for what is told.
func wants(ch *apiv1.NotificationChannel, told *apiv1.Notification, owners []string) bool {
	topical := len(ch.GetTopics()) == 0 || notice.Within(told.GetTopic(), ch.GetTopics())
	if len(ch.GetProjects())+len(ch.GetOrganizations()) == 0 {
		return topical
	}
	return topical && (told.GetProjectId() != "" && slices.Contains(ch.GetProjectIds(), told.GetProjectId()) ||
		slices.ContainsFunc(owners, func(id string) bool { return slices.Contains(ch.GetOrganizationIds(), id) }))
}

// dispatch writes what a channel is to deliver: a mail to each person who has an address, one event to a webhook.
func (c *command) dispatch(ch *apiv1.NotificationChannel, told *apiv1.Notification, people []*apiv1.User, own map[string]*apiv1.Notification) error {
	deliver := func(m *apiv1.Notification, recipients ...string) *apiv1.Delivery {
		m = proto.CloneOf(m)
		m.Revision = ""
		return &apiv1.Delivery{
			Id: c.nextID(), Channel: ch.GetName(), ChannelId: ch.GetId(), State: apiv1.Delivery_WAITING, Notification: m, Recipients: recipients,
			CreatedAt: c.now, NextAttemptAt: c.clock, GiveUpAt: after(c.clock, giveUpAfter),
		}
	}
	var all []*apiv1.Delivery
	if ch.GetMail() == nil {
		var names []string
		for _, u := range people {
			names = append(names, u.GetName())
		}
		all = append(all, deliver(told, names...))
	}
	for _, u := range people {
		if ch.GetMail() != nil && u.GetEmail() != "" && !muted(u, told.GetTopic()) {
			all = append(all, deliver(own[u.GetId()], u.GetName()))
		}
	}
	waiting, err := c.tx.DeliveriesOf(ch.GetId(), apiv1.Delivery_WAITING)
	if err != nil {
		return err
	}
	for i, m := range all {
		if waiting+uint32(i) >= maxWaiting {
			return c.tx.Drop(ch.GetId(), len(all)-i)
		}
		if err := c.tx.Deliveries.Put(m); err != nil {
			return err
		}
	}
	return nil
}

// muted reports whether a user wants no mail of a topic, and may say so.
func muted(u *apiv1.User, topic string) bool {
	return notice.Within(topic, u.GetMutedTopics()) && request.Mutable(topic)
}

// muteTopics says of what a user gets no mail; nobody says that for another.
func (c *command) muteTopics(in *commandv1.MuteTopics, origin *commandv1.Origin) (*commandv1.Result, error) {
	if in.GetUserId() == "" || origin.GetActorId() != in.GetUserId() {
		return nil, problem.New(problem.Forbidden, "everybody mutes their own mail only", "Log in as yourself: naru login.")
	}
	m, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	if !slices.Equal(m.GetMutedTopics(), in.GetTopics()) {
		m.MutedTopics = in.GetTopics()
		if err := c.tx.Users.Put(m); err != nil {
			return nil, err
		}
	}
	return made(&apiv1.MuteNotificationsResponse{Topics: m.GetMutedTopics()}, nil)
}

// readNotifications marks a user's own as read; those of others are not there.
func (c *command) readNotifications(in *commandv1.ReadNotifications, origin *commandv1.Origin) (*commandv1.Result, error) {
	if in.GetUserId() == "" || origin.GetActorId() != in.GetUserId() {
		return nil, problem.New(problem.Forbidden, "everybody reads their own notifications only", "Log in as yourself: naru login.")
	}
	var read []*apiv1.Notification
	if in.GetUpTo() != "" {
		var err error
		if read, err = c.tx.UnreadUpTo(in.GetUserId(), in.GetUpTo()); err != nil {
			return nil, err
		}
	}
	for _, id := range in.GetNotificationIds() {
		m, err := c.tx.Notifications.Get(id)
		if err != nil && !missing(err) {
			return nil, err
		}
		if err != nil || m.GetUserId() != in.GetUserId() {
			return nil, notFound("notification", id)
		}
		read = append(read, m)
	}
	if err := c.markRead(read); err != nil {
		return nil, err
	}
	left, err := c.tx.Unread(in.GetUserId())
	if err != nil {
		return nil, err
	}
	return made(&apiv1.ReadNotificationsResponse{Unread: left}, nil)
}

func (c *command) markRead(all []*apiv1.Notification) error {
	for _, m := range all {
		if m.GetRead() {
			continue
		}
		m.Read = true
		if err := c.tx.Notifications.Put(m); err != nil {
			return err
		}
	}
	return nil
}

// notifyUser tells a person of what was done to their account.
func (c *command) notifyUser(topic string, u *apiv1.User, parameters ...*apiv1.Notification_Parameter) error {
	return c.notify(news{topic: topic, about: reference("user", u), organizationID: u.GetOrganizationId(), parameters: parameters}, u.GetId())
}

// notifyOfDelegation tells a person that they may decide in another's place, or no longer.
func (c *command) notifyOfDelegation(topic string, m *apiv1.Delegation) error {
	return c.notify(news{topic: topic, about: delegationReference(m), at: whereabouts{project: m.GetProject(), projectID: m.GetProjectId()},
		parameters: []*apiv1.Notification_Parameter{parameter("from", m.GetFromUser())}}, m.GetToUserId())
}
