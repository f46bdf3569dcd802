package service_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// onlooker sees what people do and what they are answered, keeps for itself what must follow from that, and looks whether it is so. It
// asks nothing of the rules that it watches.
type onlooker struct {
	trial
	papers map[string]*paper // by the request's name
	// could says who could have acted as somebody: who gave them a password or made a token, and who could have acted as these.
	could   map[string][]string
	roles   map[string][]string // by which somebody decides
	leads   map[string]bool
	away    map[string]bool
	places  map[string]place // delegations by id
	inForce form
	author  string
	happens map[string]int
}

type place struct{ from, to string }

// form is a policy as it is used here.
type form struct {
	stages    []*apiv1.StageTemplate
	automatic bool
}

// paper is what the onlooker knows of one request.
type paper struct {
	party, behind []string
	is            apiv1.Request_Approval // SUBMITTED stands for IN_REVIEW too
	seen          []byte                 // what was last submitted
	stages        []*apiv1.StageTemplate // of the policy as it was then
	votes         []vote
	quantity      int
	begun         bool
	record        []*apiv1.Decision
}

type vote struct {
	stage, actor, holder string
	verdict              apiv1.Decision_Verdict
}

// reach is somebody, and everybody who could have acted as them, through others too.
func (l *onlooker) reach(names ...string) (all []string) {
	for next := slices.Clone(names); len(next) > 0; next = next[1:] {
		if !slices.Contains(all, next[0]) {
			all = append(all, next[0])
			next = append(next, l.could[next[0]]...)
		}
	}
	return all
}

// partial reports whether somebody has a part in a request, or whether one of the two could have been the other's hand.
func (l *onlooker) partial(p *paper, who string) bool {
	common := func(a, b []string) bool {
		return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
	}
	return slices.Contains(l.reach(append(slices.Clone(p.party), p.behind...)...), who) || common(l.reach(who), p.party)
}

// wrote notes that somebody asks, or helps write, and who could have done so in their name.
func (l *onlooker) wrote(p *paper, who ...string) {
	for _, name := range who {
		if name != "" && !slices.Contains(p.party, name) {
			p.party = append(p.party, name)
		}
	}
	p.behind = append(p.behind, l.reach(who...)...)
}

// submitted notes what a submission came to.
func (l *onlooker) submitted(p *paper, r *apiv1.Request, by string) {
	sum := sha256.Sum256(r.GetFrozen())
	if !bytes.Equal(sum[:], r.GetFrozenHash()) || bytes.Equal(sum[:], p.seen) {
		l.Fatalf("the hash of %s is not that of what it asks for now", r.GetName())
	}
	l.wrote(p, append(slices.Clone(p.party), by)...)
	p.is, p.seen, p.stages, p.votes, p.quantity = apiv1.Request_SUBMITTED, sum[:], l.inForce.stages, nil, len(r.GetParts())
	for _, d := range p.record {
		d.Void = true // 3
	}
	if r.GetApproval() == apiv1.Request_APPROVED {
		if !l.inForce.automatic || p.quantity > 1 || l.partial(p, l.author) {
			l.Fatalf("%s was let through without people", r.GetName())
		}
		p.is = apiv1.Request_APPROVED
		l.happens["automatic"]++
	}
}

// counts is how many have said so in a stage.
func (p *paper) counts(stage string, v apiv1.Decision_Verdict) (n uint32) {
	for _, vote := range p.votes {
		if vote.stage == stage && vote.verdict == v {
			n++
		}
	}
	return n
}

func (p *paper) passed(s *apiv1.StageTemplate) bool {
	return p.counts(s.GetName(), apiv1.Decision_APPROVE) >= max(1, s.GetNeeded())
}

// open reports whether it is a stage's turn.
func (p *paper) open(s *apiv1.StageTemplate) bool {
	return p.is == apiv1.Request_SUBMITTED && !p.passed(s) && !slices.ContainsFunc(p.stages, func(before *apiv1.StageTemplate) bool {
		return before.GetSequence() < s.GetSequence() && !p.passed(before)
	})
}

