package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// ledger is a state machine small enough to be seen through: a map that PutServer writes (id is the key, name the value),
// and a note of every command it carried out, in order. It stands in for a durable one: whoever starts a server again hands
// it the same ledger, or one opened from the same file.
type ledger struct {
	path string // where it is kept; in memory only when empty

	mu    sync.Mutex
	state ledgerState
	// before is called before entries are applied, after when they are durable.
	before func([]Entry) error
	after  func([]Entry)
	// restored is called when a snapshot has been taken over, writing when one is half written.
	restored func()
	writing  func()
	batches  int
}

type ledgerState struct {
	Index, Term uint64
	Values      map[string]string
	// Done holds the encoded result of each command that was carried out, by its id in hexadecimal: JSON keeps no other
	// bytes. Order is their ids.
	Done  map[string][]byte
	Order []string
}

// refused is the value that the ledger takes from nobody.
const refused = "refused"

func newLedger() *ledger {
	return &ledger{state: ledgerState{Values: map[string]string{}, Done: map[string][]byte{}}}
}

func openLedger(path string) (*ledger, error) {
	l := newLedger()
	l.path = path
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	return l, json.Unmarshal(raw, &l.state)
}

func put(key, value string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: &apiv1.Server{Id: key, Name: value}}}}
}

// Apply implements Machine.
func (l *ledger) Apply(entries []Entry) ([]*commandv1.Result, error) {
	l.mu.Lock()
	before := l.before
	l.mu.Unlock()
	if before != nil {
		if err := before(entries); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	next := l.state.clone()
	results := make([]*commandv1.Result, len(entries))
	for i, e := range entries {
		if e.Index <= next.Index {
			l.mu.Unlock()
			return nil, fmt.Errorf("entry %d comes after entry %d", e.Index, next.Index)
		}
		next.Index, next.Term = e.Index, e.Term
		if len(e.Data) == 0 {
			results[i] = &commandv1.Result{Index: e.Index}
			continue
		}
		result, err := next.apply(e)
		if err != nil {
			l.mu.Unlock()
			return nil, err
		}
		results[i] = result
	}
	l.batches++
	err := l.keep(next)
	after := l.after
	l.mu.Unlock()
	if err == nil && after != nil {
		after(entries)
	}
	return results, err
}

func (s *ledgerState) apply(e Entry) (*commandv1.Result, error) {
	cmd := &commandv1.Command{}
	if err := proto.Unmarshal(e.Data, cmd); err != nil {
		return nil, err
	}
	if cmd.GetStamp() == nil {
		return nil, errors.New("a command came without a stamp")
	}
	id := fmt.Sprintf("%x", cmd.GetId())
	if done, ok := s.Done[id]; ok {
		result := &commandv1.Result{}
		return result, proto.Unmarshal(done, result)
	}
	result := &commandv1.Result{Index: e.Index}
	if p := cmd.GetPutServer(); p != nil {
		if p.GetServer().GetName() == refused {
			result.Problem = problem.New(problem.Conflict, "the ledger does not take this value", "Give another one.").Problem
		} else {
			result.Noun = []byte(s.Values[p.GetServer().GetId()])
			s.Values[p.GetServer().GetId()] = p.GetServer().GetName()
		}
	}
	raw, err := proto.Marshal(result)
	s.Done[id] = raw
	s.Order = append(s.Order, id)
	return result, err
}

func (s *ledgerState) clone() ledgerState {
	return ledgerState{Index: s.Index, Term: s.Term, Values: maps.Clone(s.Values), Done: maps.Clone(s.Done), Order: s.Order}
}

func (l *ledger) keep(next ledgerState) error {
	if l.path != "" {
		raw, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if err := writeDurably(l.path, raw); err != nil {
			return err
		}
	}
	l.state = next
	return nil
}

// Snapshot implements Machine.
func (l *ledger) Snapshot() (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledgerSnapshot{l.state.clone(), l.writing}, nil
}

// Restore implements Machine.
func (l *ledger) Restore(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	next := newLedger().state
	if err := json.Unmarshal(raw, &next); err != nil {
		return err
	}
	l.mu.Lock()
	err = l.keep(next)
	l.mu.Unlock()
	if err == nil && l.restored != nil {
		l.restored()
	}
	return err
}

type ledgerSnapshot struct {
	state   ledgerState
	writing func()
}

func (s ledgerSnapshot) Applied() (index, term uint64) { return s.state.Index, s.state.Term }
func (s ledgerSnapshot) Hash() (sum [32]byte, err error) {
	raw, err := json.Marshal([]any{s.state.Values, s.state.Done, s.state.Order})
	return sha256.Sum256(raw), err
}
func (s ledgerSnapshot) Release() {}
func (s ledgerSnapshot) WriteTo(w io.Writer) (int64, error) {
	raw, err := json.Marshal(s.state)
	if err != nil {
		return 0, err
	}
	half := int64(len(raw) / 2)
	n, err := io.Copy(w, bytes.NewReader(raw[:half]))
	if err != nil {
		return n, err
	}
	if s.writing != nil {
		s.writing()
	}
	m, err := io.Copy(w, bytes.NewReader(raw[half:]))
	return n + m, err
}

func (l *ledger) get(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Values[key]
}

func (l *ledger) position() (index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Index, l.state.Term
}

// times returns how often the command was carried out.
func (l *ledger) times(id []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, o := range l.state.Order {
		if o == fmt.Sprintf("%x", id) {
			n++
		}
	}
	return n
}

// same returns how two ledgers differ; "" when they hold the same, position apart.
func (l *ledger) differs(other *ledger) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	if !maps.Equal(l.state.Values, other.state.Values) {
		return fmt.Sprintf("values %v and %v", l.state.Values, other.state.Values)
	}
	if !slices.Equal(l.state.Order, other.state.Order) {
		return fmt.Sprintf("commands\n%v and\n%v", l.state.Order, other.state.Order)
	}
	return ""
}
