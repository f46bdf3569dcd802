package replica

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// bureau is three servers with the real state machine, each of which carries requests out while it leads.
type bureau struct {
	*site
	machines  map[string]*fsm.Machine
	databases map[string]*state.DB
	quit      map[string]func()        // ends a server's controller
	turns     map[string]chan struct{} // whoever takes a server's turn holds up what it applies, until they give it back
	// dying gets the leader that is about to carry a request out, once; heard says whether its command goes out before it dies.
	dying chan *node
	heard bool
}

func newBureau(t *testing.T, heard bool) *bureau {
	b := &bureau{machines: map[string]*fsm.Machine{}, databases: map[string]*state.DB{}, quit: map[string]func(){}, turns: map[string]chan struct{}{}, dying: make(chan *node, 1), heard: heard}
	b.site = &site{t: t, weave: newEther().weave, tune: func(c *Config) {
		m, db := openMachine(t, c.Dir, c.ServerID)
		b.machines[c.ServerID], b.databases[c.ServerID] = m, db
		b.turns[c.ServerID] = make(chan struct{}, 1)
		b.turns[c.ServerID] <- struct{}{}
		c.Machine = inTurn{realMachine{m}, b.turns[c.ServerID]}
	}}
	for i := range 3 {
		n := b.add(fmt.Sprintf("server-%d", i+1))
		n.start()
		if i == 0 {
			check(t, n.Bootstrap())
			b.must(n, bootstrapCommand())
		} else {
			b.admit(n)
		}
	}
	return b
}

// inTurn is a machine that applies while it has its turn.
type inTurn struct {
	realMachine
	turn chan struct{}
}

func (m inTurn) Apply(entries []Entry) ([]*commandv1.Result, error) {
	<-m.turn
	defer func() { m.turn <- struct{}{} }()
	return m.realMachine.Apply(entries)
}

// serve has a server carry requests out in its terms; mortal, until it is about to.
func (b *bureau) serve(n *node, mortal bool) {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	r, db := n.Replica, b.databases[n.id]
	var by requests.Proposer = r
	if mortal {
		by = &mortalProposer{Replica: r, n: n, b: b}
	}
	c := requests.New(requests.Config{Reader: db, Proposer: by, Chooser: onlyCluster{}, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	go func() { ended <- r.WhileLeader(ctx, c.Run) }()
	b.quit[n.id] = func() { cancel(); <-ended }
}

// kill ends a server without a word to anybody.
func (b *bureau) kill(n *node) {
	b.t.Helper()
	if quit := b.quit[n.id]; quit != nil {
		quit()
	}
	n.crash()
	check(b.t, b.databases[n.id].Close())
}

// mortalProposer is a leader that dies when it first carries a request out: before its command is in the log, or before it hears
// that it is.
type mortalProposer struct {
	*Replica
	n *node
	b *bureau
}

func (m *mortalProposer) Propose(ctx context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	if c.GetCarryOutRequest() == nil {
		return m.Replica.Propose(ctx, c)
	}
	if m.b.heard {
		if _, err := m.Replica.Propose(ctx, c); err != nil {
			return nil, err
		}
	}
	m.b.dying <- m.n
	<-ctx.Done()
	return nil, ctx.Err()
}

// onlyCluster chooses the only cluster.
type onlyCluster struct{}

func (onlyCluster) ChooseAll(_ context.Context, vms []*apiv1.VM, _ uint64) ([]string, error) {
	return slices.Repeat([]string{"c-kvm"}, len(vms)), nil
}
func (onlyCluster) Resize(context.Context, *apiv1.VM, uint64) error { return nil }

// furnish makes what a request for VMs rests on.
func (b *bureau) furnish() {
	b.t.Helper()
	size := &apiv1.Resources{Cores: 1, MemoryMib: 512, DiskGib: 1}
	digest := strings.Repeat("ab", 32)
	offering := &apiv1.Offering{Id: "o-web", Name: "web", Image: "tiny", ImageId: "i-tiny", ImageSha256: digest, Currency: "KRW", MonthlyPrice: "1",
		Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", FlavorId: "f-s1", MonthlyPrice: "1", Size: size}}}
	all := []*commandv1.Command{
		{Body: &commandv1.Command_CreateZone{CreateZone: &commandv1.CreateZone{Zone: &apiv1.Zone{Id: "z-1", Name: "business", Grade: apiv1.Zone_OPEN}}}},
		{Body: &commandv1.Command_CreateCluster{CreateCluster: &commandv1.CreateCluster{Cluster: &apiv1.Cluster{Id: "c-kvm", Name: "kvm", Zone: "business", ZoneId: "z-1", Hypervisor: "sim"}}}},
		{Body: &commandv1.Command_CreateOrganization{CreateOrganization: &commandv1.CreateOrganization{Organization: &apiv1.Organization{Id: "o-home", Name: "home"}}}},
		{Body: &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{Project: &apiv1.Project{Id: "p-shop", Name: "shop", Organization: "home", OrganizationId: "o-home"}}}},
		{Body: &commandv1.Command_CreateFlavor{CreateFlavor: &commandv1.CreateFlavor{Flavor: &apiv1.Flavor{Id: "f-s1", Name: "s1", Cores: 1, MemoryMib: 512, DiskGib: 1}}}},
		{Body: &commandv1.Command_CreateImage{CreateImage: &commandv1.CreateImage{Image: &apiv1.Image{Id: "i-tiny", Name: "tiny", Sha256: digest}}}},
		{Body: &commandv1.Command_CreateOffering{CreateOffering: &commandv1.CreateOffering{Offering: offering}}},
		{Body: &commandv1.Command_PublishOffering{PublishOffering: &commandv1.PublishOffering{Offering: offering}}},
		{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{ZoneId: "z-1", Session: []byte("s"), Connected: true, Agent: "a", ServerId: "server-1", Incarnation: "i"}}},
	}
	for _, name := range []string{"ann", "bob", "cho"} {
		all = append(all, &commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
			Id: "u-" + name, Name: name, Kind: apiv1.User_PERSON, Organization: "home", OrganizationId: "o-home"}}}})
	}
	all = append(all, // ann may ask, now and when it is carried out
		&commandv1.Command{Body: &commandv1.Command_CreateRole{CreateRole: &commandv1.CreateRole{Role: &apiv1.Role{Id: "r-asker", Name: "asker", Permissions: []string{"request.create"}}}}},
		&commandv1.Command{Body: &commandv1.Command_CreateRoleBinding{CreateRoleBinding: &commandv1.CreateRoleBinding{RoleBinding: &apiv1.RoleBinding{
			Id: "b-ann", Role: "asker", RoleId: "r-asker", User: "ann", UserId: "u-ann", Scope: apiv1.RoleBinding_PROJECT, Place: "shop", PlaceId: "p-shop", Reason: "work"}}}})
	for _, c := range all {
		c.Actor = "test"
		b.must(b.leader(), c)
	}
	b.logIn("bob", "cho")
}