// sits reports whether a stage is of somebody, and they have a right to decide.
func (l *onlooker) sits(s *apiv1.StageTemplate, who string) bool {
	e := s.GetEligible()
	named := slices.Contains(e.GetUsers(), who) || len(e.GetGroups())+len(e.GetCondition()) > 0 && l.leads[who] ||
		slices.ContainsFunc(e.GetRoles(), func(role string) bool { return slices.Contains(l.roles[who], role) })
	return named && len(l.roles[who]) > 0 && !l.away[who]
}

// may reports whether somebody may decide on a request now, in a place.
func (l *onlooker) may(p *paper, s *apiv1.StageTemplate, actor, holder string) bool {
	for _, who := range []string{actor, holder} {
		if l.away[who] || slices.Contains(s.GetExcluded(), who) || l.partial(p, who) || slices.ContainsFunc(p.votes, func(v vote) bool { return v.actor == who || v.holder == who }) {
			return false
		}
	}
	delegated := actor == holder
	for _, d := range l.places {
		delegated = delegated || d == place{holder, actor}
	}
	return delegated && p.open(s) && l.sits(s, holder)
}

// decided notes a decision that was taken, and refuses one that should not have been.
func (l *onlooker) decided(r *apiv1.Request, actor, holder string, hash []byte, verdict apiv1.Decision_Verdict) {
	p, d := l.papers[r.GetName()], r.GetDecisions()[len(r.GetDecisions())-1]
	i := slices.IndexFunc(p.stages, func(s *apiv1.StageTemplate) bool { return s.GetName() == d.GetStage() })
	for _, v := range p.votes {
		for _, who := range []string{actor, holder} {
			if v.actor == who || v.holder == who { // 2
				l.Fatalf("%s has a part in two decisions on %s", who, r.GetName())
			}
		}
	}
	for _, who := range []string{actor, holder} {
		if l.partial(p, who) { // 1
			l.Fatalf("%s decided on %s, which they have a part in or could have had: %v, %v", who, r.GetName(), p.party, l.could)
		}
	}
	switch {
	case p.is != apiv1.Request_SUBMITTED: // 5, 10, 12
		l.Fatalf("%s was decided on, and is %v", r.GetName(), p.is)
	case !bytes.Equal(hash, p.seen): // 3
		l.Fatalf("%s was decided on by what is not asked for any more", r.GetName())
	case i < 0 || !l.may(p, p.stages[i], actor, holder): // 4
		l.Fatalf("%s decided on %s in stage %s for %s, and may not", actor, r.GetName(), d.GetStage(), holder)
	case d.GetActor() != actor || cmp.Or(d.GetActingFor(), actor) != holder || d.GetVerdict() != verdict: // 10
		l.Fatalf("the record of %s does not say who decided: %v", r.GetName(), d)
	}
	p.votes = append(p.votes, vote{d.GetStage(), actor, holder, verdict})
	p.record = append(p.record, proto.CloneOf(d))
	switch {
	case verdict == apiv1.Decision_RETURN:
		p.is = apiv1.Request_RETURNED
		for _, d := range p.record {
			d.Void = true
		}
	case p.counts(d.GetStage(), apiv1.Decision_DENY) >= max(1, p.stages[i].GetDenials()):
		p.is = apiv1.Request_REJECTED
	case !slices.ContainsFunc(p.stages, func(s *apiv1.StageTemplate) bool { return !p.passed(s) }):
		p.is = apiv1.Request_APPROVED
	}
	if actor != holder {
		l.happens["by a delegate"]++
	}
	l.happens[p.is.String()]++
}

// withdrawn notes that a request was: what had begun of it stands because it was approved.
func (l *onlooker) withdrawn(p *paper) {
	if p.begun {
		l.happens["withdrawn half-way"]++
		return
	}
	p.is = apiv1.Request_CANCELLED
	l.happens["CANCELLED"]++
}

