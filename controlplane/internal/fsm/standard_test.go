package fsm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// standards are the records of what was done without a request, the oldest first.
func (p *plane) standards() (all []*apiv1.Request) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if all, _, err = tx.Requests.List(state.Query{Filter: "asked=false", OrderBy: "id"}); err != nil {
			p.Fatal(err)
		}
	})
	return all
}

// recorded is the newest record, of which there are so many.
func (p *plane) recorded(n int) *apiv1.Request {
	p.Helper()
	all := p.standards()
	if len(all) != n {
		p.Fatalf("there are %d records, not %d: %v", len(all), n, all)
	}
	return all[n-1]
}

// by has a command called for by somebody who has a session, or with a token or a certificate.
func by(actor string, o *commandv1.Origin, c *commandv1.Command) *commandv1.Command {
	c.Actor, c.Origin = actor, o
	return c
}

func directly(kind, operation string, wants apiv1.VM_State, change func(*commandv1.SetVMDesired)) *commandv1.Command {
	c := desire(1, wants, operation)
	c.GetSetVmDesired().Kind = kind
	if change != nil {
		change(c.GetSetVmDesired())
	}
	return c
}

func TestWhatIsDoneToAVMDirectlyIsAStandardChangeWhoeverDidIt(t *testing.T) {
	deadline := timestamppb.New(start.Add(time.Hour))
	reboot := &commandv1.Command{Body: &commandv1.Command_OrderVm{OrderVm: &commandv1.OrderVM{VmId: "vm-1", OperationId: "op-x", Kind: "vm.reboot", Deadline: deadline,
		Order: &linkv1.Order{Verb: linkv1.Order_REBOOT, Force: true}}}}
	resize := &commandv1.Command{Body: &commandv1.Command_ResizeVm{ResizeVm: &commandv1.ResizeVM{VmId: "vm-1", Flavor: "s2", Size: resources(2, 192, 2), MayStop: true, OperationId: "op-x", Deadline: deadline}}}
	snapshot := &commandv1.Command{Body: &commandv1.Command_CreateSnapshot{CreateSnapshot: &commandv1.CreateSnapshot{
		Snapshot: &apiv1.Snapshot{Id: "s-1", Name: "before", VmId: "vm-1"}, MayStop: true, OperationId: "op-x", Deadline: deadline}}}
	ready := func(p *plane) {
		p.write(func(tx *state.Tx) error {
			return tx.Snapshots.Put(&apiv1.Snapshot{Id: "s-1", Name: "before", Vm: "web-1", VmId: "vm-1", ProjectId: "p-shop", ZoneId: "z-business", State: apiv1.Snapshot_READY})
		})
	}
	const person, token, certificate = "user:ann", "token:ci", "spiffe://example.test/admin/x"
	for title, x := range map[string]struct {
		before     func(*plane)
		do         *commandv1.Command
		permission string
		kind       apiv1.RequestKind_Value
		says       []string
	}{
		"vm.create":   {nil, createVM(2), "vm.create", apiv1.RequestKind_CREATE, []string{"s1"}},
		"vm.start":    {func(p *plane) { p.accept(desire(1, apiv1.VM_STOPPED, "op-0")) }, directly("vm.start", "op-x", apiv1.VM_RUNNING, nil), "vm.start", apiv1.RequestKind_POWER, []string{"verb:START"}},
		"vm.stop":     {nil, directly("vm.stop", "op-x", apiv1.VM_STOPPED, func(in *commandv1.SetVMDesired) { in.Force = true }), "vm.stop", apiv1.RequestKind_POWER, []string{"verb:STOP", "force:true"}},
		"vm.reboot":   {nil, reboot, "vm.reboot", apiv1.RequestKind_POWER, []string{"verb:REBOOT", "force:true"}},
		"vm.resize":   {nil, resize, "vm.resize", apiv1.RequestKind_RESIZE, []string{`flavor:"s2"`, "memory_mib:192", "size_before", "memory_mib:96", "may_stop:true"}},
		"vm.snapshot": {nil, snapshot, "snapshot.create", apiv1.RequestKind_SNAPSHOT, []string{`name:"before"`, `snapshot_id:"s-1"`}},
		"vm.drop-snapshot": {ready, &commandv1.Command{Body: &commandv1.Command_DeleteSnapshot{DeleteSnapshot: &commandv1.DeleteSnapshot{SnapshotId: "s-1", OperationId: "op-x", Deadline: deadline}}},
			"snapshot.delete", apiv1.RequestKind_DELETE, []string{`snapshot:"before"`}},
		"vm.restore": {ready, &commandv1.Command{Body: &commandv1.Command_RestoreSnapshot{RestoreSnapshot: &commandv1.RestoreSnapshot{SnapshotId: "s-1", OperationId: "op-x", Deadline: deadline}}},
			"snapshot.restore", apiv1.RequestKind_RESTORE, []string{`snapshot:"before"`}},
		"vm.trash": {nil, directly("vm.trash", "op-x", apiv1.VM_TRASHED, func(in *commandv1.SetVMDesired) { in.DeleteAt = timestamppb.New(start.Add(days(3))) }), "vm.trash", apiv1.RequestKind_RECLAIM, []string{"keep_days:3"}},
		"vm.untrash": {func(p *plane) {
			p.accept(directly("vm.trash", "op-0", apiv1.VM_TRASHED, func(in *commandv1.SetVMDesired) { in.DeleteAt = timestamppb.New(start.Add(days(3))) }))
		}, directly("vm.untrash", "op-x", apiv1.VM_STOPPED, func(in *commandv1.SetVMDesired) { in.Untrash = true }), "vm.untrash", apiv1.RequestKind_RESTORE, nil},
		"vm.delete": {nil, directly("vm.delete", "op-x", apiv1.VM_DELETED, nil), "vm.delete", apiv1.RequestKind_DELETE, []string{`vm:"web-1"`}},
	} {
		for actor, is := range map[string]struct {
			origin   *commandv1.Origin
			name, id string
			allowed  string
		}{
			person:      {&commandv1.Origin{ActorId: "u-ann", SessionId: "s-ann", Strength: apiv1.Session_PASSWORD, ZoneId: "z-business"}, "ann", "u-ann", "user:ann"},
			token:       {&commandv1.Origin{ActorId: "t-ci"}, "ci", "u-ci", "token:ci"},
			certificate: {&commandv1.Origin{ActorId: "a-x", Strength: apiv1.Session_CERTIFICATE, Key: "SHA256:x"}, "admin:x", "a-x", "admin:x"},
		} {
			t.Run(title+" by "+actor, func(t *testing.T) {
				p := callers(t)
				p.accept(&commandv1.Command{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-s2", Name: "s2", Cores: 2, MemoryMib: 192, DiskGib: 2}}}})
				p.accept(createVM(1))
				p.usable(1)
				if x.before != nil {
					x.before(p)
				}
				known := len(p.standards())
				op := p.accept(by(actor, is.origin, proto.CloneOf(x.do))).GetOperation()
				m := p.recorded(known + 1)
				if m.GetTitle() != title || m.GetKind() != x.kind || m.GetIntake() != apiv1.Intake_DIRECT || m.GetChangeType() != apiv1.ChangeType_STANDARD ||
					m.GetApproval() != apiv1.Request_APPROVED || m.GetFulfilment() != apiv1.Request_EXECUTING || m.GetApprovalReason() != x.permission+" is permitted to "+is.allowed ||
					m.GetRequester() != is.name || m.GetRequesterId() != is.id || m.GetProjectId() != "p-shop" || m.GetOrganizationId() != "o-home" || m.GetZoneId() != "z-business" ||
					m.GetSourceZoneId() != is.origin.GetZoneId() || m.GetSourceZone() != strings.TrimPrefix(is.origin.GetZoneId(), "z-") {
					t.Errorf("the record is %v", m)
				}
				if len(m.GetParts()) != 1 || m.GetParts()[0].GetVmId() != op.GetTarget().GetId() || m.GetParts()[0].GetName() != op.GetTarget().GetName() || !slices.Equal(m.GetOperations(), []string{op.GetId()}) {
					t.Errorf("it is about %v by %v, not %v", m.GetParts(), m.GetOperations(), op)
				}
				said := strings.ReplaceAll(m.GetSpecification().String(), " ", "")
				for _, words := range x.says {
					if !strings.Contains(said, words) {
						t.Errorf("it does not say %s: %s", words, said)
					}
				}
				p.accept(resolve(op.GetId(), apiv1.ResolveOperationRequest_FAIL))
				if m := p.recorded(known + 1); m.GetFulfilment() != apiv1.Request_FAILED || !strings.Contains(m.GetFulfilmentReason(), "seen by eye") {
					t.Errorf("its operation failed, and it is %v", m)
				}
			})
		}
	}
}

func TestARecordEndsWithItsOperationAndNobodyIsTold(t *testing.T) {
	p := inUse(t)
	made := p.recorded(1)
	p.view(func(tx *state.Tx) {
		if _, err := tx.RequestWork(made.GetOperations()[0]); err != state.ErrNotFound {
			t.Errorf("the tie of what is done is kept: %v", err)
		}
	})
	if m := made; m.GetFulfilment() != apiv1.Request_DONE || m.GetFulfilledAt() == nil || !m.GetParts()[0].GetDone() {
		t.Errorf("the creation: %v", m)
	}
	p.accept(directly("vm.stop", "op-stop", apiv1.VM_STOPPED, nil))
	p.accept(directly("vm.start", "op-start", apiv1.VM_RUNNING, nil))
	p.ends(2, "op-start", nil) // and with it what never reached the zone
	p.answers(1, apiv1.VM_RUNNING, resources(1, 96, 1))
	all := p.standards()
	if all[1].GetFulfilment() != apiv1.Request_FAILED || !strings.Contains(all[1].GetFulfilmentReason(), "newer request") || all[2].GetFulfilment() != apiv1.Request_DONE {
		t.Errorf("%v\n%v", all[1], all[2])
	}
	p.accept(directly("vm.stop", "op-late", apiv1.VM_STOPPED, nil))
	p.now = start.Add(2 * time.Hour)
	p.accept(expire("op-late"))
	if m := p.recorded(4); m.GetFulfilment() != apiv1.Request_FAILED {
		t.Errorf("what was not done in time: %v", m)
	}
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Notifications.All(nil) {
			t.Errorf("somebody is told: %v, %v", m, err)
		}
		if notices, err := tx.Notices("", 10); err != nil || len(notices) > 0 {
			t.Errorf("somebody is to be told: %v, %v", notices, err)
		}
	})
	for kind, n := range p.events() {
		if strings.HasPrefix(kind, "request.") {
			t.Errorf("%d events %s", n, kind)
		}
	}
}

