package quota

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Daily counts what the requester and the project of a request have got without people in 24 hours, this request included, against the
// daily limits of a policy that would let it through so. with says it in words, empty where the policy has no such limit; over says which
// limit is passed, empty for none.
func Daily(tx *state.Tx, a *apiv1.AutomaticApproval, r *apiv1.Request, now *timestamppb.Timestamp) (with, over string, err error) {
	var all []string
	for _, l := range []struct {
		who, id string
		limits  *apiv1.DailyLimits
		let     func(string, *timestamppb.Timestamp) (state.Let, error)
	}{{r.GetRequester(), r.GetRequesterId(), a.GetRequesterDaily(), tx.LetOf}, {"project " + r.GetProject(), r.GetProjectId(), a.GetProjectDaily(), tx.LetIn}} {
		if !limited(l.limits) {
			continue
		}
		let, err := l.let(l.id, now)
		if err != nil {
			return "", "", err
		}
		said, over := daily(l.limits, let, r)
		if over != "" {
			return "", over + ", of what " + l.who + " gets without people in 24 hours", nil
		}
		all = append(all, l.who+" has got "+said)
	}
	if len(all) == 0 {
		return "", "", nil
	}
	return "in 24 hours " + strings.Join(all, ", ") + ", without people and with this", "", nil
}

func limited(l *apiv1.DailyLimits) bool {
	return l.GetMaxRequests() > 0 || l.GetMaxQuantity() > 0 || l.GetMaxMonthlyCost().GetAmount() != ""
}

// daily counts a request to what was let through before.
func daily(l *apiv1.DailyLimits, let state.Let, r *apiv1.Request) (said, over string) {
	let.Count(r)
	var all []string
	count := func(what string, is, limit uint64) bool {
		all = append(all, fmt.Sprintf("%d of %d %s", is, limit, what))
		if is > limit {
			over = fmt.Sprintf("it would be more than %d %s", limit, what) // how much it is may not be for whoever asks to know
		}
		return is <= limit
	}
	if most := l.GetMaxRequests(); most > 0 && !count("requests", let.Requests, uint64(most)) {
		return "", over
	}
	if most := l.GetMaxQuantity(); most > 0 && !count("in quantity", let.Quantity, uint64(most)) {
		return "", over
	}
	limit := l.GetMaxMonthlyCost()
	if limit.GetAmount() == "" {
		return strings.Join(all, " and "), ""
	}
	for currency := range let.Costs {
		if currency != limit.GetCurrency() {
			return "", "a part is in another currency than " + limit.GetCurrency()
		}
	}
	most, err := strconv.ParseUint(limit.GetAmount(), 10, 63)
	if err != nil {
		return "", "the limit is no amount: " + limit.GetAmount()
	}
	count(limit.GetCurrency()+" a month", let.Costs[limit.GetCurrency()], most)
	return strings.Join(all, " and "), over
}
