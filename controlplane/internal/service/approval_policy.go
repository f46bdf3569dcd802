package service

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/approval"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type approvalPolicyService struct {
	apiv1.UnimplementedApprovalPolicyServiceServer
	*Service
}

func approvalPolicyChange(kind apiv1.WatchType_Value, revision string, m *apiv1.ApprovalPolicy) proto.Message {
	return &apiv1.WatchApprovalPoliciesResponse{Type: kind, Revision: revision, ApprovalPolicy: m}
}

func (s approvalPolicyService) ListApprovalPolicies(ctx context.Context, r *apiv1.ListApprovalPoliciesRequest) (*apiv1.ListApprovalPoliciesResponse, error) {
	items, next, err := s.approvalPolicies.list(ctx, r, place{})
	return &apiv1.ListApprovalPoliciesResponse{ApprovalPolicies: items, NextPageToken: next}, err
}

func (s approvalPolicyService) WatchApprovalPolicies(r *apiv1.WatchApprovalPoliciesRequest, stream grpc.ServerStreamingServer[apiv1.WatchApprovalPoliciesResponse]) error {
	return s.approvalPolicies.watch(r, place{}, stream)
}

func (s approvalPolicyService) GetApprovalPolicy(ctx context.Context, r *apiv1.GetApprovalPolicyRequest) (*apiv1.GetApprovalPolicyResponse, error) {
	var m *apiv1.ApprovalPolicy
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		m, err = s.at(ctx, tx, r.GetApprovalPolicy(), r.GetVersion())
		return err
	})
	return &apiv1.GetApprovalPolicyResponse{ApprovalPolicy: m}, err
}

// at returns a version of a policy; 0 is the newest.
func (s approvalPolicyService) at(ctx context.Context, tx *state.Tx, name string, version uint32) (*apiv1.ApprovalPolicy, error) {
	m, err := s.approvalPolicies.find(ctx, tx, name, place{})
	if err != nil || version == 0 {
		return m, err
	}
	return s.approvalPolicies.version(tx, m, name, version)
}

func (s approvalPolicyService) ListApprovalPolicyVersions(ctx context.Context, r *apiv1.ListApprovalPolicyVersionsRequest) (*apiv1.ListApprovalPolicyVersionsResponse, error) {
	out := &apiv1.ListApprovalPolicyVersionsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		m, err := s.approvalPolicies.find(ctx, tx, r.GetApprovalPolicy(), place{})
		if err != nil {
			return err
		}
		out.ApprovalPolicies, out.NextPageToken, err = s.approvalPolicies.versions(tx, m.GetId(), r.GetPageSize(), r.GetPageToken(), (*apiv1.ApprovalPolicy).GetVersion)
		return err
	})
	return out, err
}

func (s approvalPolicyService) CreateApprovalPolicy(ctx context.Context, r *apiv1.CreateApprovalPolicyRequest) (*apiv1.CreateApprovalPolicyResponse, error) {
	var reads []*commandv1.Read
	result, err := s.approvalPolicies.create(ctx, r, r.GetApprovalPolicy(), func(tx *state.Tx, m *apiv1.ApprovalPolicy) (_ state.Scope, err error) {
		reads, err = s.sound(tx, m)
		return nil, err
	}, func(c *commandv1.Command, m *apiv1.ApprovalPolicy) {
		c.Body = &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: m, Reads: reads}}
	})
	op, err := s.approvalPolicies.made(ctx, result, err)
	return &apiv1.CreateApprovalPolicyResponse{Operation: op}, err
}

func (s approvalPolicyService) UpdateApprovalPolicy(ctx context.Context, r *apiv1.UpdateApprovalPolicyRequest) (*apiv1.UpdateApprovalPolicyResponse, error) {
	var reads []*commandv1.Read
	m, err := s.approvalPolicies.update(ctx, r, r.GetApprovalPolicy(), r.GetUpdateMask(), place{}, func(tx *state.Tx, m *apiv1.ApprovalPolicy) (err error) {
		reads, err = s.sound(tx, m)
		return err
	}, func(c *commandv1.Command, m *apiv1.ApprovalPolicy, expected string) {
		c.Body = &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: m, ExpectedRevision: expected, Reads: reads}}
	})
	return &apiv1.UpdateApprovalPolicyResponse{ApprovalPolicy: m}, err
}