// What an answer is to that asks for what is under way already changes nothing, and so it is with what is refused.
func TestWhatChangesNothingIsNotRecorded(t *testing.T) {
	p := inUse(t)
	p.accept(directly("vm.delete", "op-1", apiv1.VM_DELETED, nil))
	p.accept(directly("vm.delete", "op-2", apiv1.VM_DELETED, nil)) // answered by the first
	p.refuse(problem.WrongState, directly("vm.start", "op-3", apiv1.VM_RUNNING, nil))
	p.recorded(2)
}

func TestEachStepOfALeaseThatChangesItsVMIsRecorded(t *testing.T) {
	p := leased(t)
	m := p.leaseOf()
	p.now = m.GetWarnAt().AsTime()
	p.accept(p.pass(commandv1.PassLease_WARN)) // changes no VM
	p.recorded(1)
	for i, step := range []struct {
		take  commandv1.PassLease_Step
		title string
	}{{commandv1.PassLease_EXPIRE, "vm.stop"}, {commandv1.PassLease_TRASH, "vm.trash"}} {
		p.now = p.now.Add(days(8))
		p.accept(p.pass(step.take))
		r := p.recorded(2 + i)
		if r.GetIntake() != apiv1.Intake_LEASE || r.GetTitle() != step.title || r.GetRequester() != "controller:lease" || !strings.HasPrefix(r.GetApprovalReason(), "its lease ended on 2026-12-") {
			t.Errorf("%v", r)
		}
	}
	p.now = p.now.Add(days(8))
	p.accept(&commandv1.Command{Actor: "upkeep", Body: &commandv1.Command_EmptyTrash{EmptyTrash: &commandv1.EmptyTrash{VmIds: []string{"vm-1"}, Deadline: timestamppb.New(p.now.Add(time.Hour))}}})
	if r := p.recorded(4); r.GetIntake() != apiv1.Intake_LEASE || r.GetTitle() != "vm.delete" || r.GetKind() != apiv1.RequestKind_DELETE || !strings.HasPrefix(r.GetApprovalReason(), "its lease ended on 2026-12-") {
		t.Errorf("%v", r)
	}
}

