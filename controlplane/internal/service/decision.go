package service

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/panel"
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// seat is a place in which somebody may decide now: their own, or that of one who delegated to them.
type seat struct {
	stage *apiv1.Stage
	// holder is whose place it is; delegation is empty where it is one's own.
	holder     *panel.Member
	delegation string
}

// seats returns the places in which a user may decide on a request now, their own first. A token that is good in one project only has
// none elsewhere.
func (s *Service) seats(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User) ([]seat, error) {
	if only := callOf(ctx).Principal.ProjectID; !request.Deciding(m) || only != "" && only != m.GetProjectId() {
		return nil, nil
	}
	now := s.Now()
	p, err := panel.Of(tx, m, now)
	if err != nil {
		return nil, err
	}
	edge, err := s.edge(ctx, callOf(ctx).ViaZoneID)
	if err != nil {
		return nil, err
	}
	p.At(edge)
	holders := []seat{{}}
	if holders[0].holder, err = p.Member(me.GetId()); err != nil {
		return nil, err
	}
	delegations, err := tx.DelegationsTo(me.GetId(), now.UnixMicro())
	if err != nil {
		return nil, err
	}
	for _, d := range delegations {
		if d.GetProjectId() != "" && d.GetProjectId() != m.GetProjectId() || d.GetZoneId() != "" && d.GetZoneId() != m.GetZoneId() {
			continue
		}
		holder, err := p.Member(d.GetFromUserId())
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		holders = append(holders, seat{holder: holder, delegation: d.GetId()})
	}
	var out []seat
	for _, h := range holders {
		for _, stage := range m.GetStages() {
			h.stage = stage
			if ok, _ := p.May(stage, h.holder); !ok || stage.GetState() != apiv1.Stage_OPEN || slices.Contains(stage.GetExcluded(), me.GetName()) {
				continue
			}
			if err := p.Impartial(h.decision(me)); err == nil {
				out = append(out, h)
			} else if problem.Of(err).GetCode() == string(problem.Internal) {
				return nil, err
			}
		}
	}
	return out, nil
}

// decision names who would decide from a seat.
func (h seat) decision(me *apiv1.User) *apiv1.Decision {
	d := &apiv1.Decision{Stage: h.stage.GetName(), Actor: me.GetName(), ActorId: me.GetId()}
	if h.delegation != "" {
		d.ActingFor, d.ActingForId, d.Delegation = h.holder.GetUser().GetName(), h.holder.GetUser().GetId(), h.delegation
	}
	return d
}

// DecideRequest writes the caller's decision down.
func (s requestService) DecideRequest(ctx context.Context, r *apiv1.DecideRequestRequest) (*apiv1.DecideRequestResponse, error) {
	id := newID()
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		me, err := s.caller(ctx, tx)
		if err != nil {
			return nil, err
		}
		m, err := s.seen(ctx, tx, r.GetRequest())
		if err != nil {
			return nil, err
		}
		if err := cmp.Or(request.OfRecord(m, "decided on"), seesFrozen(ctx, tx, m)); err != nil {
			return nil, err
		}
		if !bytes.Equal(r.GetSeenHash(), m.GetFrozenHash()) && request.Deciding(m) {
			return nil, problem.Newf(problem.WrongState, "Look at it again, and decide again: naru approve "+m.GetName()+".", "request %s is not what was shown any more", m.GetName())
		}
		h, err := s.seatFor(ctx, tx, m, me, r)
		if err != nil {
			return nil, err
		}
		d := h.decision(me)
		d.Id, d.Verdict, d.Comment, d.SeenHash = id, r.GetVerdict(), r.GetComment(), r.GetSeenHash()
		d.ExternalApprover, d.ExternalRef = r.GetExternalApprover(), r.GetExternalRef()
		in := &commandv1.DecideRequest{
			RequestId: m.GetId(), Decision: d, Reads: h.holder.Reads, GroupIds: h.holder.Groups,
		}
		now := s.Now()
		if in.Openings, err = intake.Openings(panel.Undecided(m), m.GetReviewedAfterwards(), now); err != nil {
			return nil, err
		}
		in.ReckonedAt = timestamppb.New(now)
		c.Body = &commandv1.Command_DecideRequest{DecideRequest: in}
		return nil, nil
	})
	return &apiv1.DecideRequestResponse{Request: s.answer(ctx, result, &err)}, err
}

