// Package tie says what somebody has by an organization that they leave for another, on a snapshot of the state: in it, in what stands
// below it, and in the projects of these. Where the new one stands below it, what lies in or below that is no tie.
package tie

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Ties are what somebody has, as it counts now: what has ended is left out.
type Ties struct {
	// Bindings are of roles that are bound to themselves; Groups those in which somebody has put them, and that have roles nowhere else;
	// Delegations those that they have given, but for those of other projects. All of it can be ended without another losing anything.
	Bindings    []*apiv1.RoleBinding
	Groups      []*apiv1.Group
	Delegations []*apiv1.Delegation
	// Rest is what is somebody else's to end as well: groups that have roles elsewhere too, or that an identity provider puts them in,
	// decisions that others have delegated to them, and tokens that programs use.
	Rest []*apiv1.Reference
}

// Of returns what ties a user to the organization that they are in, when they go to another.
func Of(tx *state.Tx, user *apiv1.User, organizationID string, now *timestamppb.Timestamp) (*Ties, error) {
	f := &finder{tx: tx, user: user, now: now}
	stay, err := tx.OrganizationsBelow(organizationID)
	if err == nil {
		f.left, err = tx.OrganizationsBelow(user.GetOrganizationId())
	}
	if user.GetOrganizationId() == organizationID || !slices.Contains(stay, user.GetOrganizationId()) { // else they go up, and leave all of it
		f.left = slices.DeleteFunc(f.left, func(id string) bool { return slices.Contains(stay, id) })
	}
	for _, find := range []func() error{f.bindings, f.groups, f.delegations, f.tokens} {
		if err == nil {
			err = find()
		}
	}
	return &f.Ties, err
}

// All names every tie, for people.
func (t *Ties) All() []*apiv1.Reference { return append(t.Ending(), t.Rest...) }

// Ending names what can be ended without another losing anything.
func (t *Ties) Ending() (out []*apiv1.Reference) {
	for _, b := range t.Bindings {
		out = append(out, named("role-binding", b.GetId(), b.GetRole()+" in "+strings.ToLower(b.GetScope().String())+" "+b.GetPlace()))
	}
	for _, g := range t.Groups {
		out = append(out, named("group", g.GetId(), g.GetName()))
	}
	for _, d := range t.Delegations {
		out = append(out, named("delegation", d.GetId(), "to "+d.GetToUser()))
	}
	return out
}

// IDs are those of what can be ended so, in order.
func (t *Ties) IDs() (ids []string) {
	for _, r := range t.Ending() {
		ids = append(ids, r.GetId())
	}
	return ids
}

func named(kind, id, name string) *apiv1.Reference {
	if r := []rune(name); len(r) > 128 { // proto: max_len
		name = string(r[:127]) + "…"
	}
	return &apiv1.Reference{Kind: kind, Id: id, Name: name}
}

type finder struct {
	Ties
	tx   *state.Tx
	user *apiv1.User
	now  *timestamppb.Timestamp
	left []string
}

// counts reports whether what ends at a time, or never, has not ended.
func (f *finder) counts(end *timestamppb.Timestamp) bool {
	return end == nil || end.AsTime().After(f.now.AsTime())
}

// ofProject reports whether a project belongs to what is left. One that is gone does not.
func (f *finder) ofProject(id string) (bool, error) {
	p, err := f.tx.Projects.Get(id)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return slices.Contains(f.left, p.GetOrganizationId()), err
}

func (f *finder) bound(b *apiv1.RoleBinding) (bool, error) {
	switch b.GetScope() {
	case apiv1.RoleBinding_ORGANIZATION:
		return slices.Contains(f.left, b.GetPlaceId()), nil
	case apiv1.RoleBinding_PROJECT:
		return f.ofProject(b.GetPlaceId())
	}
	return false, nil
}

func (f *finder) bindings() error {
	all, err := collected(f, f.tx.RoleBindings, state.Scope{"user_id": f.user.GetId()}, (*apiv1.RoleBinding).GetExpiresAt)
	if err != nil {
		return err
	}
	for _, b := range all {
		is, err := f.bound(b)
		if err != nil {
			return err
		}
		if is {
			f.Bindings = append(f.Bindings, b)
		}
	}
	return nil
}

func (f *finder) groups() error {
	ids, err := f.tx.GroupsOf(f.user.GetId())
	if err != nil {
		return err
	}
	for _, id := range ids {
		all, err := collected(f, f.tx.RoleBindings, state.Scope{"group_id": id}, (*apiv1.RoleBinding).GetExpiresAt)
		if err != nil {
			return err
		}
		some, every := false, true
		for _, b := range all {
			is, err := f.bound(b)
			if err != nil {
				return err
			}
			some, every = some || is, every && is
		}
		if !some {
			continue
		}
		g, err := f.tx.Groups.Get(id)
		if err != nil {
			return err
		}
		place, err := f.tx.Membership(id, f.user.GetId())
		switch {
		case err != nil:
			return err
		case place.ProviderID != "":
			f.Rest = append(f.Rest, named("group", id, g.GetName()+", by an identity provider"))
		case !every:
			f.Rest = append(f.Rest, named("group", id, g.GetName()+", which has roles elsewhere too"))
		default:
			f.Groups = append(f.Groups, g)
		}
	}
	return nil
}

// delegations finds those that are of everything, or of a project that is left.
func (f *finder) delegations() error {
	for _, column := range []string{"from_user_id", "to_user_id"} {
		all, err := collected(f, f.tx.Delegations, state.Scope{column: f.user.GetId()}, (*apiv1.Delegation).GetEndsAt)
		if err != nil {
			return err
		}
		for _, d := range all {
			if d.GetProjectId() != "" {
				if is, err := f.ofProject(d.GetProjectId()); err != nil {
					return err
				} else if !is {
					continue
				}
			}
			if column == "from_user_id" {
				f.Delegations = append(f.Delegations, d)
			} else {
				f.Rest = append(f.Rest, named("delegation", d.GetId(), "from "+d.GetFromUser()))
			}
		}
	}
	return nil
}

// tokens finds those of a service, and those that the user has made for a project, whichever way.
func (f *finder) tokens() error {
	all, err := collected(f, f.tx.AccessTokens, nil, (*apiv1.AccessToken).GetExpiresAt)
	if err != nil {
		return err
	}
	for _, t := range all {
		is, err := f.ofProject(t.GetProjectId())
		if err != nil {
			return err
		}
		if is && slices.Contains([]string{t.GetUserId(), t.GetCreatedById(), t.GetCreatedByUserId()}, f.user.GetId()) {
			f.Rest = append(f.Rest, named("token", t.GetId(), t.GetName()+" of project "+t.GetProject()))
		}
	}
	return nil
}

// collected are the rows of a table that count still: a snapshot runs one statement of a kind at a time.
func collected[M state.Noun](f *finder, t state.Table[M], scope state.Scope, end func(M) *timestamppb.Timestamp) (all []M, err error) {
	for m, err := range t.All(scope) {
		if err != nil {
			return nil, err
		}
		if f.counts(end(m)) {
			all = append(all, m)
		}
	}
	return all, nil
}