func TestWhatLayInTheTrashWithoutALeaseIsDeletedByTheClock(t *testing.T) {
	p := inUse(t)
	p.accept(createVM(2))
	p.usable(2)
	for n := 1; n <= 2; n++ {
		c := desire(n, apiv1.VM_TRASHED, fmt.Sprint("op-trash-", n))
		c.GetSetVmDesired().DeleteAt = timestamppb.New(p.now.Add(time.Hour))
		p.accept(c)
	}
	p.now = p.now.Add(2 * time.Hour)
	p.accept(&commandv1.Command{Actor: "upkeep", Body: &commandv1.Command_EmptyTrash{EmptyTrash: &commandv1.EmptyTrash{VmIds: []string{"vm-1", "vm-2"}, Deadline: timestamppb.New(p.now.Add(time.Hour))}}})
	all := p.standards()
	for i, r := range all[len(all)-2:] {
		if r.GetIntake() != apiv1.Intake_LEASE || r.GetApprovalReason() != "its time in the trash is over" || r.GetParts()[0].GetVmId() != fmt.Sprint("vm-", i+1) {
			t.Errorf("%v", r)
		}
	}
}

func TestWhatAZoneDidWhileItWasCutOffIsRecordedWithWhatCameOfIt(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	p.accept(journal("inc-1", "zone", overrides(2, "o-1", apiv1.VM_STOPPED, before)))
	m := p.recorded(2)
	if m.GetIntake() != apiv1.Intake_ZONE || m.GetRequester() != "zone:business" || m.GetRequesterId() != "" || m.GetApprovalReason() != "overridden by kim in zone business, which was cut off" || m.GetFulfilment() != apiv1.Request_EXECUTING {
		t.Errorf("%v", m)
	}
	// Two upon it at once, of which the last one stays.
	p.accept(journal("inc-1", "zone", overrides(3, "o-2", apiv1.VM_RUNNING, before), overrides(4, "o-3", apiv1.VM_STOPPED, before)))
	p.answers(1, apiv1.VM_STOPPED, resources(1, 96, 1))
	p.ends(5, "o-3", nil)
	all := p.standards()
	if len(all) != 4 {
		t.Fatalf("%v", all)
	}
	for i, want := range []apiv1.Request_Fulfilment{apiv1.Request_DONE, apiv1.Request_FAILED, apiv1.Request_FAILED, apiv1.Request_DONE} {
		if all[i].GetFulfilment() != want {
			t.Errorf("record %d: %v", i, all[i])
		}
	}
	if !strings.Contains(all[1].GetFulfilmentReason(), "took this one's place") || !strings.Contains(all[2].GetFulfilmentReason(), "took this one's place") {
		t.Errorf("%v\n%v", all[1], all[2])
	}
	p.accept(directly("vm.start", "op-9", apiv1.VM_RUNNING, nil))
	p.accept(directly("vm.stop", "op-10", apiv1.VM_STOPPED, nil))
	p.accept(directly("vm.start", "op-11", apiv1.VM_RUNNING, nil))
	p.accept(journal("inc-1", "zone", overrides(6, "o-4", apiv1.VM_STOPPED, before)))
	if n := len(p.standards()); n != 7 {
		t.Errorf("one that is not held to is recorded: %d records", n)
	}
}

