package request

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// lateStart is how much of the past a start may lie in when a request is submitted: clocks differ, and people take their
// time.
const lateStart = 10 * time.Minute

// StartsInTime refuses a submission whose desired start is over: it would begin at once, which nobody who names a day means.
func StartsInTime(r *apiv1.Request, now *timestamppb.Timestamp) error {
	start := r.GetDesiredStart()
	if start == nil || now.AsTime().Sub(start.AsTime()) <= lateStart {
		return nil
	}
	return problem.Newf(problem.Invalid, "Give a start that is to come, or none: then it begins as soon as it is approved.",
		"the start %s is over: it is %s now", start.AsTime().Format(time.RFC3339), now.AsTime().Truncate(time.Second).Format(time.RFC3339)).
		With("desired_start", "is over")
}