// seesFrozen refuses a decision at the edge of a zone at which the bytes that are decided on are withheld: their hash, which is shown
// there, is no proof that they were seen.
func seesFrozen(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	via := callOf(ctx).ViaZoneID
	if via == "" || m.GetZoneId() == "" {
		return nil
	}
	zones := map[string]*apiv1.Zone{}
	for _, id := range []string{m.GetZoneId(), via} {
		z, err := tx.Zones.Get(id)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		zones[id] = z
	}
	if rights.Crosses(zones[m.GetZoneId()], zones[via]).All() {
		return nil
	}
	return problem.Newf(problem.Forbidden, "Log in in the control network, or at the edge of zone "+m.GetZone()+", and decide there.",
		"zone %s does not let all that is asked for in request %s be shown at this edge, and nobody decides on what they do not see", m.GetZone(), m.GetName())
}

// seatFor returns the place that a decision is made from, or says why there is none.
func (s requestService) seatFor(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User, r *apiv1.DecideRequestRequest) (seat, error) {
	if !request.Deciding(m) {
		return seat{}, problem.Newf(problem.WrongState, "Nothing is left to decide.", "request %s is %s, and cannot be decided on", m.GetName(), lower(m.GetApproval()))
	}
	parties, err := hold.In(tx, m)
	if err != nil {
		return seat{}, err
	}
	if err := parties.Impartial(&apiv1.Decision{Actor: me.GetName(), ActorId: me.GetId()}); err != nil {
		return seat{}, err
	}
	if r.GetStage() != "" && request.StageOf(m, r.GetStage()) == nil {
		return seat{}, problem.Newf(problem.NotFound, "naru request show "+m.GetName()+" lists its stages.", "request %s has no stage %s", m.GetName(), r.GetStage()).With("stage", "there is no such stage")
	}
	all, err := s.seats(ctx, tx, m, me)
	if err != nil {
		return seat{}, err
	}
	fits := slices.DeleteFunc(all, func(h seat) bool {
		holder := h.holder.GetUser()
		return r.GetStage() != "" && h.stage.GetName() != r.GetStage() || r.GetActingFor() != "" && (h.delegation == "" || r.GetActingFor() != holder.GetName() && r.GetActingFor() != holder.GetId())
	})
	if r.GetActingFor() == "" && slices.ContainsFunc(fits, func(h seat) bool { return h.delegation == "" }) {
		fits = slices.DeleteFunc(fits, func(h seat) bool { return h.delegation != "" })
	}
	switch len(fits) {
	case 0:
		return seat{}, problem.Newf(problem.Forbidden, "naru request show "+m.GetName()+" shows who may.", "%s may not decide on request %s now", me.GetName(), m.GetName())
	case 1:
		return fits[0], nil
	}
	var which []string
	for _, h := range fits {
		said := h.stage.GetName()
		if h.delegation != "" {
			said += " for " + h.holder.GetUser().GetName()
		}
		which = append(which, said)
	}
	return seat{}, problem.Newf(problem.Invalid, "Say in which stage, and for whom.", "%s may decide on request %s in several places: %s", me.GetName(), m.GetName(), strings.Join(which, ", "))
}

const (
	// looksAPlace is how many requests are looked at for each place on a page, at most: who has few among many gets pages that hold
	// less, and none that takes long.
	looksAPlace = 4
	// mostLooked bounds that, leastLooked makes small pages worth their call, and lookAtOnce are looked at on one snapshot.
	mostLooked, leastLooked, lookAtOnce = 1000, 100, 50
	// lookTime is after how long a call looks at no further ones.
	lookTime = 2 * time.Second
)

