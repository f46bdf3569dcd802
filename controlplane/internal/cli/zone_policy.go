package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var policyColumns = []column[*apiv1.Zone]{
	{head: "NAME", value: (*apiv1.Zone).GetName},
	{head: "GRADE", value: func(m *apiv1.Zone) string { return lower(m.GetGrade()) }},
	{head: "LETS OUT", value: func(m *apiv1.Zone) string { return disclosed(m, apiv1.Disclosure_OUT) }, text: true},
	{head: "LETS IN", value: func(m *apiv1.Zone) string { return disclosed(m, apiv1.Disclosure_IN) }, text: true},
	{head: "METHODS AT ITS EDGE", value: func(m *apiv1.Zone) string { return cmp.Or(strings.Join(m.GetPolicy().GetMethods(), ","), "all") }, text: true},
}

// anyGrade stands for the grades that no other disclosure of the direction names.
const anyGrade = "any"

// disclosed writes what crosses in a direction as the flags take it; usual where the policy does not say.
func disclosed(z *apiv1.Zone, direction apiv1.Disclosure_Direction) string {
	var out []string
	for _, d := range z.GetPolicy().GetDisclosures() {
		if d.GetDirection() != direction {
			continue
		}
		var what []string
		for _, w := range [...]struct {
			word string
			is   bool
		}{{"names", d.GetNames()}, {"addresses", d.GetAddresses()}, {"figures", d.GetFigures()}} {
			if w.is {
				what = append(what, w.word)
			}
		}
		grade := anyGrade
		if d.GetGrade() != apiv1.Zone_GRADE_UNSPECIFIED {
			grade = lower(d.GetGrade())
		}
		out = append(out, grade+"="+cmp.Or(strings.Join(what, "+"), "nothing"))
	}
	return cmp.Or(strings.Join(out, " "), "usual")
}

// disclosures reads what the flags --lets-out and --lets-in say of a direction: open=names+addresses, any=nothing; usual takes the
// direction out of the policy.
func disclosures(flag string, direction apiv1.Disclosure_Direction, words []string) ([]*apiv1.Disclosure, error) {
	if slices.Equal(words, []string{"usual"}) {
		return nil, nil
	}
	var out []*apiv1.Disclosure
	for _, word := range words {
		grade, what, ok := strings.Cut(word, "=")
		d := &apiv1.Disclosure{Direction: direction, Grade: apiv1.Zone_Grade(apiv1.Zone_Grade_value[strings.ToUpper(grade)])}
		if !ok || d.GetGrade() == apiv1.Zone_GRADE_UNSPECIFIED && grade != anyGrade {
			return nil, usagef("--%s takes GRADE=WHAT, with open, sensitive, classified or any before the sign, or usual by itself; not %q", flag, word)
		}
		if slices.ContainsFunc(out, func(o *apiv1.Disclosure) bool { return o.GetGrade() == d.GetGrade() }) {
			return nil, usagef("--%s says twice what crosses for %s", flag, grade)
		}
		for _, w := range strings.Split(what, "+") {
			switch w {
			case "names":
				d.Names = true
			case "addresses":
				d.Addresses = true
			case "figures":
				d.Figures = true
			case "all":
				d.Names, d.Addresses, d.Figures = true, true, true
			case "nothing":
			default:
				return nil, usagef("--%s: %q does not cross; names, addresses, figures do, with + between, or all, or nothing", flag, w)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// zonePolicy shows a zone's policy, or changes what the flags name of it.
func (a *app) zonePolicy(n noun[*apiv1.Zone]) *cobra.Command {
	var methods, out, in []string
	cmd := &cobra.Command{
		Use: "policy NAME", Short: "Show or change what a zone's edge may call, and what crosses between it and others", Args: oneArgument,
		Long: `Show or change what a zone's edge may call, and what crosses between it and the edges of others.

What is not named by a flag stays. Something crosses where the zone that it tells of lets it out, and the zone at whose edge it is
read lets it in. Where a direction says nothing (usual), everything crosses, but from a classified zone to classified ones only.`,
		Example: `  naru zone policy business --lets-out open=names --lets-out any=all
  naru zone policy internet --methods 'VMService/*,OperationService/*,AccessTokenService/WhoAmI'
  naru zone policy business --lets-out usual --methods all`,
	}
	a.completeArguments(cmd, n.name, 1, &scope{})
	cmd.Flags().StringSliceVar(&methods, "methods", nil, "what may be called at its edge: VMService/ListVMs, VMService/*; all")
	cmd.Flags().StringSliceVar(&out, "lets-out", nil, "what of it is shown at edges of zones of a grade: open=names+addresses, any=nothing; usual")
	cmd.Flags().StringSliceVar(&in, "lets-in", nil, "what of zones of a grade is shown at its edge: classified=nothing; usual")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.inMethods = cmd.Flags().Changed("methods")
		change := func(p *apiv1.ZonePolicy) error {
			if cmd.Flags().Changed("methods") {
				if p.Methods = methods; slices.Equal(methods, []string{"all"}) {
					p.Methods = nil
				}
			}
			for flag, d := range map[string]struct {
				direction apiv1.Disclosure_Direction
				words     []string
			}{"lets-out": {apiv1.Disclosure_OUT, out}, "lets-in": {apiv1.Disclosure_IN, in}} {
				if !cmd.Flags().Changed(flag) {
					continue
				}
				now, err := disclosures(flag, d.direction, d.words)
				if err != nil {
					return err
				}
				p.Disclosures = slices.DeleteFunc(p.Disclosures, func(o *apiv1.Disclosure) bool { return o.GetDirection() == d.direction })
				p.Disclosures = append(p.Disclosures, now...)
			}
			slices.SortStableFunc(p.Disclosures, func(x, y *apiv1.Disclosure) int { return cmp.Compare(x.GetDirection(), y.GetDirection()) })
			return nil
		}
		if err := change(&apiv1.ZonePolicy{}); err != nil {
			return err
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			m, err := n.get(ctx, c, args[0], scope{})
			if err != nil {
				return err
			}
			next := &apiv1.ZonePolicy{}
			if m.GetPolicy() != nil {
				next = proto.CloneOf(m.GetPolicy())
			}
			if err := change(next); err != nil {
				return err
			}
			if cmd.Flags().Changed("methods") || cmd.Flags().Changed("lets-out") || cmd.Flags().Changed("lets-in") {
				// What somebody else changed meanwhile is not written over.
				m, err = n.update(ifMatch(ctx, m.GetRevision()), c, &apiv1.Zone{Id: m.GetId(), Policy: next}, &fieldmaskpb.FieldMask{Paths: []string{"policy"}}, scope{})
				if err != nil {
					return err
				}
			}
			return printOne(a, m, policyColumns)
		})
	}
	return cmd
}
