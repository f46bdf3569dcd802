package request_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// An emergency that failed half-way has changed something: its review does not end by the wish of who asked, also not where it is to be
// tried again.
func TestP6WhatWasLetThroughAndHasBegunIsReviewedToTheEnd(t *testing.T) {
	for _, is := range []apiv1.Request_Fulfilment{apiv1.Request_FAILED, apiv1.Request_NONE, apiv1.Request_RESERVED} {
		r := &apiv1.Request{
			Id: "r", Name: "r-1", Requester: "ann", RequesterId: "ann", Approval: apiv1.Request_APPROVED, Fulfilment: is, ReviewedAfterwards: true,
			Operations: []string{"op-1"}, Stages: []*apiv1.Stage{{Name: "review", State: apiv1.Stage_OPEN}},
		}
		if err := request.Withdraw(r, person("ann"), "", "done with it", timestamppb.Now()); err != nil {
			t.Fatal(err)
		}
		if !request.Deciding(r) || r.GetStages()[0].GetState() != apiv1.Stage_OPEN || r.GetFulfilment() != apiv1.Request_LAPSED {
			t.Errorf("withdrawn as %v the request is %v", is, r)
		}
		if err := request.Withdraw(r, person("ann"), "", "again", timestamppb.Now()); !problem.Is(err, problem.WrongState) {
			t.Errorf("withdrawn again: %v", err)
		}
	}
}

// What was made for a request stands under it, so a request of which something has begun is not undone by whoever asked for it.
func TestWhatHasBegunIsWithdrawnAsFarAsItIsNotDone(t *testing.T) {
	r := &apiv1.Request{Id: "r", Name: "r-1", Requester: "ann", RequesterId: "ann", Approval: apiv1.Request_APPROVED, Fulfilment: apiv1.Request_FAILED}
	made := proto.CloneOf(r)
	made.Operations = []string{"op-1"}
	for _, r := range []*apiv1.Request{r, made} {
		if err := request.Withdraw(r, person("ann"), "", "enough", timestamppb.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if r.GetApproval() != apiv1.Request_CANCELLED || made.GetApproval() != apiv1.Request_APPROVED || made.GetFulfilmentReason() != "what is not done was withdrawn by ann: enough" {
		t.Errorf("nothing had begun of %v, and something of %v", r, made)
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
