// Package metering reckons what a VM has used from the links of its chain. It is pure: no state, no clock, no I/O; the state machine
// calls it.
//
// A zone writes a link with each transition: what the VM used until then, since when, and what it uses from then on. Each link has a
// span of its own, so that a VM's use is the sum of its links' spans, in whatever order they come. Three things are held, whatever a
// zone says:
//
//  1. What is counted of a VM is one line without overlap, and without a gap from its first link to its end, or to where its head is
//     counted. Where a link's own span does not fit on it, adjustments take the span away and count what fits.
//  2. A link that came is a record, as its zone said it, and stays. Adjustments are further records.
//  3. What is counted in place of links that have not come is taken away when they do.
//
// Times are whole seconds since 1970.
package metering

import (
	"slices"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// tolerance is by how much a zone's clock may differ from the control plane's, in seconds, before it is not believed.
	tolerance = 300
	// maxGaps bounds how many gaps of a VM's chain may still be filled.
	maxGaps = 16
)

// Span is a VM in one state and of one size, from its first second until before its last.
type Span struct {
	From, Until int64
	State       apiv1.VM_State
	Size        *apiv1.Resources
}

func (s Span) empty() bool { return s.From >= s.Until || !counts(s.State) }

func (s Span) equal(o Span) bool {
	return s.From == o.From && s.Until == o.Until && s.State == o.State && proto.Equal(s.Size, o.Size)
}

// counts reports whether time in a state is use.
func counts(s apiv1.VM_State) bool {
	return s == apiv1.VM_RUNNING || s == apiv1.VM_STOPPED || s == apiv1.VM_TRASHED || s == apiv1.VM_ERROR
}

// Adjustment is a span that is counted beside what a zone says, or taken away.
type Adjustment struct {
	Span
	Subtracts bool
}

// Outcome is what a link comes to.
type Outcome struct {
	Kind apiv1.UsageRecord_Kind
	// Span is the link's own; From and Until are equal where it tells of no use.
	Span
	Marks       []apiv1.UsageRecord_Mark
	Adjustments []Adjustment
}

func (o *Outcome) mark(m apiv1.UsageRecord_Mark) {
	if !slices.Contains(o.Marks, m) {
		o.Marks = append(o.Marks, m)
	}
}

// count counts spans in place of the link's own, which stays where it is one of them.
func (o *Outcome) count(spans ...Span) {
	if !o.empty() && !slices.ContainsFunc(spans, o.equal) {
		o.Adjustments = append(o.Adjustments, Adjustment{o.Span, true})
	}
	for _, s := range spans {
		if !s.empty() && !s.equal(o.Span) {
			o.Adjustments = append(o.Adjustments, Adjustment{s, false})
		}
	}
}

// Fault says what is wrong with the form of a link; "" where nothing is.
func Fault(u *linkv1.Usage) string {
	was := u.GetWas()
	switch {
	case u.GetVmId() == "":
		return "the usage names no VM"
	case u.GetNumber() == 0 || u.GetAt() == nil:
		return "the usage has no number or no time"
	case !counts(u.GetState()) && u.GetState() != apiv1.VM_DELETED:
		return "the usage does not say what the VM is"
	case u.GetSize() == nil && u.GetState() != apiv1.VM_DELETED:
		return "the usage has no size"
	case was != nil && (was.GetNumber() != u.GetNumber()-1 || was.GetNumber() == 0 || was.GetAt() == nil || !counts(was.GetState()) || was.GetSize() == nil):
		return "the usage does not say what was before it"
	case !sane(u.GetAt().GetSeconds()) || !sane(was.GetAt().GetSeconds()):
		return "the usage is of a time that no clock shows"
	}
	return ""
}

// sane tells of a time between 1970 and the year 9999.
func sane(at int64) bool { return at >= 0 && at < 253402300800 }

