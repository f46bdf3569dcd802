package broker

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// maxQueries bounds how many joins and renewals wait for an answer.
const maxQueries = 256

// queries puts questions of the zone side to a server and matches the answers.
type queries struct {
	servers  *servers
	patience time.Duration
	metrics  *metrics

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]waiting
}

type waiting struct {
	server string // who was asked, and alone may answer
	answer chan *linkv1.Answer
}

func newQueries(s *servers, patience time.Duration, m *metrics) *queries {
	return &queries{servers: s, patience: patience, metrics: m, waiting: map[uint64]waiting{}}
}

// ask returns a server's answer, or its refusal as a gRPC status. A question is put once: the server may have acted on
// it, so whether to ask again is the asker's to decide.
func (q *queries) ask(ctx context.Context, kind string, query *linkv1.Query) (*linkv1.Answer, error) {
	answer, result, err := q.put(ctx, query)
	q.metrics.queries.WithLabelValues(kind, result).Inc()
	return answer, err
}

func (q *queries) put(ctx context.Context, query *linkv1.Query) (_ *linkv1.Answer, result string, _ error) {
	to := q.servers.choose(nil)
	if to == nil {
		return nil, "unavailable", status.Error(codes.Unavailable, "no server of the control plane serves at this broker now: ask again in a moment")
	}
	answer, ok := q.note(to.id, query)
	if !ok {
		return nil, "throttled", status.Error(codes.ResourceExhausted, "too many joins and renewals wait for an answer: ask again in a moment")
	}
	defer q.forget(query.Query)
	if !to.tell(&linkv1.AnnounceResponse{Body: &linkv1.AnnounceResponse_Query{Query: query}}) {
		return nil, "unavailable", status.Error(codes.Unavailable, "the control plane does not listen: ask again in a moment")
	}
	timer := time.NewTimer(q.patience)
	defer timer.Stop()
	select {
	case a := <-answer:
		if a.GrpcCode != uint32(codes.OK) {
			return nil, "refused", status.Error(known(a.GrpcCode), a.Message)
		}
		return a, "answered", nil
	case <-timer.C:
		return nil, "timeout", status.Errorf(codes.Unavailable, "the control plane did not answer within %s: ask again", q.patience)
	case <-to.ctx.Done():
		return nil, "unavailable", status.Error(codes.Unavailable, "the server that was asked has gone: ask again")
	case <-ctx.Done():
		return nil, "cancelled", status.FromContextError(ctx.Err()).Err()
	}
}

// note numbers a query and remembers who was asked.
func (q *queries) note(server string, query *linkv1.Query) (<-chan *linkv1.Answer, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxQueries {
		return nil, false
	}
	q.last++
	query.Query = q.last
	answer := make(chan *linkv1.Answer, 1)
	q.waiting[q.last] = waiting{server: server, answer: answer}
	return answer, true
}

func (q *queries) forget(number uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, number)
}

// answer matches a server's answer. One that nobody waits for, or from another server than was asked, is dropped.
func (q *queries) answer(server string, a *linkv1.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w, ok := q.waiting[a.Query]; ok && w.server == server {
		delete(q.waiting, a.Query)
		w.answer <- a
	}
}

// known maps what is no canonical code to UNKNOWN.
func known(code uint32) codes.Code {
	if code > uint32(codes.Unauthenticated) {
		return codes.Unknown
	}
	return codes.Code(code)
}
