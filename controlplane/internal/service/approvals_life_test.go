package service_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// lives is how many random procedures are gone through where nobody says; make soak says how many.
const lives = 200

var acts = []string{"ask", "ask", "ask", "edit", "submit", "submit", "vote", "vote", "vote", "vote", "vote", "vote", "vote", "vote", "vote", "race", "race", "race", "withdraw", "delegate", "delegate", "end delegation",
	"reset", "bind", "member", "in or out", "rules", "rules", "turn", "turn", "turn", "build", "build", "retry", "clock", "clock", "next leader"}

func (p *procedure) step() {
	passing := false
	name := p.paper()
	switch p.one("act", acts...) {
	case "ask":
		p.ask()
	case "edit":
		p.edit(name, p.name("editor"))
	case "submit":
		p.submitAgain(name, p.name("by"))
	case "vote":
		p.vote(name, p.voter(name))
	case "race":
		p.race(name)
	case "withdraw":
		p.takeBack(name, p.one("by", "ann", "eun", "dan"))
	case "delegate":
		p.delegate(p.name("from"), p.name("to"))
	case "end delegation":
		p.endDelegation()
	case "reset":
		p.reset(p.one("by", append([]string{""}, cast...)...), p.name("of"))
	case "bind":
		p.bind(p.name("who"), p.one("role", "reviewer", "approver", "zone-administrator"))
	case "member":
		p.member(p.name("who"), p.flip("in", 2))
	case "in or out":
		p.toggle(p.name("who"))
	case "rules":
		p.rules()
	case "turn":
		passing = true
		p.says(rapid.SampledFrom([]apiv1.Reservation_State{apiv1.Reservation_HELD, apiv1.Reservation_HELD, apiv1.Reservation_REFUSED}).Draw(p.rt, "room"))
		p.turn()
	case "build":
		p.build(rapid.SampledFrom([]apiv1.ResolveOperationRequest_Outcome{apiv1.ResolveOperationRequest_SUCCEED, apiv1.ResolveOperationRequest_SUCCEED,
			apiv1.ResolveOperationRequest_FAIL}).Draw(p.rt, "outcome"))
	case "retry":
		_, _ = p.As(p.users[p.name("by")]).Requests.RetryRequest(p.Context(), &apiv1.RetryRequestRequest{Request: name})
	case "clock":
		p.now = p.now.Add(time.Duration(rapid.SampledFrom([]int{9, 9, 31, -30, -1, 24 * 8}).Draw(p.rt, "hours")) * time.Hour)
		passing = true
		p.turn()
	case "next leader":
		if !p.flip("now", 3) {
			break
		}
		p.World = p.World.Next(p.trial)
		p.lead()
		p.happens["led by another"]++
	}
	p.look(p.office, passing)
	p.lookInto(p.name("looks"))
}

func (p *procedure) delegate(from, to string) {
	r, err := p.As(p.users[from]).Delegations.CreateDelegation(p.Context(), &apiv1.CreateDelegationRequest{Delegation: &apiv1.Delegation{
		ToUser: to, EndsAt: timestamppb.New(time.Now().AddDate(0, 1, 0)), Reason: "holiday"}})
	if err == nil {
		p.places[r.GetOperation().GetTarget().GetId()] = place{from, to}
	}
}

func (p *procedure) endDelegation() {
	for _, id := range slices.Sorted(maps.Keys(p.places)) {
		if _, err := p.As(p.users[p.places[id].from]).Delegations.DeleteDelegation(p.Context(), &apiv1.DeleteDelegationRequest{Delegation: id}); err == nil {
			delete(p.places, id)
			return
		}
	}
}

// build ends the first thing that is under way.
func (p *procedure) build(o apiv1.ResolveOperationRequest_Outcome) {
	for _, vm := range p.vms() {
		if vm.GetOperation() != "" {
			_, _ = p.Propose(p.Context(), p.own(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
				OperationId: vm.GetOperation(), Outcome: o, Reason: "seen by eye"}}}))
			return
		}
	}
}

// own is a command of the control plane itself.
func (p *procedure) own(c *commandv1.Command) *commandv1.Command {
	c.Id, c.Actor = make([]byte, 16), "spiffe://naru.test/server/server-1"
	copy(c.Id, fmt.Sprintf("%016d", p.steps()))
	return c
}

// lookInto holds what waits for somebody against what they may decide: no more, and no less.
func (p *procedure) lookInto(who string) {
	if p.away[who] {
		return
	}
	waiting := p.waiting(who)
	for _, name := range slices.Sorted(maps.Keys(p.papers)) {
		f := p.papers[name]
		mine := p.mine(f, who)
		if is := slices.Contains(waiting, name); is != mine { // 10
			p.Fatalf("that %s waits for %s is %t, and should be %t", name, who, is, mine)
		}
	}
}

// settled: whatever went wrong with others, what is approved is carried out in the end, or says what it waits for.
func (p *procedure) settled() {
	p.now = time.Now()
	for range 4 {
		p.says(apiv1.Reservation_HELD, apiv1.Reservation_REFUSED)
		p.turn()
		p.look(p.office, true)
	}
	for _, name := range slices.Sorted(maps.Keys(p.papers)) {
		if p.papers[name].is != apiv1.Request_APPROVED {
			continue
		}
		r, err := p.Admin().Requests.GetRequest(p.Context(), &apiv1.GetRequestRequest{Request: name})
		if err != nil {
			p.Fatal(err)
		}
		if m := r.GetRequest(); m.GetFulfilment() < apiv1.Request_EXECUTING && m.GetFulfilmentReason() == "" { // 11
			p.Fatalf("%s is approved and %v, and does not say why", name, m.GetFulfilment())
		}
	}
}

// TestP6NobodyGetsPastThePeople goes through random procedures by the API, with people who come, go, delegate and take hold of one another's
// accounts, with policies that change, races, repetitions, clocks that jump and leaders that change; an onlooker holds the invariants.
func TestP6NobodyGetsPastThePeople(t *testing.T) {
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "rapid.checks" })
	if !said {
		was := flag.Lookup("rapid.checks").Value.String()
		_ = flag.Set("rapid.checks", strconv.Itoa(lives))
		defer func() { _ = flag.Set("rapid.checks", was) }()
	}
	template, happens, ran := approvals(t), map[string]int{}, 0
	rapid.Check(t, func(rt *rapid.T) {
		ran++
		p := newProcedure(trial{t, rt}, template)
		p.happens = happens
		for range rapid.IntRange(30, 60).Draw(rt, "steps") {
			p.step()
		}
		p.settled()
	})
	t.Log(ran, "lives:", happens)
	if ran < 100 {
		return // by whoever asked for so few
	}
	for _, what := range []string{"automatic", "SUBMITTED", "APPROVED", "REJECTED", "RETURNED", "CANCELLED", "EXPIRED", "EXECUTING", "by a delegate", "asked twice", "raced",
		"decided twice with one key", "led by another", "FORBIDDEN", "WRONG_STATE"} {
		if happens[what] == 0 {
			t.Errorf("in %d random lives nothing was %s", ran, what)
		}
	}
}