// ListApprovals returns what waits for the caller: what is due first stands first. A page may hold less than was asked for, and the
// next one more.
func (s requestService) ListApprovals(ctx context.Context, r *apiv1.ListApprovalsRequest) (*apiv1.ListApprovalsResponse, error) {
	after, err := readAwaited(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &apiv1.ListApprovalsResponse{}
	size := min(int(cmp.Or(r.GetPageSize(), 100)), 1000)
	look, began := s.read, time.Now() // the first snapshot is a current one, and what follows is no older
	for left := min(max(looksAPlace*size, leastLooked), mostLooked); left > 0; left -= lookAtOnce {
		var found []*apiv1.Request
		var more bool
		var next state.Awaited
		if err := look(ctx, func(tx *state.Tx) (err error) {
			found, next, more, err = s.awaiting(ctx, tx, after, min(left, lookAtOnce), size-len(out.GetRequests()))
			return err
		}); err != nil {
			return nil, err
		}
		out.Requests, after, look = append(out.GetRequests(), found...), next, s.view
		if out.NextPageToken = ""; !more {
			break
		}
		if out.NextPageToken = awaitedText(after); len(out.GetRequests()) == size || time.Since(began) > lookTime {
			break
		}
	}
	for _, m := range out.GetRequests() {
		if err := s.view(ctx, func(tx *state.Tx) error { return s.describe(ctx, tx, m) }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// awaiting finds what waits for the caller behind a place, until so many were looked at or found; more may be behind next.
func (s requestService) awaiting(ctx context.Context, tx *state.Tx, after state.Awaited, looks, places int) (
	found []*apiv1.Request, next state.Awaited, more bool, err error,
) {
	callOf(ctx).Asked.note()
	me, err := s.caller(ctx, tx)
	if err != nil {
		return nil, after, false, err
	}
	reach, err := s.deciding(ctx, tx, me)
	if err != nil {
		return nil, after, false, err
	}
	open, err := tx.AwaitedRequests(after, looks)
	if err != nil {
		return nil, after, false, err
	}
	for i, m := range open {
		if len(found) == places {
			return found, after, true, nil
		}
		if panel.Reaches(reach, m) {
			seats, err := s.seats(ctx, tx, m, me)
			switch { // one that cannot be judged does not hide the others
			case errors.Is(err, state.ErrRetry):
				return nil, after, false, err
			case errors.Is(err, state.ErrTooLong) && i > 0:
				return found, after, true, nil // another snapshot goes on with it
			case errors.Is(err, state.ErrTooLong):
				return found, state.AwaitedOf(m), true, nil
			case err == nil && len(seats) > 0:
				found = append(found, m)
			}
		}
		after = state.AwaitedOf(m)
	}
	return found, after, len(open) == looks, nil
}

// holds writes into a request the room that is kept for it; on which hosts is the zone's own affair.
func (s requestService) holds(tx *state.Tx, m *apiv1.Request) error {
	m.Holds = nil
	for _, id := range request.Rooms(m) {
		r, err := tx.Reservations.Get(id)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		r.Units = nil
		m.Holds = append(m.Holds, r)
	}
	return nil
}

// stands writes into a request where its VMs stand, as far as that is known.
func stands(tx *state.Tx, m *apiv1.Request) error {
	if !request.InZone(m) {
		return nil // its part is no VM
	}
	for _, p := range m.GetParts() {
		vm, err := tx.VMs.Get(p.GetVmId())
		if errors.Is(err, state.ErrNotFound) {
			continue // it is not made yet, or gone
		}
		if err != nil {
			return err
		}
		p.Host, p.Cluster = vm.GetHost(), vm.GetCluster()
	}
	return nil
}

func awaitedText(a state.Awaited) string { return strconv.FormatUint(a.Due, 10) + "." + a.ID }

func readAwaited(token string) (a state.Awaited, err error) {
	if token == "" {
		return a, nil
	}
	due, id, ok := strings.Cut(token, ".")
	if a.ID = id; ok {
		a.Due, err = strconv.ParseUint(due, 10, 63)
	}
	if !ok || err != nil {
		return a, problem.New(problem.Invalid, "the page token is none that a list of approvals gave out", "Begin again, without a token.").With("page_token", "is no token")
	}
	return a, nil
}

// deciding is where the caller may decide, for themselves or in another's place.
func (s *Service) deciding(ctx context.Context, tx *state.Tx, me *apiv1.User) (rights.Reach, error) {
	edge, err := s.edge(ctx, callOf(ctx).ViaZoneID)
	if err != nil {
		return nil, err
	}
	delegations, err := tx.DelegationsTo(me.GetId(), s.Now().UnixMicro())
	if err != nil {
		return nil, err
	}
	holders := []auth.Principal{{Kind: auth.User, Name: me.GetName(), UserID: me.GetId()}}
	for _, d := range delegations {
		holders = append(holders, auth.Principal{Kind: auth.User, Name: d.GetFromUser(), UserID: d.GetFromUserId()})
	}
	var all rights.Reach
	for _, h := range holders {
		r, err := s.rightsAt(ctx, tx, h, edge)
		if problem.Is(err, problem.Revoked) {
			continue // who delegated is gone
		}
		if err != nil {
			return nil, err
		}
		all = append(all, panel.Reach(r)...)
	}
	return all, nil
}

// describe writes into a request what is reckoned for who looks at it: who may decide, and what the caller may do.
func (s requestService) describe(ctx context.Context, tx *state.Tx, m *apiv1.Request) error {
	if err := s.approvers(tx, m); err != nil {
		return err
	}
	var err error
	if m.Quotas, err = quota.OverRequest(tx, m); err != nil {
		return err
	}
	if err := s.holds(tx, m); err != nil {
		return err
	}
	if err := stands(tx, m); err != nil {
		return err
	}
	m.Actions = nil
	me, err := s.caller(ctx, tx)
	if problem.Is(err, problem.Forbidden) {
		return nil // no user: looks only
	}
	if err != nil {
		return err
	}
	add := func(may bool, actions ...string) {
		if may {
			m.Actions = append(m.Actions, actions...)
		}
	}
	part := slices.Contains(request.Concerned(m), me.GetId())
	add(part && request.Editable(m), "update", "submit", "attach")
	add(part && request.Editable(m) && len(m.GetFiles()) > 0, "detach")
	since, err := s.othersMayEnd(ctx, tx, m, me)
	if err != nil {
		return err
	}
	add((me.GetId() == m.GetRequesterId() || since != "") && m.GetApproval() == apiv1.Request_DRAFT && m.GetRound() == 0, "delete")
	add(withdraws(m, me, since), "withdraw")
	seats, err := s.seats(ctx, tx, m, me)
	add(err == nil && len(seats) > 0 && seesFrozen(ctx, tx, m) == nil, "decide")
	recorded := request.Recorded(m)
	add(part && !recorded && m.GetApproval() == apiv1.Request_APPROVED && m.GetFulfilment() == apiv1.Request_FAILED, "retry")
	add(true, "comment")
	add(!recorded, "copy")
	return nil
}

// othersMayEnd says why the caller may end what somebody else asked for; empty where they may not, or asked for it themselves.
func (s requestService) othersMayEnd(ctx context.Context, tx *state.Tx, m *apiv1.Request, me *apiv1.User) (string, error) {
	if me.GetId() == m.GetRequesterId() || !withdraws(m, me, "somebody has left") {
		return "", nil
	}
	loss, err := s.abandoned(ctx, tx, m)
	if problem.Is(err, problem.Forbidden) || err == nil && loss == nil {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return loss.Why, nil
}

// withdraws reports whether somebody may withdraw a request as it is, with why they may where it is not their own.
func withdraws(m *apiv1.Request, me *apiv1.User, since string) bool {
	trial := &apiv1.Request{Intake: m.GetIntake(), Approval: m.GetApproval(), Fulfilment: m.GetFulfilment(), RequesterId: m.GetRequesterId(), OnBehalfOfId: m.GetOnBehalfOfId()}
	return request.Withdraw(trial, request.Person{ID: me.GetId()}, since, "", nil) == nil
}

// approvers writes into each stage that is not decided who may decide there now.
func (s requestService) approvers(tx *state.Tx, m *apiv1.Request) error {
	undecided := panel.Undecided(m)
	if len(undecided) == 0 {
		return nil
	}
	p, err := panel.Of(tx, m, s.Now())
	if err != nil {
		return err
	}
	for _, stage := range undecided {
		people, err := p.People(stage)
		if err != nil {
			return err
		}
		stage.Approvers = nil
		for _, member := range people {
			if !member.Decided(m) && len(stage.GetApprovers()) < 256 {
				stage.Approvers = append(stage.Approvers, member.GetUser().GetName())
			}
		}
		slices.Sort(stage.Approvers)
	}
	return nil
}
