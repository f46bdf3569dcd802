package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// The servers' states are compared when the log has grown by compareEntries, or at all since compareEvery.
const (
	compareEntries = 10_000
	compareEvery   = 5 * time.Minute
	// compareLook is how often the leader looks whether it is time.
	compareLook = 10 * time.Second
	// compareAnswers is how long the leader waits for servers that do not answer, or have not taken their hash yet.
	compareAnswers = time.Minute
)

// divergedName is the file in the data folder of a server that may not go on, with the reason in it.
const divergedName = "diverged"

// hashes is this server's newest hash as of a mark. It may be used concurrently.
type hashes struct {
	mu     sync.Mutex
	busy   bool
	newest *commandv1.StateHash
}

// begin reports whether a hash may be taken: one at a time.
func (h *hashes) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	free := !h.busy
	h.busy = true
	return free
}

// end notes the hash that was begun; nil when there is none.
func (h *hashes) end(taken *commandv1.StateHash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = false
	if taken != nil {
		h.newest = taken
	}
}

func (h *hashes) get() *commandv1.StateHash {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.newest
}

// heeded returns the command of an entry that replication itself acts upon once it is applied: a mark, or the report of a
// divergence. Of all others it returns nil, without decoding them.
func heeded(l *raft.Log) *commandv1.Command {
	if l.Type != raft.LogCommand {
		return nil
	}
	for rest := l.Data; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return nil
		}
		n := protowire.ConsumeFieldValue(number, kind, rest[tag:])
		if n < 0 {
			return nil
		}
		mark := number == noopField && n > 1 // more than its length, which is zero
		if mark || number == divergenceField {
			c := &commandv1.Command{}
			if proto.Unmarshal(l.Data, c) != nil || !c.GetNoop().GetMark() && c.GetReportDivergence() == nil {
				return nil
			}
			return c
		}
		rest = rest[tag+n:]
	}
	return nil
}

var (
	noopField       = bodyField("noop")
	divergenceField = bodyField("report_divergence")
)

func bodyField(name string) protowire.Number {
	for fields, i := (&commandv1.Command{}).ProtoReflect().Descriptor().Fields(), 0; ; i++ {
		if f := fields.Get(i); string(f.Name()) == name {
			return f.Number()
		}
	}
}

// heed acts upon an entry that was applied here and nothing after it. It is called by Raft's goroutine.
func (r *Replica) heed(index uint64, c *commandv1.Command) error {
	if c.GetNoop() != nil {
		r.takeHash(index)
		return nil
	}
	return r.judge(c.GetReportDivergence())
}

// takeHash takes the hash of the state as it is now, beside what is applied next.
func (r *Replica) takeHash(index uint64) {
	r.metrics.diverged.Set(0)
	if !r.hashes.begin() {
		return // the leader marks again
	}
	var taken *commandv1.StateHash
	snapshot, err := r.c.Machine.Snapshot()
	if err == nil {
		begun := r.spawn(func() {
			defer func() { r.hashes.end(taken) }()
			defer snapshot.Release()
			sum, err := snapshot.Hash()
			if err != nil {
				r.c.Logger.Error("the state's hash could not be taken", "entry", index, "error", err)
				return
			}
			taken = &commandv1.StateHash{Index: index, Sum: sum[:]}
		})
		if begun {
			return
		}
		snapshot.Release()
	} else {
		r.c.Logger.Error("the state's hash could not be taken", "entry", index, "error", err)
	}
	r.hashes.end(nil)
}

