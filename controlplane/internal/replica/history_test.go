package replica

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/naru-project/naru/pkg/problem"
)

var (
	schedules = flag.Int("schedules", numberFrom("NARU_SCHEDULES", 220), "random fault schedules to run")
	seedFlag  = flag.Uint64("schedule-seed", uint64(numberFrom("NARU_SCHEDULE_SEED", 0)), "run only the schedule with this seed")
)

func numberFrom(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return otherwise
}

// Servers crash and come back, links are cut in both directions or in one, leaders are deposed, snapshots taken, and disks
// filled, while clients write and read through any server. What they saw must be explicable by one register a key; every
// acknowledged command was carried out exactly once, every other at most once; and all servers end alike.
func TestP1WhatWasAcknowledgedSurvivesAnyMinorityOfCrashes(t *testing.T) {
	if *seedFlag != 0 {
		runSchedule(t, *seedFlag)
		return
	}
	n := *schedules
	if testing.Short() {
		n = min(n, 6)
	}
	base := uint64(time.Now().UnixNano())
	for i := range n {
		seed := base + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel() // a schedule waits for disks most of the time
			runSchedule(t, seed)
		})
	}
}

func runSchedule(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("again: go test -run %s -schedule-seed %d", strings.Split(t.Name(), "/")[0], seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		e := newEther()
		size := 3
		if random.IntN(4) == 0 {
			size = 5
		}
		s := newSite(t, size, e.weave, func(c *Config) {
			c.Tuning.TrailingEntries, c.Tuning.SegmentBytes = 20, 4096
		})
		defer s.outlive()
		defer s.close()
		h := &history{site: s, began: time.Now()}
		for _, n := range s.nodes {
			h.serve(n)
		}

		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for client := range 4 {
			random := rand.New(rand.NewPCG(seed, uint64(2+client)))
			clients.Go(func() { h.client(ctx, client, random) })
		}
		for range 8 {
			h.trouble(e, random)
			pause(t.Context(), time.Duration(random.IntN(600))*time.Millisecond)
		}
		e.heal()
		for _, n := range s.nodes {
			h.revive(n)
		}
		pause(t.Context(), time.Second)
		stop()
		clients.Wait()
		s.alike()
		h.judge(t)
	})
}

// history is what the clients of a site saw.
type history struct {
	site  *site
	began time.Time

	mu         sync.Mutex
	serving    map[*node]*Replica // those that are up
	operations []porcupine.Operation
	commands   []attempted
}

// attempted is a command and how often it may have been carried out.
type attempted struct {
	id          []byte
	least, most int
}

func (h *history) serve(n *node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving == nil {
		h.serving = map[*node]*Replica{}
	}
	h.serving[n] = n.Replica
}

func (h *history) pick(random *rand.Rand) (*node, *Replica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.site.nodes[random.IntN(len(h.site.nodes))]
	return n, h.serving[n]
}

func (h *history) revive(n *node) {
	if n.Replica == nil {
		n.start()
		h.serve(n)
	}
}

func (h *history) kill(n *node) {
	h.mu.Lock()
	delete(h.serving, n)
	h.mu.Unlock()
	n.crash()
}

// trouble does one thing to the site. At most a minority is down at any time.
func (h *history) trouble(e *ether, random *rand.Rand) {
	nodes := h.site.nodes
	any := nodes[random.IntN(len(nodes))]
	victim := any
	if random.IntN(2) == 0 {
		for _, n := range h.site.running() {
			if n.Leader().Self {
				victim = n
			}
		}
	}
	switch random.IntN(9) {
	case 0, 1:
		e.separate(addresses(victim), addresses(h.site.except(victim)...))
	case 2:
		order := random.Perm(len(nodes))
		var a, b []string
		for i, at := range order {
			if i < len(nodes)/2 {
				a = append(a, nodes[at].address)
			} else {
				b = append(b, nodes[at].address)
			}
		}
		e.separate(a, b)
	case 3:
		other := h.site.except(victim)[0]
		e.silence(victim.address, other.address)
	case 4:
		e.heal()
	case 5, 6:
		if len(nodes)-len(h.site.running()) < (len(nodes)-1)/2 {
			h.kill(victim)
		} else {
			for _, n := range nodes {
				h.revive(n)
			}
		}
	case 7:
		if victim.Replica != nil {
			_ = victim.raft.Snapshot().Error() // it may refuse: nothing new
		}
	case 8:
		if victim.Replica != nil && victim.raft.State().String() == "Leader" {
			victim.spawn(func() { victim.handOver("the schedule says so") })
		}
	}
}

