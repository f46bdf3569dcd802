package fsm_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// audit returns the audit log from a sequence on.
func (p *plane) audit(from int) (entries []*apiv1.AuditEntry) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		leaves, err := tx.AuditLeaves(uint64(from), 100_000)
		if err != nil {
			p.Fatal(err)
		}
		for _, l := range leaves {
			e := &apiv1.AuditEntry{}
			if err := proto.Unmarshal(l.Leaf, e); err != nil {
				p.Fatal(err)
			}
			entries = append(entries, e)
		}
	})
	return entries
}

// members are all that a command can be.
func members() (all []protoreflect.FieldDescriptor) {
	fields := (&commandv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		all = append(all, fields.Get(i))
	}
	return all
}

// blank is a command with a member that says nothing.
func blank(member protoreflect.FieldDescriptor) *commandv1.Command {
	c := &commandv1.Command{Origin: &commandv1.Origin{ActorId: "a"}}
	c.ProtoReflect().Mutable(member)
	if r := c.GetRecordAudit(); r != nil {
		r.Entry = &apiv1.AuditEntry{Action: "session.log-in", Outcome: apiv1.AuditEntry_DONE}
	}
	return c
}

var (
	errAudit = errors.New("the audit log cannot be written")
	// decidedByNobody are the commands that leave no entry, and those whose entry stands for many of them.
	decidedByNobody = []string{"noop", "acknowledge_desired", "acknowledge_journal", "record_event", "sign_audit", "offer_audit", "address_notices", "settle_delivery"}
	reports         = []string{"observe", "append_journal", "consume_withheld", "set_zone_session", "set_zone_condition"}
)

// TestP7NoEntryNoEffect puts each kind of command through a machine on which it has an effect. Its entry is written in the same
// transaction; where that cannot be, there is no effect. A kind that is added leaves an entry unless it is said here that it does not.
func TestP7NoEntryNoEffect(t *testing.T) {
	effect := func(tx *state.Tx, in *commandv1.Command) (*commandv1.Result, error) {
		m := tx.Meta()
		m.Revision++
		tx.SetMeta(m)
		return &commandv1.Result{}, tx.Projects.Put(&apiv1.Project{Id: fmt.Sprintf("%x", in.GetId()), Name: fmt.Sprintf("p%x", in.GetId())})
	}
	for _, member := range members() {
		name := string(member.Name())
		p := furnished(t)
		machine := fsm.WithRun(p.db, effect)
		before, projects := p.snapshot(), p.count("projects")
		e := p.entry(blank(member))
		audited := !slices.Contains(decidedByNobody, name) && !slices.Contains(reports, name)
		if audited {
			refusing := machine.WithAudit(func(*state.Tx, *apiv1.AuditEntry) error { return errAudit })
			if _, err := refusing.Apply([]fsm.Entry{e}); !errors.Is(err, errAudit) {
				t.Errorf("%s: without its entry it came to %v", name, err)
			}
			if string(p.snapshot()) != string(before) {
				t.Errorf("%s: without its entry it has changed the state", name)
			}
		}
		size := len(p.audit(0))
		if results, err := machine.Apply([]fsm.Entry{e}); err != nil || results[0].GetProblem() != nil {
			t.Fatal(name, results, err)
		}
		if p.count("projects") != projects+1 {
			t.Fatalf("%s: it has no effect that the test could see", name)
		}
		switch entries := p.audit(size); {
		case audited && (len(entries) != 1 || !regexp.MustCompile(`^[a-z-]+\.[a-z-]+$`).MatchString(entries[0].GetAction())):
			t.Errorf("%s: it left %v", name, entries)
		case !audited && len(entries) != 0:
			t.Errorf("%s: it left %v", name, entries)
		}
		// Once is enough: the same command again has neither effect nor entry.
		if _, err := machine.Apply([]fsm.Entry{p.raw(e.Data)}); err != nil || p.count("projects") != projects+1 {
			t.Fatal(name, err)
		}
		if audited && len(p.audit(size)) != 1 {
			t.Errorf("%s: repeated, it left another entry", name)
		}
	}
}

func (p *plane) count(table string) (n int) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		c, err := tx.Projects.Count(nil, "")
		if err != nil || table != "projects" {
			p.Fatal(err)
		}
		n = int(c)
	})
	return n
}

// TestP7ARefusalThatCannotBeWrittenIsNoRefusal either: nothing is answered.
func TestP7ARefusalThatCannotBeWrittenIsNoRefusal(t *testing.T) {
	p := furnished(t)
	c := createZone("business")
	c.Origin = &commandv1.Origin{}
	before := p.snapshot()
	refusing := p.machine.WithAudit(func(*state.Tx, *apiv1.AuditEntry) error { return errAudit })
	if _, err := refusing.Apply([]fsm.Entry{p.entry(c)}); !errors.Is(err, errAudit) || string(p.snapshot()) != string(before) {
		t.Fatal(err)
	}
}

