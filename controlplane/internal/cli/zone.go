package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var zoneColumns = []column[*apiv1.Zone]{
	{head: "NAME", value: (*apiv1.Zone).GetName},
	{head: "KIND", value: (*apiv1.Zone).GetKind},
	{head: "GRADE", value: func(m *apiv1.Zone) string { return lower(m.GetGrade()) }},
	{head: "STATE", value: func(m *apiv1.Zone) string { return lower(m.GetState()) }, state: true},
	{head: "FRESH", value: func(m *apiv1.Zone) string { return lower(m.GetFreshness()) }, state: true},
	{head: "SINCE", value: func(m *apiv1.Zone) string { return age(m.GetStateChangedAt()) }},
	{head: "AGENTS", value: agentNames, text: true},
	{head: "BROKER", value: (*apiv1.Zone).GetBroker},
	{head: "CONDITIONS", value: conditions, text: true, wide: true},
	{head: "REASON", value: (*apiv1.Zone).GetStateReason, text: true, wide: true},
	{head: "INCARNATION", value: (*apiv1.Zone).GetIncarnation, wide: true},
	{head: "ID", value: (*apiv1.Zone).GetId, wide: true},
}

func (a *app) zoneNoun() noun[*apiv1.Zone] {
	return noun[*apiv1.Zone]{
		name: "zone", plural: "zones", short: "Zones: parts of the cloud in networks of their own", in: []string{}, filter: "state!=online", columns: zoneColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Zone, string, error) {
			r, err := c.Zones.ListZones(ctx, &apiv1.ListZonesRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetZones(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Zone, error) {
			r, err := c.Zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: name})
			return r.GetZone(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Zone], error), error) {
			s, err := c.Zones.WatchZones(ctx, &apiv1.WatchZonesRequest{After: after, Filter: q.filter})
			return client.Changes(s, err, func(m *apiv1.WatchZonesResponse) change[*apiv1.Zone] {
				return change[*apiv1.Zone]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetZone()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Zones.DeleteZone(ctx, &apiv1.DeleteZoneRequest{Zone: name})
			return r.GetOperation(), err
		},
		make: "Make a zone",
		fields: func(f *pflag.FlagSet, m *apiv1.Zone) {
			f.StringVar(&m.Kind, "kind", "", "internet, business, management, or a word of your own")
			wordFlag(f, m, "grade", " (open)")
			f.StringVar(&m.Broker, "broker", "", "the broker before it")
			f.StringVar(&m.Description, "description", "", "for people")
		},
		fixed: func(f *pflag.FlagSet, m *apiv1.Zone) {
			f.StringVar(&m.Parent, "parent", "", "the zone it stands below")
		},
		create: func(ctx context.Context, c *client.Client, m *apiv1.Zone) (*apiv1.Operation, error) {
			r, err := c.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: m})
			return r.GetOperation(), err
		},
		update: func(ctx context.Context, c *client.Client, m *apiv1.Zone, mask *fieldmaskpb.FieldMask, _ scope) (*apiv1.Zone, error) {
			r, err := c.Zones.UpdateZone(ctx, &apiv1.UpdateZoneRequest{Zone: m, UpdateMask: mask})
			return r.GetZone(), err
		},
	}
}

func (a *app) zone() *cobra.Command {
	n := a.zoneNoun()
	return command(a, n, append(a.judgements(n), a.zonePolicy(n), a.zoneToken(), a.joinRequests(), a.acceptAgent(), a.revokeZone())...)
}

func agentNames(z *apiv1.Zone) string {
	var names []string
	for _, agent := range z.GetAgents() {
		name := agent.GetName()
		if agent.GetUplink() {
			name += "*"
		}
		if !agent.GetAlive() {
			name += "†"
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func (a *app) zoneToken() *cobra.Command {
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "token NAME", Short: "Make a token with which one agent of a zone can ask to join", Args: oneArgument}
	a.completeArguments(cmd, "zone", 1, &scope{})
	lifetimeFlag(cmd, &lifetime, "lifetime", time.Hour, "how long it can be used")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Zones.CreateJoinToken(ctx, &apiv1.CreateJoinTokenRequest{Zone: args[0], LifetimeSeconds: uint32(lifetime.Seconds())})
			if err != nil {
				return err
			}
			return a.secret("token", r.GetToken(), r.GetExpiresAt().AsTime())
		})
	}
	return cmd
}

var joinRequestColumns = []column[*apiv1.JoinRequest]{
	{head: "ZONE", value: (*apiv1.JoinRequest).GetZone},
	{head: "AGENT", value: (*apiv1.JoinRequest).GetAgent},
	{head: "FINGERPRINT", value: (*apiv1.JoinRequest).GetFingerprint},
	{head: "STATE", state: true, value: func(m *apiv1.JoinRequest) string {
		if m.GetAccepted() {
			return "accepted"
		}
		return "waiting"
	}},
	{head: "ASKED", value: func(m *apiv1.JoinRequest) string { return ago(m.GetAskedAt()) }},
}

