package fsm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// attach adds a file of so many bytes to a request.
func attach(id, file string, size int) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: id, Content: bytes.Repeat([]byte{'x'}, size),
		Comment: &apiv1.Comment{Id: id + "-" + file, Author: "ann", AuthorId: "u-ann", File: file}}}}
}

func withdrawal(id, by string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: id, By: who(by)}}}
}

func prune() *commandv1.Command {
	return &commandv1.Command{Actor: "upkeep", Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}}
}

// fill has files of a requester's draft counted as so large, as though they had been attached.
func (p *plane) fill(id, requester, project string, bytes uint32) {
	p.Helper()
	if err := p.db.Update(func(tx *state.Tx) error {
		return tx.Requests.Put(&apiv1.Request{Id: id, Name: id, Requester: requester, RequesterId: "u-" + requester, Project: project, ProjectId: "p-" + project,
			Approval: apiv1.Request_DRAFT, Files: []*apiv1.Comment{{Id: "c", File: "f", Size: bytes}}})
	}); err != nil {
		p.Fatal(err)
	}
}

func TestFilesOfARequesterAndOfAProjectHaveABudgetThatIsGivenBack(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.fill("many", "ann", "shop", 64<<20-1000)
	p.accept(attach("r", "a", 900))
	p.refuse(problem.TooLarge, attach("r", "b", 101))
	p.accept(attach("r", "b", 100)) // to the byte
	if got := p.refuse(problem.TooLarge, attach("r", "c", 1)); !strings.Contains(got.GetDetail(), "requests of ann") {
		t.Error(got)
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: "many"}}})
	p.accept(attach("r", "c", 1000))

	for i := range 4 { // others of the project
		p.fill(fmt.Sprint("of-", i), fmt.Sprint("one-", i), "shop", 64<<20-500)
	}
	if got := p.refuse(problem.TooLarge, attach("r", "d", 1)); !strings.Contains(got.GetDetail(), "project shop") || !strings.Contains(got.GetNext(), "naru request list --project shop") {
		t.Error(got)
	}
}

func TestADraftTakesItsFilesToNoProjectThatHasNoRoomForThem(t *testing.T) {
	p := staffed(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{Project: &apiv1.Project{
		Id: "p-full", Name: "full", Organization: "home", OrganizationId: "o-home"}}}})
	p.draft("r", nil)
	p.accept(attach("r", "a", 1000))
	for i := range 4 {
		p.fill(fmt.Sprint("of-", i), fmt.Sprint("one-", i), "full", 64<<20)
	}
	moved := p.request("r")
	moved.Project, moved.ProjectId = "full", "p-full"
	update := &commandv1.Command{Body: &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: moved, By: who("ann")}}}
	p.refuse(problem.TooLarge, update)
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: "of-0"}}})
	p.accept(update)
}

func TestFilesAreDroppedLongAfterTheirRequestHasEndedAndTheirDigestsStay(t *testing.T) {
	p := staffed(t)
	for _, id := range []string{"ends", "waits", "written", "again"} {
		p.draft(id, nil)
		p.accept(attach(id, "plan", 100))
	}
	for _, id := range []string{"ends", "waits", "again"} {
		p.accept(p.submission(id, "review"))
	}
	frozen := p.request("ends").GetFrozen()
	p.accept(withdrawal("ends", "ann"))
	p.accept(p.vote("again", "bob", "review", apiv1.Decision_RETURN, nil))
	kept := func(id string) bool {
		var content []byte
		p.view(func(tx *state.Tx) {
			m, b, err := tx.Attachment(id, id+"-plan")
			if content = b; err != nil || m.GetSize() != 100 || (m.GetDroppedAt() == nil) != (len(content) == 100) {
				t.Errorf("%s: %v, %d bytes, %v", id, m, len(content), err)
			}
		})
		return len(content) > 0
	}
	p.now = p.now.Add(90*24*time.Hour - time.Minute)
	p.accept(prune())
	if !kept("ends") {
		t.Fatal("it was dropped before its time")
	}
	p.now = p.now.Add(2 * time.Minute)
	p.accept(prune())
	m := p.request("ends")
	if kept("ends") || len(m.GetFiles()) != 1 || m.GetFiles()[0].GetDroppedAt() == nil || len(m.GetFiles()[0].GetSha256()) != 32 || !bytes.Equal(m.GetFrozen(), frozen) {
		t.Errorf("%v", m)
	}
	p.view(func(tx *state.Tx) {
		if of, in, err := tx.FileBytes("u-ann", "p-shop", ""); err != nil || of != 300 || in != 300 {
			t.Errorf("%d and %d bytes are counted, %v", of, in, err)
		}
	})
	for _, id := range []string{"waits", "written", "again"} {
		if !kept(id) {
			t.Errorf("%s goes on, and its file is gone", id)
		}
	}
	p.accept(prune())
	if again := p.request("ends"); again.GetRevision() != m.GetRevision() {
		t.Error("it was dropped twice")
	}
}

