package fsm_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// shopMay limits project shop, everywhere.
func shopMay(limit *apiv1.Amounts) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: &apiv1.Quota{
		Id: "q-shop", Project: "shop", ProjectId: "p-shop", Limit: limit}}}}
}

// homeMay limits organization home.
func homeMay(limit *apiv1.Amounts) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: &apiv1.Quota{
		Id: "q-home", Organization: "home", OrganizationId: "o-home", Limit: limit}}}}
}

func vms(n uint32) *apiv1.Amounts { return &apiv1.Amounts{Vms: proto.Uint32(n)} }

func (p *plane) quota(id string) *apiv1.Quota {
	p.Helper()
	var m *apiv1.Quota
	p.view(func(tx *state.Tx) { m = get(p, tx.Quotas, id) })
	return m
}

// counts fails unless a quota holds and uses so many VMs.
func (p *plane) counts(id string, held, used uint32) {
	p.Helper()
	if m := p.quota(id); m.GetHeld().GetVms() != held || m.GetUsed().GetVms() != used {
		p.Errorf("%s holds %d VMs and uses %d, not %d and %d", m.GetName(), m.GetHeld().GetVms(), m.GetUsed().GetVms(), held, used)
	}
	p.sumsHold()
}

// sumsHold fails where the sums are not those of the things that are counted (P27).
func (p *plane) sumsHold() {
	p.Helper()
	p.view(func(tx *state.Tx) {
		drift, err := tx.Recount()
		if err != nil || len(drift) > 0 {
			p.Errorf("the sums have drifted: %+v, %v", drift, err)
		}
	})
}

// usable has VM n seen as one that can be used.
func (p *plane) usable(n int) {
	p.Helper()
	p.reports(p.usableNow(n))
}

// usableNow is what a zone says of a VM that can be used.
func (p *plane) usableNow(n int) *linkv1.Object {
	p.Helper()
	o := seen(n, apiv1.VM_RUNNING, apiv1.VM_ON)
	o.GetVm().UsableAt, o.GetVm().Reached, o.GetVm().Actual = timestamppb.New(p.now), p.vm(n).GetGeneration(), p.vm(n).GetSize()
	return o
}

// reports has the zone report.
func (p *plane) reports(objects ...*linkv1.Object) {
	p.Helper()
	p.accept(p.report(objects...))
}

// report is what the zone sends next.
func (p *plane) report(objects ...*linkv1.Object) *commandv1.Command {
	p.Helper()
	var at state.ObservedCursor
	p.view(func(tx *state.Tx) { at, _ = tx.ObservedCursor("z-business") })
	if at.Revision == 0 || at.Incarnation != "inc-1" {
		return fullSync(true, "inc-1", 0, 1, objects...)
	}
	return observe("inc-1", at.Revision, at.Revision+1, objects...)
}

// onePart is the submission of a request that has one part, about VM 1, and one stage.
func (p *plane) onePart(id string) *commandv1.Command {
	p.Helper()
	c := p.submission(id, "one")
	m := c.GetSubmitRequest().GetRequest()
	m.Parts = m.GetParts()[:1]
	if err := request.Freeze(m); err != nil {
		p.Fatal(err)
	}
	return c
}

func TestOfManyCreatesInOneBatchAsManyGetInAsTheLimitSays(t *testing.T) {
	p := furnished(t)
	p.accept(shopMay(vms(10)))
	var batch []fsm.Entry
	for n := range 25 {
		batch = append(batch, p.entry(createVM(n)))
	}
	results, err := p.machine.Apply(batch)
	if err != nil {
		t.Fatal(err)
	}
	in := 0
	for _, r := range results {
		switch code := r.GetProblem().GetCode(); code {
		case "":
			in++
		case string(problem.QuotaExceeded):
		default:
			t.Errorf("got %v", r)
		}
	}
	if in != 10 {
		t.Errorf("%d got in, not 10", in)
	}
	p.counts("q-shop", 10, 0)
}

