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
	if err := request.TimesHold(&apiv1.Request{}, timestamppb.New(now)); err != nil {
		t.Errorf("without a start: %v", err)
	}
	for by, over := range map[time.Duration]bool{-10 * 365 * 24 * time.Hour: true, -time.Hour: true, -11 * time.Minute: true, -9 * time.Minute: false, 0: false, 24 * time.Hour: false, 100 * 365 * 24 * time.Hour: false} {
		err := request.TimesHold(&apiv1.Request{DesiredStart: timestamppb.New(now.Add(by))}, timestamppb.New(now))
		if over != (err != nil) || over && (!problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetNext(), "to come, or none") || problem.Of(err).GetErrors()[0].GetField() != "desired_start") {
			t.Errorf("%s: %v", by, err)
		}
	}
}

func TestAnEndThatIsOverOrNotAfterTheStartIsRefusedByItsField(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	at := func(by time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(by)) }
	for about, c := range map[string]struct {
		r     *apiv1.Request
		field string // empty: it holds
		said  string
	}{
		"to decide by, over":                  {&apiv1.Request{DecideBy: at(-time.Second)}, "decide_by", "is over: it is 2026-11-23T09:00:00Z now"},
		"to decide by, now":                   {&apiv1.Request{DecideBy: at(0)}, "decide_by", "is over"},
		"to decide by, to come":               {&apiv1.Request{DecideBy: at(time.Second)}, "", ""},
		"to carry out by, over":               {&apiv1.Request{CarryOutBy: at(-24 * time.Hour)}, "carry_out_by", "is over"},
		"to carry out by, to come":            {&apiv1.Request{CarryOutBy: at(time.Hour)}, "", ""},
		"to carry out by, before the start":   {&apiv1.Request{DesiredStart: at(time.Hour), CarryOutBy: at(time.Minute)}, "carry_out_by", "does not begin before 2026-11-23T10:00:00Z"},
		"to carry out by, at the start":       {&apiv1.Request{DesiredStart: at(time.Hour), CarryOutBy: at(time.Hour)}, "carry_out_by", "does not begin before"},
		"to carry out by, after the start":    {&apiv1.Request{DesiredStart: at(time.Hour), CarryOutBy: at(2 * time.Hour)}, "", ""},
		"to carry out by, after a late start": {&apiv1.Request{DesiredStart: at(-time.Minute), CarryOutBy: at(time.Minute)}, "", ""},
	} {
		err := request.TimesHold(c.r, timestamppb.New(now))
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", about, err)
			}
			continue
		}
		p := problem.Of(err)
		if !problem.Is(err, problem.Invalid) || p.GetErrors()[0].GetField() != c.field || !strings.Contains(p.GetDetail(), c.said) || !strings.Contains(p.GetNext(), "or none") {
			t.Errorf("%s: %v", about, p)
		}
	}
}