func TestFilesOfWhatFailedAndWasGivenUpLaterAreKeptFromThenOn(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.accept(attach("r", "plan", 100))
	p.accept(p.submission("r", "review"))
	p.approve("r", "bob", "review")
	p.accept(p.carryOut("r", "a", 0, 1))
	p.end("op-a-0", apiv1.ResolveOperationRequest_SUCCEED)
	p.end("op-a-1", apiv1.ResolveOperationRequest_FAIL)
	for _, then := range []struct {
		days int
		do   *commandv1.Command
		kept bool
	}{{80, withdrawal("r", "ann"), true}, {89, prune(), true}, {2, prune(), false}} {
		p.now = p.now.Add(time.Duration(then.days) * 24 * time.Hour)
		p.accept(then.do)
		if kept := p.request("r").GetFiles()[0].GetDroppedAt() == nil; kept != then.kept {
			t.Fatalf("%d days later it is kept: %v", then.days, kept)
		}
	}
}

func TestAPersonSubmitsSoManyRequestsADayAndAProgramMore(t *testing.T) {
	p := staffed(t)
	submitted := func(requester string, n int, at time.Time) {
		if err := p.db.Update(func(tx *state.Tx) error {
			for i := range n {
				if err := tx.Requests.Put(&apiv1.Request{Id: fmt.Sprintf("%s-%d-%d", requester, at.Unix(), i), Name: fmt.Sprintf("%s-%d-%d", requester, at.Unix(), i), Requester: requester, RequesterId: "u-" + requester,
					Approval: apiv1.Request_CANCELLED, CountedAt: timestamppb.New(at)}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.now = p.now.Add(72 * time.Hour)
	submitted("ann", 100, p.now.Add(-25*time.Hour)) // of yesterday
	submitted("ann", 499, p.now.Add(-time.Hour))
	p.submitted("last", "review")
	p.draft("r", nil)
	if got := p.refuse(problem.TooMany, p.submission("r", "review")); !strings.Contains(got.GetDetail(), "500 requests in 24 hours") {
		t.Error(got)
	}
	p.now = p.now.Add(24 * time.Hour)
	p.accept(p.submission("r", "review"))

	submitted("ci", 600, p.now)
	p.draft("program", func(m *apiv1.Request) { m.Requester, m.RequesterId = "ci", "u-ci" })
	c := p.submission("program", "review")
	c.GetSubmitRequest().By = who("ci")
	p.accept(c)
}

// TestP21AClockThatWasAheadAndWasSetRightLetsNobodySubmitMore, nor less: what is submitted since counts as of the day that it is.
func TestP21AClockThatWasAheadAndWasSetRightLetsNobodySubmitMore(t *testing.T) {
	p := staffed(t)
	p.ahead()
	submit := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("r-", i)
			p.draft(id, nil)
			p.accept(p.submission(id, "review"))
			p.accept(withdrawal(id, "ann"))
		}
	}
	submit(0, 500)
	if m := p.request("r-499"); m.GetCountedAt().AsTime().After(p.now) || !m.GetSubmittedAt().AsTime().After(p.now) {
		t.Errorf("%v", m)
	}
	p.draft("r", nil)
	p.refuse(problem.TooMany, p.submission("r", "review"))
	p.now = p.now.Add(24*time.Hour + time.Second)
	p.accept(p.submission("r", "review"))
}

// small has a policy that lets through, in 24 hours, what the limits say.
func (p *plane) small(requester, project *apiv1.DailyLimits) {
	p.Helper()
	p.accept(p.by("u-dan", &commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{
		ApprovalPolicy: &apiv1.ApprovalPolicy{Id: "p", Name: "small", Automatic: &apiv1.AutomaticApproval{RequesterDaily: requester, ProjectDaily: project}}}}}))
}

// let is the submission of a request that the policy lets through, by whom, and at what cost.
func (p *plane) let(id, requester, cost string) *commandv1.Command {
	p.Helper()
	p.draft(id, func(m *apiv1.Request) { m.Requester, m.RequesterId = requester, "u-"+requester })
	c := p.submission(id, "review")
	in := c.GetSubmitRequest()
	in.By, in.Automatic = who(requester), "policy small"
	in.Request.Policy, in.Request.PolicyVersion = "small", 1
	if cost != "" {
		amount, currency, _ := strings.Cut(cost, " ")
		in.Request.MonthlyCost = &apiv1.Money{Amount: amount, Currency: currency}
	}
	if err := request.Freeze(in.GetRequest()); err != nil {
		p.Fatal(err)
	}
	return c
}

func TestWhatAPolicyLetsThroughInADayIsCountedAndNoRaceGetsPast(t *testing.T) {
	p := staffed(t)
	p.small(&apiv1.DailyLimits{MaxRequests: 3}, nil)
	var judged []*commandv1.Command // all on one snapshot
	for i := range 5 {
		judged = append(judged, p.let(fmt.Sprint("r-", i), "ann", ""))
	}
	var batch []fsm.Entry
	for _, c := range judged {
		batch = append(batch, p.entry(c))
	}
	results, err := p.machine.Apply(batch)
	if err != nil {
		t.Fatal(err)
	}
	through := 0
	for i, r := range results {
		switch r.GetProblem().GetCode() {
		case "":
			through++
			if m := p.request(fmt.Sprint("r-", i)); m.GetAutomaticAt() == nil || !strings.Contains(m.GetApprovalReason(), fmt.Sprintf("ann has got %d of 3 requests", through)) {
				t.Errorf("%v", m)
			}
		case string(problem.Conflict):
		default:
			t.Error(r.GetProblem())
		}
	}
	if through != 3 {
		t.Errorf("%d were let through", through)
	}
	p.accept(p.let("bob-1", "bob", "")) // another has their own
	p.now = p.now.Add(23 * time.Hour)
	p.refuse(problem.Conflict, p.let("late", "ann", ""))
	p.now = p.now.Add(time.Hour + time.Second)
	p.accept(p.let("next-day", "ann", ""))
	people := p.let("people", "ann", "") // whom people decide on is not counted
	people.GetSubmitRequest().Automatic = ""
	p.accept(people)
	if m := p.request("people"); m.GetAutomaticAt() != nil {
		t.Errorf("%v", m)
	}
	p.accept(p.let("and-another", "ann", ""))
}

func TestEachDailyLimitOfAutomaticApprovalHolds(t *testing.T) {
	krw := func(amount string) *apiv1.DailyLimits {
		return &apiv1.DailyLimits{MaxMonthlyCost: &apiv1.Money{Amount: amount, Currency: "KRW"}}
	}
	for about, c := range map[string]struct {
		requester, project *apiv1.DailyLimits
		first, second      [2]string // requester, cost
		refused            string
	}{
		"the quantity of the requester":        {requester: &apiv1.DailyLimits{MaxQuantity: 3}, first: [2]string{"ann", ""}, second: [2]string{"ann", ""}, refused: "more than 3 in quantity"},
		"and of another":                       {requester: &apiv1.DailyLimits{MaxQuantity: 3}, first: [2]string{"ann", ""}, second: [2]string{"bob", ""}},
		"the quantity of the project":          {project: &apiv1.DailyLimits{MaxQuantity: 3}, first: [2]string{"ann", ""}, second: [2]string{"bob", ""}, refused: "project shop"},
		"requests of the project":              {project: &apiv1.DailyLimits{MaxRequests: 1}, first: [2]string{"ann", ""}, second: [2]string{"bob", ""}, refused: "more than 1 requests"},
		"the cost":                             {requester: krw("1000"), first: [2]string{"ann", "600 KRW"}, second: [2]string{"ann", "401 KRW"}, refused: "more than 1000 KRW a month"},
		"the cost to the last won":             {requester: krw("1000"), first: [2]string{"ann", "600 KRW"}, second: [2]string{"ann", "400 KRW"}},
		"the cost, before in another currency": {requester: krw("1000"), first: [2]string{"ann", "600 KRW"}, second: [2]string{"ann", "1 USD"}, refused: "another currency"},
		"sums beyond all numbers":              {requester: krw("999999999999999999"), first: [2]string{"ann", "999999999999999999 KRW"}, second: [2]string{"ann", "999999999999999999 KRW"}, refused: "KRW a month"},
	} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.small(c.requester, c.project)
			p.accept(p.let("one", c.first[0], c.first[1]))
			two := p.let("two", c.second[0], c.second[1])
			if c.refused == "" {
				p.accept(two)
			} else if got := p.refuse(problem.Conflict, two); !strings.Contains(got.GetDetail(), c.refused) {
				t.Error(got)
			}
		})
	}
}
