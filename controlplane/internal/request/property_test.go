package request_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestMain has 100,000 random lives lived where nobody says how many; make soak says ten million.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "rapid.checks" })
	if !said && !testing.Short() {
		_ = flag.Set("rapid.checks", "100000")
	}
	os.Exit(m.Run())
}

// life is a request and what an onlooker has noted of it.
type life struct {
	r    *apiv1.Request
	now  time.Time
	next int
	// wrote is everybody who ever asked, gained or wrote.
	wrote map[string]bool
	// ended is what it ended as; nothing may change that.
	ended apiv1.Request_Approval
	// began counts how often it was begun, and failures how often it failed or was let fail.
	began, failures int
	rooms           int // that were asked for
	votes           []request.Vote
	programs        map[string]bool // by the id of their decision
	seen            [][]byte        // frozen hashes of all rounds
}

var people = []string{"ann", "bob", "cho", "dan", "eun", "fay"}

// services are those of another system, which two of the stages may name.
var services = []string{"desk", "change"}

func person(id string) request.Person { return request.Person{ID: id, Name: id} }

func (l *life) stamp() *timestamppb.Timestamp { return timestamppb.New(l.now) }

var acts = []string{"submit", "submit", "decide", "decide", "decide", "decide", "decide", "replay", "edit", "withdraw", "expire", "escalate", "remind", "stick",
	"begin", "begin", "end", "end", "wait", "fail", "orphan", "retry", "lapse", "reserve", "reserve", "hold", "hold", "miss"}

func (l *life) step(t *rapid.T) {
	l.now = l.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1, 60, -3600, 7200}).Draw(t, "seconds")) * time.Second) // clocks jump
	before := proto.CloneOf(l.r)
	what := rapid.SampledFrom(acts).Draw(t, "what")
	err := l.do(t, what)
	if err != nil && !proto.Equal(before, l.r) {
		t.Fatalf("%s was refused (%v) and changed the request", what, err)
	}
	if err == nil {
		l.check(t, what, before)
		if !request.KeepsRoom(l.r) {
			request.Leave(l.r)
		}
	}
}

func (l *life) do(t *rapid.T, what string) error {
	stage := func() string { return rapid.SampledFrom([]string{"s0", "s1", "s2"}).Draw(t, "stage") }
	switch what {
	case "submit":
		return l.submit(t)
	case "decide":
		return l.decide(t)
	case "replay":
		if len(l.votes) == 0 {
			return nil
		}
		v := l.votes[rapid.IntRange(0, len(l.votes)-1).Draw(t, "vote")]
		v.Now, v.Clock = l.stamp(), l.stamp()
		if err := request.Decide(l.r, v); err == nil {
			t.Fatalf("a decision was taken twice: %v", v.Decision)
		}
	case "edit":
		by := rapid.SampledFrom(append(people, "")).Draw(t, "editor")
		err := request.Edit(l.r, person(by))
		if err == nil {
			l.wrote[by] = true
			l.r.Title += "!"
		}
		return err
	case "withdraw":
		by := rapid.SampledFrom(people).Draw(t, "by")
		err := request.Withdraw(l.r, person(by), "", "", l.stamp())
		if err == nil && by != "ann" && by != l.r.GetOnBehalfOfId() {
			t.Fatalf("%s withdrew what others asked for", by)
		}
		return err
	case "expire":
		return request.Expire(l.r, l.stamp(), l.stamp())
	case "escalate":
		return request.Escalate(l.r, stage(), "due", l.stamp())
	case "remind":
		return request.Remind(l.r, stage(), timestamppb.New(l.now.Add(time.Hour)), l.stamp())
	case "stick":
		return request.Stick(l.r, stage(), rapid.SampledFrom([]string{"", "nobody is left"}).Draw(t, "why"))
	case "begin":
		err := request.Begin(l.r, l.stamp())
		if err == nil {
			for i, p := range l.r.GetParts() {
				if !p.GetDone() {
					p.Operation = fmt.Sprint("o", l.began, "-", i)
					l.r.Operations = append(l.r.GetOperations(), p.GetOperation())
				}
			}
			l.began++
		}
		return err
	case "end":
		var failed *apiv1.Problem
		if rapid.IntRange(0, 2).Draw(t, "failed") == 0 {
			failed = &apiv1.Problem{Detail: "no"}
		}
		op := fmt.Sprint("o", rapid.IntRange(0, 2).Draw(t, "attempt"), "-", rapid.IntRange(0, 1).Draw(t, "part"))
		before := proto.CloneOf(l.r)
		if changed := request.Ended(l.r, op, failed, l.stamp()); changed != !proto.Equal(before, l.r) {
			t.Fatalf("Ended said %v", changed)
		}
	case "wait":
		return request.Wait(l.r, "the zone is away", l.stamp())
	case "reserve":
		l.rooms++
		room := fmt.Sprint("room", l.rooms)
		return request.Reserve(l.r, []string{room, room}, l.stamp())
	case "hold":
		return request.Hold(l.r)
	case "miss":
		return request.Miss(l.r, "the zone has none")
	case "fail":
		before := proto.CloneOf(l.r)
		gone := rapid.Bool().Draw(t, "gone")
		err := request.Fail(l.r, gone, "who asked is gone", l.stamp(), l.stamp())
		if err == nil && !gone && before.GetOrphanedAt().AsTime().Add(7*24*time.Hour).After(l.stamp().AsTime()) {
			t.Fatal("it failed before seven days were over")
		}
		return err
	case "orphan":
		return request.Orphan(l.r, "who asked is away", l.stamp())
	case "retry":
		return request.Retry(l.r)
	case "lapse":
		return request.Lapse(l.r, l.stamp(), l.stamp())
	}
	return nil
}

