// Package request is the life of a request: who may decide, when that is enough, and what follows. It is rules over the
// noun itself, and nothing else: no clock, no policy language, no store, so that the replicated state machine can apply
// them. What takes judgement, whether a person is eligible, which stages a policy asks for, when a working day ends, is
// found by whoever proposes, and comes in as a fact. So do the times: now is when something is done, and never goes back;
// clock is what the clock shows, against which what ends is held.
//
// What holds on every path:
//
//  1. Nobody decides on what they asked for, gain from or helped write; nor does anybody in their place, nor they in
//     anybody's.
//  2. A person decides once in a round of a request, whether for themselves or for another, and so does the one they
//     decide for: quorums are of distinct people, across stages too.
//  3. A decision counts for what was seen, by its hash, and only in its round.
//  4. Time passes a request on or ends it. It never approves.
//  5. Decisions are appended to a chain of hashes and never changed, but for the mark that they are void.
//  6. What one stage rejects is rejected, whatever others said, and whether or not it was carried out.
//  7. What crosses between zones is approved by people on both sides first.
//  8. In an external stage, and nowhere else, the word of another system counts: of the services that the stage names, and
//     of no person. Whom the service says to have decided there is one more of those who decide: 1 and 2 hold of them by name.
//
// A function that refuses leaves the request as it was.
package request

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Asking are the topics of what people are told of a request that waits for their decision.
var Asking = []string{"request.waiting", "request.escalated", "request.reminded"}

// Mutable reports whether people may do without mail of a topic. What waits for their decision they are always told, and what was done to
// their account, or in their place: whoever has got hold of it must not silence that.
func Mutable(topic string) bool {
	return !slices.Contains(Asking, topic) && topic != "request.decided-for-you" && !strings.HasPrefix(topic, "account.") && !strings.HasPrefix(topic, "delegation.")
}

// Recorded reports whether r is the record of a standard change: of what was done to a VM without a request, and allowed by its policy, a
// permission or the clock. Nothing becomes of it but what becomes of its operation.
func Recorded(r *apiv1.Request) bool { return r.GetIntake() >= apiv1.Intake_DIRECT }

// OfRecord refuses what is not done to a record.
func OfRecord(r *apiv1.Request, done string) error {
	if !Recorded(r) {
		return nil
	}
	return problem.Newf(problem.WrongState, "Make the change that is wanted now, or ask for it: naru request create.",
		"request %s is the record of what was done without a request, and cannot be %s", r.GetName(), done)
}

// parties are those who may not decide on r: who asked, for whom, who helped write.
func parties(r *apiv1.Request) []Person {
	all := []Person{{r.GetRequesterId(), r.GetRequester()}, {r.GetOnBehalfOfId(), r.GetOnBehalfOf()}}
	for i, id := range r.GetContributorIds() {
		p := Person{ID: id}
		if i < len(r.GetContributors()) {
			p.Name = r.GetContributors()[i]
		}
		all = append(all, p)
	}
	return all
}

// Concerned returns the ids of those who may not decide on r.
func Concerned(r *apiv1.Request) []string {
	var all []string
	for _, p := range parties(r) {
		all = append(all, p.ID)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(id string) bool { return id == "" })
}

// Editable reports whether r can be changed.
func Editable(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_DRAFT || r.GetApproval() == apiv1.Request_RETURNED
}

// Deciding reports whether decisions are taken.
func Deciding(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW || underReview(r)
}

// underReview reports whether r was let through at once and is reviewed afterwards.
func underReview(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_APPROVED && slices.ContainsFunc(r.GetStages(), undecided)
}

func undecided(s *apiv1.Stage) bool {
	return s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING
}

// Crosses reports whether r was asked for in another zone than the one it concerns.
func Crosses(r *apiv1.Request) bool {
	return r.GetSourceZoneId() != "" && r.GetZoneId() != "" && r.GetSourceZoneId() != r.GetZoneId()
}

// AuthorityOf returns whose word stages ask for: people's, another system's, or both.
func AuthorityOf(stages []*apiv1.Stage) apiv1.Authority_Value {
	switch {
	case !slices.ContainsFunc(stages, (*apiv1.Stage).GetExternal):
		return apiv1.Authority_LOCAL
	case slices.ContainsFunc(stages, func(s *apiv1.Stage) bool { return !s.GetExternal() }):
		return apiv1.Authority_BOTH
	}
	return apiv1.Authority_ITSM
}

// Quantity is how many things r asks for, or about.
func Quantity(r *apiv1.Request) uint32 {
	return max(r.GetSpecification().GetCreate().GetQuantity(), uint32(len(r.GetParts())), 1)
}