func TestAnEntrySaysWhoDidWhatToWhat(t *testing.T) {
	p := furnished(t)
	p.accept(createVM(1))
	p.accept(createUser("kim"))
	p.accept(createAdministrator("ann", start.Add(24*time.Hour)))
	p.inSession("kim")
	from := len(p.audit(0))
	asked := func(c *commandv1.Command, actor string, o *commandv1.Origin) *commandv1.Command {
		c.Actor, c.Origin, c.TraceId = actor, o, "t1"
		return c
	}
	kim := &commandv1.Origin{ActorId: "u-kim", SessionId: "s-kim", ZoneId: "z-business", Strength: apiv1.Session_TWO_FACTORS}
	stop := desire(1, apiv1.VM_STOPPED, "op-stop")
	stop.GetSetVmDesired().Kind = "vm.stop"
	p.accept(asked(stop, "user:kim", kim))
	p.accept(asked(createZone("lab"), "spiffe://example.test/admin/ann", &commandv1.Origin{ActorId: "a-ann", Strength: apiv1.Session_CERTIFICATE, Key: "SHA256:ann"}))
	p.accept(asked(&commandv1.Command{Body: &commandv1.Command_DeleteHost{DeleteHost: &commandv1.DeleteNoun{Id: "h-1"}}}, "token:ci", &commandv1.Origin{}))
	p.accept(asked(&commandv1.Command{Body: &commandv1.Command_QuarantineZone{QuarantineZone: &commandv1.QuarantineZone{ZoneId: "z-lab", Reason: "it lies"}}}, "upkeep", nil))
	p.refuse(problem.Conflict, asked(createZone("lab"), "spiffe://example.test/admin/ann", &commandv1.Origin{ActorId: "a-ann", Strength: apiv1.Session_CERTIFICATE, Key: "SHA256:ann"}))
	var got []string
	for _, e := range p.audit(from) {
		got = append(got, fmt.Sprintf("%s %s %s %s:%s project=%s zone=%s via=%s %s %s", e.GetActor(), e.GetActorId(), e.GetAction(),
			e.GetTarget().GetKind(), e.GetTarget().GetName(), e.GetProject(), e.GetZone(), e.GetViaZone(), e.GetOutcome(), e.GetMessage()))
		if len(e.GetDigest()) != sha256.Size || e.GetTraceId() != "t1" || e.GetTime() == nil {
			t.Errorf("the entry lacks something: %v", e)
		}
	}
	want := []string{
		"user:kim u-kim vm.stop vm:web-1 project=shop zone=business via=business DONE ",
		"admin:ann a-ann zone.create zone:lab project= zone=lab via= DONE ",
		"token:ci  host.delete host:kvm-1 project= zone=business via= DONE ",
		"controller:upkeep  zone.quarantine zone:lab project= zone=lab via= DONE it lies",
		"admin:ann a-ann zone.create zone:lab project= zone=lab via= REFUSED the id z-lab is taken by another zone",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e := p.audit(from)[0]; e.GetSessionId() != "s-kim" || e.GetStrength() != apiv1.Session_TWO_FACTORS {
		t.Errorf("the first says nothing of its session: %v", e)
	}
}

// TestAnEntryNamesWhatItsCommandKnowsByAnIDAlone, with the project and zone that it is in, so that whoever reads the log of one place finds it;
// also where it is gone with the command.
func TestAnEntryNamesWhatItsCommandKnowsByAnIDAlone(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.accept(createZone("internet"))
	p.accept(createGroup("clerks"))
	p.accept(builtInRoles(1, "user"))
	p.accept(p.delegation("g", "bob", "cho", time.Hour))
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateCrossing{CreateCrossing: &commandv1.CreateCrossing{Crossing: &apiv1.Crossing{
		Id: "c", Project: "shop", ProjectId: "p-shop", SourceZone: "internet", SourceZoneId: "z-internet", Zone: "business", ZoneId: "z-business",
		Permissions: []string{"vm.start"}, EndsAt: timestamppb.New(p.now.Add(time.Hour))}}}})
	p.accept(give("b", "user", "bob", "project:shop", p.now.Add(time.Hour)))
	from := len(p.audit(0))
	for _, c := range []*commandv1.Command{
		resetPassword("ann"), enter("clerks", "bob"), leave("clerks", "bob"), joinToken("t", "zone"), shortenBinding("b", p.now.Add(time.Minute)), take("b"),
		{Body: &commandv1.Command_ShortenCrossing{ShortenCrossing: &commandv1.ShortenCrossing{CrossingId: "c", EndsAt: timestamppb.New(p.now.Add(time.Minute)), Reason: "enough"}}},
		{Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: "r", What: commandv1.PassRequest_STICK, Stage: "review", Reason: "bob is away"}}},
	} {
		p.accept(c)
	}
	var got []string
	for _, e := range p.audit(from) {
		got = append(got, fmt.Sprintf("%s %s %s project=%s zone=%s %s", e.GetAction(), e.GetTarget().GetKind(), e.GetTarget().GetName(), e.GetProjectId(), e.GetZoneId(), e.GetMessage()))
	}
	want := []string{
		"user.reset-password user ann project= zone= ",
		"group.add-member group clerks project= zone= user bob",
		"group.remove-member group clerks project= zone= user bob",
		"join-token.create zone business project= zone=z-business ",
		"role-binding.shorten role-binding bob/user project=p-shop zone= lee: the work is done",
		"role-binding.delete role-binding bob/user project=p-shop zone= ",
		"crossing.shorten crossing shop/internet/business project=p-shop zone=z-business enough",
		"request.stick request r-1 project=p-shop zone=z-business bob is away",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAFloodOfRefusalsCannotFillTheLog: not alike ones, and not those of many kinds; none is lost from the counts, and another
// zone's are still told apart.
func TestAFloodOfRefusalsCannotFillTheLog(t *testing.T) {
	const flood = 5000
	p := furnished(t)
	from := len(p.audit(0))
	refused := func(n int, actor, via string) *commandv1.Command {
		return &commandv1.Command{Actor: actor, Origin: &commandv1.Origin{ZoneId: via}, Stamp: timestamppb.New(start.Add(time.Duration(n) * 10 * time.Millisecond)),
			Body: &commandv1.Command_RecordAudit{RecordAudit: &commandv1.RecordAudit{Entry: &apiv1.AuditEntry{
				Action: "vm.get", Outcome: apiv1.AuditEntry_REFUSED, ProblemCode: "FORBIDDEN"}}}}
	}
	for n := range flood {
		p.accept(refused(n, fmt.Sprintf("user:guess-%d", n/2), "z-business"))
	}
	p.accept(refused(flood, "user:kim", ""))
	entries := p.audit(from)
	if len(entries) > 150 {
		t.Fatalf("%d refusals within a minute have left %d entries", flood, len(entries))
	}
	if last := entries[len(entries)-1]; last.GetActor() != "user:kim" {
		t.Errorf("the flood at a zone's edge has drowned what came in the control network: %v", last)
	}
	prune := &commandv1.Command{Actor: "upkeep", Stamp: timestamppb.New(start.Add(time.Hour)), Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}}
	p.accept(prune)
	total := uint32(0)
	for _, e := range p.audit(from) {
		if e.GetOutcome() == apiv1.AuditEntry_REFUSED {
			total += max(e.GetCount(), 1)
		}
	}
	if total != flood+1 {
		t.Errorf("the log accounts for %d of %d refusals", total, flood+1)
	}
}