// look compares all that there is with what should be. passing says that time has been at work, and nobody else.
func (l *onlooker) look(o *office, passing bool) {
	vms, makes := o.vms(), map[string]string{}
	waiting := 0
	all := map[string]*apiv1.Request{}
	o.View(func(tx *state.Tx) error {
		for r, err := range tx.Requests.All(nil) {
			if err != nil {
				return err
			}
			all[r.GetName()] = r
		}
		return nil
	})
	for _, name := range slices.Sorted(maps.Keys(l.papers)) {
		p, r := l.papers[name], all[name]
		if r == nil { // 8
			l.Fatalf("%s is gone", name)
		}
		l.lookAt(p, r, passing)
		for _, part := range r.GetParts() {
			makes[part.GetName()] = name
		}
		if r.GetFulfilment() < apiv1.Request_EXECUTING && !p.begun && (p.is == apiv1.Request_SUBMITTED || p.is == apiv1.Request_APPROVED) {
			waiting += p.quantity
		}
	}
	made := map[string]int{}
	for _, vm := range vms { // 7
		name := makes[vm.GetName()]
		if p := l.papers[name]; p == nil || p.is != apiv1.Request_APPROVED {
			l.Fatalf("VM %s stands, and %s that asked for it is not approved", vm.GetName(), name)
		}
		if made[vm.GetName()]++; made[vm.GetName()] > 1 {
			l.Fatalf("VM %s was made twice", vm.GetName())
		}
	}
	q, err := o.Admin().Quotas.GetQuota(context.Background(), &apiv1.GetQuotaRequest{Quota: "project.web"})
	if err != nil {
		l.Fatal(err)
	}
	if counted := q.GetQuota().GetHeld().GetVms() + q.GetQuota().GetUsed().GetVms(); int(counted) != waiting+len(vms) || counted > q.GetQuota().GetLimit().GetVms() { // 6
		l.Fatalf("the quota counts %d of %d VMs; %d are waited for, and %d stand", counted, q.GetQuota().GetLimit().GetVms(), waiting, len(vms))
	}
}

func (l *onlooker) lookAt(p *paper, r *apiv1.Request, passing bool) {
	is := r.GetApproval()
	if is == apiv1.Request_IN_REVIEW {
		is = apiv1.Request_SUBMITTED
	}
	expires := slices.ContainsFunc(p.stages, func(s *apiv1.StageTemplate) bool { return s.GetOnDue() == apiv1.StageTemplate_EXPIRE && p.open(s) })
	if is == apiv1.Request_EXPIRED && p.is == apiv1.Request_SUBMITTED && passing && expires { // 5
		p.is = is
		l.happens["EXPIRED"]++
	}
	if is != p.is { // 5, 12
		l.Fatalf("%s is %v, and should be %v", r.GetName(), r.GetApproval(), p.is)
	}
	if p.is != apiv1.Request_SUBMITTED {
		for _, s := range r.GetStages() { // 10
			if s.GetState() == apiv1.Stage_OPEN || s.GetState() == apiv1.Stage_WAITING {
				l.Fatalf("%s is %v, and stage %s is %v", r.GetName(), is, s.GetName(), s.GetState())
			}
		}
	}
	if len(r.GetDecisions()) != len(p.record) {
		l.Fatalf("%s has %d decisions, and %d were taken", r.GetName(), len(r.GetDecisions()), len(p.record))
	}
	var last []byte
	for i, d := range r.GetDecisions() { // append-only
		if !proto.Equal(d, p.record[i]) || !bytes.Equal(d.GetPreviousHash(), last) {
			l.Fatalf("a decision on %s was changed: %v was %v", r.GetName(), d, p.record[i])
		}
		last = d.GetHash()
	}
	if err := request.Verify(r); err != nil {
		l.Fatal(err)
	}
	if r.GetFulfilment() == apiv1.Request_EXECUTING || r.GetFulfilment() == apiv1.Request_DONE { // 7
		if p.is != apiv1.Request_APPROVED {
			l.Fatalf("%s is carried out, and is %v", r.GetName(), p.is)
		}
		p.begun = true
		l.happens[r.GetFulfilment().String()]++
	}
}
