package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var operationColumns = []column[*apiv1.Operation]{
	{head: "ID", value: (*apiv1.Operation).GetId},
	{head: "KIND", value: (*apiv1.Operation).GetKind},
	{head: "TARGET", value: func(m *apiv1.Operation) string { return m.GetTarget().GetName() }},
	{head: "PROGRESS", value: func(m *apiv1.Operation) string { return strconv.Itoa(int(m.GetProgress())) + " %" }},
	{head: "STATE", value: operationState, state: true},
	{head: "AGE", value: func(m *apiv1.Operation) string { return age(m.GetCreatedAt()) }},
	{head: "BY", value: (*apiv1.Operation).GetCreatedBy, text: true, wide: true},
	{head: "LAST", value: lastStep, text: true, wide: true},
}

func (a *app) operationNoun() noun[*apiv1.Operation] {
	return noun[*apiv1.Operation]{
		name: "operation", plural: "operations", short: "Operations: long-running actions", in: []string{"project", "zone"}, filter: "done=false", history: true, columns: operationColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Operation, string, error) {
			r, err := c.Operations.ListOperations(ctx, &apiv1.ListOperationsRequest{Project: q.project, Zone: q.zone, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetOperations(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Operations.GetOperation(ctx, &apiv1.GetOperationRequest{Operation: name})
			return r.GetOperation(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Operation], error), error) {
			s, err := c.Operations.WatchOperations(ctx, &apiv1.WatchOperationsRequest{After: after, Project: q.project, Zone: q.zone, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchOperationsResponse) change[*apiv1.Operation] {
				return change[*apiv1.Operation]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOperation()}
			})
		},
	}
}

func (a *app) operation() *cobra.Command {
	return command(a, a.operationNoun(), a.waitForOperation(), a.resolveOperation())
}

func operationState(op *apiv1.Operation) string {
	switch {
	case !op.GetDone():
		return "under way"
	case op.GetError() != nil:
		return "failed: " + op.GetError().GetCode()
	}
	return "done"
}

func lastStep(op *apiv1.Operation) string {
	steps := op.GetSteps()
	if len(steps) == 0 {
		return ""
	}
	last := steps[len(steps)-1]
	return strings.TrimSpace(last.GetName() + " " + last.GetMessage())
}

func (a *app) waitForOperation() *cobra.Command {
	cmd := &cobra.Command{Use: "wait ID", Short: "Stay until an operation is done, and show each step", Args: oneArgument}
	a.completeArguments(cmd, "operation", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, waitLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Operations.GetOperation(ctx, &apiv1.GetOperationRequest{Operation: args[0]})
			if err != nil {
				return err
			}
			return a.wait(ctx, c, r.GetOperation())
		})
	}
	return cmd
}

func (a *app) resolveOperation() *cobra.Command {
	r := &apiv1.ResolveOperationRequest{}
	cmd := &cobra.Command{Use: "resolve ID", Short: "End an operation that hangs, with the reason kept", Args: oneArgument}
	cmd.Flags().Var(word{r, fieldOf(r, "outcome")}, "as", either(word{r, fieldOf(r, "outcome")}.words()))
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why")
	a.completeFields(cmd)
	a.completeArguments(cmd, "operation", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.GetOutcome() == 0 {
			return usagef("say with --as what is to become of it: retry, succeed or fail")
		}
		if r.GetReason() == "" {
			return usagef("say with --reason why; it is kept in the operation")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r.Operation = args[0]
			answer, err := c.Operations.ResolveOperation(ctx, r)
			if err != nil {
				return err
			}
			return printOne(a, answer.GetOperation(), operationColumns)
		})
	}
	return cmd
}
