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

// TimesHold refuses a submission whose times nobody means who names them: a start that is over, with which it would begin at once; and an
// end at which it would be over in the same second, or before it may begin.
func TimesHold(r *apiv1.Request, now *timestamppb.Timestamp) error {
	start, decide, begin := r.GetDesiredStart(), r.GetDecideBy(), r.GetCarryOutBy()
	switch {
	case start != nil && now.AsTime().Sub(start.AsTime()) > lateStart:
		return over("desired_start", "the start", start, now, "Give a start that is to come, or none: then it begins as soon as it is approved.")
	case passed(decide, now):
		return over("decide_by", "the time to decide it by,", decide, now, "Give a time that is to come, or none: then it waits until it is decided.")
	case passed(begin, now):
		return over("carry_out_by", "the time to carry it out by,", begin, now, "Give a time that is to come, or none: then it waits until it can begin.")
	case start != nil && passed(begin, start):
		return problem.Newf(problem.Invalid, "Give a time after the start, or none.", "it would lapse at %s, and does not begin before %s", shown(begin), shown(start)).
			With("carry_out_by", "is not after the start")
	}
	return nil
}

func over(field, what string, t, now *timestamppb.Timestamp, next string) error {
	return problem.Newf(problem.Invalid, next, "%s %s is over: it is %s now", what, shown(t), shown(now)).With(field, "is over")
}

func shown(t *timestamppb.Timestamp) string {
	return t.AsTime().Truncate(time.Second).Format(time.RFC3339)
}
