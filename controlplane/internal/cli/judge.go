package cli

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// byReason makes a verb that is an administrator's word on one noun, given with a reason that is kept.
func byReason[M proto.Message](a *app, n noun[M], verb, short string, call func(ctx context.Context, c *client.Client, name, reason string, s scope) (M, error)) *cobra.Command {
	var s scope
	var reason string
	cmd := &cobra.Command{Use: verb + " NAME --reason TEXT", Short: short, Args: oneArgument}
	a.scopeFlags(cmd, n.in, &s)
	a.completeArguments(cmd, n.name, 1, &s)
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept in the event")
	cmd.MarkFlagRequired("reason")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			m, err := call(ctx, c, args[0], reason, s)
			if err != nil {
				return err
			}
			return printOne(a, m, n.columns)
		})
	}
	return cmd
}

// fates are the verbs by which an administrator says that a host is gone for good, or is not.
func (a *app) fates(n noun[*apiv1.Host]) []*cobra.Command {
	return []*cobra.Command{
		byReason(a, n, "lost", "Declare a host gone for good, so that its VMs can be deleted without it",
			func(ctx context.Context, c *client.Client, name, reason string, s scope) (*apiv1.Host, error) {
				r, err := c.Hosts.DeclareHostLost(ctx, &apiv1.DeclareHostLostRequest{Host: name, Zone: s.zone, Cluster: s.cluster, Reason: reason})
				return r.GetHost(), err
			}),
		byReason(a, n, "found", "Take back that a host was declared lost: what is on it is worked with again",
			func(ctx context.Context, c *client.Client, name, reason string, s scope) (*apiv1.Host, error) {
				r, err := c.Hosts.DeclareHostFound(ctx, &apiv1.DeclareHostFoundRequest{Host: name, Zone: s.zone, Cluster: s.cluster, Reason: reason})
				return r.GetHost(), err
			}),
	}
}

// judgements are the verbs by which an administrator says whether a zone takes VMs, and whether anything is exchanged with it.
func (a *app) judgements(n noun[*apiv1.Zone]) []*cobra.Command {
	admin := func(state apiv1.Zone_AdminState) func(context.Context, *client.Client, string, string, scope) (*apiv1.Zone, error) {
		return func(ctx context.Context, c *client.Client, name, reason string, s scope) (*apiv1.Zone, error) {
			return n.update(ctx, c, &apiv1.Zone{Id: name, AdminState: state, AdminReason: reason},
				&fieldmaskpb.FieldMask{Paths: []string{"admin_state", "admin_reason"}}, s)
		}
	}
	return []*cobra.Command{
		byReason(a, n, "maintain", "Place no new VM in a zone; what is there goes on", admin(apiv1.Zone_UNDER_MAINTENANCE)),
		byReason(a, n, "resume", "End a zone's maintenance", admin(apiv1.Zone_ENABLED)),
		byReason(a, n, "quarantine", "Exchange nothing with a zone until the quarantine is lifted",
			func(ctx context.Context, c *client.Client, name, reason string, _ scope) (*apiv1.Zone, error) {
				r, err := c.Zones.QuarantineZone(ctx, &apiv1.QuarantineZoneRequest{Zone: name, Reason: reason})
				return r.GetZone(), err
			}),
		byReason(a, n, "lift", "Lift a zone's quarantine, once somebody has looked",
			func(ctx context.Context, c *client.Client, name, reason string, _ scope) (*apiv1.Zone, error) {
				r, err := c.Zones.LiftQuarantine(ctx, &apiv1.LiftQuarantineRequest{Zone: name, Reason: reason})
				return r.GetZone(), err
			}),
	}
}