// TestP15RecordsOfWhatAZoneSaysItDidAreBounded, also where the oldest is still being done.
func TestP15RecordsOfWhatAZoneSaysItDidAreBounded(t *testing.T) {
	p := inUse(t)
	before := p.vm(1).GetGeneration()
	const bound, more = 10_000, 300
	wanted := map[bool]apiv1.VM_State{true: apiv1.VM_STOPPED, false: apiv1.VM_RUNNING}
	for seq := uint64(2); seq < 2+bound+more; {
		var entries []*linkv1.JournalEntry
		for ; seq < 2+bound+more && len(entries) < 256; seq++ {
			entries = append(entries, overrides(seq, fmt.Sprint("o-", seq), wanted[seq%2 == 0], before))
		}
		p.accept(journal("inc-1", "zone", entries...))
	}
	n := 0
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Requests.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			if m.GetIntake() == apiv1.Intake_ZONE {
				n++
			}
		}
	})
	if n != bound {
		t.Errorf("%d records of a zone that was cut off are kept", n)
	}
}

func TestWhatARequestHasCarriedOutHasNoSecondRecord(t *testing.T) {
	for kind, what := range map[apiv1.RequestKind_Value]*apiv1.RequestSpecification{
		apiv1.RequestKind_SNAPSHOT: aSnapshot(), apiv1.RequestKind_RECLAIM: aReclaim(),
		apiv1.RequestKind_POWER: {What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: "web-1", VmId: "vm-1", Verb: apiv1.PowerVM_STOP}}},
	} {
		p := asking(t, kind, what)
		p.once("r", "1")
		if m := p.recorded(1); m.GetTitle() != "vm.create" {
			t.Errorf("%v: %v", kind, m)
		}
	}
}

