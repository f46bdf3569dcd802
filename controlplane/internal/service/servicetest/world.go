// Package servicetest is a federation of one server in one process, for tests: the real state and the real state machine,
// and in place of Raft a loop that applies what is proposed, in batches.
package servicetest

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/controller/placement"
	"github.com/naru-project/naru/controlplane/internal/fsm"
	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// World is a federation. Everything in it ends with its test.
type World struct {
	testing.TB
	DB      *state.DB
	Service *service.Service
	Chooser *placement.Chooser
	API     *api.Server

	// What stands for the rest of the control plane. Set before the first call, or under the test's own order.
	Live        []*apiv1.Server
	Sights      []*apiv1.Broker // what servers see of brokers
	HostSamples []*apiv1.HostSample
	VMSamples   []*apiv1.VMSample
	Backup      []byte
	Unseal      func(role string, sealed []byte) ([]byte, error)
	Leaderless  atomic.Bool // no server leads
	KeepLog     bool        // for RaftLog
	// Off is by how much this server's clock is ahead of that of the machine.
	Off time.Duration
	// Ahead is by how much the clock that stamps what is proposed is ahead of that of the machine.
	Ahead  time.Duration
	Outbox Outbox
	// Asker asks identity providers on this machine.
	Asker *provider.Asker

	machine  *fsm.Machine
	proposed chan proposal
	reads    atomic.Int64
	proposes atomic.Int64
	records  atomic.Int64

	mu       sync.Mutex
	observed map[string]uint64 // by zone
	between  func()
	before   func(*commandv1.Command)
	choices  int
	removed  []string
	log      []byte
	failures []error
	failing  error
}

type proposal struct {
	data   []byte
	answer chan *commandv1.Result
}

// New returns a bootstrapped federation, naru.test.
func New(t testing.TB) *World {
	t.Helper()
	keys, err := newSecrets()
	if err != nil {
		t.Fatal(err)
	}
	w := begin(t, keys, nil, 0)
	w.Do(&commandv1.Command{Body: &commandv1.Command_Bootstrap{Bootstrap: &commandv1.Bootstrap{
		Federation: "naru.test", Epoch: 7, EpochId: make([]byte, 16), Keyring: keys.keyring(),
		Server: &apiv1.Server{Id: "server-1", Name: "controlplane-1"},
	}}})
	return w
}

// Next returns the server that leads next: it has what w has in its state, and nothing else of it. w may go on as a federation of its own.
func (w *World) Next(t testing.TB) *World {
	t.Helper()
	s, err := w.machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var snapshot bytes.Buffer
	if _, err := s.WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	next := begin(t, w.Service.Secrets.(secrets), &snapshot, 2)
	w.mu.Lock()
	defer w.mu.Unlock()
	next.observed = maps.Clone(w.observed)
	return next
}

