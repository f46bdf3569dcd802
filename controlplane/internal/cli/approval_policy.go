package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var approvalPolicyColumns = []column[*apiv1.ApprovalPolicy]{
	{head: "NAME", value: (*apiv1.ApprovalPolicy).GetName},
	{head: "VERSION", value: func(m *apiv1.ApprovalPolicy) string { return strconv.Itoa(int(m.GetVersion())) }},
	{head: "ENABLED", value: func(m *apiv1.ApprovalPolicy) string { return strconv.FormatBool(m.GetEnabled()) }},
	{head: "PRIORITY", value: func(m *apiv1.ApprovalPolicy) string { return strconv.Itoa(int(m.GetPriority())) }},
	{head: "AUTHORITY", value: func(m *apiv1.ApprovalPolicy) string { return lower(max(m.GetAuthority(), apiv1.Authority_LOCAL)) }},
	{head: "STAGES", value: func(m *apiv1.ApprovalPolicy) string {
		var names []string
		for _, s := range m.GetStages() {
			names = append(names, s.GetName())
		}
		return strings.Join(names, ",")
	}},
	{head: "CONDITION", value: (*apiv1.ApprovalPolicy).GetCondition, text: true},
	{head: "BY", value: (*apiv1.ApprovalPolicy).GetCreatedBy, wide: true},
	{head: "AGE", value: func(m *apiv1.ApprovalPolicy) string { return age(m.GetCreatedAt()) }, wide: true},
	{head: "ID", value: (*apiv1.ApprovalPolicy).GetId, wide: true},
}

func (a *app) approvalPolicyNoun() noun[*apiv1.ApprovalPolicy] {
	return noun[*apiv1.ApprovalPolicy]{
		name: "approval-policy", plural: "approval-policies", short: "Whose approval requests need", in: []string{}, filter: "enabled=true", columns: approvalPolicyColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.ApprovalPolicy, string, error) {
			r, err := c.ApprovalPolicies.ListApprovalPolicies(ctx, &apiv1.ListApprovalPoliciesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetApprovalPolicies(), r.GetNextPageToken(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.ApprovalPolicy], error), error) {
			s, err := c.ApprovalPolicies.WatchApprovalPolicies(ctx, &apiv1.WatchApprovalPoliciesRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchApprovalPoliciesResponse) change[*apiv1.ApprovalPolicy] {
				return change[*apiv1.ApprovalPolicy]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetApprovalPolicy()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.ApprovalPolicies.DeleteApprovalPolicy(ctx, &apiv1.DeleteApprovalPolicyRequest{ApprovalPolicy: name})
			return r.GetOperation(), err
		},
		make: "Make an approval policy",
	}
}

func (a *app) approvalPolicy() *cobra.Command {
	n := a.approvalPolicyNoun()
	verbs := written(a, n, func(ctx context.Context, c *client.Client, m *apiv1.ApprovalPolicy) (*apiv1.Operation, error) {
		r, err := c.ApprovalPolicies.CreateApprovalPolicy(ctx, &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: m})
		return r.GetOperation(), err
	}, func(ctx context.Context, c *client.Client, m *apiv1.ApprovalPolicy, mask *fieldmaskpb.FieldMask) (*apiv1.ApprovalPolicy, error) {
		r, err := c.ApprovalPolicies.UpdateApprovalPolicy(ctx, &apiv1.UpdateApprovalPolicyRequest{ApprovalPolicy: m, UpdateMask: mask})
		return r.GetApprovalPolicy(), err
	})
	return command(a, n, append(verbs, a.showPolicy(), a.policyVersions(), a.testPolicy())...)
}

func (a *app) showPolicy() *cobra.Command {
	var version uint32
	cmd := &cobra.Command{Use: "show NAME", Aliases: []string{"get"}, Short: "Show all of one approval policy, by name or id", Args: oneArgument}
	cmd.Flags().Uint32Var(&version, "version", 0, "a version; 0: the newest")
	a.completeArguments(cmd, "approval-policy", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.ApprovalPolicies.GetApprovalPolicy(ctx, &apiv1.GetApprovalPolicyRequest{ApprovalPolicy: args[0], Version: version})
			if err != nil {
				return err
			}
			if a.output == "table" {
				return a.describe(r.GetApprovalPolicy())
			}
			return printOne(a, r.GetApprovalPolicy(), approvalPolicyColumns)
		})
	}
	return cmd
}