// Take takes a well-formed link into a VM's head, which is changed; origin is the life of the zone's store in which the link was
// written. By the control plane's clock, made is when the VM was asked for, before which it was not used (0: that is not known), and now
// is now.
func Take(h *commandv1.UsageHead, origin string, u *linkv1.Usage, made, now int64) Outcome {
	out := Outcome{Kind: kindOf(h, u), Span: said(u)}
	was, at := u.GetWas(), u.GetAt().GetSeconds()
	if was != nil && was.GetClockId() != u.GetClockId() {
		out.mark(apiv1.UsageRecord_TWO_CLOCKS)
	}
	if was != nil && was.GetAt().GetSeconds() > at {
		out.mark(apiv1.UsageRecord_BEHIND)
	}
	follows := was != nil && u.GetNumber() > h.GetNumber()
	switch {
	case h.GetNumber() == 0:
		takeFirst(h, u, &out, made, now)
	case fill(h, u, &out):
		return out
	case h.GetEnded() && was == nil && u.GetState() != apiv1.VM_DELETED:
		// It is made anew under its id.
		out.Kind = apiv1.UsageRecord_BEGUN
		h.Counted, h.Gaps, h.Ended = reach(h, u, &out, now), nil, false
	case h.GetEnded():
		out.mark(apiv1.UsageRecord_AFTER_END)
		out.count()
		return out
	case !follows && origin == h.GetIncarnationId():
		out.mark(apiv1.UsageRecord_REPEATED)
		out.count()
		return out
	case !follows:
		// The zone's store has forgotten what was told already: what it says of the time before this link is older than what is known.
		out.mark(apiv1.UsageRecord_PUT_BACK)
		until := reach(h, u, &out, now)
		out.count(Span{h.GetCounted(), until, h.GetState(), h.GetSize()})
		h.Gaps, h.Counted = nil, until
	default:
		takeNext(h, u, &out, now)
	}
	h.IncarnationId, h.Number, h.ClockId, h.At = origin, u.GetNumber(), u.GetClockId(), at
	h.State, h.Size = u.GetState(), u.GetSize()
	if h.GetState() == apiv1.VM_DELETED {
		h.State, h.Size, h.Ended = 0, nil, true
	}
	return out
}

// said is a link's own span.
func said(u *linkv1.Usage) Span {
	was, at := u.GetWas(), u.GetAt().GetSeconds()
	if was == nil || was.GetAt().GetSeconds() > at {
		return Span{at, at, was.GetState(), was.GetSize()}
	}
	return Span{was.GetAt().GetSeconds(), at, was.GetState(), was.GetSize()}
}

// reach is up to where a link has the use of its VM counted.
func reach(h *commandv1.UsageHead, u *linkv1.Usage, out *Outcome, now int64) int64 {
	until := u.GetAt().GetSeconds()
	if u.GetClockId() != "" && u.GetClockId() == h.GetClockId() {
		until += h.GetCounted() - h.GetAt() // by one clock the difference is right, wherever the clock stands
	}
	if until > now+tolerance {
		out.mark(apiv1.UsageRecord_AHEAD)
		until = now
	}
	if until < h.GetCounted() {
		out.mark(apiv1.UsageRecord_BEHIND)
		until = h.GetCounted()
	}
	return until
}

// takeFirst takes the first link that is known of a VM.
func takeFirst(h *commandv1.UsageHead, u *linkv1.Usage, out *Outcome, made, now int64) {
	from, until := out.From, u.GetAt().GetSeconds()
	if until > now+tolerance {
		out.mark(apiv1.UsageRecord_AHEAD)
		until = now
	}
	if from < made-tolerance {
		out.mark(apiv1.UsageRecord_BEHIND)
		from, until = made, max(made, until)
	}
	from = min(from, until)
	h.Counted = until
	if u.GetWas() == nil {
		return
	}
	out.mark(apiv1.UsageRecord_GAP)
	out.count(Span{from, until, out.State, out.Size})
	h.Gaps = append(h.Gaps, &commandv1.UsageHead_Gap{First: 1, Last: u.GetWas().GetNumber(), From: min(max(made-tolerance, 0), from), Until: from})
}