func (s approvalPolicyService) DeleteApprovalPolicy(ctx context.Context, r *apiv1.DeleteApprovalPolicyRequest) (*apiv1.DeleteApprovalPolicyResponse, error) {
	op, err := s.approvalPolicies.remove(ctx, r, r.GetApprovalPolicy(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteApprovalPolicy{DeleteApprovalPolicy: d}
	})
	return &apiv1.DeleteApprovalPolicyResponse{Operation: op}, err
}

// sound checks a policy and that whom and what it names is there. It returns the calendars that it rests on. People, groups and
// roles may go later: a stage that nobody can decide is refused when somebody asks.
func (s approvalPolicyService) sound(tx *state.Tx, m *apiv1.ApprovalPolicy) (reads []*commandv1.Read, err error) {
	m.Authority = max(m.GetAuthority(), apiv1.Authority_LOCAL)
	p, err := approval.Compile(m)
	if err != nil {
		return nil, err
	}
	names := p.Names()
	for _, c := range names.Calendars {
		found, err := s.calendars.within(tx, c.Name, nil)
		if err != nil {
			return nil, inField(err, c.Field)
		}
		reads = append(reads, &commandv1.Read{Noun: reference("calendar", found), Revision: found.GetRevision()})
	}
	for _, part := range []struct {
		word, list string
		names      []approval.Name
		is         func(name string) error
	}{
		{"role", "role list", names.Roles, func(name string) error { _, err := tx.Roles.ByName(name, nil); return err }},
		{"group", "group list", names.Groups, func(name string) error { _, err := tx.Groups.ByName(name, nil); return err }},
		{"user", "user list", names.Users, func(name string) error { _, err := tx.Users.ByName(name, nil); return err }},
		{"service", "user list --filter kind=service", names.Services, func(name string) error {
			u, err := tx.Users.ByName(name, nil)
			if err == nil && u.GetKind() != apiv1.User_SERVICE {
				err = state.ErrNotFound
			}
			return err
		}},
	} {
		for _, n := range part.names {
			switch err := part.is(n.Name); {
			case errors.Is(err, state.ErrNotFound):
				return nil, problem.Newf(problem.NotFound, "naru "+part.list+" shows which there are.", "there is no %s %s", part.word, n.Name).With(n.Field, "there is no "+part.word+" "+n.Name)
			case err != nil:
				return nil, err
			}
		}
	}
	return reads, nil
}

// TestApprovalPolicy evaluates a policy on an example.
func (s approvalPolicyService) TestApprovalPolicy(ctx context.Context, r *apiv1.TestApprovalPolicyRequest) (*apiv1.TestApprovalPolicyResponse, error) {
	if (r.GetPolicy() == nil) == (r.GetApprovalPolicy() == "") {
		return nil, problem.New(problem.Invalid, "either a policy is given, or one that is stored is named", "Send policy, or approval_policy.").With("policy", "is given, or approval_policy")
	}
	if err := s.everywhere(ctx); err != nil {
		return nil, err
	}
	r = proto.CloneOf(r)
	var out *apiv1.TestApprovalPolicyResponse
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if r.GetApprovalPolicy() != "" {
			if r.Policy, err = s.at(ctx, tx, r.GetApprovalPolicy(), r.GetVersion()); err != nil {
				return err
			}
		}
		if err := s.example(ctx, tx, r); err != nil {
			return err
		}
		out, err = s.tested(tx, r)
		return err
	})
	return out, err
}

