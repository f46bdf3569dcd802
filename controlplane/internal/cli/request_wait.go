package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// requestLimit is how long --wait of a request stays: people decide in days.
const requestLimit = 30 * 24 * time.Hour

func (a *app) waitRequest() *cobra.Command {
	cmd := &cobra.Command{Use: "wait REQUEST", Short: "Stay until a request is carried out, and show who decided and what was done", Args: oneArgument}
	a.completeArguments(cmd, "request", 1, &scope{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, requestLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Requests.GetRequest(ctx, &apiv1.GetRequestRequest{Request: args[0]})
			if err != nil {
				return err
			}
			return a.followRequest(ctx, c, r.GetRequest())
		})
	}
	return cmd
}

// finishRequest shows a request at once, or follows it to its end.
func (a *app) finishRequest(ctx context.Context, c *client.Client, m *apiv1.Request, w waiting) error {
	if w.wait {
		return a.followRequest(ctx, c, m)
	}
	return printOne(a, m, requestColumns)
}

func (a *app) followRequest(ctx context.Context, c *client.Client, m *apiv1.Request) error {
	t := requestTale{app: a, told: map[string]bool{}}
	done, err := c.WaitRequest(client.TellRepeated(ctx, func(why error) { fmt.Fprint(a.err, a.repeated(ctx, why)) }), m, t.tell)
	if err != nil {
		return err
	}
	return printOne(a, done, requestColumns)
}

// requestTale tells a request as it goes: what it waits for, each decision, and each thing that is done; nothing twice.
type requestTale struct {
	*app
	told map[string]bool
}

func (t *requestTale) tell(m *apiv1.Request) {
	t.once(m, "round", green, "✓", "submitted as "+m.GetName()+" under policy "+m.GetPolicy(), m.GetRound() > 0)
	for _, s := range m.GetStages() {
		t.once(m, "stage "+s.GetName()+s.GetState().String()+s.GetStuck(), yellow, "·", "waits for "+s.GetName()+": "+whoDecides(s), s.GetState() == apiv1.Stage_OPEN)
		t.once(m, "stage "+s.GetName()+s.GetState().String(), green, "✓", s.GetName()+": "+lower(s.GetState())+because(s.GetStateReason()), s.GetState() == apiv1.Stage_AUTOMATIC)
	}
	for _, d := range m.GetDecisions() {
		said := map[apiv1.Decision_Verdict]string{apiv1.Decision_APPROVE: "approved", apiv1.Decision_DENY: "denied", apiv1.Decision_RETURN: "returned for correction"}
		c, mark := green, "✓"
		if d.GetVerdict() != apiv1.Decision_APPROVE {
			c, mark = red, "✗"
		}
		who := d.GetActor()
		if d.GetActingFor() != "" {
			who += " for " + d.GetActingFor()
		}
		t.once(m, "decision "+d.GetId(), c, mark, d.GetStage()+": "+said[d.GetVerdict()]+" by "+who+decidedThere(d)+because(d.GetComment()), true)
	}
	t.once(m, "approved", green, "✓", "approved", m.GetApproval() == apiv1.Request_APPROVED)
	waits := m.GetFulfilment() < apiv1.Request_EXECUTING && m.GetFulfilmentReason() != ""
	t.once(m, "waits "+m.GetFulfilmentReason(), yellow, "·", m.GetFulfilmentReason(), waits)
	t.once(m, "reserved", green, "✓", "room is kept for it in zone "+m.GetZone(), m.GetFulfilment() == apiv1.Request_RESERVED)
	t.once(m, "executing", yellow, "·", "being carried out", m.GetFulfilment() == apiv1.Request_EXECUTING)
	for _, p := range m.GetParts() {
		t.once(m, "part "+p.GetName(), green, "✓", p.GetName()+" is done", p.GetDone() && p.GetError() == nil)
		t.once(m, "failed "+p.GetName(), red, "✗", p.GetName()+": "+p.GetError().GetDetail(), p.GetError() != nil)
	}
}

// once says a line of a round where it holds and was not said before.
func (t *requestTale) once(m *apiv1.Request, what string, c colour, mark, line string, holds bool) {
	key := fmt.Sprint(m.GetRound(), " ", what)
	if !holds || t.told[key] {
		return
	}
	t.told[key] = true
	fmt.Fprintf(t.err, "%s %s\n", t.err.paint(c, mark), printable(line))
}

// whoDecides says who a stage waits for.
func whoDecides(s *apiv1.Stage) string {
	if s.GetStuck() != "" {
		return s.GetStuck()
	}
	rule := map[apiv1.StageTemplate_Rule]string{
		apiv1.StageTemplate_ANY: "one", apiv1.StageTemplate_ALL: "all", apiv1.StageTemplate_COUNT: fmt.Sprint(s.GetNeeded()), apiv1.StageTemplate_PERCENT: fmt.Sprint(s.GetNeeded()),
	}[s.GetRule()]
	if names := s.GetApprovers(); len(names) > 0 && len(names) <= 5 {
		return rule + " of " + strings.Join(names, ", ")
	}
	return rule + " of those who may decide"
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}