func (l *life) submit(t *rapid.T) error {
	in := request.Submission{Now: l.stamp(), By: person(rapid.SampledFrom([]string{"ann", "ann", "eun"}).Draw(t, "by"))}
	for i := range rapid.IntRange(0, 3).Draw(t, "stages") {
		in.Stages = append(in.Stages, &apiv1.Stage{
			Name: fmt.Sprint("s", i), Sequence: uint32(rapid.IntRange(0, 2).Draw(t, "sequence")), Needed: uint32(rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(t, "needed")),
			Denials: uint32(rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "denials")), CommentRequired: rapid.IntRange(0, 4).Draw(t, "comments") == 0,
			StepUp: rapid.IntRange(0, 4).Draw(t, "step up") == 0, OnDue: apiv1.StageTemplate_OnDue(rapid.IntRange(0, 3).Draw(t, "on due")),
			Eligible: &apiv1.Eligibility{At: apiv1.Eligibility_At(rapid.IntRange(0, 5).Draw(t, "at"))},
		})
		if s := in.Stages[i]; rapid.IntRange(0, 2).Draw(t, "external") == 0 {
			s.External, s.Eligible.Users = true, []string{"desk"}
			s.EscalateTo = &apiv1.Eligibility{Users: []string{"change"}}
		}
		if rapid.Bool().Draw(t, "due") {
			in.Openings = append(in.Openings, request.Opening{Stage: fmt.Sprint("s", i), RemindAt: timestamppb.New(l.now.Add(time.Hour)), DueAt: timestamppb.New(l.now.Add(2 * time.Hour))})
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "automatic") == 0 {
		in.Automatic = "small"
	}
	in.AtOnce = rapid.IntRange(0, 4).Draw(t, "at once") == 0
	next := proto.CloneOf(l.r)
	next.Authority = request.AuthorityOf(in.Stages)
	if rapid.IntRange(0, 9).Draw(t, "another authority") == 0 {
		next.Authority = apiv1.Authority_Value(rapid.IntRange(0, 3).Draw(t, "authority"))
	}
	if request.Editable(next) {
		if err := request.Freeze(next); err != nil {
			return err
		}
	}
	if err := request.Submit(next, in); err != nil {
		return err
	}
	l.r = next
	l.wrote[in.By.ID] = true
	l.seen = append(l.seen, l.r.GetFrozenHash())
	return nil
}

