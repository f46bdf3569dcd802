package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// ether connects servers in memory, and cuts them off from one another. An address is the server's id with ":1" behind it.
type ether struct {
	mu    sync.Mutex
	nodes map[string]*mote
	cut   map[[2]string]bool // from, to
}

// mote is one server's place in the ether: the fabric under test.
type mote struct {
	ether   *ether
	address string
	id      string
	trans   *raft.InmemTransport

	mu      sync.Mutex
	service commandv1.PeerServiceServer
	closed  bool
}

func newEther() *ether { return &ether{nodes: map[string]*mote{}, cut: map[[2]string]bool{}} }

func (e *ether) weave(c *Config, _ func(string) (string, bool), _ *metrics) (fabric, error) {
	_, trans := raft.NewInmemTransportWithTimeout(raft.ServerAddress(c.Address), 200*time.Millisecond)
	m := &mote{ether: e, address: c.Address, id: c.ServerID, trans: trans}
	e.mu.Lock()
	e.nodes[c.Address] = m
	e.mu.Unlock()
	e.wire()
	return m, nil
}

// wire makes Raft's transports as the cuts say.
func (e *ether) wire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for from, a := range e.nodes {
		for to, b := range e.nodes {
			if from == to {
				continue
			}
			if e.cut[[2]string{from, to}] {
				a.trans.Disconnect(raft.ServerAddress(to))
			} else {
				a.trans.Connect(raft.ServerAddress(to), b.trans)
			}
		}
	}
}

// separate cuts everything between two groups, in both directions.
func (e *ether) separate(a, b []string) {
	e.mu.Lock()
	for _, x := range a {
		for _, y := range b {
			e.cut[[2]string{x, y}], e.cut[[2]string{y, x}] = true, true
		}
	}
	e.mu.Unlock()
	e.wire()
}

// silence cuts one direction.
func (e *ether) silence(from, to string) {
	e.mu.Lock()
	e.cut[[2]string{from, to}] = true
	e.mu.Unlock()
	e.wire()
}

func (e *ether) heal() {
	e.mu.Lock()
	clear(e.cut)
	e.mu.Unlock()
	e.wire()
}

func (e *ether) reach(from, to string) (*mote, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m, ok := e.nodes[to]
	return m, ok && !e.cut[[2]string{from, to}]
}

func (m *mote) transport() raftTransport { return m.trans }

func (m *mote) client(address string) (commandv1.PeerServiceClient, error) {
	return whisper{from: m, to: address}, nil
}

func (m *mote) serve(s commandv1.PeerServiceServer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.service = s
}

func (m *mote) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.trans.Close()
}

func (m *mote) answering() commandv1.PeerServiceServer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	return m.service
}

// whisper calls a peer's service as gRPC would: arguments are copied, and a reply is lost when the way back is cut
// meanwhile.
type whisper struct {
	commandv1.PeerServiceClient
	from *mote
	to   string
}

func (w whisper) Propose(ctx context.Context, in *commandv1.ProposeRequest, _ ...grpc.CallOption) (*commandv1.ProposeResponse, error) {
	return call(ctx, w, in, commandv1.PeerServiceServer.Propose)
}

func (w whisper) ReadIndex(ctx context.Context, in *commandv1.ReadIndexRequest, _ ...grpc.CallOption) (*commandv1.ReadIndexResponse, error) {
	return call(ctx, w, in, commandv1.PeerServiceServer.ReadIndex)
}

func (w whisper) Status(ctx context.Context, in *commandv1.StatusRequest, _ ...grpc.CallOption) (*commandv1.StatusResponse, error) {
	return call(ctx, w, in, commandv1.PeerServiceServer.Status)
}

func (w whisper) Admit(ctx context.Context, in *commandv1.AdmitRequest, _ ...grpc.CallOption) (*commandv1.AdmitResponse, error) {
	return call(ctx, w, in, commandv1.PeerServiceServer.Admit)
}

func (w whisper) RemoveServer(ctx context.Context, in *commandv1.RemoveServerRequest, _ ...grpc.CallOption) (*commandv1.RemoveServerResponse, error) {
	return call(ctx, w, in, commandv1.PeerServiceServer.RemoveServer)
}

func call[In, Out proto.Message](ctx context.Context, w whisper, in In, method func(commandv1.PeerServiceServer, context.Context, In) (Out, error)) (out Out, err error) {
	to, ok := w.from.ether.reach(w.from.address, w.to)
	if !ok {
		return out, unreachable(w.to)
	}
	s := to.answering()
	if s == nil {
		return out, unreachable(w.to)
	}
	type reply struct {
		out Out
		err error
	}
	done := make(chan reply, 1)
	go func() {
		out, err := method(s, withCaller(ctx, w.from.id), proto.CloneOf(in))
		done <- reply{out, err}
	}()
	select {
	case r := <-done:
		if _, ok := w.from.ether.reach(w.to, w.from.address); !ok || to.answering() == nil {
			return out, unreachable(w.to)
		}
		return r.out, problem.ToStatus(r.err)
	case <-ctx.Done():
		return out, problem.ToStatus(ctx.Err())
	}
}

func unreachable(address string) error {
	return problem.ToStatus(problem.Newf(problem.Unavailable, "", "%s is not reached", address))
}
