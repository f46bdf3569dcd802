package uplink

import (
	"context"

	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// nobody is a zone with one agent.
type nobody struct{}

func (nobody) UplinkAddress(context.Context) (string, error) { return "", nil }
func (nobody) Call(context.Context, string, *zonev1.CallRequest, func(*zonev1.CallResponse) error) error {
	panic("there is nobody to call")
}
