package request_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
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
		err := request.Fail(l.r, gone, "who asked is gone", l.stamp())
		if err == nil && !gone && before.GetOrphanedAt().AsTime().Add(7*24*time.Hour).After(l.stamp().AsTime()) {
			t.Fatal("it failed before seven days were over")
		}
		return err
	case "orphan":
		return request.Orphan(l.r, "who asked is away", l.stamp())
	case "retry":
		return request.Retry(l.r)
	case "lapse":
		return request.Lapse(l.r, l.stamp())
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

func over(a apiv1.Request_Approval) bool {
	return a == apiv1.Request_REJECTED || a == apiv1.Request_CANCELLED || a == apiv1.Request_EXPIRED
}

// check holds the invariants of approvals, by what can be seen from outside.
func (l *life) check(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	if err := request.Verify(r); err != nil {
		t.Fatal(err)
	}
	if l.ended != 0 && r.GetApproval() != l.ended {
		t.Fatalf("it ended %v, and %s made it %v", l.ended, what, r.GetApproval())
	}
	if over(r.GetApproval()) {
		l.ended = r.GetApproval()
		for _, s := range r.GetStages() { // 10: what is decided leaves every queue
			if s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING {
				t.Fatalf("it is %v, and stage %s is %v", r.GetApproval(), s.GetName(), s.GetState())
			}
		}
	}
	if r.GetApproval() == apiv1.Request_APPROVED && before.GetApproval() != apiv1.Request_APPROVED {
		l.approved(t, what)
	}
	l.checkStages(t)
	l.checkFulfilment(t, what, before)
	if len(r.GetDecisions()) < len(before.GetDecisions()) {
		t.Fatal("a decision has vanished")
	}
	for i, d := range before.GetDecisions() { // append-only, but for the mark
		d.Void = r.GetDecisions()[i].GetVoid()
		if !proto.Equal(d, r.GetDecisions()[i]) {
			t.Fatalf("%s changed a decision", what)
		}
	}
	for _, d := range r.GetDecisions() { // 3
		if !d.GetVoid() && d.GetRound() != r.GetRound() {
			t.Fatalf("a decision of an earlier round is not void: %v", d)
		}
	}
}

// approved holds that only people, the policy's own word, or an emergency that is reviewed let a request through: never time (5).
func (l *life) approved(t *rapid.T, what string) {
	r := l.r
	crosses := r.GetSourceZoneId() != "" && r.GetSourceZoneId() != r.GetZoneId()
	sides := map[apiv1.Eligibility_At]bool{}
	for _, s := range r.GetStages() {
		if !s.GetExternal() {
			sides[s.GetEligible().GetAt()] = true
		}
	}
	switch {
	case what != "decide" && what != "submit":
		t.Fatalf("%s approved it", what)
	case what == "submit" && crosses:
		t.Fatal("what crosses was let through without people")
	case what == "submit" && !r.GetReviewedAfterwards() && r.GetAuthority() > apiv1.Authority_LOCAL:
		t.Fatal("the word of another system was asked for, and it was let through without")
	case what == "submit" && r.GetReviewedAfterwards() != (r.GetChangeType() == apiv1.ChangeType_EMERGENCY && r.GetApprovalReason() != "automatic: small"):
		t.Fatal("it was let through as an emergency, and is none")
	case what == "submit":
		return
	case crosses && !(sides[apiv1.Eligibility_SOURCE] && sides[apiv1.Eligibility_DESTINATION]):
		t.Fatal("one side was not asked")
	case len(r.GetStages()) == 0:
		t.Fatal("it is approved by nobody")
	}
	for _, s := range r.GetStages() {
		if s.GetState() != apiv1.Stage_APPROVED {
			t.Fatalf("it is approved, and stage %s is %v", s.GetName(), s.GetState())
		}
	}
}