// example puts into a case what is stored of what it merely names.
func (s approvalPolicyService) example(ctx context.Context, tx *state.Tx, r *apiv1.TestApprovalPolicyRequest) error {
	c := r.GetCase()
	for _, err := range []error{
		known(ctx, tx, s.users, &c.Requester), known(ctx, tx, s.users, &c.Beneficiary), known(ctx, tx, s.organizations, &c.Organization),
		known(ctx, tx, s.projects, &c.Project), known(ctx, tx, s.zones, &c.Zone), known(ctx, tx, s.zones, &c.SourceZone), known(ctx, tx, s.offerings, &c.Offering),
	} {
		if err != nil {
			return err
		}
	}
	for _, p := range r.GetPeople() {
		if err := known(ctx, tx, s.users, &p.User); err != nil {
			return err
		}
		if p.GetUser().GetId() == "" || len(p.GetGroups()) > 0 {
			continue
		}
		ids, err := tx.GroupsOf(p.GetUser().GetId())
		if err != nil {
			return err
		}
		for _, id := range ids {
			g, err := tx.Groups.Get(id)
			if err != nil {
				return err
			}
			p.Groups = append(p.Groups, g.GetName())
		}
	}
	return nil
}

// known replaces what is only named by what is stored under the name; what is not stored stays as it was given.
func known[M interface {
	state.Noun
	GetName() string
}](ctx context.Context, tx *state.Tx, n noun[M], m *M) error {
	var none M
	if *m == none || (*m).GetName() == "" {
		return nil
	}
	only := none.ProtoReflect().New().Interface().(M)
	only.ProtoReflect().Set(fieldOf(only, "name"), (*m).ProtoReflect().Get(fieldOf(*m, "name")))
	if !proto.Equal(only, *m) {
		return nil
	}
	stored, err := n.find(ctx, tx, (*m).GetName(), place{})
	switch {
	case problem.Is(err, problem.NotFound):
		return nil
	case err != nil:
		return err
	}
	schema.Strip(stored)
	*m = stored
	return nil
}

// tested says what the policy asks for, by what a submission goes by.
func (s approvalPolicyService) tested(tx *state.Tx, r *apiv1.TestApprovalPolicyRequest) (*apiv1.TestApprovalPolicyResponse, error) {
	p, err := approval.Compile(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	out := &apiv1.TestApprovalPolicyResponse{}
	if out.Applies, err = p.Applies(r.GetCase()); err != nil {
		return nil, err
	}
	if !out.Applies {
		out.Trace = []string{"the policy's condition does not hold"}
	}
	plan, err := p.Plan(r.GetCase())
	if err != nil {
		return nil, err
	}
	out.Automatic = plan.Automatic
	out.Trace = append(out.Trace, plan.Trace...)
	if plan.Afterwards {
		out.Trace = append(out.Trace, "an emergency: it is carried out at once, and the stages review it afterwards")
	}
	stages, err := intake.Stages(tx, plan, plan.Afterwards)
	if err != nil {
		return nil, inField(err, "policy.stages")
	}
	begins := s.Now()
	if r.GetAt().IsValid() {
		begins = r.GetAt().AsTime()
	}
	openings, err := intake.Openings(stages, plan.Afterwards, begins)
	if err != nil {
		return nil, err
	}
	for i, st := range stages {
		planned := &apiv1.PlannedStage{
			Name: st.GetName(), Sequence: st.GetSequence(), Rule: st.GetRule(), Denials: st.GetDenials(),
			OnDue: st.GetOnDue(), CommentRequired: st.GetCommentRequired(), StepUp: st.GetStepUp(), External: st.GetExternal(),
		}
		for _, person := range r.GetPeople() {
			if may, why := plan.Stages[i].Eligible(person); may {
				planned.Eligible = append(planned.Eligible, person.GetUser().GetName())
			} else {
				planned.NotEligible = append(planned.NotEligible, person.GetUser().GetName()+": "+why)
			}
		}
		planned.Needed = uint32(plan.Stages[i].Needed(len(planned.Eligible)))
		for _, o := range openings {
			if o.GetStage() == st.GetName() && st.GetSequence() == stages[0].GetSequence() {
				planned.DueAt, planned.RemindAt = o.GetDueAt(), o.GetRemindAt()
			}
		}
		out.Stages = append(out.Stages, planned)
	}
	return out, nil
}
