package service

import (
	"context"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// BeginLocalLogin is the zone's to answer, while it is cut off.
func (s sessionService) BeginLocalLogin(ctx context.Context, _ *apiv1.BeginLocalLoginRequest) (*apiv1.BeginLocalLoginResponse, error) {
	return nil, notCutOff(ctx)
}

// LogInLocally is the zone's to answer, while it is cut off.
func (s sessionService) LogInLocally(ctx context.Context, _ *apiv1.LogInLocallyRequest) (*apiv1.LogInLocallyResponse, error) {
	return nil, notCutOff(ctx)
}

func notCutOff(ctx context.Context) error {
	if callOf(ctx).ViaZoneID == "" {
		return problem.Plain(problem.New(problem.WrongState, "one logs in locally at the edge of a zone that is cut off, and nowhere else", "Log in here: naru login."))
	}
	return problem.Plain(problem.New(problem.WrongState, "the zone is not cut off", "Log in as usual: naru login."))
}