// TestSlipsDoNotCrowdOutWhatSomebodyTries: those of many people, each a kind of its own, leave room for who has no right to something.
func TestSlipsDoNotCrowdOutWhatSomebodyTries(t *testing.T) {
	p := furnished(t)
	refused := func(actor, code string) {
		p.accept(&commandv1.Command{Actor: actor, Stamp: timestamppb.New(start), Body: &commandv1.Command_RecordAudit{RecordAudit: &commandv1.RecordAudit{
			Entry: &apiv1.AuditEntry{Action: "vm.stop", Outcome: apiv1.AuditEntry_REFUSED, ProblemCode: code}}}})
	}
	for n := range 200 {
		refused(fmt.Sprintf("user:someone-%d", n), "WRONG_STATE")
	}
	refused("user:mallory", "FORBIDDEN")
	all := p.audit(0)
	if last := all[len(all)-1]; last.GetActor() != "user:mallory" || last.GetAction() != "vm.stop" {
		t.Errorf("what mallory has tried is told as %v", last)
	}
}

// TestReportsOfAZoneAreOneEntryAMinute with a digest in which each of them is.
func TestReportsOfAZoneAreOneEntryAMinute(t *testing.T) {
	p := furnished(t)
	from := len(p.audit(0))
	digest, count := make([]byte, sha256.Size), 0
	for n := range 90 { // one a second
		e := p.entry(journal("inc-1", "c-kvm", happened(uint64(n)+1, fmt.Sprintf("ev-%d", n))))
		if results, err := p.machine.Apply([]fsm.Entry{e}); err != nil || results[0].GetProblem() != nil {
			t.Fatal(results, err)
		}
		if entries := p.audit(from); len(entries) == 0 {
			h := sha256.New()
			h.Write(digest)
			h.Write(e.Data)
			digest, count = h.Sum(nil), count+1
		}
	}
	entries := p.audit(from)
	if len(entries) != 1 {
		t.Fatalf("ninety seconds have left %d entries", len(entries))
	}
	e := entries[0]
	if e.GetActor() != "zone:business" || e.GetAction() != "zone.report" || int(e.GetCount()) != count || string(e.GetDigest()) != string(digest) {
		t.Errorf("the entry is %v, want %d with digest %x", e, count, digest)
	}
	p.accept(&commandv1.Command{Actor: "upkeep", Stamp: timestamppb.New(p.now.Add(time.Hour)), Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{}}})
	if entries := p.audit(from); len(entries) != 3 || int(entries[1].GetCount()) != 90-count {
		t.Errorf("the rest is not settled: %v", entries)
	}
}