func (a *app) policyVersions() *cobra.Command {
	cmd := &cobra.Command{Use: "versions NAME", Short: "List the versions of an approval policy, the newest first", Args: oneArgument}
	a.completeArguments(cmd, "approval-policy", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			var all []*apiv1.ApprovalPolicy
			for token := ""; ; {
				r, err := c.ApprovalPolicies.ListApprovalPolicyVersions(ctx, &apiv1.ListApprovalPolicyVersionsRequest{ApprovalPolicy: args[0], PageSize: 1000, PageToken: token})
				if err != nil {
					return err
				}
				all = append(all, r.GetApprovalPolicies()...)
				if token = r.GetNextPageToken(); token == "" {
					return printList(a, approvalPolicyColumns, all)
				}
			}
		})
	}
	return cmd
}

var plannedStageColumns = []column[*apiv1.PlannedStage]{
	{head: "STEP", value: func(m *apiv1.PlannedStage) string { return strconv.Itoa(int(m.GetSequence())) }},
	{head: "STAGE", value: func(m *apiv1.PlannedStage) string {
		if m.GetExternal() {
			return m.GetName() + " (external)"
		}
		return m.GetName()
	}},
	{head: "RULE", value: func(m *apiv1.PlannedStage) string { return fmt.Sprintf("%s, %d", lower(m.GetRule()), m.GetNeeded()) }},
	{head: "DUE", value: func(m *apiv1.PlannedStage) string { return local(m.GetDueAt()) }},
	{head: "THEN", value: func(m *apiv1.PlannedStage) string { return lower(m.GetOnDue()) }},
	{head: "MAY_DECIDE", value: func(m *apiv1.PlannedStage) string { return strings.Join(m.GetEligible(), ",") }},
	{head: "MAY_NOT", value: func(m *apiv1.PlannedStage) string { return strings.Join(m.GetNotEligible(), "; ") }, text: true},
}

func (a *app) testPolicy() *cobra.Command {
	var example, policy string
	var version uint32
	cmd := &cobra.Command{
		Use: "test [NAME] --example FILE", Short: "Show what a policy would ask for in an example; nothing is changed",
		Long: `Show what a policy would ask for in an example. The example is a file, YAML or JSON, with a case (request, requester,
beneficiary, organization, project, zone, source_zone, offering), people of whom to say what they may decide, and at: when
the first stage would begin. Where it names something that is stored and says no more of it, the stored one is taken.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (policy != "") {
				return usagef("name one policy that is stored, or give one that is not yet with --policy FILE")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&example, "example", "", "the `file` that holds the example; - is standard input")
	cmd.Flags().StringVar(&policy, "policy", "", "a `file` that holds the policy, instead of one that is stored")
	cmd.Flags().Uint32Var(&version, "version", 0, "a version of the policy; 0: the newest")
	a.completeArguments(cmd, "approval-policy", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := &apiv1.TestApprovalPolicyRequest{}
		if example == "" {
			return usagef("--example says on what: a file with a case, as docs/policies.md shows")
		}
		if _, err := a.readFile(example, req); err != nil {
			return err
		}
		if req.Policy != nil || req.ApprovalPolicy != "" {
			return usagef("the policy stands beside the example, not in it")
		}
		if policy != "" {
			req.Policy = &apiv1.ApprovalPolicy{}
			if _, err := a.readFile(policy, req.Policy); err != nil {
				return err
			}
			req.Policy.Name = "test"
		} else {
			req.ApprovalPolicy, req.Version = args[0], version
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.ApprovalPolicies.TestApprovalPolicy(ctx, req)
			if err != nil {
				return err
			}
			if a.documents() {
				return a.message(r)
			}
			said := "Its condition holds."
			if !r.GetApplies() {
				said = "Its condition does not hold: it would only decide where an offering names it."
			}
			if r.GetAutomatic() {
				said += " The request would be approved without people."
			}
			fmt.Fprintln(a.err, said)
			for _, line := range r.GetTrace() {
				fmt.Fprintln(a.err, "  "+printable(line))
			}
			return printList(a, plannedStageColumns, r.GetStages())
		})
	}
	return cmd
}
