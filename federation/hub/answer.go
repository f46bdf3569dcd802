package hub

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// answer puts a question of the zone side to the registrar.
func (r *round) answer(ctx context.Context, query *linkv1.Query) {
	ctx, cancel := context.WithTimeout(ctx, queryPatience)
	defer cancel()
	answer := &linkv1.Answer{Query: query.Query}
	var err error
	kind := "join"
	switch body := query.Body.(type) {
	case *linkv1.Query_Join:
		var out *linkv1.JoinResponse
		if out, err = r.config.Registrar.Join(ctx, body.Join); err == nil {
			answer.Body = &linkv1.Answer_Join{Join: out}
		}
	case *linkv1.Query_Renew:
		kind = "renew"
		var out *linkv1.RenewResponse
		if out, err = r.config.Registrar.Renew(ctx, query.Certificate, body.Renew); err == nil {
			answer.Body = &linkv1.Answer_Renew{Renew: out}
		}
	default:
		kind, err = "unknown", status.Error(codes.Unimplemented, "this server is older than its broker and does not know the question")
	}
	if err != nil {
		refusal := status.Convert(problem.ToStatus(err))
		answer.GrpcCode, answer.Message = uint32(refusal.Code()), shorten(advice(err, refusal.Message()), 1024)
		r.config.Logger.Info("question of the zone side refused", "broker", r.config.Broker, "kind", kind, "error", err)
	}
	r.count(kind, err)
	_ = r.say(&linkv1.AnnounceRequest{Body: &linkv1.AnnounceRequest_Answer{Answer: answer}})
}

// enrol gives the broker a certificate for the pinned key and no other.
func (r *round) enrol(ctx context.Context, csr []byte) {
	ctx, cancel := context.WithTimeout(ctx, queryPatience)
	defer cancel()
	chain, err := r.issue(ctx, csr)
	r.count("enrolment", err)
	if err != nil {
		r.config.Logger.Warn("broker not enrolled", "broker", r.config.Broker, "error", err)
		return
	}
	r.config.Logger.Info("broker given a certificate", "broker", r.config.Broker)
	_ = r.say(&linkv1.AnnounceRequest{Body: &linkv1.AnnounceRequest_Certificate{Certificate: &linkv1.Certificate{Chain: chain}}})
}

func (r *round) issue(ctx context.Context, csr []byte) ([][]byte, error) {
	key, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	if got := pki.Fingerprint(key); got != r.config.Fingerprint {
		return nil, fmt.Errorf("the request is for the key %s, and the broker's is %s", got, r.config.Fingerprint)
	}
	return r.config.Registrar.EnrollBroker(ctx, r.config.Broker, csr)
}

func (r *round) count(kind string, err error) {
	code := status.Code(problem.ToStatus(err))
	r.config.Metrics.queries.WithLabelValues(r.config.Broker, kind, code.String()).Inc()
}

// advice adds what to do next, which a Problem carries beside its text: only text crosses here.
func advice(err error, text string) string {
	if next := problem.Of(err).GetNext(); next != "" {
		return text + " " + next
	}
	return text
}

// shorten cuts a text to at most max characters.
func shorten(text string, max int) string {
	text = strings.ToValidUTF8(text, "?")
	for i := range text {
		if max == 0 {
			return text[:i]
		}
		max--
	}
	return text
}
