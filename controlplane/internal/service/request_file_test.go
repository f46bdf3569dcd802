package service_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestAFileIsReplacedByTakingItAway(t *testing.T) {
	o := newOffice(t)
	ann, bob := o.As(o.users["ann"]).Requests, o.As(o.users["bob"]).Requests
	if _, err := ann.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
		t.Fatal(err)
	}
	attach := func(content string) (*apiv1.AttachToRequestResponse, error) {
		return ann.AttachToRequest(t.Context(), &apiv1.AttachToRequestRequest{Request: "r-1", File: "plan.txt", Content: []byte(content)})
	}
	wrong, err := attach("the password is …")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attach("the plan"); !problem.Is(err, problem.NameTaken) {
		t.Errorf("two of a name: %v", err)
	}
	if m := o.show("ann", "r-1"); !slices.Contains(m.GetActions(), "detach") || slices.Contains(o.show("bob", "r-1").GetActions(), "detach") {
		t.Errorf("%v", m.GetActions())
	}
	if _, err := bob.DetachFromRequest(t.Context(), &apiv1.DetachFromRequestRequest{Request: "r-1", File: "plan.txt"}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("bob may only look: %v", err)
	}
	if _, err := ann.DetachFromRequest(t.Context(), &apiv1.DetachFromRequestRequest{Request: "r-1", File: "plan.pdf"}); !problem.Is(err, problem.NotFound) {
		t.Errorf("%v", err)
	}
	out, err := ann.DetachFromRequest(t.Context(), &apiv1.DetachFromRequestRequest{Request: "r-1", File: "plan.txt"})
	if err != nil || out.GetComment().GetDroppedBy() != "ann" || out.GetComment().GetId() != wrong.GetComment().GetId() {
		t.Fatalf("%v, %v", out, err)
	}
	_, err = bob.GetAttachment(t.Context(), &apiv1.GetAttachmentRequest{Request: "r-1", Comment: wrong.GetComment().GetId()})
	if !problem.Is(err, problem.WrongState) || !strings.Contains(err.Error(), "was taken away by ann") {
		t.Errorf("%v", err)
	}
	right, err := attach("the plan")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := bob.GetAttachment(t.Context(), &apiv1.GetAttachmentRequest{Request: "r-1", Comment: right.GetComment().GetId()}); err != nil || string(got.GetContent()) != "the plan" {
		t.Errorf("%v, %v", got, err)
	}
	said, err := ann.ListComments(t.Context(), &apiv1.ListCommentsRequest{Request: "r-1"})
	if err != nil || len(said.GetComments()) != 2 || said.GetComments()[0].GetDroppedAt() == nil {
		t.Errorf("%v, %v", said, err)
	}
	if _, err := ann.DetachFromRequest(t.Context(), &apiv1.DetachFromRequestRequest{Request: "r-1", File: right.GetComment().GetId()}); err != nil {
		t.Errorf("by its id: %v", err)
	}
}

