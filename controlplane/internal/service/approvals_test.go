package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// queue has so many requests wait behind those that there are, as copies of r-1: in the order in which they are submitted.
func (o *office) queue(n int) {
	o.Helper()
	if err := o.DB.Update(func(tx *state.Tx) error {
		first, err := tx.Requests.ByName("r-1", nil)
		if err != nil {
			return err
		}
		for i := range n {
			m := proto.CloneOf(first)
			m.Id, m.Name, m.Adds = fmt.Sprintf("%s-%04d", first.GetId(), i), fmt.Sprintf("q-%04d", i), nil
			if err := tx.Requests.Put(m); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		o.Fatal(err)
	}
}

// TestAPageOfWhatWaitsLooksAtSoManyRequests: cho, whose stage is the second, could sit in all of them and has a place in the last alone.
func TestAPageOfWhatWaitsLooksAtSoManyRequests(t *testing.T) {
	o := newOffice(t)
	if _, err := o.submit("ann", ask()); err != nil {
		t.Fatal(err)
	}
	o.queue(249)
	m := ask()
	m.GetSpecification().GetCreate().NamePattern = "last-##"
	last, err := o.submit("ann", m)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.decide("bob", last.GetName(), apiv1.Decision_APPROVE, nil); err != nil {
		t.Fatal(err)
	}
	var pages, found []string
	for token := ""; len(pages) < 10; {
		r, err := o.As(o.users["cho"]).Requests.ListApprovals(t.Context(), &apiv1.ListApprovalsRequest{PageSize: 1, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.GetRequests() {
			found = append(found, m.GetName())
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
		_, id, _ := strings.Cut(token, ".")
		o.View(func(tx *state.Tx) error {
			m, err := tx.Requests.Get(id)
			pages = append(pages, m.GetName())
			return err
		})
	}
	if !slices.Equal(pages, []string{"q-0098", "q-0198"}) || !slices.Equal(found, []string{last.GetName()}) {
		t.Errorf("pages end with %v, and %v is found", pages, found)
	}
	var all int
	for token, calls := "", 0; calls < 10; calls++ { // bob has a place in each but the last
		r, err := o.As(o.users["bob"]).Requests.ListApprovals(t.Context(), &apiv1.ListApprovalsRequest{PageSize: 100, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if all += len(r.GetRequests()); calls < 2 && len(r.GetRequests()) != 100 {
			t.Errorf("page %d holds %d", calls, len(r.GetRequests()))
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if all != 250 {
		t.Errorf("bob has %d waiting", all)
	}
}