// InZone reports whether a zone carries r out; what none does is written in the control plane alone.
func InZone(r *apiv1.Request) bool {
	return r.GetSpecification().GetAccessForTime() == nil && r.GetSpecification().GetCrossZone() == nil
}

// Freeze writes down what approvers decide on: all of r but what becomes of it. It is called once a round, by who proposes
// the submission.
func Freeze(r *apiv1.Request) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(seen(r))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	r.Frozen, r.FrozenHash = b, sum[:]
	return nil
}

// frozen refuses an r that is not what its frozen bytes say: people decide on these, and what is stored beside them is carried
// out.
func frozen(r *apiv1.Request) error {
	if sum := sha256.Sum256(r.GetFrozen()); len(r.GetFrozen()) == 0 || !bytes.Equal(sum[:], r.GetFrozenHash()) {
		return problem.New(problem.Invalid, "the request is not frozen as its hash says", "This is a fault of the sender, not of the user; report it.")
	}
	kept, is := &apiv1.Request{}, seen(r)
	if err := proto.Unmarshal(r.GetFrozen(), kept); err == nil && proto.Equal(kept, is) {
		return nil
	}
	said := "no request"
	for fields, i := is.ProtoReflect().Descriptor().Fields(), 0; i < fields.Len(); i++ {
		f := fields.Get(i)
		if a, b := kept.ProtoReflect(), is.ProtoReflect(); a.Has(f) != b.Has(f) || !a.Get(f).Equal(b.Get(f)) {
			said = "another " + string(f.Name())
			break
		}
	}
	return problem.Newf(problem.Invalid, "This is a fault of the sender, not of the user; report it.", "people would decide on %s than request %s has", said, r.GetName())
}

// seen is what approvers decide on. Its id says which request it is; name and time are given to it when it is kept, and that may be
// after it was frozen.
func seen(r *apiv1.Request) *apiv1.Request {
	seen := proto.CloneOf(r)
	seen.Frozen, seen.FrozenHash, seen.Decisions, seen.Parts, seen.Results, seen.Operations, seen.Actions = nil, nil, nil, nil, nil, nil, nil
	seen.Approval, seen.ApprovalReason, seen.Fulfilment, seen.FulfilmentReason = 0, "", 0, ""
	seen.Stages, seen.ReviewedAfterwards, seen.ReviewOverdue, seen.Comments, seen.Revision = nil, false, false, 0, ""
	seen.SubmittedAt, seen.DecidedAt, seen.FulfilledAt, seen.EndedAt, seen.OrphanedAt, seen.AutomaticAt = nil, nil, nil, nil, nil, nil
	seen.BehindIds, seen.SentSha256, seen.SentRound, seen.CountedAt = nil, nil, 0, nil
	seen.Name, seen.CreatedAt = "", nil
	seen.Adds, seen.AddsGrade, seen.Quotas, seen.Holds, seen.Fit = nil, 0, nil, nil, nil
	seen.Round = r.GetRound() + 1
	return seen
}

// chain ties d to the decision before it.
func chain(r *apiv1.Request, d *apiv1.Decision) {
	h := sha256.New()
	number := func(n uint64) { _ = binary.Write(h, binary.BigEndian, n) }
	text := func(b []byte) {
		number(uint64(len(b)))
		h.Write(b)
	}
	for _, b := range [][]byte{d.GetPreviousHash(), []byte(r.GetId()), []byte(d.GetId()), []byte(d.GetStage()), []byte(d.GetActor()), []byte(d.GetActorId()),
		[]byte(d.GetActingFor()), []byte(d.GetActingForId()), []byte(d.GetDelegation()), []byte(d.GetComment()), d.GetSeenHash()} {
		text(b)
	}
	number(uint64(d.GetRound()))
	number(uint64(d.GetVerdict()))
	number(uint64(d.GetStrength()))
	number(uint64(d.GetAt().GetSeconds()))
	number(uint64(d.GetAt().GetNanos()))
	if d.GetExternalApprover() != "" || d.GetExternalRef() != "" { // as the hashes are of before there were any
		text([]byte(d.GetExternalApprover()))
		text([]byte(d.GetExternalRef()))
	}
	d.Hash = h.Sum(nil)
}