func TestACheckpointIsOfTheLogAsItIs(t *testing.T) {
	p := furnished(t)
	checkpoint := func(size int, change func(*apiv1.AuditCheckpoint)) *commandv1.Command {
		c := &apiv1.AuditCheckpoint{Size: fmt.Sprint(size), Time: timestamppb.New(start), Note: "note"}
		p.view(func(tx *state.Tx) {
			if root, err := tx.AuditRoot(uint64(min(size, 6))); err == nil {
				c.Root = root[:]
			}
		})
		change(c)
		return &commandv1.Command{Actor: "audit", Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: c}}}
	}
	as := func(*apiv1.AuditCheckpoint) {}
	size := len(p.audit(0))
	p.accept(checkpoint(5, as))
	p.refuse(problem.Conflict, checkpoint(size+1, as))
	p.refuse(problem.Conflict, checkpoint(4, func(c *apiv1.AuditCheckpoint) { c.Root[3] ^= 1 }))
	p.refuse(problem.Invalid, checkpoint(4, func(c *apiv1.AuditCheckpoint) { c.Note = "" }))
	if len(p.audit(0)) != size {
		t.Error("a checkpoint makes the log grow, so that another is due")
	}
}

func TestTheKeyOfTheAuditLogIsReplacedOnPurpose(t *testing.T) {
	p := furnished(t)
	add := func(key, after string) *commandv1.Command {
		return &commandv1.Command{Actor: "audit", Body: &commandv1.Command_AddAuditKey{AddAuditKey: &commandv1.AddAuditKey{
			Key: &commandv1.AuditKey{PublicKey: key, SealedKey: []byte("sealed")}, After: after}}}
	}
	p.accept(add("k1", ""))
	p.refuse(problem.Conflict, add("k2", ""))
	p.accept(add("k2", "k1"))
	p.view(func(tx *state.Tx) {
		if ring, err := tx.Keyring(); err != nil || len(ring.GetAuditKeys()) != 2 || len(ring.GetAuthorities()) != 1 {
			t.Error(ring, err)
		}
	})
	if n := p.events()["audit.key"]; n != 2 {
		t.Errorf("people were told of %d keys", n)
	}
}

// TestAnEntrySaysOnWhichRequestSomebodyDecidedAndInWhosePlace, done or refused.
func TestAnEntrySaysOnWhichRequestSomebodyDecidedAndInWhosePlace(t *testing.T) {
	p := staffed(t)
	p.submitted("r", "review")
	p.accept(p.delegation("g", "bob", "cho", time.Hour))
	vote := p.vote("r", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
		in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
	})
	from := len(p.audit(0))
	p.accept(vote)
	p.refuse(problem.WrongState, vote)
	all := p.audit(from)
	if len(all) != 2 {
		t.Fatalf("%v", all)
	}
	for _, e := range all {
		if e.GetMessage() == "" || e.GetOutcome() == apiv1.AuditEntry_DONE && e.GetMessage() != "approve in stage review, for bob" {
			t.Errorf("it says %q", e.GetMessage())
		}
		if e.GetAction() != "request.decide" || e.GetTarget().GetId() != "r" || e.GetTarget().GetName() != "r-1" || e.GetProject() != "shop" || e.GetProjectId() != "p-shop" ||
			e.GetZone() != "business" || e.GetZoneId() != "z-business" || e.GetActingFor() != "user:bob" {
			t.Errorf("%v", e)
		}
	}
}