func TestARefusalForAQuotaSaysWhatIsAskedUsedHeldAndWhere(t *testing.T) {
	p := furnished(t)
	limit := vms(2)
	limit.Cores = proto.Uint32(2)
	p.accept(homeMay(limit))
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.usable(2)
	r := p.refuse(problem.QuotaExceeded, createVM(3))
	if want := "the quota of organization home does not allow it: 1 VMs asked for, 1 used and 1 held of 2; 1 cores asked for, 1 used and 1 held of 2"; r.GetDetail() != want {
		t.Errorf("it says %q, not %q", r.GetDetail(), want)
	}
	if !strings.Contains(r.GetNext(), "naru quota show organization.home") {
		t.Errorf("it says how to go on: %q", r.GetNext())
	}
}

func TestAVMIsHeldUntilItCanBeUsedAndCountsInTheTrashUntilItIsGone(t *testing.T) {
	p := furnished(t)
	p.accept(shopMay(vms(2)))
	p.accept(homeMay(vms(9)))
	p.accept(createVM(1))
	p.counts("q-shop", 1, 0)
	p.usable(1)
	p.counts("q-shop", 0, 1)
	p.accept(desire(1, apiv1.VM_STOPPED, "op-stop"))
	p.accept(trash(1, "op-trash", p.now.AddDate(0, 0, 7)))
	p.counts("q-home", 0, 1)
	p.accept(desire(1, apiv1.VM_DELETED, "op-delete"))
	p.counts("q-home", 0, 1)
	p.reports(tombstone(1))
	p.counts("q-home", 0, 0)
	p.counts("q-shop", 0, 0)
}

func TestAResizeHoldsTheLargerSizeAndGivesItBackWhereItFails(t *testing.T) {
	p := inUse(t)
	p.usable(1)
	p.accept(shopMay(&apiv1.Amounts{Cores: proto.Uint32(3)}))
	p.refuse(problem.QuotaExceeded, resize(1, resources(4, 192, 2), "op-large"))
	p.accept(resize(1, resources(2, 192, 2), "op-grow"))
	if m := p.quota("q-shop"); m.GetHeld().GetCores() != 1 || m.GetUsed().GetCores() != 1 || m.GetLeft().GetCores() != 1 {
		t.Errorf("while it grows: %v", m)
	}
	stays := seen(1, apiv1.VM_RUNNING, apiv1.VM_ON)
	stays.GetVm().UsableAt, stays.GetVm().Reached, stays.GetVm().Actual = timestamppb.New(p.now), p.vm(1).GetGeneration(), resources(1, 96, 1)
	p.reports(stays)
	p.ends(2, "op-grow", problem.New(problem.NoHostFits, "no room", "").Problem)
	if m := p.quota("q-shop"); m.GetHeld().GetCores() != 0 || m.GetUsed().GetCores() != 1 {
		t.Errorf("when that has failed: %v", m)
	}
	p.sumsHold()
}

func TestSnapshotsAreCountedAndOneThatWasNotTakenIsNot(t *testing.T) {
	p := inUse(t)
	p.accept(shopMay(&apiv1.Amounts{Snapshots: proto.Uint32(1)}))
	p.accept(takeSnapshot(1, "first", "op-first"))
	p.ends(2, "op-first", problem.New(problem.Internal, "no space", "").Problem)
	p.accept(takeSnapshot(1, "second", "op-second"))
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1), "second")
	p.ends(3, "op-second", nil)
	p.refuse(problem.QuotaExceeded, takeSnapshot(1, "third", "op-third"))
	p.sumsHold()
}

