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
	kind, told, recent := s.reads.like(readKind{reader{call.ViaZoneID, call.Principal.Actor, e.GetAction()}, e.GetMessage()}, now)
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

const (
	// readEvery is how often a server writes reads that ask for the same.
	readEvery = time.Minute
	// maxQuestions of one reader a server tells apart within that time; those beyond are one.
	maxQuestions = 16
)

// reader is who reads what kind of thing, and where.
type reader struct{ viaZoneID, actor, action string }

// readKind is what reads that are alike have in common.
type readKind struct {
	reader
	question string
}

// reads counts reads of people's data, so that a portal that lists users each second does not fill the log. What is counted
// and not yet written is lost with the server; the first of each kind never is.
type reads struct {
	mu    sync.Mutex
	kinds map[readKind]counted
}

// like reports whether a read like it was written less than a minute ago, and counts it then. Else it is to be written, as
// one of the kind that it returns, with how many were counted of that since the last.
func (r *reads) like(k readKind, now time.Time) (kind readKind, told uint32, recent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, known := r.kinds[k]
	if !known {
		if r.forget(now); r.questions(k.reader) >= maxQuestions {
			k.question = ""
		}
		was = r.kinds[k]
	}
	if now.Sub(was.since) >= readEvery {
		return k, was.count, false
	}
	was.count++
	r.kinds[k] = was
	return k, 0, true
}

// written notes that one of a kind stands in the log, which tells of so many others.
func (r *reads) written(k readKind, told uint32, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = map[readKind]counted{}
	}
	r.kinds[k] = counted{since: now, count: r.kinds[k].count - min(told, r.kinds[k].count)}
}

func (r *reads) questions(who reader) (n int) {
	for k := range r.kinds {
		if k.reader == who && k.question != "" {
			n++
		}
	}
	return n
}

// forget drops what nobody has asked for a while, which is longer than whoever asks all the time waits for the next entry.
// What was counted of it is told with the reader's next that is one of too many.
func (r *reads) forget(now time.Time) {
	for k, was := range r.kinds {
		if now.Sub(was.since) < 2*readEvery || k.question == "" && was.count > 0 {
			continue
		}
		delete(r.kinds, k)
		if was.count > 0 {
			rest := readKind{reader: k.reader}
			sum := r.kinds[rest]
			r.kinds[rest] = counted{since: sum.since, count: sum.count + was.count}
		}
	}
}