func TestARecordTakesNoDecisionAndNothingElseThatRequestsTake(t *testing.T) {
	p := inUse(t)
	for _, name := range []string{"ann", "bob"} {
		p.accept(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
			Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: "home", OrganizationId: "o-home"}}}})
	}
	session := &commandv1.Origin{ActorId: "u-ann", SessionId: p.inSession("ann"), Strength: apiv1.Session_PASSWORD}
	p.accept(by("user:ann", session, directly("vm.stop", "op-1", apiv1.VM_STOPPED, nil)))
	p.accept(resolve("op-1", apiv1.ResolveOperationRequest_FAIL)) // what failed is what could be tried again
	m := p.recorded(2)
	for what, c := range map[string]*commandv1.Command{
		"decided on":        p.vote(m.GetId(), "bob", "review", apiv1.Decision_APPROVE, nil),
		"withdrawn":         {Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: m.GetId(), By: who("ann")}}},
		"carried out again": {Body: &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: m.GetId()}}},
		"changed":           {Body: &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: m, By: who("ann")}}},
		"deleted":           {Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: m.GetId()}}},
		"submitted": {Body: &commandv1.Command_SubmitRequest{SubmitRequest: &commandv1.SubmitRequest{Request: func() *apiv1.Request {
			again := proto.CloneOf(m)
			again.Frozen, again.FrozenHash = []byte{1}, digest("\x01")
			return again
		}(), ExpectedRevision: m.GetRevision(), By: who("ann")}}},
		"lapsed": {Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: m.GetId(), ExpectedRevision: m.GetRevision(), What: commandv1.PassRequest_LAPSE}}},
	} {
		if got := p.refuse(problem.WrongState, c).GetDetail(); got != "request "+m.GetName()+" is the record of what was done without a request, and cannot be "+what {
			t.Errorf("%s: %q", what, got)
		}
	}
	p.refuse(problem.Invalid, &commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: &apiv1.Request{Id: "forged", Intake: apiv1.Intake_LEASE,
		Requester: "ann", RequesterId: "u-ann", Project: "shop", ProjectId: "p-shop"}}}})
	p.view(func(tx *state.Tx) {
		open, err1 := tx.OpenRequests("", 10)
		awaited, err2 := tx.AwaitedRequests(state.Awaited{}, 10)
		own, err3 := tx.RequestsOf("u-ann")
		in, err4 := tx.RequestsIn("p-shop")
		holding, err5 := tx.Holding("p-shop")
		if len(open)+len(awaited)+len(holding) > 0 || own != (state.Standing{}) || in != (state.Standing{}) || err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
			t.Errorf("a record is open %v, awaited %v, counts as %v and %v, holds %v", open, awaited, own, in, holding)
		}
	})
}