func TestARequestHoldsFromItsSubmissionAndAtEveryEndGivesBack(t *testing.T) {
	for end, finish := range map[string]func(*plane){
		"withdrawn": func(p *plane) {
			p.accept(&commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("ann")}}})
		},
		"rejected": func(p *plane) { p.accept(p.vote("r", "bob", "one", apiv1.Decision_DENY, nil)) },
		"returned": func(p *plane) { p.accept(p.vote("r", "bob", "one", apiv1.Decision_RETURN, nil)) },
		"withdrawn once approved": func(p *plane) {
			p.approve("r", "bob", "one")
			p.counts("q-shop", 2, 0)
			p.accept(&commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: "r", By: who("ann")}}})
		},
		"failed before it began": func(p *plane) {
			p.approve("r", "bob", "one")
			p.givenUp("r")
		},
	} {
		t.Run(end, func(t *testing.T) {
			p := staffed(t)
			p.accept(shopMay(vms(3)))
			p.submitted("r", "one")
			p.counts("q-shop", 2, 0)
			p.draft("other", nil)
			p.refuse(problem.QuotaExceeded, p.submission("other", "one"))
			finish(p)
			p.counts("q-shop", 0, 0)
			p.accept(p.submission("other", "one"))
			p.counts("q-shop", 2, 0)
		})
	}
}

func TestARequestThatLapsesOrExpiresGivesBackAndOneThatFailedHoldsAgainAtItsRetry(t *testing.T) {
	p := staffed(t)
	p.accept(shopMay(vms(2)))
	p.draft("r", func(m *apiv1.Request) { m.DecideBy = timestamppb.New(p.now.AddDate(0, 0, 1)) })
	p.accept(p.submission("r", "one"))
	p.now = p.now.AddDate(0, 0, 2)
	p.accept(&commandv1.Command{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: "r", What: commandv1.PassRequest_EXPIRE}}})
	p.counts("q-shop", 0, 0)

	p.submitted("s", "one")
	p.approve("s", "bob", "one")
	p.givenUp("s")
	p.accept(createVM(7))
	retry := &commandv1.Command{Body: &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: "s"}}}
	p.refuse(problem.QuotaExceeded, retry)
	p.accept(desire(7, apiv1.VM_DELETED, "op-delete"))
	p.reports(tombstone(7))
	p.accept(retry)
	p.counts("q-shop", 2, 0)
}

func TestWhatIsHeldIsCarriedOutHoweverLowTheLimitWasSetMeanwhileAndIsCountedOnce(t *testing.T) {
	p := staffed(t)
	p.accept(shopMay(vms(2)))
	p.submitted("r", "one")
	p.approve("r", "bob", "one")
	m := p.quota("q-shop")
	m.Limit = vms(1)
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateQuota{UpdateQuota: &commandv1.UpdateQuota{Quota: m, ExpectedRevision: m.GetRevision()}}})
	p.accept(p.carryOut("r", "a", 0, 1))
	p.counts("q-shop", 2, 0)
	p.usable(1)
	p.counts("q-shop", 1, 1)
	p.refuse(problem.QuotaExceeded, createVM(9))
}

