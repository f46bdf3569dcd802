package service_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// trial is one run of a random test, as helpers want it: what they find fails this run, and what they open ends with it.
type trial struct {
	testing.TB
	rt *rapid.T
}

func (t trial) Helper()                          {}
func (t trial) Cleanup(f func())                 { t.rt.Cleanup(f) }
func (t trial) Context() context.Context         { return context.Background() }
func (t trial) Error(a ...any)                   { t.rt.Error(a...) }
func (t trial) Errorf(f string, a ...any)        { t.rt.Errorf(f, a...) }
func (t trial) Fatal(a ...any)                   { t.rt.Fatal(a...) }
func (t trial) Fatalf(f string, a ...any)        { t.rt.Fatalf(f, a...) }
func (t trial) one(l string, o ...string) string { return rapid.SampledFrom(o).Draw(t.rt, l) }
func (t trial) flip(l string, oneIn int) bool    { return rapid.IntRange(1, oneIn).Draw(t.rt, l) == 1 }

func (t trial) TempDir() string {
	dir, err := os.MkdirTemp("", "naru-trial-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// cast is everybody; desk is a service of another system, and asks only.
var cast = []string{"ann", "bob", "cho", "dan", "eun"}

// forms are the policies that are in force one after the other.
func forms() []form {
	stage := func(name string, sequence, needed uint32, who *apiv1.Eligibility) *apiv1.StageTemplate {
		return &apiv1.StageTemplate{Name: name, Sequence: sequence, Eligible: who, Rule: apiv1.StageTemplate_COUNT, Needed: needed, Denials: 1}
	}
	users := func(names ...string) *apiv1.Eligibility { return &apiv1.Eligibility{Users: names} }
	due := stage("soon", 1, 1, users("bob", "dan", "eun"))
	due.DueHours, due.OnDue = 8, apiv1.StageTemplate_EXPIRE
	two := stage("two", 1, 2, users("ann", "bob", "cho", "dan", "eun"))
	two.Denials = 2
	held := stage("held", 1, 1, &apiv1.Eligibility{Condition: `"leads" in groups && person.name != requester.name`})
	held.Excluded, held.CommentRequired = []string{"eun"}, true
	return []form{
		{stages: []*apiv1.StageTemplate{stage("review", 1, 1, &apiv1.Eligibility{Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT}),
			stage("approval", 2, 1, &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_DESTINATION})}},
		{stages: []*apiv1.StageTemplate{two}},
		{stages: []*apiv1.StageTemplate{stage("leads", 1, 1, &apiv1.Eligibility{Groups: []string{"leads"}}), stage("beside", 1, 1, users("bob", "cho", "eun"))}},
		{stages: []*apiv1.StageTemplate{due}},
		{stages: []*apiv1.StageTemplate{held}},
		{stages: []*apiv1.StageTemplate{stage("review", 1, 1, users("bob", "dan"))}, automatic: true},
	}
}

// procedure is one random life of an office.
type procedure struct {
	*office
	*onlooker
	asked int
}

// approvals is the office that every life begins with.
func approvals(t testing.TB) *office {
	o := newOffice(t)
	o.users["eun"] = o.User("eun", apiv1.User_PERSON)
	for _, name := range []string{"bob", "dan", "eun"} {
		o.Bind("ask-"+name, "user", o.users[name], apiv1.RoleBinding_PROJECT, "web")
	}
	o.Unbind("b-bob")
	o.Unbind("b-cho")
	o.group("leads")
	if _, err := o.Admin().Quotas.CreateQuota(context.Background(), &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Limit: mostVMs(6)}}); err != nil {
		t.Fatal(err)
	}
	return o
}

func newProcedure(t trial, template *office) *procedure {
	o := &office{World: template.Next(t), site: template.site, users: template.users, now: time.Now()}
	o.lead()
	p := &procedure{office: o, onlooker: &onlooker{trial: t, papers: map[string]*paper{}, could: map[string][]string{}, roles: map[string][]string{}, leads: map[string]bool{},
		away: map[string]bool{}, places: map[string]place{}}}
	for _, name := range []string{"bob", "eun"} {
		p.bind(name, "reviewer")
	}
	p.bind("cho", "zone-administrator")
	p.bind("dan", "approver")
	for _, name := range []string{"dan", "eun"} {
		p.member(name, true)
	}
	p.rules()
	return p
}

func (p *procedure) name(label string) string { return p.one(label, cast...) }

// mine reports whether somebody may decide on a request now, for themselves or in another's place.
func (p *procedure) mine(f *paper, who string) bool {
	return slices.ContainsFunc(f.stages, func(s *apiv1.StageTemplate) bool {
		return slices.ContainsFunc(cast, func(holder string) bool { return p.may(f, s, who, holder) })
	})
}