// Verify reports whether the chain of r's decisions is whole.
func Verify(r *apiv1.Request) error {
	var last []byte
	for _, d := range r.GetDecisions() {
		if !bytes.Equal(d.GetPreviousHash(), last) {
			return problem.Newf(problem.WrongState, "Look into the audit log; the request takes no further decision.",
				"a decision on request %s is missing, or was put in, before %s", r.GetName(), d.GetId())
		}
		again := proto.CloneOf(d)
		if chain(r, again); !bytes.Equal(again.GetHash(), d.GetHash()) {
			return problem.Newf(problem.WrongState, "Look into the audit log; the request takes no further decision.",
				"decision %s on request %s was altered", d.GetId(), r.GetName())
		}
		last = d.GetHash()
	}
	return nil
}

// counting goes through the decisions that count: of this round, and not void.
func counting(r *apiv1.Request) []*apiv1.Decision {
	return slices.DeleteFunc(slices.Clone(r.GetDecisions()), func(d *apiv1.Decision) bool { return d.GetVoid() || d.GetRound() != r.GetRound() })
}

// Decided returns what somebody, or somebody in their place, decided in this round, here or in another system; nil for
// nothing. Who has no id is known by name alone.
func Decided(r *apiv1.Request, who Person) *apiv1.Decision {
	for _, d := range counting(r) {
		if slices.ContainsFunc(deciders(d), who.is) {
			return d
		}
	}
	return nil
}

// deciders are those whose decision it is: who made it, in whose place, and who did in another system.
func deciders(d *apiv1.Decision) []Person {
	return []Person{{d.GetActorId(), d.GetActor()}, {d.GetActingForId(), d.GetActingFor()}, {"", d.GetExternalApprover()}}
}

// DecidedBy is Decided of a user, whatever another system calls them.
func DecidedBy(r *apiv1.Request, u *apiv1.User) *apiv1.Decision {
	for _, d := range counting(r) {
		if Called(u, d.GetExternalApprover()) {
			return d
		}
	}
	return Decided(r, Person{ID: u.GetId(), Name: u.GetName()})
}

// Voters are the ids of those whose decisions count in this round: who made them, and in whose place.
func Voters(r *apiv1.Request) (ids []string) {
	for _, d := range counting(r) {
		for _, id := range []string{d.GetActorId(), d.GetActingForId()} {
			if id != "" {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// ExternalRefs are the numbers that the decisions of another system that count have there.
func ExternalRefs(r *apiv1.Request) (refs []string) {
	for _, d := range counting(r) {
		if ref := d.GetExternalRef(); ref != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// StageOf returns the stage of a name; nil where there is none.
func StageOf(r *apiv1.Request, name string) *apiv1.Stage {
	for _, s := range r.GetStages() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// Lacks returns how many approvals a stage still takes.
func Lacks(r *apiv1.Request, s *apiv1.Stage) uint32 {
	if has := count(r, s, apiv1.Decision_APPROVE); has < s.GetNeeded() {
		return s.GetNeeded() - has
	}
	return 0
}

func count(r *apiv1.Request, s *apiv1.Stage, v apiv1.Decision_Verdict) (n uint32) {
	for _, d := range counting(r) {
		if d.GetStage() == s.GetName() && d.GetVerdict() == v {
			n++
		}
	}
	return n
}

func wrongState(r *apiv1.Request, next, done string) error {
	if err := OfRecord(r, done); err != nil {
		return err
	}
	said := lower(r.GetApproval())
	if r.GetApproval() == apiv1.Request_APPROVED && r.GetFulfilment() > apiv1.Request_NONE {
		said += ", " + lower(r.GetFulfilment())
	}
	return problem.Newf(problem.WrongState, next, "request %s is %s, and cannot be %s", r.GetName(), said, done)
}

// finish ends the carrying out of r.
func finish(r *apiv1.Request, as apiv1.Request_Fulfilment, why string, now *timestamppb.Timestamp) {
	r.Fulfilment, r.FulfilmentReason, r.EndedAt = as, shortened(why), now
}

// end ends r; what is not decided is void.
func end(r *apiv1.Request, as apiv1.Request_Approval, why string, now *timestamppb.Timestamp) {
	r.Approval, r.ApprovalReason, r.DecidedAt, r.EndedAt = as, shortened(why), now, now
	unreserve(r)
	r.ReviewOverdue = false
	for _, s := range r.GetStages() {
		if undecided(s) {
			s.State, s.StateReason, s.Stuck = apiv1.Stage_VOID, "the request ended", ""
		}
	}
}

func passed(t, now *timestamppb.Timestamp) bool { return t != nil && !t.AsTime().After(now.AsTime()) }

func lower(s fmt.Stringer) string { return strings.ToLower(strings.ReplaceAll(s.String(), "_", " ")) }

// shortened cuts a reason to what fits its field (proto: max_len in characters), between two characters.
func shortened(s string) string {
	const most = 1024
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i]
		}
	}
	return s
}
