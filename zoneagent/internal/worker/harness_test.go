package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
	"github.com/naru-project/naru/zoneagent/internal/schedule"
	"github.com/naru-project/naru/zoneagent/internal/schedule/storetest"
)

type workerStore struct{ *storetest.Owner }

func (s workerStore) Begin() Tx { return s.Tx() }

type scheduleStore struct{ *storetest.Owner }

func (s scheduleStore) Begin() schedule.Tx { return s.Tx() }

var bits = []byte(strings.Repeat("operating system ", 64))

type bitsStore struct{}

func (bitsStore) Open(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(bits)), nil
}

// site is a store in memory, a simulated fleet, and the agents that drive it, each with a real scheduler beside its
// worker. It lives in a synctest bubble.
type site struct {
	t      testing.TB
	zone   *storetest.Zone
	fleet  *sim.Fleet
	limits Limits
	others Others
	clock  func() (time.Time, string)
	sink   *samples
	log    *slog.Logger
	agents map[string]*agent // by cluster
	index  uint64
	born   map[string]*timestamppb.Timestamp // when a VM was first asked for

	mu    sync.Mutex
	calls map[string]int       // "verb vm" → calls that were made
	cuts  map[string]time.Time // since when a host is silent
	wrong []string             // what should not have happened
	slow  map[string]int       // "verb" → most at once
	now   map[string]int
	hide  map[string]int           // rounds that are to miss a VM
	lag   time.Duration            // from what a round saw to its end
	stall map[string]time.Duration // "verb" → before it takes effect
	ends  map[string]time.Time     // host → when its certificate ends
}

// agent is one owner of one cluster.
type agent struct {
	site  *site
	owner *storetest.Owner
	stop  context.CancelFunc
	ended chan error
}

func within(t *testing.T, fn func(s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.stopAll()
		fn(s)
		s.faultless()
	})
}

func newSite(t testing.TB) *site {
	fleet, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("NARU_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return &site{
		t: t, zone: storetest.NewZone(), fleet: fleet, agents: map[string]*agent{}, sink: &samples{}, log: log,
		born:  map[string]*timestamppb.Timestamp{},
		calls: map[string]int{}, cuts: map[string]time.Time{}, slow: map[string]int{}, now: map[string]int{}, hide: map[string]int{},
		stall: map[string]time.Duration{}, ends: map[string]time.Time{},
	}
}

func (s *site) cluster(name string, hosts int, query string) {
	s.zone.Want(&apiv1.Cluster{Id: name, Name: name, ZoneId: "zone", Zone: "business", Hypervisor: "sim"})
	for i := range hosts {
		s.host(name, fmt.Sprintf("%s-%d", name, i+1), query)
	}
}

func (s *site) host(cluster, name, query string) {
	s.zone.Want(&apiv1.Host{Id: name, Name: name, ClusterId: cluster, Cluster: cluster, Endpoint: "sim://?" + query})
}

func (s *site) vm(cluster, id string, change ...func(*apiv1.VM)) *apiv1.VM {
	s.index++
	if s.born[id] == nil {
		s.born[id] = timestamppb.New(time.Now())
	}
	sum := sha256.Sum256(bits)
	vm := &apiv1.VM{
		Id: id, Name: id, ProjectId: "web", Project: "web", ClusterId: cluster, Cluster: cluster, DesiredState: apiv1.VM_RUNNING,
		Size:        &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10},
		ImageSha256: hex.EncodeToString(sum[:]), ImageFormat: apiv1.Image_RAW,
		CreatedAt: s.born[id],
		Operation: fmt.Sprintf("op-%s-%d", id, s.index), Generation: &apiv1.Generation{Epoch: 1, Index: s.index},
	}
	for _, c := range change {
		c(vm)
	}
	return vm
}

func wanting(state apiv1.VM_State) func(*apiv1.VM) {
	return func(vm *apiv1.VM) { vm.DesiredState = state }
}

func forced(vm *apiv1.VM) { vm.Force = true }

// want asks for a VM and returns its operation.
func (s *site) want(vm *apiv1.VM) string {
	s.zone.Want(vm)
	return vm.Operation
}

// running asks for a VM and waits until it runs.
func (s *site) running(cluster, id string) {
	s.t.Helper()
	s.want(s.vm(cluster, id))
	s.pass(10 * time.Second)
	if vm := s.zone.VM(id); vm.GetState() != apiv1.VM_RUNNING {
		s.t.Fatalf("%s did not come up: %v", id, vm)
	}
}

// order sends an order to reboot down the cluster's stream.
func (s *site) order(cluster, vm string, change ...func(*linkv1.Order)) string {
	s.index++
	o := &linkv1.Order{OperationId: fmt.Sprintf("op-%s-%d", vm, s.index), Verb: linkv1.Order_REBOOT, VmId: vm}
	for _, c := range change {
		c(o)
	}
	id := fmt.Sprintf("1/%s/%020d", cluster, s.index)
	s.zone.Put(etcdstore.Order, cluster, id, &linkv1.JournalEntry{Sequence: s.index, Body: &linkv1.JournalEntry_Order{Order: o}})
	return o.OperationId
}

