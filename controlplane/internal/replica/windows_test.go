package replica

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// windowVariable makes the test binary a server that kills itself in one of the windows in which the three durable things
// (log, snapshots, state) are apart, or that waits to be killed.
const windowVariable = "NARU_REPLICA_WINDOW"

// window is what such a process is told.
type window struct {
	// At names the moment: see killer.
	At string
	// After so many passes of the moment it dies in it.
	After int
	Dir   string

	// Of a follower: where it stands, whom it asks to be admitted, and its certificate.
	ID, Address string
	Seeds       []string
	Chain, Root []byte
	Key         []byte
}

const (
	beforeApply      = "between the append and the apply"
	afterApply       = "between the apply and the answer"
	writingSnapshot  = "in the middle of writing a snapshot"
	snapshotKept     = "between the snapshot and the cut of the log"
	snapshotRestored = "between the taking over of the leader's snapshot and the reset of the log"
	anywhere         = "anywhere"
)

// dieInWindow is the process: it prints the id of each command that is acknowledged, one a line.
func dieInWindow(spec string) int {
	var w window
	if err := json.Unmarshal([]byte(spec), &w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := w.serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hooks makes the process kill itself at w.At.
func (w window) hooks(l *ledger, c *Config) {
	passes := 0
	die := func(at string) {
		if at != w.At {
			return
		}
		if passes++; passes > w.After {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	l.before = func([]Entry) error { die(beforeApply); return nil }
	l.after = func([]Entry) { die(afterApply) }
	l.writing = func() { die(writingSnapshot) }
	l.restored = func() { die(snapshotRestored) }
	c.snapshotKept = func() { die(snapshotKept) }
}

func (w window) serve() error {
	l, err := openLedger(filepath.Join(w.Dir, "ledger.json"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	c := Config{ServerID: w.ID, Federation: "test.example", Dir: w.Dir, Address: w.Address, Machine: l, Join: doorman{}, Local: sight{&node{id: w.ID}},
		Logger: testLogger("child " + w.ID), Tuning: small}
	w.hooks(l, &c)
	var r *Replica
	if w.Seeds == nil {
		if err := c.check(); err != nil {
			return err
		}
		r, err = start(c, newEther().weave)
	} else {
		c.Tuning = unhurried
		dressAs(&c, w)
		r, err = New(c)
	}
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	if w.Seeds != nil {
		if err := r.AskAdmission(ctx, w.Seeds, &apiv1.Server{Id: w.ID, PeerAddress: w.Address}); err != nil {
			return err
		}
		return <-ended
	}
	if index, _ := l.position(); index == 0 {
		if err := r.Bootstrap(); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		cmd := put(fmt.Sprint("key ", i%7), strings.Repeat("x", i%300))
		if _, err := r.Propose(ctx, cmd); err != nil {
			return err
		}
		fmt.Printf("%x\n", cmd.GetId())
		if i%40 == 39 && (w.At == writingSnapshot || w.At == snapshotKept || w.At == anywhere) {
			if err := r.raft.Snapshot().Error(); err != nil {
				return err
			}
		}
	}
}

// small are sizes that make rotations and snapshots frequent.
var small = Tuning{HeartbeatTimeout: 50 * time.Millisecond, ElectionTimeout: 50 * time.Millisecond, LeaseTimeout: 50 * time.Millisecond,
	CommitTimeout: time.Millisecond, SegmentBytes: 8192, TrailingEntries: 10}

func dressAs(c *Config, w window) {
	root, err := x509.ParseCertificate(w.Root)
	if err != nil {
		panic(err)
	}
	key, err := x509.ParseECPrivateKey(w.Key)
	if err != nil {
		panic(err)
	}
	a := &authority{cert: root, pool: x509.NewCertPool()}
	a.pool.AddCert(root)
	a.dressWith(c, tls.Certificate{Certificate: [][]byte{w.Chain}, PrivateKey: key})
}

// run starts the process and returns the ids it printed before it was killed, by itself or after so many of them.
func (w window) run(t *testing.T, killAfter int) (acknowledged []string) {
	t.Helper()
	spec, err := json.Marshal(w)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), windowVariable+"="+string(spec))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acknowledged = append(acknowledged, lines.Text())
		if killAfter > 0 && len(acknowledged) == killAfter {
			check(t, cmd.Process.Kill())
		}
	}
	err = cmd.Wait()
	var ended *exec.ExitError
	if ctx.Err() != nil {
		t.Fatalf("the process never came to the window %s; it acknowledged %d commands", w.At, len(acknowledged))
	}
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed %s: %v", w.At, err)
	}
	return acknowledged
}

// holdsAll checks the state that a killed process left, started again, against the model: what was acknowledged, in order,
// and at most one command a kill more. It returns what is there.
func holdsAll(t *testing.T, dir string, acknowledged []string, kills int) {
	t.Helper()
	l, err := openLedger(filepath.Join(dir, "ledger.json"))
	check(t, err)
	e := newEther()
	s := &site{t: t, weave: e.weave, tune: func(c *Config) { c.Tuning = small }}
	n := s.add("server-1")
	n.dir, n.ledger = dir, l
	n.start()
	s.must(n, put("one", "more"))
	check(t, n.stop())
	var done []string
	for _, id := range l.state.Order {
		if slices.Contains(acknowledged, id) {
			done = append(done, id)
		}
	}
	if !slices.Equal(done, acknowledged) {
		t.Fatalf("acknowledged\n%v\nbut of these the state has\n%v", acknowledged, done)
	}
	// Each start brings a first command of its term; the last one here is ours.
	if extra := len(l.state.Order) - len(acknowledged); extra > 2*kills+3 {
		t.Fatalf("%d commands were carried out that nobody was told of, in %d lives", extra, kills+1)
	}
	n.ledger, err = openLedger(filepath.Join(dir, "ledger.json"))
	check(t, err)
	n.start() // and once more, undisturbed
	check(t, n.ReadIndex(t.Context()))
	check(t, n.stop())
}

func TestP17AServerKilledInAWindowGoesOnWhereItWas(t *testing.T) {
	for _, w := range []window{
		{At: beforeApply, After: 30}, {At: beforeApply, After: 31}, {At: afterApply, After: 30}, {At: writingSnapshot}, {At: writingSnapshot, After: 2},
		{At: snapshotKept}, {At: snapshotKept, After: 1}, {At: snapshotKept, After: 4},
	} {
		if testing.Short() && w.After > 1 && w.At != beforeApply {
			continue
		}
		t.Run(fmt.Sprintf("%s, pass %d", w.At, w.After), func(t *testing.T) {
			t.Parallel()
			w.Dir, w.ID, w.Address = t.TempDir(), "server-1", "server-1:1"
			acknowledged := w.run(t, 0)
			holdsAll(t, w.Dir, acknowledged, 1)
		})
	}
}

func TestP17AServerKilledAnywhereAgainAndAgainLosesNothing(t *testing.T) {
	w := window{At: anywhere, Dir: t.TempDir(), ID: "server-1", Address: "server-1:1"}
	var acknowledged []string
	kills := numberFrom("NARU_KILLS", 12)
	if testing.Short() {
		kills = 3
	}
	for i := range kills {
		acknowledged = append(acknowledged, w.run(t, 20+37*i%200)...)
	}
	holdsAll(t, w.Dir, acknowledged, kills)
	t.Logf("%d commands acknowledged in %d lives", len(acknowledged), kills)
}

// A follower is killed while it takes over the leader's snapshot, with nothing in its folder or with an older log there.
func TestP17AFollowerKilledWhileItTakesOverASnapshotTakesItOver(t *testing.T) {
	for _, at := range []string{snapshotKept, snapshotRestored, beforeApply} {
		for _, before := range []int{0, 100} {
			if testing.Short() && before > 0 && at != snapshotRestored {
				continue
			}
			t.Run(fmt.Sprintf("%s, after %d commands", at, before), func(t *testing.T) {
				t.Parallel()
				s, a := newTLSSite(t, 2, nil)
				third := s.add("server-3")
				third.address = freeAddress(t)
				ledgerPath := filepath.Join(third.dir, "ledger.json")
				if before > 0 {
					var err error
					third.ledger, err = openLedger(ledgerPath)
					check(t, err)
					third.start()
					s.admit(third)
					for i := range before {
						s.must(s.leader(), put("early", fmt.Sprint(i)))
					}
					check(t, third.ReadIndex(t.Context()))
					check(t, third.stop())
				}
				for i := range 100 {
					s.must(s.leader(), put(fmt.Sprint("key ", i%7), fmt.Sprint(i)))
				}
				for _, n := range s.running() {
					check(t, n.ReadIndex(t.Context()))
					check(t, n.raft.Snapshot().Error())
				}
				if first, err := s.leader().log.FirstIndex(); err != nil || first < 2 || before > 0 && first <= uint64(before) {
					t.Fatalf("the leader's log still begins at %d: %v", first, err)
				}

				for i := range 5 { // for the log behind the snapshot
					s.must(s.leader(), put("late", fmt.Sprint(i)))
				}

				own := a.issue(t, third.id, "servers")
				key, err := x509.MarshalECPrivateKey(own.PrivateKey.(*ecdsa.PrivateKey))
				check(t, err)
				window{At: at, Dir: third.dir, ID: third.id, Address: third.address, Seeds: addresses(s.nodes[:2]...),
					Chain: own.Certificate[0], Root: a.cert.Raw, Key: key}.run(t, 0)

				third.ledger, err = openLedger(ledgerPath)
				check(t, err)
				third.start()
				s.admit(third)
				s.must(third, put("it", "is back"))
				s.alike()
				check(t, third.stop())
				kept, err := openLedger(ledgerPath)
				check(t, err)
				if d := kept.differs(third.ledger); d != "" {
					t.Errorf("on disk: %s", d)
				}
			})
		}
	}
}