// logIn lets people in, with passwords of their own.
func (b *bureau) logIn(names ...string) {
	b.t.Helper()
	hash := func(of string) []byte { sum := sha256.Sum256([]byte(of)); return sum[:] }
	day := timestamppb.New(time.Now().AddDate(0, 0, 1))
	b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_AddSealingKey{AddSealingKey: &commandv1.AddSealingKey{
		SealingKey: &commandv1.SealingKey{Id: "key", PublicKey: make([]byte, 32), SealedKey: []byte("k")}}}})
	for _, name := range names {
		shown := func(seal string) *commandv1.Shown {
			var revision string
			check(b.t, b.databases[b.leader().id].View(b.t.Context(), func(tx *state.Tx) error {
				kept, err := tx.Credentials("u-" + name)
				revision = kept.GetRevision()
				return err
			}))
			return &commandv1.Shown{KeyId: "key", Seal: hash(seal + name), Revision: revision}
		}
		b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_ResetPassword{ResetPassword: &commandv1.ResetPassword{UserId: "u-" + name, Password: "$once$", Until: day}}})
		b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_BeginSession{BeginSession: &commandv1.BeginSession{Shown: shown("begin"),
			Session: &apiv1.Session{Id: "s-" + name, UserId: "u-" + name, Strength: apiv1.Session_PASSWORD, SecretHash: hash("secret of " + name), ExpiresAt: day}}}})
		b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_ChangePassword{ChangePassword: &commandv1.ChangePassword{
			UserId: "u-" + name, SessionId: "s-" + name, Shown: shown("change"), Password: "$own$"}}})
	}
}

// submit has ann ask for two VMs, and bob or cho decide.
func (b *bureau) submit() {
	b.t.Helper()
	m := &apiv1.Request{Id: "r", Kind: apiv1.RequestKind_CREATE, Requester: "ann", RequesterId: "u-ann", Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-1",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web", Quantity: 2, NamePattern: "web-#"}}}}
	b.must(b.leader(), &commandv1.Command{Actor: "user:ann", Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: m}}})
	check(b.t, b.databases[b.leader().id].View(b.t.Context(), func(tx *state.Tx) (err error) {
		if m, err = tx.Requests.Get("r"); err != nil {
			return err
		}
		_, err = intake.Resolve(tx, m)
		return err
	}))
	m.Stages = []*apiv1.Stage{{Name: "approval", Needed: 1, Eligible: &apiv1.Eligibility{Users: []string{"bob", "cho"}}}}
	check(b.t, request.Freeze(m))
	b.must(b.leader(), &commandv1.Command{Actor: "user:ann", Body: &commandv1.Command_SubmitRequest{SubmitRequest: &commandv1.SubmitRequest{
		Request: m, ExpectedRevision: m.GetRevision(), By: &commandv1.Person{Id: "u-ann", Name: "ann"}}}})
}

