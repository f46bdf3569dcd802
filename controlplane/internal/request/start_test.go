package request_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAStartThatIsOverIsRefusedAndOneThatHasJustPassedIsNot(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	if err := request.StartsInTime(&apiv1.Request{}, timestamppb.New(now)); err != nil {
		t.Errorf("without a start: %v", err)
	}
	for by, over := range map[time.Duration]bool{-10 * 365 * 24 * time.Hour: true, -time.Hour: true, -11 * time.Minute: true, -9 * time.Minute: false, 0: false, 24 * time.Hour: false, 100 * 365 * 24 * time.Hour: false} {
		err := request.StartsInTime(&apiv1.Request{DesiredStart: timestamppb.New(now.Add(by))}, timestamppb.New(now))
		if over != (err != nil) || over && (!problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetNext(), "to come, or none") || problem.Of(err).GetErrors()[0].GetField() != "desired_start") {
			t.Errorf("%s: %v", by, err)
		}
	}
}
