package state

import apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

// approvalPolicies holds the newest version of each; every version, the newest too, is among the versions.
func approvalPolicies() *spec[*apiv1.ApprovalPolicy] {
	return &spec[*apiv1.ApprovalPolicy]{
		noun: "approval_policy", plural: "approval_policies", named: true,
		zero:   func() *apiv1.ApprovalPolicy { return &apiv1.ApprovalPolicy{} },
		revise: func(m *apiv1.ApprovalPolicy, r string) { m.Revision = r },
		columns: []column[*apiv1.ApprovalPolicy]{
			text("name", (*apiv1.ApprovalPolicy).GetName).asFixed(),
			flag("enabled", (*apiv1.ApprovalPolicy).GetEnabled),
			number("priority", (*apiv1.ApprovalPolicy).GetPriority),
			number("version", (*apiv1.ApprovalPolicy).GetVersion),
			flag("emergency", (*apiv1.ApprovalPolicy).GetEmergency),
			text("created_by", (*apiv1.ApprovalPolicy).GetCreatedBy),
			moment("created_at", (*apiv1.ApprovalPolicy).GetCreatedAt),
		},
	}
}