// begin is a server that begins with a snapshot, or with nothing; so many reads at once are enough for it, or 0 for the usual.
func begin(t testing.TB, keys secrets, snapshot io.Reader, readers int) *World {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{ServerID: "server-1", Readers: readers})
	if err != nil {
		t.Fatal(err)
	}
	w := &World{TB: t, DB: db, machine: fsm.New(db), proposed: make(chan proposal, 1024), observed: map[string]uint64{}}
	if snapshot != nil {
		if err := w.machine.Restore(snapshot); err != nil {
			t.Fatal(err)
		}
	}
	applied, _, err := w.machine.Applied()
	if err != nil {
		t.Fatal(err)
	}
	w.Chooser = placement.New(db, slog.New(slog.DiscardHandler))
	w.Asker = provider.New(outbound.Networks{netip.MustParsePrefix("127.0.0.0/8")}, time.Now)
	w.Service = service.New(service.Config{Reader: db, Proposer: w, Servers: w, Samples: w, Chooser: choices{w}, JoinTokens: w, Certificates: w, Secrets: keys, Outbound: &w.Outbox, Providers: w.Asker,
		Now: func() time.Time { return time.Now().Add(w.Off) }})
	w.Unseal = keys.Unseal
	w.API, err = api.New(api.Config{Register: w.Service.Register, Who: everybody{}, Current: w.Current, May: w.Service, Audit: w.Service, Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.apply(ctx, applied) })
	running.Go(func() { _ = w.Service.Run(ctx) })
	running.Go(func() { _ = w.Chooser.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// apply is the log from an index on: one goroutine, batches as large as what has come meanwhile.
func (w *World) apply(ctx context.Context, index uint64) {
	for {
		var batch []proposal
		select {
		case <-ctx.Done():
			return
		case p := <-w.proposed:
			batch = append(batch, p)
		}
		for more := true; more && len(batch) < 256; {
			select {
			case p := <-w.proposed:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		entries := make([]fsm.Entry, len(batch))
		for i, p := range batch {
			index++
			entries[i] = fsm.Entry{Index: index, Term: 1, Data: p.data}
		}
		results, err := w.machine.Apply(entries)
		if err != nil {
			panic(err)
		}
		for i, p := range batch {
			p.answer <- results[i]
		}
	}
}

// Propose applies a command, unless the test asked for failures.
func (w *World) Propose(ctx context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	if c.GetRecordAudit() != nil {
		w.records.Add(1)
	} else {
		w.proposes.Add(1)
	}
	if err := w.failure(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	before := w.before
	w.before = nil
	w.mu.Unlock()
	if before != nil {
		before(c)
	}
	if c.GetStamp() == nil { // a test may have a clock of its own
		c.Stamp = timestamppb.New(time.Now().Add(w.Ahead))
	}
	data, err := proto.Marshal(c)
	if err != nil {
		return nil, err
	}
	if w.KeepLog {
		w.mu.Lock()
		w.log = append(w.log, data...)
		w.mu.Unlock()
	}
	p := proposal{data, make(chan *commandv1.Result, 1)}
	select {
	case w.proposed <- p:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-p.answer:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// RaftLog is all that was proposed since KeepLog was set, as it stands in Raft's log.
func (w *World) RaftLog() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

// ReadIndex counts; there is one server, which is always current, unless it has no leader.
func (w *World) ReadIndex(ctx context.Context) error {
	w.reads.Add(1)
	return w.Current(ctx)
}

// Current is ReadIndex for the API, which asks by itself: it does not count.
func (w *World) Current(context.Context) error {
	if w.Leaderless.Load() {
		return problem.New(problem.Unavailable, "no server leads", "Bring servers back.")
	}
	return nil
}

// Reads returns how many linearizable reads there were; Proposes how many commands, but for those that only write into the audit log,
// which Records returns.
func (w *World) Reads() int64    { return w.reads.Load() }
func (w *World) Proposes() int64 { return w.proposes.Load() }
func (w *World) Records() int64  { return w.records.Load() }

// FailNext makes the next proposals fail with these errors.
func (w *World) FailNext(errs ...error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, errs...)
}

// FailAll makes every proposal from now on fail with this error, so that what comes so far changes nothing.
func (w *World) FailAll(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failing = err
}

func (w *World) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failures) == 0 {
		return w.failing
	}
	err := w.failures[0]
	w.failures = w.failures[1:]
	return err
}

// Do applies a command by the federation itself, and fails the test where it is refused.
func (w *World) Do(c *commandv1.Command) *commandv1.Result {
	w.Helper()
	id := uuid.Must(uuid.NewV7())
	c.Id, c.Actor = id[:], "spiffe://naru.test/server/server-1"
	r, err := w.Propose(context.Background(), c)
	if err == nil {
		err = problem.FromProto(r.GetProblem())
	}
	if err != nil {
		w.Fatalf("%T: %v", c.GetBody(), err)
	}
	return r
}

// Observe has a zone report nouns.
func (w *World) Observe(zoneID string, nouns ...proto.Message) {
	w.Helper()
	w.mu.Lock()
	after := w.observed[zoneID]
	chunk := &linkv1.StateChunk{Incarnation: "inc-" + zoneID, After: after, Full: after == 0, End: after == 0}
	for _, m := range nouns {
		after++
		o := &linkv1.Object{Revision: after}
		switch m := m.(type) {
		case *apiv1.Zone:
			o.Noun = &linkv1.Object_Zone{Zone: m}
		case *apiv1.Host:
			o.Noun = &linkv1.Object_Host{Host: m}
		case *apiv1.VM:
			o.Noun = &linkv1.Object_Vm{Vm: m}
		case *apiv1.Cluster:
			o.Noun = &linkv1.Object_Cluster{Cluster: m}
		case *apiv1.Reservation:
			o.Noun = &linkv1.Object_Reservation{Reservation: m}
		default:
			w.Fatalf("a zone does not observe a %T", m)
		}
		chunk.Objects = append(chunk.Objects, o)
	}
	chunk.Through = after
	w.observed[zoneID] = after
	w.mu.Unlock()
	w.Do(&commandv1.Command{Body: &commandv1.Command_Observe{Observe: &commandv1.Observe{ZoneId: zoneID, Chunk: chunk}}})
}

// View reads the state.
func (w *World) View(fn func(*state.Tx) error) {
	w.Helper()
	if err := w.DB.View(context.Background(), fn); err != nil {
		w.Fatal(err)
	}
}

func (w *World) Servers(context.Context) ([]*apiv1.Server, error) { return w.Live, nil }

func (w *World) Brokers(context.Context) ([]*apiv1.Broker, error) { return w.Sights, nil }

func (w *World) RemoveServer(ctx context.Context, id string, then *commandv1.Command) (*commandv1.Result, error) {
	w.removed = append(w.removed, id)
	return w.Propose(ctx, then)
}

// Removed returns the servers that were taken out of the quorum.
func (w *World) Removed() []string { return w.removed }

func (w *World) BackUp(_ context.Context, to io.Writer) error {
	_, err := to.Write(w.Backup)
	return err
}

func (w *World) Hosts(context.Context) ([]*apiv1.HostSample, error) { return w.HostSamples, nil }
func (w *World) VMs(context.Context) ([]*apiv1.VMSample, error)     { return w.VMSamples, nil }

func (w *World) NewJoinToken(role, zoneID string, expires time.Time) (*commandv1.JoinToken, string, error) {
	id := uuid.Must(uuid.NewV7()).String()
	secret := cryptorand.Text()
	sealed, err := w.Service.Secrets.Seal("join-token/"+id, []byte(secret))
	return &commandv1.JoinToken{Id: id, Role: role, ZoneId: zoneID, SealedSecret: sealed, ExpiresAt: timestamppb.New(expires)}, fmt.Sprintf("naru-join:%s:%s", id, secret), err
}

// KeyOfRequest takes any text for a request, and is the authority that issues certificates of it.
func (w *World) KeyOfRequest(csr []byte) (string, error) {
	if string(csr) == "damaged" {
		return "", problem.New(problem.Invalid, "the certificate request cannot be read", "Make it anew.").With("csr", "is no certificate request")
	}
	return "SHA256:" + string(csr), nil
}

func (w *World) IssueAdministrator(_ context.Context, name string, csr []byte, until time.Time) ([][]byte, error) {
	return [][]byte{[]byte(name), csr, []byte(until.UTC().Format(time.RFC3339))}, nil
}

// Interfere has fn run once, in the middle of the next decision where a VM goes.
func (w *World) Interfere(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.between, w.choices = fn, 0
}

// Before has fn run once, when the next command has been decided on and is not yet applied: what fn does comes first.
func (w *World) Before(fn func(*commandv1.Command)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = fn
}

// Choices returns how often it was decided where a VM goes, since Interfere.
func (w *World) Choices() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.choices
}

type choices struct{ w *World }

func (c choices) Resize(ctx context.Context, vm *apiv1.VM, after uint64) error {
	return c.w.Chooser.Resize(ctx, vm, after)
}

func (c choices) Free(clusterID string) *apiv1.Resources { return c.w.Chooser.Free(clusterID) }

func (c choices) Picture(ctx context.Context, after uint64) (uint64, error) {
	return c.w.Chooser.Picture(ctx, after)
}

func (c choices) ChooseAll(ctx context.Context, vms []*apiv1.VM, after uint64) ([]string, error) {
	c.w.mu.Lock()
	c.w.choices++
	c.w.mu.Unlock()
	return c.w.Chooser.ChooseAll(ctx, vms, after)
}

func (c choices) Choose(ctx context.Context, vm *apiv1.VM, after uint64) (string, error) {
	c.w.mu.Lock()
	fn := c.w.between
	c.w.between = nil
	c.w.choices++
	c.w.mu.Unlock()
	if fn != nil {
		fn()
	}
	return c.w.Chooser.Choose(ctx, vm, after)
}

// Settle returns when the picture of hosts holds everything that was done before.
func (w *World) Settle() {
	w.Helper()
	var revision uint64
	w.View(func(tx *state.Tx) error {
		revision = tx.Meta().Revision
		return nil
	})
	if _, err := w.Chooser.Choose(context.Background(), &apiv1.VM{}, revision); !problem.Is(err, problem.NoHostFits) {
		w.Fatal(err)
	}
}
