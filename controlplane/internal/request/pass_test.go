package request_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// An emergency that failed half-way has changed something: its review does not end by the wish of who asked.
func TestP6WhatWasLetThroughAndHasBegunIsReviewedToTheEnd(t *testing.T) {
	r := &apiv1.Request{
		Id: "r", Name: "r-1", Requester: "ann", RequesterId: "ann", Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_FAILED, ReviewedAfterwards: true,
		Stages: []*apiv1.Stage{{Name: "review", State: apiv1.Stage_OPEN}},
	}
	if err := request.Withdraw(r, person("ann"), "", "done with it", timestamppb.Now()); !problem.Is(err, problem.WrongState) {
		t.Fatalf("%v", err)
	}
	if s := r.GetStages()[0]; s.GetState() != apiv1.Stage_OPEN || r.GetApproval() != apiv1.Request_APPROVED {
		t.Errorf("the request is %v", r)
	}
	r.Stages[0].State = apiv1.Stage_APPROVED
	if err := request.Withdraw(r, person("ann"), "", "done with it", timestamppb.Now()); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeWithdrawnAnyMoreSaysWhatCanBeDone(t *testing.T) {
	for next, r := range map[string]*apiv1.Request{
		"naru request copy r-1":   {Approval: apiv1.Request_REJECTED},
		"naru request create":     {Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_DONE},
		"review it":               {Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_EXECUTING, Stages: []*apiv1.Stage{{State: apiv1.Stage_OPEN}}},
		"to ask for the same":     {Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_LAPSED},
		"by another request: nar": {Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_EXECUTING},
	} {
		r.Name, r.RequesterId = "r-1", "ann"
		if err := request.Withdraw(r, person("ann"), "", "", timestamppb.Now()); !problem.Is(err, problem.WrongState) || !strings.Contains(strings.ToLower(problem.Of(err).GetNext()), next) {
			t.Errorf("%s: %v", next, problem.Of(err))
		}
	}
}