// TestADraftOfALeaverIsDeletedByWhoeverMayAskThere: by nobody else, and of nobody who is there.
func TestADraftOfALeaverIsDeletedByWhoeverMayAskThere(t *testing.T) {
	for about, leave := range map[string]func(*office){
		"disabled": func(o *office) { o.disable("ann") },
		"deleted": func(o *office) {
			o.Do(&commandv1.Command{Body: &commandv1.Command_DeleteUser{DeleteUser: &commandv1.DeleteNoun{Id: "u-ann"}}})
		},
		"without the project": func(o *office) { o.Unbind("b-ann") },
	} {
		t.Run(about, func(t *testing.T) {
			o := newOffice(t)
			o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
			if _, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask()}); err != nil {
				t.Fatal(err)
			}
			remove := func(who string) error {
				_, err := o.As(o.users[who]).Requests.DeleteRequest(t.Context(), &apiv1.DeleteRequestRequest{Request: "r-1"})
				return err
			}
			if err := remove("dan"); !problem.Is(err, problem.Forbidden) || slices.Contains(o.show("dan", "r-1").GetActions(), "delete") {
				t.Errorf("ann is there: %v", err)
			}
			leave(o)
			if err := remove("bob"); !problem.Is(err, problem.Forbidden) || slices.Contains(o.show("bob", "r-1").GetActions(), "delete") {
				t.Errorf("bob may ask for nothing there: %v", err)
			}
			if !slices.Contains(o.show("dan", "r-1").GetActions(), "delete") {
				t.Errorf("dan is not told that he may: %v", o.show("dan", "r-1").GetActions())
			}
			if err := remove("dan"); err != nil {
				t.Fatal(err)
			}
			if err := remove("dan"); !problem.Is(err, problem.NotFound) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestWhoMayEndARequestIsShownThatTheyMay: what its actions say is what the methods then do, for each who sees it, as it stands, and whether
// or not its author can still end it.
func TestWhoMayEndARequestIsShownThatTheyMay(t *testing.T) {
	stands := map[string]func(*office, *apiv1.Request){
		"draft":     func(*office, *apiv1.Request) {},
		"submitted": func(o *office, m *apiv1.Request) { o.hand(m) },
		"returned": func(o *office, m *apiv1.Request) {
			o.hand(m)
			if err := o.decide("bob", m.GetName(), apiv1.Decision_RETURN, nil); err != nil {
				o.Fatal(err)
			}
		},
		"withdrawn": func(o *office, m *apiv1.Request) {
			o.hand(m)
			if _, err := o.As(o.users["ann"]).Requests.WithdrawRequest(context.Background(), &apiv1.WithdrawRequestRequest{Request: m.GetName()}); err != nil {
				o.Fatal(err)
			}
		},
	}
	ends := map[string]func(*office, string, string) error{
		"delete": func(o *office, who, name string) error {
			_, err := o.As(o.users[who]).Requests.DeleteRequest(context.Background(), &apiv1.DeleteRequestRequest{Request: name})
			return err
		},
		"withdraw": func(o *office, who, name string) error {
			_, err := o.As(o.users[who]).Requests.WithdrawRequest(context.Background(), &apiv1.WithdrawRequestRequest{Request: name})
			return err
		},
	}
	for about, leave := range map[string]func(*office){
		"there":               func(*office) {},
		"disabled":            func(o *office) { o.disable("ann") },
		"without the project": func(o *office) { o.Unbind("b-ann") },
	} {
		t.Run(about, func(t *testing.T) {
			o := newOffice(t)
			o.users["eve"] = o.User("eve", apiv1.User_PERSON)
			o.Bind("b-dan", "user", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
			o.Bind("b-eve", "user", o.users["eve"], apiv1.RoleBinding_PROJECT, "web")
			people := []string{"bob", "cho", "dan", "eve"}
			if about != "disabled" {
				people = append(people, "ann")
			}
			type trial struct{ stands, who, action, name string }
			var trials []trial
			for is, bring := range stands {
				for _, who := range people {
					for action := range ends {
						asked := ask()
						asked.OnBehalfOf = "eve"
						r, err := o.As(o.users["ann"]).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: asked})
						if err != nil {
							t.Fatal(err)
						}
						bring(o, r.GetRequest())
						trials = append(trials, trial{is, who, action, r.GetRequest().GetName()})
					}
				}
			}
			leave(o)
			accepted := map[string]bool{}
			for _, c := range trials {
				shown := slices.Contains(o.show(c.who, c.name).GetActions(), c.action)
				err := ends[c.action](o, c.who, c.name)
				if shown != (err == nil) {
					t.Errorf("%s, %s: %s is shown %t to %s, and is answered %v", about, c.stands, c.action, shown, c.who, err)
				}
				accepted[c.who+" "+c.action] = accepted[c.who+" "+c.action] || err == nil
			}
			for who, want := range map[string]bool{"bob": false, "cho": false, "dan": about != "there", "eve": true} {
				if got := accepted[who+" withdraw"]; got != want {
					t.Errorf("%s: %s withdraws one: %t", about, who, got)
				}
			}
		})
	}
}

// hand submits what ann has written.
func (o *office) hand(m *apiv1.Request) {
	o.Helper()
	if _, err := o.As(o.users["ann"]).Requests.SubmitRequest(context.Background(), &apiv1.SubmitRequestRequest{Request: m.GetName()}); err != nil {
		o.Fatal(err)
	}
}
