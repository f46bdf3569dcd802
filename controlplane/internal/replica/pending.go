package replica

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// pending are the commands whose result somebody here waits for. The applier delivers them: Raft's own futures know no
// context, and some are never answered when Raft stops.
type pending struct {
	mu   sync.Mutex
	byID map[commandID][]chan outcome
}

type commandID [16]byte

type outcome struct {
	result *commandv1.Result
	err    error // it is unknown what became of the command
}

// await returns where the outcome of the command with this id will come; forget has to be called in the end.
func (p *pending) await(id commandID) (<-chan outcome, func()) {
	c := make(chan outcome, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil {
		p.byID = map[commandID][]chan outcome{}
	}
	p.byID[id] = append(p.byID[id], c)
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		left := slices.DeleteFunc(p.byID[id], func(o chan outcome) bool { return o == c })
		if len(left) == 0 {
			delete(p.byID, id)
		} else {
			p.byID[id] = left
		}
	}
}

// deliver tells those who wait for the command encoded in data what became of it.
func (p *pending) deliver(data []byte, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byID) == 0 {
		return
	}
	id, ok := idOf(data)
	if !ok {
		return
	}
	for _, c := range p.byID[id] {
		select {
		case c <- o:
		default: // it has one already
		}
	}
}

// idOf returns the id of an encoded command: its first field.
func idOf(data []byte) (id commandID, ok bool) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return id, false
	}
	raw, n := protowire.ConsumeBytes(data[n:])
	if n < 0 || len(raw) != len(id) {
		return id, false
	}
	return commandID(raw), true
}