// voter is somebody who may decide on a request now, or now and then anybody.
func (p *procedure) voter(name string) string {
	var may []string
	for _, who := range cast {
		if f := p.papers[name]; f != nil && p.mine(f, who) {
			may = append(may, who)
		}
	}
	if len(may) > 0 && !p.flip("anybody", 4) {
		return p.one("voter", may...)
	}
	return p.name("actor")
}

// paper draws one of the requests that there are.
func (p *procedure) paper() string {
	return "r-" + strconv.Itoa(rapid.IntRange(max(1, p.asked-2), max(1, p.asked)).Draw(p.rt, "request"))
}

func (p *procedure) bind(who, role string) {
	id := "d-" + who + "-" + role
	if i := slices.Index(p.roles[who], role); i >= 0 {
		p.Unbind(id)
		p.roles[who] = slices.Delete(slices.Clone(p.roles[who]), i, i+1)
		return
	}
	scope, where := apiv1.RoleBinding_PROJECT, "web"
	if role == "zone-administrator" {
		scope, where = apiv1.RoleBinding_ZONE, "business"
	}
	p.Bind(id, role, p.users[who], scope, where)
	p.roles[who] = append(p.roles[who], role)
}

func (p *procedure) member(who string, in bool) {
	groups := p.Admin().Groups
	var err error
	if in {
		_, err = groups.AddGroupMember(p.Context(), &apiv1.AddGroupMemberRequest{Group: "leads", User: who})
	} else {
		_, err = groups.RemoveGroupMember(p.Context(), &apiv1.RemoveGroupMemberRequest{Group: "leads", User: who})
	}
	if err == nil {
		p.leads[who] = in
	}
}

// by is who does something, in a session of theirs.
func (p *procedure) by(who string, c *commandv1.Command) *commandv1.Command {
	c.Origin = &commandv1.Origin{ActorId: "u-" + who, SessionId: p.Session(p.users[who])}
	return c
}

// rules puts another policy in force, of somebody who is there. What has been submitted goes by the one before.
func (p *procedure) rules() {
	author := p.name("author")
	if p.away[author] {
		return
	}
	all := forms()
	f := all[rapid.IntRange(0, len(all)-1).Draw(p.rt, "policy")]
	m := &apiv1.ApprovalPolicy{Id: "p-two-steps", Name: "two-steps", Enabled: true, Stages: f.stages}
	if f.automatic {
		m.Automatic = &apiv1.AutomaticApproval{When: "true", Reason: "small", MaxQuantity: 1}
	}
	p.Do(p.by(author, &commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: m}}}))
	p.inForce, p.author = f, author
}

// reset gives somebody a password by another's hand, or by nobody's; who has one can log in.
func (p *procedure) reset(by, who string) {
	c := &commandv1.Command{Body: &commandv1.Command_ResetPassword{ResetPassword: &commandv1.ResetPassword{
		UserId: "u-" + who, Password: "$one-time$", Until: timestamppb.New(time.Now().Add(time.Hour))}}}
	switch {
	case by == "":
		p.could[who] = nil
	case p.away[by] || p.away[who]:
		return
	default:
		if c = p.by(by, c); by != who {
			p.could[who] = p.reach(by)
		}
	}
	p.Do(c)
	p.Session(p.users[who])
}

func (p *procedure) toggle(who string) {
	if p.away[who] = !p.away[who]; p.away[who] {
		p.disable(who)
		return
	}
	p.enable(who)
	p.Session(p.users[who])
}

func (p *procedure) ask() {
	who, m := p.one("asks", "ann", "ann", "eun", "dan"), ask()
	p.asked++
	m.Specification.GetCreate().Quantity = uint32(rapid.IntRange(1, 2).Draw(p.rt, "quantity"))
	m.Specification.GetCreate().NamePattern = fmt.Sprintf("x%d-##", p.asked)
	if p.flip("for another", 3) {
		m.OnBehalfOf = p.one("for", "bob", "dan", "eun")
	}
	if m.OnBehalfOf == who {
		m.OnBehalfOf = ""
	}
	if p.flip("bounded", 4) {
		m.CarryOutBy = timestamppb.New(p.now.Add(30 * time.Hour))
	}
	if p.flip("number", 3) {
		m.ExternalRef = fmt.Sprint("CHG-", p.asked)
	}
	submit := !p.flip("a draft", 4)
	for range 1 + len(m.GetExternalRef())/5*rapid.IntRange(0, 1).Draw(p.rt, "again") { // 13
		r, err := p.As(p.users[who]).Requests.CreateRequest(p.Context(), &apiv1.CreateRequestRequest{Request: m, Submit: submit})
		name, f := fmt.Sprint("r-", p.asked), p.papers[fmt.Sprint("r-", p.asked)]
		draft := problem.Of(err).GetDraft()
		switch {
		case err != nil && draft == "":
			p.asked-- // nothing is kept of it
			return
		case cmp.Or(draft, r.GetRequest().GetName()) != name:
			p.Fatalf("what was asked for under one number is two: %v, %v", r.GetRequest().GetName(), err)
		case f == nil:
			f = &paper{is: apiv1.Request_DRAFT}
			p.papers[name] = f
			p.wrote(f, who, m.GetOnBehalfOf())
		default:
			p.happens["asked twice"]++
		}
		if err == nil && submit && f.is == apiv1.Request_DRAFT {
			p.submitted(f, r.GetRequest(), who)
		}
	}
}