type registerInput struct {
	key, value string // an empty value reads
}

// register is one key: a read returns what was written last. An operation whose outcome is unknown may take effect at any
// time after it began.
var register = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range all {
			key := o.Input.(registerInput).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.value != "" {
			previous, known := output.(string)
			return !known || previous == state, in.value
		}
		return output == state, state
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		in := input.(registerInput)
		if in.value != "" {
			return fmt.Sprintf("put(%s, %s) -> was %v", in.key, in.value, output)
		}
		return fmt.Sprintf("get(%s) -> %v", in.key, output)
	},
}

// forever is when an operation returned whose outcome nobody knows.
const forever = 1 << 62

func (h *history) client(ctx context.Context, id int, random *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		n, replica := h.pick(random)
		in := registerInput{key: string(rune('a' + random.IntN(3)))}
		if random.IntN(3) > 0 {
			in.value = fmt.Sprintf("client %d, write %d", id, i)
		}
		attempt, cancel := context.WithTimeout(ctx, time.Duration(50+random.IntN(2000))*time.Millisecond)
		switch {
		case replica == nil:
		case in.value == "":
			h.read(attempt, id, n, replica, in)
		default:
			h.write(attempt, id, replica, in)
		}
		cancel()
		pause(ctx, time.Duration(random.IntN(60))*time.Millisecond)
	}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) read(ctx context.Context, client int, n *node, r *Replica, in registerInput) {
	call := h.now()
	if err := r.ReadIndex(ctx); err != nil {
		return
	}
	value := n.ledger.get(in.key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: in, Output: value, Call: call, Return: h.now()})
}

func (h *history) write(ctx context.Context, client int, r *Replica, in registerInput) {
	cmd := put(in.key, in.value)
	op := porcupine.Operation{ClientId: client, Input: in, Call: h.now()}
	result, err := r.Propose(ctx, cmd)
	op.Return = h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		op.Output = string(result.GetNoun())
		h.operations = append(h.operations, op)
		h.commands = append(h.commands, attempted{cmd.GetId(), 1, 1})
	case problem.Is(err, problem.Unavailable): // which promises that nothing was done
		h.commands = append(h.commands, attempted{cmd.GetId(), 0, 0})
	default:
		op.Return = forever
		h.operations = append(h.operations, op)
		h.commands = append(h.commands, attempted{cmd.GetId(), 0, 1})
	}
}

// judge checks what the clients saw against what the servers hold in the end.
func (h *history) judge(t *testing.T) {
	t.Helper()
	acknowledged := 0
	for _, c := range h.commands {
		acknowledged += c.least
		for _, n := range h.site.nodes {
			if times := n.ledger.times(c.id); times < c.least || times > c.most {
				t.Errorf("%s carried command %x out %d times; it should be %d to %d", n.id, c.id, times, c.least, c.most)
			}
		}
	}
	if acknowledged == 0 {
		t.Error("nothing was acknowledged: the schedule shows nothing")
	}
	if verdict := porcupine.CheckOperationsTimeout(register, h.operations, time.Minute); verdict != porcupine.Ok {
		for _, o := range h.operations {
			t.Logf("client %d: %s from %v to %v", o.ClientId, register.DescribeOperation(o.Input, o.Output), time.Duration(o.Call), time.Duration(o.Return))
		}
		t.Errorf("the history of %d operations is not that of a register: %s", len(h.operations), verdict)
	}
	t.Logf("%d operations, %d commands acknowledged of %d", len(h.operations), acknowledged, len(h.commands))
}