// own lets an agent take a cluster over; the one before is as if killed.
func (s *site) own(cluster string) *agent {
	s.t.Helper()
	s.kill(cluster)
	a := &agent{site: s, owner: s.zone.Own(cluster, 365*24*time.Hour), ended: make(chan error, 2)}
	w, err := New(Config{
		Agent: "agent-1", Zone: "business", Drivers: map[string]hypervisor.Driver{"sim": &watched{s.fleet, a}},
		Images: bitsStore{}, Others: s.others, Samples: s.sink, Limits: s.limits, Logger: s.log, Clock: s.clock,
		Network: func(string) Network {
			return Network{CIDR: netip.MustParsePrefix("10.91.2.0/24"), Gateway: netip.MustParseAddr("10.91.2.1")}
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	placer, err := schedule.NewTerm(schedule.Config{
		Cluster: cluster, Store: scheduleStore{a.owner}, Logger: s.log,
		Network: &schedule.Network{CIDR: netip.MustParsePrefix("10.91.2.0/24"), Gateway: netip.MustParseAddr("10.91.2.1")},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	term := w.NewTerm(cluster, workerStore{a.owner}, a.owner, placer)
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	go func() { a.ended <- placer.Run(ctx) }()
	go func() { a.ended <- term.Run(ctx) }()
	s.agents[cluster] = a
	return a
}

// kill ends an agent in the middle of what it does: it writes nothing more.
func (s *site) kill(cluster string) {
	s.zone.Depose(cluster)
	if a := s.agents[cluster]; a != nil {
		a.end()
		delete(s.agents, cluster)
	}
}

func (a *agent) end() {
	a.stop()
	for range 2 {
		if err := <-a.ended; err != nil && !errors.Is(err, etcdstore.ErrFenced) {
			a.site.t.Errorf("a term ended with %v", err)
		}
	}
}

func (s *site) stopAll() {
	for cluster := range s.agents {
		s.kill(cluster)
	}
	synctest.Wait()
}

// pass lets the bubble's time pass.
func (s *site) pass(d time.Duration) {
	synctest.Wait()
	time.Sleep(d) // the bubble's time
	synctest.Wait()
}

// silence takes a host away: its calls fail, and a call that would change something is wrong from a while on.
func (s *site) silence(host string, how func(*sim.Knobs)) {
	how(s.fleet.Knobs(host))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts[host] = time.Now()
}

func (s *site) restore(host string) {
	k := s.fleet.Knobs(host)
	k.Heal()
	k.Restore()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cuts, host)
}

func (s *site) count(verb, vm string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[verb+" "+vm]
}

// faultless fails the test if something happened that never may.
func (s *site) faultless() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wrong {
		s.t.Error(w)
	}
}

// steps returns the steps of an operation that are done, in order.
func (s *site) steps(operation string) (names []string) {
	for _, r := range s.zone.Reports(operation) {
		if r.GetStep().GetState() == apiv1.Operation_Step_DONE {
			names = append(names, r.GetStep().GetName())
		}
	}
	return names
}

// delays returns what was told of an operation's waiting for its host.
func (s *site) delays(operation string) (told []string) {
	for _, r := range s.zone.Reports(operation) {
		if r.GetStep().GetName() == stepDelayed {
			told = append(told, r.GetStep().GetMessage())
		}
	}
	return told
}

// outcome returns how an operation ended: "" while it has not.
func (s *site) outcome(operation string) string {
	for _, r := range s.zone.Reports(operation) {
		if r.GetDone() {
			if code := r.GetError().GetCode(); code != "" {
				return code
			}
			return "done"
		}
	}
	return ""
}

// usage returns the states that were metered for a VM.
func (s *site) usage(vm string) (states []string) {
	for _, e := range s.zone.Journal() {
		if u := e.GetUsage(); u.GetVmId() == vm {
			states = append(states, u.GetState().String())
		}
	}
	return states
}

func (s *site) equal(what string, got, want any) {
	s.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// samples keeps what was handed on.
type samples struct {
	mu    sync.Mutex
	hosts []*apiv1.HostSample
	vms   []*apiv1.VMSample
	given int // times
}

func (k *samples) Add(hosts []*apiv1.HostSample, vms []*apiv1.VMSample) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.given++
	k.hosts, k.vms = append(k.hosts, hosts...), append(k.vms, vms...)
}

// watched is the fleet's driver in one agent's hands, under watch.
type watched struct {
	*sim.Fleet
	agent *agent
}

func (w *watched) Open(ctx context.Context, host *apiv1.Host) (hypervisor.Host, error) {
	h, err := w.Fleet.Open(ctx, host)
	if err != nil {
		return nil, err
	}
	return &watchedHost{h, host.GetId(), w.agent}, nil
}

type watchedHost struct {
	hypervisor.Host
	id    string
	agent *agent
}

// act is a call that changes something: counted, and judged.
func (h *watchedHost) act(verb, vm string, fn func() error) error {
	s := h.agent.site
	begun := time.Now()
	s.mu.Lock()
	s.calls[verb+" "+vm]++
	s.now[verb]++
	s.slow[verb] = max(s.slow[verb], s.now[verb])
	if since, ok := s.cuts[h.id]; ok && begun.Sub(since) > 30*time.Second {
		s.wrong = append(s.wrong, fmt.Sprintf("%s of %s on %s, which is silent for %s", verb, vm, h.id, begun.Sub(since)))
	}
	if !begun.Before(h.agent.owner.Deadline()) {
		s.wrong = append(s.wrong, fmt.Sprintf("P3: %s of %s began after the owner's deadline", verb, vm))
	}
	stall := s.stall[verb]
	s.mu.Unlock()
	time.Sleep(stall) // the bubble's time
	err := fn()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now[verb]--
	if (err == nil || errors.Is(err, sim.ErrReplyLost)) && time.Now().After(h.agent.owner.Deadline()) {
		s.wrong = append(s.wrong, fmt.Sprintf("P3: %s of %s took effect after the owner's deadline", verb, vm))
	}
	return err
}

func (h *watchedHost) EnsureImage(ctx context.Context, i hypervisor.Image, open func() (io.ReadCloser, error)) error {
	return h.act("image", "", func() error { return h.Host.EnsureImage(ctx, i, open) })
}

func (h *watchedHost) EnsureDisk(ctx context.Context, m hypervisor.Machine) error {
	return h.act("disk", m.VM.GetId(), func() error { return h.Host.EnsureDisk(ctx, m) })
}

func (h *watchedHost) EnsureSeed(ctx context.Context, m hypervisor.Machine) error {
	return h.act("seed", m.VM.GetId(), func() error { return h.Host.EnsureSeed(ctx, m) })
}

func (h *watchedHost) EnsureDefined(ctx context.Context, m hypervisor.Machine) error {
	return h.act("define", m.VM.GetId(), func() error { return h.Host.EnsureDefined(ctx, m) })
}

func (h *watchedHost) EnsureStarted(ctx context.Context, id string) error {
	return h.act("start", id, func() error { return h.Host.EnsureStarted(ctx, id) })
}

func (h *watchedHost) EnsureStopped(ctx context.Context, id string, force bool) error {
	verb := "stop"
	if force {
		verb = "cut"
	}
	return h.act(verb, id, func() error { return h.Host.EnsureStopped(ctx, id, force) })
}

func (h *watchedHost) Reboot(ctx context.Context, id string, force bool) error {
	return h.act("reboot", id, func() error { return h.Host.Reboot(ctx, id, force) })
}

func (h *watchedHost) EnsureGone(ctx context.Context, id string) error {
	return h.act("gone", id, func() error { return h.Host.EnsureGone(ctx, id) })
}

func (h *watchedHost) EnsureSize(ctx context.Context, m hypervisor.Machine) error {
	return h.act("size", m.VM.GetId(), func() error { return h.Host.EnsureSize(ctx, m) })
}

func (h *watchedHost) EnsureSnapshot(ctx context.Context, id string, one hypervisor.Snapshot) error {
	return h.act("keep", id, func() error { return h.Host.EnsureSnapshot(ctx, id, one) })
}

func (h *watchedHost) EnsureRestored(ctx context.Context, m hypervisor.Machine, snapshot string) error {
	return h.act("restore", m.VM.GetId(), func() error { return h.Host.EnsureRestored(ctx, m, snapshot) })
}

func (h *watchedHost) EnsureNoSnapshot(ctx context.Context, id, snapshot string) error {
	return h.act("drop", id, func() error { return h.Host.EnsureNoSnapshot(ctx, id, snapshot) })
}

// ObserveAll leaves out what is to be missed.
func (h *watchedHost) ObserveAll(ctx context.Context) ([]hypervisor.Observation, error) {
	all, err := h.Host.ObserveAll(ctx)
	s := h.agent.site
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(all, func(o hypervisor.Observation) bool {
		s.hide[o.VMID]--
		return s.hide[o.VMID] >= 0
	}), err
}

func (h *watchedHost) Inventory(ctx context.Context) (hypervisor.Inventory, error) {
	i, err := h.Host.Inventory(ctx)
	s := h.agent.site
	s.mu.Lock()
	defer s.mu.Unlock()
	i.CertificateEnds = s.ends[h.id]
	return i, err
}

// Sample is the last a round asks.
func (h *watchedHost) Sample(ctx context.Context) (hypervisor.HostCounters, error) {
	s := h.agent.site
	s.mu.Lock()
	lag := s.lag
	s.mu.Unlock()
	time.Sleep(lag) // the bubble's time
	return h.Host.Sample(ctx)
}

// reach is what the other agents say.
type reach []string

func (r reach) Reach(context.Context, string) ([]string, error) {
	if slices.Contains(r, "nobody answers") {
		return nil, errors.New("nobody answers")
	}
	return r, nil
}