// approve has somebody decide at a server.
func (b *bureau) approve(n *node, who string) error {
	c := &commandv1.Command{Actor: "user:" + who, Origin: &commandv1.Origin{ActorId: "u-" + who, SessionId: "s-" + who}, Body: &commandv1.Command_DecideRequest{DecideRequest: &commandv1.DecideRequest{
		RequestId: "r", Decision: &apiv1.Decision{Id: uuid.NewString(), Stage: "approval", Actor: who, ActorId: "u-" + who, Verdict: apiv1.Decision_APPROVE, SeenHash: b.request(n).GetFrozenHash()}}}}
	_, err := n.Propose(b.t.Context(), c)
	return err
}

func (b *bureau) request(n *node) (m *apiv1.Request) {
	b.t.Helper()
	check(b.t, b.databases[n.id].View(b.t.Context(), func(tx *state.Tx) (err error) { m, err = tx.Requests.Get("r"); return err }))
	return m
}

// until waits until a request is so far, at a server.
func (b *bureau) until(n *node, f apiv1.Request_Fulfilment) *apiv1.Request {
	b.t.Helper()
	for range 6000 {
		if m := b.request(n); m.GetFulfilment() == f {
			return m
		}
		pause(b.t.Context(), 10*time.Millisecond)
	}
	b.t.Fatalf("the request is %v, and not %v, after a minute", b.request(n), f)
	return nil
}

// TestP2ALeaderThatDiesBetweenApprovalAndExecutionLeavesOneExecution: the next one carries the request out, or finds it carried out.
// Two people approve at the same instant at two servers, and one counts.
func TestP2ALeaderThatDiesBetweenApprovalAndExecutionLeavesOneExecution(t *testing.T) {
	for name, heard := range map[string]bool{"before it proposes": false, "before it hears that it is done": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBureau(t, heard)
				defer b.outlive()
				defer func() {
					for _, n := range b.running() {
						b.kill(n)
					}
				}()
				b.furnish()
				b.submit()
				for _, n := range b.nodes {
					check(t, n.ReadIndex(t.Context()))
				}
				leader, follower := b.leader(), b.follower()
				first, second := make(chan error, 1), make(chan error, 1)
				go func() { first <- b.approve(leader, "bob") }()
				go func() { second <- b.approve(follower, "cho") }()
				one, other := <-first, <-second
				if (one == nil) == (other == nil) || !problem.Is(one, problem.WrongState) && !problem.Is(other, problem.WrongState) {
					t.Fatalf("of two at the same instant: %v, %v", one, other)
				}

				for _, n := range b.nodes {
					b.serve(n, true)
				}
				dead := <-b.dying
				b.kill(dead)
				for _, n := range b.running() { // who comes after lives
					b.quit[n.id]()
					b.serve(n, false)
				}
				next := b.leader()
				m := b.until(next, apiv1.Request_EXECUTING)
				if len(m.GetDecisions()) != 1 || len(m.GetOperations()) != 2 {
					t.Fatalf("%v", m)
				}
				dead.start()
				b.serve(dead, false)
				for _, p := range m.GetParts() {
					b.must(next, &commandv1.Command{Actor: "test", Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
						OperationId: p.GetOperation(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "usable"}}})
				}
				if done := b.until(next, apiv1.Request_DONE); len(done.GetOperations()) != 2 || len(done.GetResults()) != 2 {
					t.Errorf("%v", done)
				}
				b.sameEverywhere()
				for _, n := range b.nodes {
					check(t, b.databases[n.id].View(t.Context(), func(tx *state.Tx) error {
						vms, err := tx.VMs.Count(nil, "")
						if vms != 2 {
							t.Errorf("%s has %d VMs", n.id, vms)
						}
						return err
					}))
				}
			})
		})
	}
}

// sameEverywhere waits until all servers are at the same entry, and compares their states.
func (b *bureau) sameEverywhere() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	for {
		check(b.t, ctx.Err())
		sums, indexes := map[[sha256.Size]byte]bool{}, map[uint64]bool{}
		for _, n := range b.nodes {
			check(b.t, n.ReadIndex(ctx))
			index, sum, err := b.machines[n.id].StateHash()
			check(b.t, err)
			sums[sum], indexes[index] = true, true
		}
		if len(indexes) == 1 {
			if len(sums) != 1 {
				b.t.Errorf("%d different states at the same entry", len(sums))
			}
			return
		}
	}
}
