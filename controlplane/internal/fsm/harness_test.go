package fsm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// start is when the tests' clock begins.
var start = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

// tb is what testing.T, testing.B and rapid.T have in common here.
type tb interface {
	Helper()
	Error(...any)
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
	Cleanup(func())
}

// plane is a machine with a log of its own.
type plane struct {
	tb
	db      *state.DB
	machine *fsm.Machine
	path    string
	log     []fsm.Entry
	offset  uint64 // entries before log
	now     time.Time
	made    uint64
}

func empty(t tb) *plane {
	t.Helper()
	dir, err := os.MkdirTemp("", "fsm-test-")
	if err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(filepath.Join(dir, "state.db"), state.Options{ServerID: "server-1", Readers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return &plane{tb: t, db: db, path: filepath.Join(dir, "state.db"), machine: fsm.New(db), now: start}
}

// bootstrapped is a plane with a federation and nothing in it.
func bootstrapped(t tb) *plane {
	p := empty(t)
	p.accept(bootstrap())
	return p
}

// furnished is a plane with a zone that an agent has joined, a cluster, a host, a flavor, an image, an organization and a project.
func furnished(t tb) *plane {
	p := bootstrapped(t)
	for _, c := range furniture() {
		p.accept(c)
	}
	return p
}

func bootstrap() *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_Bootstrap{Bootstrap: &commandv1.Bootstrap{
		Federation: "example.test", Epoch: 7, EpochId: bytes.Repeat([]byte{7}, 16),
		Keyring: &commandv1.Keyring{Authorities: []*commandv1.Authority{{Role: "root"}}},
		Server:  &apiv1.Server{Id: "server-1", Name: "one"},
	}}}
}

func furniture() []*commandv1.Command {
	return []*commandv1.Command{
		createZone("business"),
		createOrganization("home", ""),
		{Body: &commandv1.Command_CreateCluster{CreateCluster: &commandv1.CreateCluster{Cluster: &apiv1.Cluster{
			Id: "c-kvm", Name: "kvm", Zone: "business", ZoneId: "z-business", Hypervisor: "sim"}}}},
		{Body: &commandv1.Command_CreateHost{CreateHost: &commandv1.CreateHost{Host: &apiv1.Host{
			Id: "h-1", Name: "kvm-1", Zone: "business", ZoneId: "z-business", Cluster: "kvm", ClusterId: "c-kvm", Endpoint: "sim://"}}}},
		{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{
			Id: "f-s1", Name: "s1", Cores: 1, MemoryMib: 96, DiskGib: 1}}}},
		{Body: &commandv1.Command_CreateImage{CreateImage: &commandv1.CreateImage{Image: &apiv1.Image{
			Id: "i-tiny", Name: "tiny", Sha256: "ab"}}}},
		{Body: &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{Project: &apiv1.Project{
			Id: "p-shop", Name: "shop", Organization: "home", OrganizationId: "o-home"}}}},
	}
}

func createZone(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateZone{CreateZone: &commandv1.CreateZone{Zone: &apiv1.Zone{
		Id: "z-" + name, Name: name, Kind: name}}}}
}

// web is a VM as a proposer sends it.
func web(n int) *apiv1.VM {
	return &apiv1.VM{
		Id: fmt.Sprintf("vm-%d", n), Name: fmt.Sprintf("web-%d", n), Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business",
		Cluster: "kvm", ClusterId: "c-kvm", Flavor: "s1", Image: "tiny", ImageSha256: "ab", Size: &apiv1.Resources{Cores: 1, MemoryMib: 96, DiskGib: 1},
	}
}

func createVM(n int) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateVm{CreateVm: &commandv1.CreateVM{
		Vm: web(n), OperationId: fmt.Sprintf("op-create-%d", n), Deadline: timestamppb.New(start.Add(time.Hour))}}}
}

func desire(n int, s apiv1.VM_State, operation string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_SetVmDesired{SetVmDesired: &commandv1.SetVMDesired{
		VmId: fmt.Sprintf("vm-%d", n), Desired: s, OperationId: operation, Kind: "vm.set", Deadline: timestamppb.New(start.Add(time.Hour))}}}
}

func expire(operations ...string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ExpireOperations{ExpireOperations: &commandv1.ExpireOperations{OperationIds: operations}}}
}

func resolve(operation string, o apiv1.ResolveOperationRequest_Outcome) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
		OperationId: operation, Outcome: o, Reason: "seen by eye"}}}
}

// observe is a chunk that goes on from a point.
func observe(incarnation string, after, through uint64, objects ...*linkv1.Object) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_Observe{Observe: &commandv1.Observe{ZoneId: "z-business", Chunk: &linkv1.StateChunk{
		Incarnation: incarnation, After: after, Through: through, Objects: objects}}}}
}

// sync is a chunk of a full sync.
func fullSync(end bool, incarnation string, after, through uint64, objects ...*linkv1.Object) *commandv1.Command {
	c := observe(incarnation, after, through, objects...)
	c.GetObserve().GetChunk().Full, c.GetObserve().GetChunk().End = true, end
	return c
}

// seen is what a zone reports of a VM.
func seen(n int, s apiv1.VM_State, power apiv1.VM_Power) *linkv1.Object {
	return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{Id: fmt.Sprintf("vm-%d", n), Name: fmt.Sprintf("web-%d", n),
		State: s, Power: power, Host: "kvm-1", HostId: "h-1", HostFreshness: apiv1.Freshness_LIVE, Reached: &apiv1.Generation{Epoch: 7, Index: 1}}}}
}