func TestARequestForMoreOfAVMHoldsTheDifferenceAndIsCountedOnce(t *testing.T) {
	p := staffed(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
		Id: "f-s2", Name: "s2", Cores: 4, MemoryMib: 96, DiskGib: 1}}}})
	p.accept(createVM(1))
	p.usable(1)
	p.accept(shopMay(&apiv1.Amounts{Cores: proto.Uint32(4), Snapshots: proto.Uint32(1)}))
	p.draft("r", func(m *apiv1.Request) {
		m.Kind, m.Specification = apiv1.RequestKind_RESIZE, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{
			Resize: &apiv1.ResizeVM{Vm: "web-1", VmId: "vm-1", Flavor: "s2", Size: resources(4, 96, 1)}}}
	})
	p.accept(p.onePart("r"))
	if m := p.quota("q-shop"); m.GetHeld().GetCores() != 3 || m.GetUsed().GetCores() != 1 || m.GetHeld().GetMemoryMib() != 0 {
		t.Errorf("submitted: %v", m)
	}
	p.approve("r", "bob", "one")
	p.accept(p.carryOut("r", "a", 0))
	if m := p.quota("q-shop"); m.GetHeld().GetCores() != 3 || m.GetUsed().GetCores() != 1 {
		t.Errorf("begun: %v", m)
	}
	p.usable(1)
	if m := p.quota("q-shop"); m.GetHeld().GetCores() != 0 || m.GetUsed().GetCores() != 4 {
		t.Errorf("done: %v", m)
	}
	for i, id := range []string{"s", "t"} {
		p.draft(id, func(m *apiv1.Request) {
			m.Kind, m.Specification = apiv1.RequestKind_SNAPSHOT, &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Snapshot{
				Snapshot: &apiv1.SnapshotVM{Vm: "web-1", VmId: "vm-1", Name: id, SnapshotId: "s-" + id}}}
		})
		if i == 0 {
			p.accept(p.onePart(id))
		} else {
			p.refuse(problem.QuotaExceeded, p.onePart(id))
		}
	}
	p.sumsHold()
}

func TestProjectsCountInTheOrganizationsAboveThemWhereverTheyAreMoved(t *testing.T) {
	p := furnished(t)
	p.accept(createOrganization("ministry", ""))
	p.accept(createOrganization("bureau", "ministry"))
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: &apiv1.Quota{
		Id: "q-ministry", Organization: "ministry", OrganizationId: "o-ministry", Limit: vms(1)}}}})
	p.accept(homeMay(vms(9)))
	p.accept(createVM(1))
	p.accept(createVM(2))
	move := func(to string) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: &apiv1.Project{
			Id: "p-shop", Name: "shop", Organization: to, OrganizationId: "o-" + to}}}}
	}
	if r := p.refuse(problem.QuotaExceeded, move("bureau")); !strings.Contains(r.GetDetail(), "organization ministry does not allow it: 2 VMs asked for") {
		t.Errorf("it says %v", r)
	}
	p.accept(desire(2, apiv1.VM_DELETED, "op-delete"))
	p.reports(tombstone(2))
	p.accept(move("bureau"))
	p.counts("q-ministry", 1, 0)
	p.counts("q-home", 0, 0)
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateOrganization{UpdateOrganization: &commandv1.UpdateOrganization{Organization: &apiv1.Organization{
		Id: "o-bureau", Name: "bureau", Parent: "home", ParentId: "o-home"}}}})
	p.counts("q-ministry", 0, 0)
	p.counts("q-home", 1, 0)
}

func TestAQuotaOfAGradeCountsWhatIsOfItNow(t *testing.T) {
	p := furnished(t)
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateZone{UpdateZone: &commandv1.UpdateZone{Zone: func() *apiv1.Zone {
		z := p.zone()
		z.Grade = apiv1.Zone_CLASSIFIED
		return z
	}()}}})
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: &apiv1.Quota{
		Id: "q-shop", Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business", Grade: apiv1.Zone_SENSITIVE, Limit: vms(1)}}}})
	p.accept(createVM(1))
	p.accept(createVM(2))
	p.counts("q-shop", 0, 0)
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: &apiv1.Project{
		Id: "p-shop", Name: "shop", Organization: "home", OrganizationId: "o-home", Grade: apiv1.Zone_OPEN}}}})
	p.counts("q-shop", 0, 0)
	if r := p.refuse(problem.QuotaExceeded, &commandv1.Command{Body: &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: &apiv1.Project{
		Id: "p-shop", Name: "shop", Organization: "home", OrganizationId: "o-home", Grade: apiv1.Zone_SENSITIVE}}}}); !strings.Contains(r.GetDetail(), "for sensitive VMs") {
		t.Errorf("it says %v", r)
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateImage{UpdateImage: &commandv1.UpdateImage{Image: &apiv1.Image{
		Id: "i-tiny", Name: "tiny", Sha256: "ab", Grade: apiv1.Zone_SENSITIVE}}}})
	p.counts("q-shop", 2, 0)
	p.refuse(problem.QuotaExceeded, createVM(3))
}

