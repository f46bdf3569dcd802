package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TopicMembers is what watches hear of when somebody enters or leaves a group.
const TopicMembers = "group_members"

func groups() *spec[*apiv1.Group] {
	return &spec[*apiv1.Group]{
		noun: "group", plural: "groups", named: true,
		zero:   func() *apiv1.Group { return &apiv1.Group{} },
		revise: func(m *apiv1.Group, r string) { m.Revision = r },
		columns: []column[*apiv1.Group]{
			text("name", (*apiv1.Group).GetName).asFixed(),
			text("title", (*apiv1.Group).GetTitle),
			moment("created_at", (*apiv1.Group).GetCreatedAt),
		},
	}
}

// Membership is a user's place in a group.
type Membership struct {
	GroupID, UserID string
	// AddedBy is the actor who put the user there; AddedAt is in microseconds since 1970.
	AddedBy string
	AddedAt int64
	// ProviderID is that of the identity provider by whose word the user is there; empty where somebody put them there.
	ProviderID string
}

// Membership returns a user's place in a group. Errors: ErrNotFound.
func (tx *Tx) Membership(groupID, userID string) (m Membership, err error) {
	err = tx.first("SELECT added_by, added_at, provider_id FROM group_members WHERE group_id=? AND user_id=?", func(s *sqlite.Stmt) error {
		m = Membership{groupID, userID, s.ColumnText(0), s.ColumnInt64(1), s.ColumnText(2)}
		return nil
	}, groupID, userID)
	return m, err
}

// PutMembership stores a user's place in a group.
func (tx *Tx) PutMembership(m Membership) error {
	tx.touch(TopicMembers)
	return tx.write(`INSERT INTO group_members (group_id, user_id, added_by, added_at, provider_id) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (group_id, user_id) DO UPDATE SET added_by=excluded.added_by, added_at=excluded.added_at, provider_id=excluded.provider_id`,
		m.GroupID, m.UserID, m.AddedBy, m.AddedAt, m.ProviderID)
}

// ForgetMembership takes a user out of a group.
func (tx *Tx) ForgetMembership(groupID, userID string) error {
	tx.touch(TopicMembers)
	return tx.write("DELETE FROM group_members WHERE group_id=? AND user_id=?", groupID, userID)
}

// ForgetMembershipsOf takes a user out of all groups.
func (tx *Tx) ForgetMembershipsOf(userID string) error {
	tx.touch(TopicMembers)
	return tx.write("DELETE FROM group_members WHERE user_id=?", userID)
}

// ForgetMembers takes everybody out of a group.
func (tx *Tx) ForgetMembers(groupID string) error {
	tx.touch(TopicMembers)
	return tx.write("DELETE FROM group_members WHERE group_id=?", groupID)
}

// MembershipsBy returns the places in groups that an identity provider gave: those of a user, or of everybody where none is named.
func (tx *Tx) MembershipsBy(providerID, userID string) (all []Membership, err error) {
	err = tx.query("SELECT group_id, user_id, added_by, added_at FROM group_members WHERE provider_id=?1 AND (?2='' OR user_id=?2) ORDER BY group_id, user_id", func(s *sqlite.Stmt) error {
		all = append(all, Membership{s.ColumnText(0), s.ColumnText(1), s.ColumnText(2), s.ColumnInt64(3), providerID})
		return nil
	}, providerID, userID)
	return all, err
}

// GroupsOf returns the ids of the groups that a user is in, in order.
func (tx *Tx) GroupsOf(userID string) (ids []string, err error) {
	err = tx.query("SELECT group_id FROM group_members WHERE user_id=? ORDER BY group_id", func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnText(0))
		return nil
	}, userID)
	return ids, err
}

// MembersOf returns who is in a group, with the users' names, ordered by these: at most limit, behind the name after.
func (tx *Tx) MembersOf(groupID, after string, limit int) (members []Membership, names []string, err error) {
	err = tx.query(`SELECT m.user_id, m.added_by, m.added_at, m.provider_id, u.name FROM group_members m JOIN users u ON u.id=m.user_id
		WHERE m.group_id=? AND u.name>? ORDER BY u.name`+atMost, func(s *sqlite.Stmt) error {
		members = append(members, Membership{groupID, s.ColumnText(0), s.ColumnText(1), s.ColumnInt64(2), s.ColumnText(3)})
		names = append(names, s.ColumnText(4))
		return nil
	}, groupID, after, limit)
	return members, names, err
}