func (a *app) joinRequests() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "requests [NAME]", Short: "List agents that wait to be accepted", Args: arguments(0, 1)}
	cmd.Flags().BoolVar(&all, "all", false, "also those that were accepted")
	a.completeArguments(cmd, "zone", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Zones.ListJoinRequests(ctx, &apiv1.ListJoinRequestsRequest{Zone: strings.Join(args, "")})
			if err != nil {
				return err
			}
			found := r.GetJoinRequests()
			if !all {
				found = waitingAgents(found, "")
			}
			if len(found) == 0 && !a.documents() {
				fmt.Fprintln(a.err, "No agent waits.")
				return nil
			}
			return printList(a, joinRequestColumns, found)
		})
	}
	return cmd
}

// waitingAgents returns the requests that nobody has accepted yet, of one agent where it is named.
func waitingAgents(requests []*apiv1.JoinRequest, agent string) []*apiv1.JoinRequest {
	return slices.DeleteFunc(slices.Clone(requests), func(j *apiv1.JoinRequest) bool {
		return j.GetAccepted() || agent != "" && j.GetAgent() != agent
	})
}

func (a *app) acceptAgent() *cobra.Command {
	var agent, fingerprint string
	cmd := &cobra.Command{Use: "accept NAME", Short: "Let an agent in whose fingerprint you have compared", Args: oneArgument}
	a.completeArguments(cmd, "zone", 1, &scope{})
	cmd.Flags().StringVar(&agent, "agent", "", "the agent; may be left out where only one waits")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "SHA256:… as the agent printed it; without it you are asked")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, waitLimit, func(ctx context.Context, c *client.Client) error {
			if fingerprint == "" || agent == "" {
				asked, err := a.waitingAgent(ctx, c, args[0], agent)
				if err != nil {
					return err
				}
				agent = asked.GetAgent()
				if fingerprint == "" {
					if !a.confirm(ctx, fmt.Sprintf("Agent %s of zone %s has the key\n  %s\nIs this what the agent printed? [y/N] ", agent, asked.GetZone(), asked.GetFingerprint())) {
						return usagef("not accepted; compare the fingerprints and answer y, or give --fingerprint")
					}
					fingerprint = asked.GetFingerprint()
				}
			}
			r, err := c.Zones.AcceptAgent(ctx, &apiv1.AcceptAgentRequest{Zone: args[0], Agent: agent, Fingerprint: fingerprint})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), waiting{})
		})
	}
	return cmd
}

// waitingAgent finds the one agent that is meant among those that wait.
func (a *app) waitingAgent(ctx context.Context, c *client.Client, zone, agent string) (*apiv1.JoinRequest, error) {
	r, err := c.Zones.ListJoinRequests(ctx, &apiv1.ListJoinRequestsRequest{Zone: zone})
	if err != nil {
		return nil, err
	}
	found := waitingAgents(r.GetJoinRequests(), agent)
	switch len(found) {
	case 0:
		return nil, usagef("no such agent of zone %s waits; naru zone requests --all shows which have asked", zone)
	case 1:
		return found[0], nil
	}
	return nil, usagef("%d agents of zone %s wait; say which with --agent", len(found), zone)
}

func (a *app) revokeZone() *cobra.Command {
	var agent string
	var yes bool
	cmd := &cobra.Command{Use: "revoke NAME", Short: "Cut a zone off at once and refuse its certificates from now on", Args: oneArgument}
	a.completeArguments(cmd, "zone", 1, &scope{})
	cmd.Flags().StringVar(&agent, "agent", "", "only this agent")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, waitLimit, func(ctx context.Context, c *client.Client) error {
			if !yes && !a.confirm(ctx, "Cut zone "+args[0]+" off now? Its VMs go on, and it must join anew. [y/N] ") {
				return usagef("not revoked; answer y, or give --yes")
			}
			r, err := c.Zones.RevokeZone(ctx, &apiv1.RevokeZoneRequest{Zone: args[0], Agent: agent})
			if err != nil {
				return err
			}
			return a.finish(ctx, c, r.GetOperation(), waiting{})
		})
	}
	return cmd
}

// conditions is what holds of a zone beside its state: TYPE=REASON, by commas.
func conditions(z *apiv1.Zone) string {
	var all []string
	for _, c := range z.GetConditions() {
		all = append(all, c.GetType()+"="+c.GetReason())
	}
	if o := z.GetAuditObjection(); o != nil {
		all = append(all, "AUDIT="+o.GetReason())
	}
	return strings.Join(all, ",")
}