func tombstone(n int) *linkv1.Object {
	return &linkv1.Object{Revision: 1, Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{
		Noun: &apiv1.Reference{Kind: "vm", Id: fmt.Sprintf("vm-%d", n)}}}}
}

func journal(origin, stream string, entries ...*linkv1.JournalEntry) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: "z-business",
		Batch: &linkv1.JournalBatch{Origin: origin, Stream: stream, Entries: entries}}}}
}

func happened(seq uint64, id string) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Sequence: seq, Time: timestamppb.New(start), Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: id, Time: timestamppb.New(start), Type: "host.down", Message: id}}}
}

func session(id byte, connected bool) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
		ZoneId: "z-business", Session: bytes.Repeat([]byte{id}, 16), Connected: connected, Agent: "a", ServerId: "server-1", Incarnation: "inc-1"}}}
}

// entry makes the next entry of the log: with an id, a stamp and an actor where the command has none.
func (p *plane) entry(c *commandv1.Command) fsm.Entry {
	p.made++
	p.now = p.now.Add(time.Second)
	if c.GetId() == nil {
		c.Id = commandID(p.now, p.made)
	}
	if c.GetStamp() == nil {
		c.Stamp = timestamppb.New(p.now)
	}
	if c.GetActor() == "" {
		c.Actor = "spiffe://example.test/admin/ann"
	}
	data, err := proto.Marshal(c)
	if err != nil {
		p.Fatal(err)
	}
	return p.raw(data)
}

func (p *plane) raw(data []byte) fsm.Entry {
	e := fsm.Entry{Index: p.offset + uint64(len(p.log)) + 1, Term: 1, Data: data}
	p.log = append(p.log, e)
	return e
}

// commandID is a UUIDv7.
func commandID(at time.Time, n uint64) []byte {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id, uint64(at.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], n<<16)
	id[6], id[8] = 0x70, 0x80
	return id
}

// apply appends a command to the log and applies it.
func (p *plane) apply(c *commandv1.Command) *commandv1.Result {
	p.Helper()
	results, err := p.machine.Apply([]fsm.Entry{p.entry(proto.CloneOf(c))})
	if err != nil {
		p.Fatal(err)
	}
	return results[0]
}

// accept applies a command that must be accepted.
func (p *plane) accept(c *commandv1.Command) *commandv1.Result {
	p.Helper()
	r := p.apply(c)
	if r.GetProblem() != nil {
		p.Fatalf("refused: %v", r.GetProblem())
	}
	return r
}

// refuse applies a command that must be refused with a code, and change nothing.
func (p *plane) refuse(code problem.Code, c *commandv1.Command) *apiv1.Problem {
	p.Helper()
	var before state.Meta
	p.view(func(tx *state.Tx) { before = tx.Meta() })
	r := p.apply(c)
	if r.GetProblem().GetCode() != string(code) {
		p.Fatalf("got %v, want %s", r, code)
	}
	if r.GetProblem().GetDetail() == "" {
		p.Errorf("the refusal %s says nothing", code)
	}
	p.view(func(tx *state.Tx) {
		if after := tx.Meta(); after.Revision != before.Revision || !after.LastStamp.Equal(before.LastStamp) {
			p.Errorf("a refused command moved the state from %v to %v", before, after)
		}
	})
	return r.GetProblem()
}

func (p *plane) view(fn func(*state.Tx)) {
	p.Helper()
	err := p.db.View(context.Background(), func(tx *state.Tx) error {
		fn(tx)
		return nil
	})
	if err != nil {
		p.Fatal(err)
	}
}

func (p *plane) vm(n int) *apiv1.VM {
	p.Helper()
	var m *apiv1.VM
	p.view(func(tx *state.Tx) { m = get(p, tx.VMs, fmt.Sprintf("vm-%d", n)) })
	return m
}

func (p *plane) zone() *apiv1.Zone {
	p.Helper()
	var m *apiv1.Zone
	p.view(func(tx *state.Tx) { m = get(p, tx.Zones, "z-business") })
	return m
}

func (p *plane) operation(id string) *apiv1.Operation {
	p.Helper()
	var m *apiv1.Operation
	p.view(func(tx *state.Tx) { m = get(p, tx.Operations, id) })
	return m
}

// get returns a noun, or nil if there is none.
func get[M state.Noun](t tb, table state.Table[M], id string) M {
	t.Helper()
	m, err := table.Get(id)
	if err != nil && err != state.ErrNotFound {
		t.Fatal(err)
	}
	return m
}

// events returns how many events there are of each type.
func (p *plane) events() map[string]int {
	p.Helper()
	n := map[string]int{}
	p.view(func(tx *state.Tx) {
		for m, err := range tx.Events.All(nil) {
			if err != nil {
				p.Fatal(err)
			}
			n[m.GetType()]++
		}
	})
	return n
}

// desired returns what the zone should hold after a revision.
func (p *plane) desired(after uint64) (objects []*linkv1.Object) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if objects, _, _, err = tx.DesiredSince("z-business", after, 1000); err != nil {
			p.Fatal(err)
		}
	})
	return objects
}

// snapshot returns the bytes of a snapshot.
func (p *plane) snapshot() []byte {
	p.Helper()
	s, err := p.machine.Snapshot()
	if err != nil {
		p.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		p.Fatal(err)
	}
	return b.Bytes()
}
