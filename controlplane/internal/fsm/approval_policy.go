package fsm

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createApprovalPolicy(in *commandv1.CreateApprovalPolicy) (*commandv1.Result, error) {
	m := in.GetApprovalPolicy()
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if err := mayCreate(c.tx.ApprovalPolicies, "approval policy", m, nil); err != nil {
		return nil, err
	}
	if err := c.version(m, 1, c.actor, c.now); err != nil {
		return nil, err
	}
	return create(c, c.tx.ApprovalPolicies, "approval-policy", m)
}

// version keeps m as a version of its policy, beside those before it.
func (c *command) version(m *apiv1.ApprovalPolicy, version uint32, by string, at *timestamppb.Timestamp) error {
	m.Version, m.CreatedBy, m.CreatedById, m.CreatedAt = version, by, c.by, at
	return c.tx.ApprovalPolicies.PutVersion(m, version)
}

// updateApprovalPolicy makes the next version.
func (c *command) updateApprovalPolicy(in *commandv1.UpdateApprovalPolicy) (*commandv1.Result, error) {
	m := in.GetApprovalPolicy()
	was, err := stored(c.tx.ApprovalPolicies, "approval policy", m.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := mayRename("approval policy", was, m); err != nil {
		return nil, err
	}
	if err := c.readsHold(in.GetReads()); err != nil {
		return nil, err
	}
	if err := c.version(m, was.GetVersion()+1, c.actor, c.now); err != nil {
		return nil, err
	}
	return put(c.tx.ApprovalPolicies, m)
}

// deleteApprovalPolicy deletes one that no offering names, with its versions. Requests keep the stages that they have.
func (c *command) deleteApprovalPolicy(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.ApprovalPolicies, "approval policy", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	var u uses
	u.add(c.offeringsThat(func(o *apiv1.Offering) bool { return o.GetApprovalPolicy() == m.GetName() }))
	if err := u.refuse("approval policy", m.GetName()); err != nil {
		return nil, err
	}
	if err := c.tx.ApprovalPolicies.ForgetVersions(m.GetId()); err != nil {
		return nil, err
	}
	return remove(c, c.tx.ApprovalPolicies, "approval-policy", m)
}