func TestRequestsAreFoundByTheVMsThatTheyAreAbout(t *testing.T) {
	p := asking(t, apiv1.RequestKind_SNAPSHOT, aSnapshot())
	p.accept(createVM(11))
	find := func(filter string) (names []string) {
		p.view(func(tx *state.Tx) {
			found, _, err := tx.Requests.List(state.Query{Filter: filter, OrderBy: "created_at"})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range found {
				names = append(names, m.GetName())
			}
			holds, err := tx.Requests.Matcher(filter)
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range tx.Requests.All(nil) {
				if err != nil || holds(m) != slices.Contains(names, m.GetName()) {
					t.Errorf("%s: a watch sees %s otherwise than the list, %v", filter, m.GetName(), err)
				}
			}
		})
		return names
	}
	for filter, want := range map[string][]string{
		"vm=web-1": {"r-1", "r-2"}, "vm=vm-1": {"r-1", "r-2"}, "vm=web-11": {"r-3"}, "vm!=web-1": {"r-3"}, "vm=web": nil,
		"vm=web-1 AND asked=true": {"r-2"}, "change_type=standard": {"r-1", "r-3"}, "intake=direct AND zone=business": {"r-1", "r-3"},
	} {
		if got := find(filter); !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v", filter, got, want)
		}
	}
	p.view(func(tx *state.Tx) {
		for _, filter := range []string{"vm~web", "vm<web-1"} {
			if _, _, err := tx.Requests.List(state.Query{Filter: filter}); !problem.Is(err, problem.Invalid) {
				t.Errorf("%s: %v", filter, err)
			}
		}
		for _, without := range [][]string{{"parts", "parts.name"}, {"parts", "parts.error"}} {
			shown := !slices.Contains(without, "parts.name")
			if _, _, err := tx.Requests.Without(without...).List(state.Query{Filter: "vm=web-1"}); shown != (err == nil) || !shown && !strings.Contains(problem.Of(err).GetDetail(), "does not show it") {
				t.Errorf("without %v they are looked for by VM: %v", without, err)
			}
		}
	})
}

func TestRecordsAreForgottenByAgeAndRequestsAreNot(t *testing.T) {
	p := asking(t, apiv1.RequestKind_SNAPSHOT, aSnapshot())
	first := p.recorded(1)
	p.accept(&commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: &commandv1.CommentRequest{RequestId: first.GetId(),
		Comment: &apiv1.Comment{Id: "c", Author: "bob", AuthorId: "u-bob", Text: "CHG-7"}}}})
	p.accept(directly("vm.stop", "op-1", apiv1.VM_STOPPED, nil)) // goes on
	before := p.now.Add(time.Second)
	p.now = before
	p.accept(directly("vm.start", "op-2", apiv1.VM_RUNNING, nil))
	p.accept(resolve("op-2", apiv1.ResolveOperationRequest_SUCCEED))
	prune := &commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{RecordsBefore: timestamppb.New(before)}}}
	p.accept(prune)
	if all := p.standards(); len(all) != 2 || all[0].GetOperations()[0] != "op-1" || all[1].GetOperations()[0] != "op-2" {
		t.Errorf("left are %v", all)
	}
	p.view(func(tx *state.Tx) {
		if said, err := tx.Comments(first.GetId(), "", 10); err != nil || len(said) > 0 {
			t.Errorf("what was said of it is kept: %v, %v", said, err)
		}
	})
	p.accept(resolve("op-1", apiv1.ResolveOperationRequest_SUCCEED))
	p.accept(prune)
	if all := p.standards(); len(all) != 1 || p.request("r") == nil {
		t.Errorf("left are %v", all)
	}
}
