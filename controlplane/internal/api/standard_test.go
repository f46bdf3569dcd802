package api_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What was done directly stands among what was asked for, by the same rights, and a zone shows as much of it at an edge.
func TestF6ARecordOfWhatWasDoneDirectlyShowsAnEdgeWhatARequestDoes(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	a := w.Admin()
	w.Roles()
	kim, lee, out := w.User("kim", apiv1.User_PERSON), w.User("lee", apiv1.User_PERSON), w.User("out", apiv1.User_PERSON)
	w.Bind("b-kim", "federation-administrator", kim, apiv1.RoleBinding_FEDERATION, "")
	w.Bind("b-kim-web", "project-operator", kim, apiv1.RoleBinding_PROJECT, "web")
	w.Bind("b-lee-web", "user", lee, apiv1.RoleBinding_PROJECT, "web")
	if _, err := a.VMs.CreateVM(t.Context(), &apiv1.CreateVMRequest{Vm: w.VM("web-1", "web")}); err != nil {
		t.Fatal(err)
	}
	call := func(name string, m proto.Message) error {
		t.Helper()
		_, err := callFrom(t.Context(), w, "", name, apiMethods()[name], m, kim)
		return err
	}
	list := func(zone string, u *apiv1.User, filter string, mine bool) ([]*apiv1.Request, error) {
		t.Helper()
		in, out := &apiv1.ListRequestsRequest{Filter: filter, Mine: mine}, &apiv1.ListRequestsResponse{}
		if zone == "" {
			var err error
			out, err = w.As(u).Requests.ListRequests(t.Context(), in)
			return out.GetRequests(), err
		}
		body, err := proto.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		err = w.API.Dispatcher().Dispatch(t.Context(), api.LinkCall{ZoneID: zone, Method: apiv1.RequestService_ListRequests_FullMethodName, Body: body, Token: servicetest.AsUser(u)},
			func(b []byte) error { return proto.Unmarshal(b, out) })
		return out.GetRequests(), err
	}
	if err := call(apiv1.VMService_StopVM_FullMethodName, &apiv1.StopVMRequest{Vm: "web-1", Project: "web"}); err != nil {
		t.Fatal(err)
	}
	all, err := list("", lee, "vm=web-1", false)
	if err != nil || len(all) != 2 || all[0].GetTitle() != "vm.stop" || all[0].GetRequester() != "kim" || all[0].GetParts()[0].GetName() != "web-1" || all[0].GetApprovalReason() != "vm.stop is permitted to user:kim" {
		t.Fatalf("who may read the project's requests sees %v, %v", all, err)
	}
	if none, err := list("", out, "", false); err == nil && len(none) > 0 {
		t.Errorf("who may not sees %v", none)
	}
	if mine, err := list("", kim, "", true); err != nil || len(mine) != 0 {
		t.Errorf("what kim has asked for is %v, %v", mine, err)
	}
	if mine, err := list("", kim, "requester=kim AND asked=false", false); err != nil || len(mine) != 1 {
		t.Errorf("what kim has done is %v, %v", mine, err)
	}
	if at, err := list(site.Internet.GetId(), kim, "vm=web-1", false); err != nil || len(at) != 2 || at[0].GetParts()[0].GetName() != "web-1" {
		t.Errorf("an edge at which all is shown sees %v, %v", at, err)
	}
	if _, err := a.Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "business", Grade: apiv1.Zone_CLASSIFIED}, UpdateMask: mask("grade")}); err != nil {
		t.Fatal(err)
	}
	at, err := list(site.Internet.GetId(), kim, "", false)
	if err != nil || len(at) != 2 {
		t.Fatalf("%v, %v", at, err)
	}
	for _, m := range at {
		if strings.Contains(m.String(), "web-1") || m.GetApprovalReason() != "" {
			t.Errorf("an edge is shown %v", m)
		}
	}
	if _, err := list(site.Internet.GetId(), kim, "vm=web-1", false); !problem.Is(err, problem.Invalid) {
		t.Errorf("a name that is not shown is looked for: %v", err)
	}

	// Nothing else that requests take is taken by a record, and it says so.
	name := all[0].GetName()
	for method, m := range map[string]proto.Message{
		apiv1.RequestService_WithdrawRequest_FullMethodName: &apiv1.WithdrawRequestRequest{Request: name},
		apiv1.RequestService_CopyRequest_FullMethodName:     &apiv1.CopyRequestRequest{Request: name},
		apiv1.RequestService_SubmitRequest_FullMethodName:   &apiv1.SubmitRequestRequest{Request: name},
		apiv1.RequestService_RetryRequest_FullMethodName:    &apiv1.RetryRequestRequest{Request: name},
		apiv1.RequestService_DeleteRequest_FullMethodName:   &apiv1.DeleteRequestRequest{Request: name},
		apiv1.RequestService_UpdateRequest_FullMethodName:   &apiv1.UpdateRequestRequest{Request: &apiv1.Request{Id: name, Reason: "x"}, UpdateMask: mask("reason")},
		apiv1.RequestService_DecideRequest_FullMethodName:   &apiv1.DecideRequestRequest{Request: name, Verdict: apiv1.Decision_APPROVE, SeenHash: make([]byte, 32)},
	} {
		if err := call(method, m); !problem.Is(err, problem.WrongState) || !strings.Contains(problem.Of(err).GetDetail(), "the record of what was done without a request") {
			t.Errorf("%s: %v", method, err)
		}
	}
	shown, err := w.As(kim).Requests.GetRequest(t.Context(), &apiv1.GetRequestRequest{Request: name})
	if err != nil || strings.Join(shown.GetRequest().GetActions(), " ") != "comment" {
		t.Errorf("%v, %v", shown, err)
	}
	err = call(apiv1.RequestService_CreateRequest_FullMethodName, &apiv1.CreateRequestRequest{Request: &apiv1.Request{Project: "web", Intake: apiv1.Intake_DIRECT,
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: &apiv1.PowerVM{Vm: "web-1", Verb: apiv1.PowerVM_START}}}}})
	if !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), "recorded by itself") {
		t.Errorf("a record that somebody sends: %v", err)
	}
	err = call(apiv1.RequestService_CreateRequest_FullMethodName, &apiv1.CreateRequestRequest{Request: &apiv1.Request{Project: "web",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Delete{Delete: &apiv1.DeleteVM{Vm: "web-1"}}}}})
	if !problem.Is(err, problem.Invalid) {
		t.Errorf("a deletion is asked for: %v", err)
	}
}
