package request

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Away says why somebody can do nothing now; empty where they can. It takes nothing from them, and may pass: this is the one
// place that says who counts, as approver, as the one who delegated, as the one who asked, as whoever is to be told, and to
// whom a certificate is given. A credential that somebody has lives on but where they are disabled: what a directory says
// for an hour ends none.
func Away(u *apiv1.User) string {
	switch {
	case u.GetDisabled():
		return "is disabled"
	case u.GetGoneAt() != nil:
		return "has no way to log in any more"
	}
	return ""
}

// orphanedFor is how long what is approved waits for those whom it is for.
const orphanedFor = 7 * 24 * time.Hour

// Orphan notes that an approved r, of which nothing was begun, is not carried out for those whom it is for, and why. Its room is to be freed.
func Orphan(r *apiv1.Request, why string, clock *timestamppb.Timestamp) error {
	if r.GetApproval() != apiv1.Request_APPROVED || !waits(r) {
		return wrongState(r, "", "orphaned")
	}
	if r.OrphanedAt == nil {
		r.OrphanedAt = clock
	}
	r.Fulfilment, r.FulfilmentReason = apiv1.Request_NONE, shortened(why)
	return nil
}

// GivenUp reports whether r has been orphaned for so long that it fails.
func GivenUp(r *apiv1.Request, now time.Time) bool {
	return r.GetOrphanedAt() != nil && now.Sub(r.GetOrphanedAt().AsTime()) >= orphanedFor
}

// Fail ends the attempt to carry out an approved r for those who are gone for good, or have been away for too long: that, the clock says;
// now is when it ends.
func Fail(r *apiv1.Request, gone bool, why string, clock, now *timestamppb.Timestamp) error {
	if r.GetApproval() != apiv1.Request_APPROVED || !waits(r) {
		return wrongState(r, "", "let fail")
	}
	if !gone && !GivenUp(r, clock.AsTime()) {
		return problem.Newf(problem.WrongState, "", "request %s has not been orphaned for long enough to fail", r.GetName())
	}
	finish(r, apiv1.Request_FAILED, why, now)
	return nil
}