func (l *life) decide(t *rapid.T) error {
	l.next++
	v := request.Vote{
		Decision: &apiv1.Decision{
			Id: fmt.Sprint("d", l.next), Stage: rapid.SampledFrom([]string{"s0", "s1", "s2"}).Draw(t, "stage"), ActorId: rapid.SampledFrom(append(people, "")).Draw(t, "actor"),
			Verdict: apiv1.Decision_Verdict(rapid.SampledFrom([]int{1, 1, 1, 1, 1, 2, 3, 0, 9}).Draw(t, "verdict")), Comment: rapid.SampledFrom([]string{"", "why", "why"}).Draw(t, "comment"),
			SeenHash: l.r.GetFrozenHash(),
		},
		Person: rapid.IntRange(0, 9).Draw(t, "program") > 0, SteppedUp: rapid.Bool().Draw(t, "stepped up"), Now: l.stamp(), Clock: l.stamp(),
	}
	if rapid.IntRange(0, 6).Draw(t, "old") == 0 {
		v.Decision.SeenHash = rapid.SampledFrom(append(slices.Clone(l.seen), nil, []byte("other"))).Draw(t, "seen")
	}
	if rapid.IntRange(0, 2).Draw(t, "elsewhere") == 0 {
		v.Decision.ActorId, v.Person = rapid.SampledFrom(services).Draw(t, "service"), rapid.IntRange(0, 9).Draw(t, "a person's account") == 0
		v.Decision.ExternalApprover = rapid.SampledFrom([]string{"Gil", "hana", "Ann", " bob ", "cho", "dan", ""}).Draw(t, "approver")
		v.Decision.ExternalRef = rapid.SampledFrom([]string{"CHG-7", "CHG-7", "CHG-7", ""}).Draw(t, "number")
	}
	v.Decision.Actor = v.Decision.GetActorId()
	if rapid.IntRange(0, 2).Draw(t, "delegate") == 0 {
		v.Decision.ActingForId = rapid.SampledFrom(people).Draw(t, "for")
		v.Decision.ActingFor = v.Decision.GetActingForId()
		v.Decision.Delegation = rapid.SampledFrom([]string{"g", "g", ""}).Draw(t, "delegation")
	}
	err := request.Decide(l.r, v)
	if err == nil {
		l.votes, l.programs[v.Decision.GetId()] = append(l.votes, v), !v.Person
	}
	return err
}

// TestP6NobodyGetsPastTheRules holds the invariants over random lives: any order of everything, wrong people, old hashes,
// repeated votes, clocks that jump.
func TestP6NobodyGetsPastTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), wrote: map[string]bool{"ann": true}, programs: map[string]bool{}}
		l.r = &apiv1.Request{
			Id: "r", Name: "r-1", Kind: apiv1.RequestKind_CREATE, Requester: "ann", RequesterId: "ann", Approval: apiv1.Request_DRAFT, Fulfilment: apiv1.Request_NONE,
			ZoneId: "b", Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{}}}, Parts: []*apiv1.Part{{Name: "web-1"}, {Name: "web-2"}},
		}
		if rapid.IntRange(0, 3).Draw(t, "grows") == 0 {
			ask := &apiv1.ResizeVM{SizeBefore: &apiv1.Resources{Cores: 1}, Size: &apiv1.Resources{Cores: 2}}
			l.r.Kind, l.r.Specification = apiv1.RequestKind_RESIZE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: ask}}
		}
		if rapid.Bool().Draw(t, "on behalf") {
			l.r.OnBehalfOf, l.r.OnBehalfOfId = "bob", "bob"
			l.wrote["bob"] = true
		}
		if rapid.IntRange(0, 3).Draw(t, "emergency") == 0 {
			l.r.ChangeType = apiv1.ChangeType_EMERGENCY
		}
		if rapid.IntRange(0, 3).Draw(t, "crosses") == 0 {
			l.r.SourceZoneId = "i"
		}
		if rapid.Bool().Draw(t, "bounded") {
			l.r.DecideBy, l.r.CarryOutBy = timestamppb.New(l.now.Add(6*time.Hour)), timestamppb.New(l.now.Add(12*time.Hour))
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			l.step(t)
		}
	})
}