func (p *procedure) edit(name, who string) {
	p.steps()
	r, err := p.As(p.users[who]).Requests.UpdateRequest(p.Context(), &apiv1.UpdateRequestRequest{
		Request: &apiv1.Request{Id: name, Reason: fmt.Sprint("for reason ", p.steps())}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"reason"}}})
	if err == nil {
		p.wrote(p.papers[r.GetRequest().GetName()], who)
	}
}

// steps counts, so that no two texts are the same.
func (p *procedure) steps() int { p.happens["changes"]++; return p.happens["changes"] }

func (p *procedure) submitAgain(name, who string) {
	r, err := p.As(p.users[who]).Requests.SubmitRequest(p.Context(), &apiv1.SubmitRequestRequest{Request: name})
	if err == nil {
		p.submitted(p.papers[name], r.GetRequest(), who)
	}
}

func (p *procedure) takeBack(name, who string) {
	if err := p.withdraw(who, name); err == nil {
		p.withdrawn(p.papers[name])
	}
}

// vote has somebody decide, now and then by what was seen before, or twice.
func (p *procedure) vote(name, actor string) {
	f := p.papers[name]
	if f == nil {
		return
	}
	in := &apiv1.DecideRequestRequest{Request: name, Comment: "seen", SeenHash: f.seen, Verdict: rapid.SampledFrom([]apiv1.Decision_Verdict{1, 1, 1, 1, 1, 2, 3}).Draw(p.rt, "verdict")}
	if p.flip("another hash", 12) {
		in.SeenHash = make([]byte, 32)
	}
	holder := actor
	if p.flip("for another", 6) {
		holder = p.name("holder")
	}
	for _, id := range slices.Sorted(maps.Keys(p.places)) {
		if p.places[id].to == actor && !p.flip("for oneself", 3) {
			holder = p.places[id].from
		}
	}
	if holder != actor {
		in.ActingFor = holder
	}
	ctx := with(p.Context(), "idempotency-key", fmt.Sprint("k", p.steps()))
	hash := in.GetSeenHash()
	r, err := p.As(p.users[actor]).Requests.DecideRequest(ctx, in)
	if err != nil {
		p.happens[string(problem.Of(err).GetCode())]++
		return
	}
	if d := r.GetRequest().GetDecisions(); in.GetActingFor() == "" && len(d) > 0 && d[len(d)-1].GetActingFor() != "" {
		holder = d[len(d)-1].GetActingFor() // the only place that they have
	}
	p.decided(r.GetRequest(), actor, holder, hash, in.GetVerdict())
	if p.flip("again", 4) { // an answer that was lost
		if _, err := p.As(p.users[actor]).Requests.DecideRequest(ctx, in); err != nil {
			p.Fatalf("the same call with its key came to %v", err)
		}
		p.happens["decided twice with one key"]++
	}
}

// race has one thing come between the look and the deed of another.
func (p *procedure) race(name string) {
	first, second := p.voter(name), p.voter(name)
	what := p.one("meanwhile", "decide", "withdraw", "reset", "bind", "leave", "disable", "edit", "submit")
	var sent *commandv1.Command
	p.Before(func(c *commandv1.Command) {
		p.happens["raced"]++
		sent = proto.CloneOf(c)
		switch what {
		case "decide":
			p.vote(name, second)
		case "withdraw":
			p.takeBack(name, second)
		case "reset":
			p.reset(second, first)
		case "bind":
			p.bind(first, p.one("role", "reviewer", "approver", "zone-administrator"))
		case "leave":
			p.member(first, false)
		case "disable":
			p.toggle(first)
		case "edit":
			p.edit(name, second)
		case "submit":
			p.submitAgain(name, second)
		}
	})
	p.vote(name, first)
	p.Before(nil)
	if sent.GetDecideRequest() == nil {
		return
	}
	sent.Id = append([]byte{}, sent.GetId()...)
	sent.Id[15]++ // a forwarder that takes it for another
	sent.Idempotency = nil
	r, err := p.Propose(p.Context(), sent)
	if err != nil {
		p.Fatal(err)
	}
	if r.GetProblem() == nil {
		m := &apiv1.Request{}
		if err := proto.Unmarshal(r.GetNoun(), m); err != nil {
			p.Fatal(err)
		}
		d := m.GetDecisions()[len(m.GetDecisions())-1]
		holder := first
		if d.GetActingFor() != "" {
			holder = d.GetActingFor()
		}
		p.decided(m, first, holder, d.GetSeenHash(), d.GetVerdict())
	}
}