func TestP27SumsAreThoseOfTheThingsAfterAnyLife(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := empty(rt)
		history(rt, p)
		p.replay(p.log, whole)
		for i, step := range rapid.SliceOfN(rapid.IntRange(0, 7), 0, 20).Draw(rt, "more") {
			n := rapid.IntRange(1, 5).Draw(rt, "vm")
			op := fmt.Sprint("op-more-", i)
			grade := apiv1.Zone_Grade(rapid.IntRange(1, 3).Draw(rt, "grade"))
			switch step {
			case 0:
				p.apply(shopMay(vms(uint32(rapid.IntRange(0, 5).Draw(rt, "limit")))))
			case 1:
				p.apply(resize(n, resources(uint32(rapid.IntRange(1, 4).Draw(rt, "cores")), 96, 2), op))
			case 2:
				p.apply(takeSnapshot(n, fmt.Sprint("s", i), op))
			case 3:
				o := seen(n, apiv1.VM_RUNNING, apiv1.VM_ON)
				o.GetVm().UsableAt, o.GetVm().Actual, o.GetVm().Reached.Index = timestamppb.New(p.now), resources(uint32(rapid.IntRange(1, 4).Draw(rt, "has")), 96, 1), uint64(1000)
				o.GetVm().Snapshots = &apiv1.VM_Snapshots{Items: []*apiv1.VM_Snapshots_Item{{Id: "s-met", Name: "met"}}}
				p.apply(fullSync(true, "inc-9", 0, 1, o))
			case 4:
				p.apply(resolve(fmt.Sprint("op-more-", rapid.IntRange(0, i).Draw(rt, "which")), apiv1.ResolveOperationRequest_FAIL))
			case 5:
				to := rapid.SampledFrom([]string{"home", "bureau"}).Draw(rt, "to")
				p.apply(createOrganization("bureau", "home"))
				p.apply(&commandv1.Command{Body: &commandv1.Command_UpdateProject{UpdateProject: &commandv1.UpdateProject{Project: &apiv1.Project{
					Id: "p-shop", Name: "shop", Organization: to, OrganizationId: "o-" + to, Grade: grade}}}})
			case 6:
				p.apply(&commandv1.Command{Body: &commandv1.Command_UpdateImage{UpdateImage: &commandv1.UpdateImage{Image: &apiv1.Image{
					Id: "i-tiny", Name: "tiny", Sha256: "ab", Grade: grade}}}})
			case 7:
				p.apply(desire(n, apiv1.VM_DELETED, op))
				p.apply(fullSync(true, "inc-9", 0, 1, tombstone(n)))
			}
			p.sumsHold()
		}
		p.sumsHold()
		p.view(func(tx *state.Tx) {
			all := uint32(0)
			for m, err := range tx.VMs.All(nil) {
				if err != nil {
					rt.Fatal(err)
				}
				if m.GetProjectId() == "p-shop" && m.GetSize() != nil {
					all++
				}
			}
			for m, err := range tx.Requests.All(nil) { // what is asked for, and has not begun or come to nothing
				if err != nil {
					rt.Fatal(err)
				}
				waits := request.Deciding(m) || m.GetApproval() == apiv1.Request_APPROVED
				if m.GetProjectId() == "p-shop" && waits && m.GetFulfilment() < apiv1.Request_EXECUTING && m.GetOperations() == nil {
					all += uint32(len(m.GetParts()))
				}
			}
			if m := get(rt, tx.Quotas, "q-shop"); m != nil && m.GetHeld().GetVms()+m.GetUsed().GetVms() != all {
				rt.Errorf("%d VMs, with those that are asked for, are counted %d times", all, m.GetHeld().GetVms()+m.GetUsed().GetVms())
			}
		})
	})
}