// judge returns why this server must not go on, when it is among those whose state is not that of most. It may not after its
// next start either: the reason is kept in the data folder.
func (r *Replica) judge(report *commandv1.ReportDivergence) error {
	r.metrics.diverged.Set(1)
	own := r.hashes.get()
	if len(report.GetAgreed()) == 0 || own.GetIndex() != report.GetIndex() || bytes.Equal(own.GetSum(), report.GetAgreed()) {
		r.c.Logger.Error("the servers' states differ", "entry", report.GetIndex(), "servers", report.GetServers(), "agreed", fmt.Sprintf("%x", report.GetAgreed()))
		return nil
	}
	err := fmt.Errorf("this server's state is not that of most: at entry %d of the log its hash is %x and theirs is %x. "+
		"Remove this server with \"naru server delete\", give it an empty data folder, and let it join anew", report.GetIndex(), own.GetSum(), report.GetAgreed())
	if e := writeDurably(filepath.Join(r.c.Dir, divergedName), []byte(err.Error()+"\n")); e != nil {
		return errors.Join(err, fmt.Errorf("note that in the data folder: %w", e))
	}
	return err
}

// checkDiverged refuses the folder of a server that had to stop because its state was not that of most.
func checkDiverged(path string) error {
	why, err := os.ReadFile(filepath.Join(path, divergedName))
	switch {
	case err == nil:
		return errors.New(strings.TrimSpace(string(why)))
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	return err
}

// compareStates marks the log from time to time, on the leader, and compares the states as of the mark.
func (r *Replica) compareStates(ctx context.Context) error {
	tick := time.NewTicker(compareLook)
	defer tick.Stop()
	last, when := r.Applied(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		grown := r.Applied() - last
		if len(r.voters()) < 2 || grown < compareEntries && (grown == 0 || time.Since(when) < compareEvery) {
			continue
		}
		if err := r.compareOnce(ctx); err != nil && ctx.Err() == nil {
			r.c.Logger.Warn("the servers' states could not be compared; it is tried again", "error", err)
		}
		last, when = r.Applied(), time.Now()
	}
}

func (r *Replica) compareOnce(ctx context.Context) error {
	result, err := r.Propose(ctx, &commandv1.Command{Actor: r.actor(), Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{Mark: true}}})
	if err != nil {
		return err
	}
	voters := r.voters()
	report := &commandv1.ReportDivergence{Index: result.GetIndex(), Servers: r.gatherHashes(ctx, voters, result.GetIndex())}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	times := map[string]int{}
	for _, s := range report.GetServers() {
		times[string(s.GetSum())]++
		if times[string(s.GetSum())] > len(voters)/2 {
			report.Agreed = s.GetSum()
		}
	}
	if len(times) < 2 {
		r.metrics.comparisons.Inc()
		r.c.Logger.Debug("the states were compared", "entry", report.GetIndex(), "servers", len(report.GetServers()), "of", len(voters))
		return nil
	}
	_, err = r.Propose(ctx, &commandv1.Command{Actor: r.actor(), Body: &commandv1.Command_ReportDivergence{ReportDivergence: report}})
	return err
}

// gatherHashes asks the voters for their hashes as of the mark at index, until all have answered or compareAnswers is over.
func (r *Replica) gatherHashes(ctx context.Context, voters []raft.Server, index uint64) []*commandv1.ReportDivergence_Server {
	ctx, cancel := context.WithTimeout(ctx, compareAnswers)
	defer cancel()
	var got []*commandv1.ReportDivergence_Server
	for {
		var left []raft.Server
		for _, v := range voters {
			if h, err := r.hashOf(ctx, v); err == nil && h.GetIndex() == index {
				got = append(got, &commandv1.ReportDivergence_Server{ServerId: string(v.ID), Sum: h.GetSum()})
			} else {
				left = append(left, v)
			}
		}
		if voters = left; len(voters) == 0 || ctx.Err() != nil {
			return got
		}
		pause(ctx, time.Second)
	}
}

func (r *Replica) hashOf(ctx context.Context, m raft.Server) (*commandv1.StateHash, error) {
	if string(m.ID) == r.c.ServerID {
		return r.hashes.get(), nil
	}
	peer, err := r.fabric.client(string(m.Address))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp, err := peer.Status(ctx, &commandv1.StatusRequest{})
	return resp.GetState(), problem.FromStatus(err)
}

func (r *Replica) voters() []raft.Server {
	var voters []raft.Server
	for _, m := range r.members() {
		if m.Suffrage == raft.Voter {
			voters = append(voters, m)
		}
	}
	return voters
}
