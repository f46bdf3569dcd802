package service_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestP2WhatIsTriedAgainUnderOneKeyIsOneRequest: also where it goes on with the draft of what was refused before.
func TestP2WhatIsTriedAgainUnderOneKeyIsOneRequest(t *testing.T) {
	o := newOffice(t)
	a := o.Admin().Quotas
	if _, err := a.CreateQuota(t.Context(), &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{Vms: proto.Uint32(0)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.submit("ann", ask()); !problem.Is(err, problem.QuotaExceeded) {
		t.Fatal(err)
	}
	all, err := a.ListQuotas(t.Context(), &apiv1.ListQuotasRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.DeleteQuota(t.Context(), &apiv1.DeleteQuotaRequest{Quota: all.GetQuotas()[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	ctx := with(t.Context(), "idempotency-key", "k-2")
	for range 2 { // the answer to the first is lost
		_, _ = o.As(o.users["ann"]).Requests.CreateRequest(ctx, &apiv1.CreateRequestRequest{Request: ask(), Submit: true})
	}
	found, err := o.As(o.users["ann"]).Requests.ListRequests(t.Context(), &apiv1.ListRequestsRequest{})
	if err != nil || len(found.GetRequests()) != 1 || found.GetRequests()[0].GetApproval() != apiv1.Request_SUBMITTED {
		t.Errorf("%v, %v", found.GetRequests(), err)
	}
}

// TestADraftThatSomebodyKeepsIsNotSubmittedByAskingForTheSame: only what a refused submission has left is gone on with.
func TestADraftThatSomebodyKeepsIsNotSubmittedByAskingForTheSame(t *testing.T) {
	o := newOffice(t)
	if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
		t.Fatal(err)
	}
	m, err := o.submit("ann", ask())
	if err != nil || m.GetName() != "r-2" || o.show("ann", "r-1").GetApproval() != apiv1.Request_DRAFT {
		t.Errorf("%v, %v; the draft is %v", m.GetName(), err, o.show("ann", "r-1").GetApproval())
	}
}