// takeNext takes a link that follows on the newest one, or on links that have not come: until these begin, what was known goes on.
func takeNext(h *commandv1.UsageHead, u *linkv1.Usage, out *Outcome, now int64) {
	was := u.GetWas()
	until := reach(h, u, out, now)
	from := was.GetAt().GetSeconds()
	if was.GetClockId() != "" && was.GetClockId() == h.GetClockId() {
		from += h.GetCounted() - h.GetAt()
	}
	from = min(max(from, h.GetCounted()), until)
	switch {
	case u.GetNumber() > h.GetNumber()+1:
		out.mark(apiv1.UsageRecord_GAP)
		h.Gaps = append(h.Gaps, &commandv1.UsageHead_Gap{
			First: h.GetNumber() + 1, Last: u.GetNumber() - 1, From: h.GetCounted(), Until: from, State: h.GetState(), Size: h.GetSize(),
		})
		if len(h.GetGaps()) > maxGaps {
			h.Gaps = h.GetGaps()[1:]
		}
	case was.GetAt().GetSeconds() != h.GetAt() || was.GetState() != h.GetState() || !proto.Equal(was.GetSize(), h.GetSize()):
		out.mark(apiv1.UsageRecord_CONTRADICTED)
	}
	out.count(Span{h.GetCounted(), from, h.GetState(), h.GetSize()}, Span{from, until, was.GetState(), was.GetSize()})
	h.Counted = until
}

// fill takes a link that was missing. What was counted in its place is taken away. It reports whether the link is one.
func fill(h *commandv1.UsageHead, u *linkv1.Usage, out *Outcome) bool {
	i := slices.IndexFunc(h.GetGaps(), func(g *commandv1.UsageHead_Gap) bool {
		return g.GetFirst() <= u.GetNumber() && u.GetNumber() <= g.GetLast()
	})
	if i < 0 {
		return false
	}
	out.mark(apiv1.UsageRecord_LATE)
	g := h.GetGaps()[i]
	from, until := out.From, out.Until
	if out.empty() {
		from = min(max(from, g.GetFrom()), g.GetUntil())
		until = from
	}
	if from < g.GetFrom() || until > g.GetUntil() {
		out.mark(apiv1.UsageRecord_CONTRADICTED)
		out.count()
		h.Gaps = slices.Delete(h.GetGaps(), i, i+1)
		return true
	}
	if was := (Span{from, until, g.GetState(), g.GetSize()}); !was.empty() {
		out.Adjustments = append(out.Adjustments, Adjustment{was, true})
	}
	before, after := proto.CloneOf(g), proto.CloneOf(g)
	before.Last, before.Until = u.GetNumber()-1, from
	after.First, after.From = u.GetNumber()+1, until
	left := slices.DeleteFunc([]*commandv1.UsageHead_Gap{before, after}, func(g *commandv1.UsageHead_Gap) bool { return g.GetFirst() > g.GetLast() })
	h.Gaps = slices.Replace(h.GetGaps(), i, i+1, left...)
	return true
}

// Close ends the use of a VM that is gone, and whose zone does not say when it ended: it ended when the control plane saw it gone.
func Close(h *commandv1.UsageHead) []Adjustment {
	rest := Span{h.GetCounted(), h.GetGone(), h.GetState(), h.GetSize()}
	h.Counted, h.State, h.Size, h.Ended = max(h.GetCounted(), h.GetGone()), 0, nil, true
	if rest.empty() {
		return nil
	}
	return []Adjustment{{rest, false}}
}

// kindOf says what a link tells.
func kindOf(h *commandv1.UsageHead, u *linkv1.Usage) apiv1.UsageRecord_Kind {
	was, is := u.GetWas(), u.GetState()
	switch {
	case is == apiv1.VM_DELETED:
		return apiv1.UsageRecord_ENDED
	case was == nil && h.GetNumber() == 0:
		return apiv1.UsageRecord_BEGUN
	case was == nil, is == was.GetState() && proto.Equal(u.GetSize(), was.GetSize()):
		return apiv1.UsageRecord_CONTINUED
	case is == was.GetState():
		return apiv1.UsageRecord_RESIZED
	case is == apiv1.VM_ERROR:
		return apiv1.UsageRecord_BROKEN
	case is == apiv1.VM_RUNNING:
		return apiv1.UsageRecord_STARTED
	case is == apiv1.VM_TRASHED:
		return apiv1.UsageRecord_TRASHED
	}
	return apiv1.UsageRecord_STOPPED
}
