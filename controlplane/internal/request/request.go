// Package request is the life of a request: who may decide, when that is enough, and what follows. It is rules over the
// noun itself, and nothing else: no clock, no policy language, no store, so that the replicated state machine can apply
// them. What takes judgement, whether a person is eligible, which stages a policy asks for, when a working day ends, is
// found by whoever proposes, and comes in as a fact.
//
// What holds on every path:
//
//  1. Nobody decides on what they asked for, gain from or helped write; nor does anybody in their place, nor they in
//     anybody's.
//  2. A person decides once in a round of a request, whether for themselves or for another, and so does the one they
//     decide for.
//  3. A decision counts for what was seen, by its hash, and only in its round.
//  4. Time passes a request on or ends it. It never approves.
//  5. Decisions are appended to a chain of hashes and never changed, but for the mark that they are void.
package request

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Concerned returns the ids of those who may not decide on r: who asked, for whom, who gains, who helped write.
func Concerned(r *apiv1.Request) []string {
	all := append([]string{r.GetRequesterId(), r.GetOnBehalfOfId(), r.GetSpecification().GetGrant().GetUserId()}, r.GetContributorIds()...)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(id string) bool { return id == "" })
}

// Holds reports whether r counts against its quotas as asked for. Once it is done, what it made counts in its place.
func Holds(r *apiv1.Request) bool {
	switch r.GetApproval() {
	case apiv1.Request_SUBMITTED, apiv1.Request_IN_REVIEW:
		return true
	case apiv1.Request_APPROVED:
		return r.GetFulfilment() != apiv1.Request_DONE && r.GetFulfilment() != apiv1.Request_LAPSED
	}
	return false
}

// Ended reports whether nothing will become of r any more.
func Ended(r *apiv1.Request) bool {
	switch r.GetApproval() {
	case apiv1.Request_REJECTED, apiv1.Request_CANCELLED, apiv1.Request_EXPIRED:
		return true
	case apiv1.Request_APPROVED:
		return (r.GetFulfilment() == apiv1.Request_DONE || r.GetFulfilment() == apiv1.Request_LAPSED) && !underReview(r)
	}
	return false
}

// Editable reports whether r can be changed.
func Editable(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_DRAFT || r.GetApproval() == apiv1.Request_RETURNED
}

// deciding reports whether decisions are taken.
func deciding(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_SUBMITTED || r.GetApproval() == apiv1.Request_IN_REVIEW || underReview(r)
}

// underReview reports whether r is an emergency that was let through and is reviewed afterwards.
func underReview(r *apiv1.Request) bool {
	return r.GetApproval() == apiv1.Request_APPROVED && slices.ContainsFunc(r.GetStages(), func(s *apiv1.Stage) bool {
		return s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING
	})
}

// Hash is of what approvers decide on: the specification, what it costs, and all else that is frozen. SHA-256. It is reckoned
// once, by who proposes the submission.
func Hash(r *apiv1.Request) ([]byte, error) {
	frozen := &apiv1.Request{
		Kind: r.GetKind(), Title: r.GetTitle(), Reason: r.GetReason(), RequesterId: r.GetRequesterId(), OnBehalfOfId: r.GetOnBehalfOfId(),
		ContributorIds: r.GetContributorIds(), ProjectId: r.GetProjectId(), OrganizationId: r.GetOrganizationId(), ZoneId: r.GetZoneId(),
		SourceZoneId: r.GetSourceZoneId(), RoleCluster: r.GetRoleCluster(), ChangeType: r.GetChangeType(), Grade: r.GetGrade(),
		Specification: r.GetSpecification(), LeaseDays: r.GetLeaseDays(), DesiredStart: r.GetDesiredStart(), DecideBy: r.GetDecideBy(),
		CarryOutBy: r.GetCarryOutBy(), MonthlyCost: r.GetMonthlyCost(), Amounts: r.GetAmounts(), ExternalRef: r.GetExternalRef(), Round: r.GetRound(),
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(frozen)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// chain ties d to the decision before it.
func chain(r *apiv1.Request, d *apiv1.Decision) {
	h := sha256.New()
	for _, b := range [][]byte{d.GetPreviousHash(), []byte(r.GetId()), []byte(d.GetId()), []byte(d.GetActorId()), []byte(d.GetActingForId()),
		[]byte(d.GetVerdict().String()), []byte(d.GetComment()), d.GetSeenHash(), []byte(d.GetStrength().String())} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	var n [16]byte
	binary.BigEndian.PutUint64(n[:8], uint64(d.GetAt().AsTime().UnixNano()))
	binary.BigEndian.PutUint64(n[8:], uint64(d.GetRound()))
	h.Write(n[:])
	d.Hash = h.Sum(nil)
}

// Decisions returns all of r's, of every round, the first ones first.
func Decisions(r *apiv1.Request) []*apiv1.Decision {
	all := slices.Clone(r.GetPastDecisions())
	for _, s := range r.GetStages() {
		all = append(all, s.GetDecisions()...)
	}
	slices.SortStableFunc(all[len(r.GetPastDecisions()):], func(a, b *apiv1.Decision) int {
		return a.GetAt().AsTime().Compare(b.GetAt().AsTime())
	})
	return all
}

// VerifyDecisions reports whether the chain of r's decisions is whole.
func VerifyDecisions(r *apiv1.Request) error {
	var last []byte
	for _, d := range Decisions(r) {
		if string(d.GetPreviousHash()) != string(last) {
			return problem.Newf(problem.Contradiction, "", "a decision on request %s is missing, or was put in, before %s", r.GetName(), d.GetId())
		}
		again := proto.CloneOf(d)
		if chain(r, again); string(again.GetHash()) != string(d.GetHash()) {
			return problem.Newf(problem.Contradiction, "", "decision %s on request %s was altered", d.GetId(), r.GetName())
		}
		last = d.GetHash()
	}
	return nil
}

func wrongState(r *apiv1.Request, next, does string) error {
	said := lower(r.GetApproval())
	if r.GetApproval() == apiv1.Request_APPROVED && r.GetFulfilment() > apiv1.Request_NONE {
		said += ", " + lower(r.GetFulfilment())
	}
	return problem.Newf(problem.WrongState, next, "request %s is %s, and cannot be %s", r.GetName(), said, does)
}

func end(r *apiv1.Request, as apiv1.Request_Approval, why string, now *timestamppb.Timestamp) {
	r.Approval, r.ApprovalReason, r.DecidedAt = as, why, now
	void(r, why)
	release(r)
}

// void closes the stages that are not decided.
func void(r *apiv1.Request, why string) {
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING {
			s.State, s.StateReason, s.Stuck = apiv1.Stage_VOID, why, false
		}
	}
}

// release lets go of the room in the zone.
func release(r *apiv1.Request) {
	if v := r.GetReservation(); v.GetState() == apiv1.Reservation_ASKED || v.GetState() == apiv1.Reservation_HELD {
		v.State, v.Message = apiv1.Reservation_RELEASED, "the request ended"
	}
	if r.GetFulfilment() == apiv1.Request_RESERVING || r.GetFulfilment() == apiv1.Request_RESERVED {
		r.Fulfilment = apiv1.Request_NONE
	}
}
