package fsm

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createGroup(in *commandv1.CreateGroup) (*commandv1.Result, error) {
	m := in.GetGroup()
	if err := mayCreate(c.tx.Groups, "group", m, nil); err != nil {
		return nil, err
	}
	m.CreatedAt = c.now
	return create(c, c.tx.Groups, "group", m)
}

func (c *command) updateGroup(in *commandv1.UpdateGroup) (*commandv1.Result, error) {
	m := in.GetGroup()
	was, err := stored(c.tx.Groups, "group", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("group", was, m); err != nil {
		return nil, err
	}
	m.CreatedAt = was.GetCreatedAt()
	return put(c.tx.Groups, m)
}

// deleteGroup deletes a group and the rights that it gave; who was in it no longer is.
func (c *command) deleteGroup(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Groups, "group", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.staysAdministered(state.Taken{Membership: state.Membership{GroupID: m.GetId()}}); err != nil {
		return nil, err
	}
	for p, err := range c.tx.IdentityProviders.All(nil) {
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(p.GetGroupMappings(), func(g *apiv1.GroupMapping) bool { return g.GetGroupId() == m.GetId() }) {
			return nil, problem.Newf(problem.InUse, "Take it out of the mapping first: naru identity-provider update "+p.GetName()+" --file FILE.", "identity provider %s maps groups of its own to group %s", p.GetName(), m.GetName())
		}
	}
	var u uses
	u.add(c.policiesThatAsk(m.GetName()))
	if err := u.refuse("group", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetMembers(m.GetId()); err != nil {
		return nil, err
	}
	if err := c.tx.RoleBindings.DeleteAll(state.Scope{"group_id": m.GetId()}); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Groups, "group", m)
}

// policiesThatAsk names the approval policies that ask a group, by its name, or whose conditions have that name in quotation marks.
func (c *command) policiesThatAsk(group string) (string, error) {
	var found []string
	asks := func(e *apiv1.Eligibility) bool {
		return slices.Contains(e.GetGroups(), group) || strings.Contains(e.GetCondition(), `"`+group+`"`) || strings.Contains(e.GetCondition(), `'`+group+`'`)
	}
	for p, err := range c.tx.ApprovalPolicies.All(nil) {
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(p.GetStages(), func(s *apiv1.StageTemplate) bool {
			return asks(s.GetEligible()) || asks(s.GetEscalateTo())
		}) {
			found = append(found, p.GetName())
		}
	}
	return several("approval policy", found), nil
}

// addGroupMember puts a user into a group; one whom somebody put there before stays as they are.
func (c *command) addGroupMember(in *commandv1.AddGroupMember) (*commandv1.Result, error) {
	if _, err := stored(c.tx.Groups, "group", in.GetGroupId(), ""); err != nil {
		return nil, err
	}
	user, err := stored(c.tx.Users, "user", in.GetUserId(), "")
	if err != nil {
		return nil, err
	}
	m, err := c.tx.Membership(in.GetGroupId(), in.GetUserId())
	if missing(err) || err == nil && m.ProviderID != "" { // from now on it is not the provider's to take away
		m = state.Membership{GroupID: in.GetGroupId(), UserID: in.GetUserId(), AddedBy: c.actor, AddedAt: state.Micros(c.now)}
		err = c.tx.PutMembership(m)
	}
	if err != nil {
		return nil, err
	}
	return made(&apiv1.GroupMember{
		User: user.GetName(), UserId: m.UserID, AddedBy: m.AddedBy,
		AddedAt: &timestamppb.Timestamp{Seconds: m.AddedAt / 1e6, Nanos: int32(m.AddedAt % 1e6 * 1e3)},
	}, nil)
}

// removeGroupMember takes a user out of a group; who is not in it stays out.
func (c *command) removeGroupMember(in *commandv1.RemoveGroupMember) (*commandv1.Result, error) {
	if _, err := stored(c.tx.Groups, "group", in.GetGroupId(), ""); err != nil {
		return nil, err
	}
	gone := state.Membership{GroupID: in.GetGroupId(), UserID: in.GetUserId()}
	if err := c.staysAdministered(state.Taken{Membership: gone}); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tx.ForgetMembership(in.GetGroupId(), in.GetUserId())
}
