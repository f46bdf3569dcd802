package request

import (
	"cmp"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Terms are terms of a lease with the days that they leave open (proto: LeaseTerms), so that what holds can be read in them.
func Terms(m *apiv1.LeaseTerms) *apiv1.LeaseTerms {
	out := &apiv1.LeaseTerms{}
	proto.Merge(out, m)
	out.WarnDays, out.GraceDays, out.TrashDays = cmp.Or(out.WarnDays, 7), cmp.Or(out.GraceDays, 7), cmp.Or(out.TrashDays, 14)
	return out
}
