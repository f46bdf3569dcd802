package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func roleBindings() *spec[*apiv1.RoleBinding] {
	// A binding is where its place is.
	placed := func(scope apiv1.RoleBinding_Scope, get func(*apiv1.RoleBinding) string) func(*apiv1.RoleBinding) string {
		return func(m *apiv1.RoleBinding) string {
			if m.GetScope() != scope {
				return ""
			}
			return get(m)
		}
	}
	id := (*apiv1.RoleBinding).GetPlaceId
	return &spec[*apiv1.RoleBinding]{
		noun: "role_binding", plural: "role_bindings",
		zero:   func() *apiv1.RoleBinding { return &apiv1.RoleBinding{} },
		revise: func(m *apiv1.RoleBinding, r string) { m.Revision = r },
		columns: []column[*apiv1.RoleBinding]{
			text("role", (*apiv1.RoleBinding).GetRole).asFixed(),
			text("role_id", (*apiv1.RoleBinding).GetRoleId).asFixed(),
			text("user", (*apiv1.RoleBinding).GetUser).asFixed(),
			text("user_id", (*apiv1.RoleBinding).GetUserId).asFixed(),
			text("group_name", (*apiv1.RoleBinding).GetGroup).asFixed(),
			text("group_id", (*apiv1.RoleBinding).GetGroupId).asFixed(),
			enum("scope", (*apiv1.RoleBinding).GetScope).asFixed(),
			text("place", (*apiv1.RoleBinding).GetPlace).asFixed(),
			text("place_id", id).asFixed(),
			moment("expires_at", (*apiv1.RoleBinding).GetExpiresAt),
			text("created_by", (*apiv1.RoleBinding).GetCreatedBy).asFixed(),
			moment("created_at", (*apiv1.RoleBinding).GetCreatedAt),
			text("project_id", placed(apiv1.RoleBinding_PROJECT, id)).asFixed().asHidden(),
			text("organization_id", placed(apiv1.RoleBinding_ORGANIZATION, id)).asFixed().asHidden(),
			text("zone_id", placed(apiv1.RoleBinding_ZONE, id)).asFixed().asHidden(),
		},
		further: []string{"(user_id)", "(group_id)", "(role_id, place_id)", "(place_id)", "(expires_at)"},
	}
}

// RoleBindingsOf goes through the bindings that name a user or a group that the user is in, in the order of their ids, those
// that have ended included.
func (tx *Tx) RoleBindingsOf(userID string) iter.Seq2[*apiv1.RoleBinding, error] {
	t := tx.RoleBindings
	return t.rows(t.spec.text.all+` WHERE (user_id<>'' AND user_id=?1)
		OR (group_id<>'' AND group_id IN (SELECT group_id FROM group_members WHERE user_id=?1)) ORDER BY id`, userID)
}

// RoleBindingsRevision is the revision of all the bindings that somebody has (RoleBindingsOf): another one where a binding
// was given to them or taken from them, or a group with one was.
func RoleBindingsRevision(all []*apiv1.RoleBinding) string {
	h := sha256.New()
	for _, b := range all {
		fmt.Fprintf(h, "%s %s\n", b.GetId(), b.GetRevision())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ForgetRoleBindings removes the bindings that ended before a time, at most so many of them.
func (tx *Tx) ForgetRoleBindings(before *timestamppb.Timestamp, limit int) error {
	return tx.RoleBindings.deleteRows("SELECT id FROM role_bindings WHERE expires_at>0 AND expires_at<? ORDER BY id"+atMost, Micros(before), limit)
}

// Taken is what is thought away: a binding, a user, or a user's place in a group, or a whole group. Each may be empty.
type Taken struct {
	BindingID, UserID string
	Membership        Membership
}

// Holder is a user who is bound to a role, by themselves or by a group; Lasting where that has no end.
type Holder struct {
	UserID  string
	Lasting bool
}

// HoldersEverywhere goes through the enabled users who are bound to a role in the whole federation at a time, without what is thought
// away. Who is bound twice comes twice.
func (tx *Tx) HoldersEverywhere(roleID string, at *timestamppb.Timestamp, without Taken) iter.Seq2[Holder, error] {
	return func(yield func(Holder, error) bool) {
		enough := errors.New("left early")
		err := tx.queryOnce(`SELECT u.id, b.expires_at=0 FROM role_bindings b
			LEFT JOIN group_members g ON b.group_id<>'' AND g.group_id=b.group_id AND NOT (g.group_id=?5 AND (?6='' OR g.user_id=?6))
			JOIN users u ON u.id=CASE WHEN b.group_id<>'' THEN g.user_id ELSE b.user_id END
			WHERE b.role_id=?1 AND b.place_id='' AND b.scope=1 AND (b.expires_at=0 OR b.expires_at>?2) AND b.id<>?3 AND u.id<>?4 AND u.disabled=0
			ORDER BY b.id, g.user_id`, func(s *sqlite.Stmt) error {
			if !yield(Holder{s.ColumnText(0), s.ColumnInt(1) == 1}, nil) {
				return enough
			}
			return nil
		}, roleID, Micros(at), without.BindingID, without.UserID, without.Membership.GroupID, without.Membership.UserID)
		if err != nil && err != enough {
			yield(Holder{}, err)
		}
	}
}

// RoleBindingsEnded reports whether a binding ended after one time and up to another.
func (tx *Tx) RoleBindingsEnded(after, upTo *timestamppb.Timestamp) (some bool, err error) {
	err = tx.query("SELECT 1 FROM role_bindings WHERE expires_at>? AND expires_at<=? ORDER BY id LIMIT 1", func(*sqlite.Stmt) error {
		some = true
		return nil
	}, Micros(after), Micros(upTo))
	return some, err
}
