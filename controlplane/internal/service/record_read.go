package service

import (
	"context"
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/controlplane/internal/action"
	"github.com/naru-project/naru/controlplane/internal/rights"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// RecordRead writes that something sensitive is about to be shown: what was asked for, with the digest of the request. Reads
// of people's data are bounded: of those that ask one thing, page by page or again and again, one is written at once and
// then one a minute, with their number. None is let through before the entry stands that it counts with.
func (s *Service) RecordRead(ctx context.Context, method string, req proto.Message) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(b)
	e := &apiv1.AuditEntry{Action: action.OfMethod(method), Outcome: apiv1.AuditEntry_READ, Digest: digest[:]}
	e.Target, e.Message = askedFor(e.GetAction(), req)
	if m, _ := rights.MethodOf(method); !m.Personal {
		return s.record(ctx, e)
	}
	call, now := callOf(ctx), time.Now()
	kind, told, recent := s.reads.like(reader{call.ViaZoneID, call.Principal.Actor, e.GetAction()}, e.GetMessage(), now)
	if recent {
		return nil
	}
	if e.Count = told + 1; e.GetCount() == 1 {
		e.Count = 0
	}
	if err := s.record(ctx, e); err != nil {
		return err
	}
	s.reads.written(kind, told, now)
	return nil
}

// notAsked are fields that do not say what is asked for, but how much of it at once.
var notAsked = []protoreflect.Name{"order_by", "page_token", "after"}

// askedFor says what a request for a read asks for: the noun that it names, and its texts for people.
func askedFor(deed string, req proto.Message) (target *apiv1.Reference, message string) {
	m := req.ProtoReflect()
	noun, _, _ := strings.Cut(deed, ".")
	var words []string
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if f.Kind() != protoreflect.StringKind || f.IsList() || f.IsMap() || slices.Contains(notAsked, f.Name()) || !m.Has(f) {
			continue
		}
		text := m.Get(f).String()
		if f.Name() == protoreflect.Name(strings.ReplaceAll(noun, "-", "_")) {
			target = &apiv1.Reference{Kind: noun, Name: text}
		}
		words = append(words, strings.ReplaceAll(string(f.Name()), "_", " ")+" "+strconv.Quote(text))
	}
	if words == nil && m.Descriptor().Fields().ByName("filter") != nil {
		return target, "all of them"
	}
	return target, strings.Join(words, ", ")
}

// maxQuestions of one reader a server tells apart; those beyond are one.
const maxQuestions = 16

// reader is who reads what kind of thing, and where.
type reader struct{ viaZoneID, actor, action string }

// question is what a reader asks, as a digest; none is one of too many.
type question [sha256.Size]byte

// tooMany is the kind of the questions that are not told apart.
func tooMany(question) question { return question{} }

// readKind is what reads that are alike have in common.
type readKind struct {
	reader
	question
}

// reads counts reads of people's data, so that a portal that lists users each second does not fill the log.
type reads struct {
	mu    sync.Mutex
	of    map[reader]counts[question]
	swept time.Time
}

// like reports whether a read like it was written less than a minute ago, and counts it then. Else it is to be written, as
// one of the kind that it returns, with how many were counted of that since the last.
func (r *reads) like(who reader, asked string, now time.Time) (kind readKind, told uint32, recent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(now)
	q, all := question(sha256.Sum256([]byte(asked))), r.of[who]
	if _, known := all[q]; !known {
		all.forget(now, forgottenAfter, tooMany)
		apart := len(all)
		if _, has := all[question{}]; has {
			apart--
		}
		if apart >= maxQuestions {
			q = question{}
		}
	}
	told, due := all.due(q, now)
	return readKind{who, q}, told, !due
}

// written notes that one of a kind stands in the log, which tells of so many others.
func (r *reads) written(k readKind, told uint32, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[reader]counts[question]{}
	}
	if r.of[k.reader] == nil {
		r.of[k.reader] = counts[question]{}
	}
	r.of[k.reader].written(k.question, told, now)
}

// forgottenAfter is for how long it is known what somebody has asked: longer than whoever asks all the time waits for the next entry.
const forgottenAfter = 2 * writeEvery

// sweep forgets what readers have asked who ask no more, now and then.
func (r *reads) sweep(now time.Time) {
	if now.Sub(r.swept) < writeEvery {
		return
	}
	r.swept = now
	for who, all := range r.of {
		if all.forget(now, forgottenAfter, tooMany); len(all) == 0 {
			delete(r.of, who)
		}
	}
}