func (l *life) checkStages(t *rapid.T) {
	r := l.r
	used := map[string]bool{}
	yes, no := map[string]int{}, map[string]int{}
	for _, d := range r.GetDecisions() {
		if d.GetVoid() {
			continue
		}
		if string(d.GetSeenHash()) != string(l.seen[len(l.seen)-1]) {
			t.Fatalf("a decision counts that was of something else: %v", d)
		}
		stage := request.StageOf(r, d.GetStage())
		program := l.programs[d.GetId()]
		switch { // 8: who decides is of the kind that the stage asks
		case stage.GetExternal() != program:
			t.Fatalf("%s decided in stage %v", d.GetActor(), stage)
		case program && d.GetActorId() == "change" && stage.GetEscalatedAt() == nil:
			t.Fatalf("a service decided that the stage did not name: %v", d)
		case program != (d.GetExternalApprover() != "") || program != (d.GetExternalRef() != ""):
			t.Fatalf("it is not said who decided, and where: %v", d)
		case program && d.GetActingForId() != "":
			t.Fatalf("a service decided in somebody's place: %v", d)
		}
		for _, id := range []string{d.GetActorId(), d.GetActingForId(), strings.ToLower(strings.TrimSpace(d.GetExternalApprover()))} {
			switch {
			case id == "":
			case l.wrote[id]: // 1
				t.Fatalf("%s asked, gained or wrote, and decided", id)
			case used[id]: // 2
				t.Fatalf("%s decided twice", id)
			default:
				used[id] = true
			}
		}
		switch d.GetVerdict() {
		case apiv1.Decision_APPROVE:
			yes[d.GetStage()]++
		case apiv1.Decision_DENY:
			no[d.GetStage()]++
		default:
			t.Fatalf("a decision counts that is none: %v", d)
		}
	}
	lowest := uint32(1 << 30)
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN {
			lowest = min(lowest, s.GetSequence())
		}
	}
	for _, s := range r.GetStages() {
		switch s.GetState() {
		case apiv1.Stage_APPROVED:
			if yes[s.GetName()] < int(s.GetNeeded()) {
				t.Fatalf("stage %s is approved with %d of %d", s.GetName(), yes[s.GetName()], s.GetNeeded())
			}
		case apiv1.Stage_DENIED:
			if r.GetApproval() != apiv1.Request_REJECTED { // 12
				t.Fatalf("stage %s denied it, and it is %v", s.GetName(), r.GetApproval())
			}
			if no[s.GetName()] < int(s.GetDenials()) {
				t.Fatalf("denied with %d of %d", no[s.GetName()], s.GetDenials())
			}
		case apiv1.Stage_OPEN:
			if yes[s.GetName()] >= int(s.GetNeeded()) || no[s.GetName()] >= int(s.GetDenials()) {
				t.Fatalf("stage %s has been decided, and still waits", s.GetName())
			}
			if s.GetSequence() != lowest {
				t.Fatalf("stage %s is open before its turn", s.GetName())
			}
		case apiv1.Stage_WAITING:
			if s.GetSequence() < lowest {
				t.Fatalf("stage %s was passed over", s.GetName())
			}
			if lowest == 1<<30 && request.Deciding(r) {
				t.Fatal("it waits, and no stage is open")
			}
		}
	}
}

// checkFulfilment holds that a request is begun once, and again only after a failure (7).
func (l *life) checkFulfilment(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	if r.GetFulfilment() == apiv1.Request_FAILED && before.GetFulfilment() != apiv1.Request_FAILED {
		l.failures++
	}
	if l.began > l.failures+1 {
		t.Fatalf("it was begun %d times, and failed %d times", l.began, l.failures)
	}
	l.checkRoom(t, what, before)
	if what == "begin" && before.GetApproval() != apiv1.Request_APPROVED {
		t.Fatalf("it was %v, and was carried out", before.GetApproval())
	}
	for i, p := range before.GetParts() {
		if p.GetDone() && !proto.Equal(p, r.GetParts()[i]) {
			t.Fatalf("%s did part %d again", what, i)
		}
	}
	done := true
	for _, p := range r.GetParts() {
		done = done && p.GetDone()
	}
	if (r.GetFulfilment() == apiv1.Request_DONE) != (done && l.began > 0) {
		t.Fatalf("it is %v, and its parts are %v", r.GetFulfilment(), r.GetParts())
	}
	if r.GetFulfilment() == apiv1.Request_LAPSED && r.GetApproval() != apiv1.Request_APPROVED {
		t.Fatal("what was not approved lapsed")
	}
}

// checkRoom holds that room is kept for what may still be carried out, for all of it, and that no room decides anything.
func (l *life) checkRoom(t *rapid.T, what string, before *apiv1.Request) {
	r := l.r
	pending := r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW || r.GetApproval() == apiv1.Request_APPROVED
	if request.KeepsRoom(r) && !pending {
		t.Fatalf("%s: it is %v, and room is kept for it", what, r.GetApproval())
	}
	lacks := slices.ContainsFunc(r.GetParts(), func(p *apiv1.Part) bool { return p.GetReservation() == "" })
	if r.GetFulfilment() == apiv1.Request_RESERVED && lacks {
		t.Fatalf("%s: room is said to be kept for all of it: %v", what, r.GetParts())
	}
	if r.GetFulfilment() == apiv1.Request_EXECUTING && before.GetFulfilment() == apiv1.Request_RESERVING {
		t.Fatal("it was begun while its zone had not said whether it has room")
	}
	switch what {
	case "reserve", "hold", "miss", "wait":
		if r.GetApproval() != before.GetApproval() || len(r.GetDecisions()) != len(before.GetDecisions()) {
			t.Fatalf("%s decided something", what)
		}
	}
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

// TestARequestIsSatisfiable… compares with trying every assignment (4).
func TestARequestIsSatisfiableWhenSomeAssignmentOfPeopleIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var needs []request.Need
		for i := range rapid.IntRange(1, 3).Draw(t, "stages") {
			needs = append(needs, request.Need{
				Stage: fmt.Sprint("s", i), Needed: rapid.IntRange(1, 2).Draw(t, "needed"),
				People: rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 4, rapid.ID[string]).Draw(t, "people"),
			})
		}
		excluded := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 2, rapid.ID[string]).Draw(t, "excluded")
		if err := request.Satisfiable(needs, excluded); (err == nil) != assignable(needs, excluded) {
			t.Fatalf("%v, excluded %v: %v", needs, excluded, err)
		}
	})
}

func assignable(needs []request.Need, used []string) bool {
	if len(needs) == 0 {
		return true
	}
	n := needs[0]
	if n.Needed == 0 {
		return assignable(needs[1:], used)
	}
	for i, p := range n.People {
		if slices.Contains(used, p) {
			continue
		}
		rest := append([]request.Need{{Stage: n.Stage, Needed: n.Needed - 1, People: n.People[i+1:]}}, needs[1:]...)
		if assignable(rest, append(slices.Clone(used), p)) {
			return true
		}
	}
	return false
}
