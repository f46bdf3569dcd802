package service_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// slow is a database of which one snapshot is held for too long.
type slow struct {
	*state.DB
	views, fails int
}

func (s *slow) View(ctx context.Context, fn func(*state.Tx) error) error {
	if s.views++; s.views == s.fails {
		return state.ErrTooLong
	}
	return s.DB.View(ctx, fn)
}

func TestARequestThatTakesTooLongToJudgeTakesNoTimeFromOthers(t *testing.T) {
	o := newOffice(t)
	for i := range 2 {
		m := ask()
		m.GetSpecification().GetCreate().NamePattern = fmt.Sprintf("web-%d-##", i)
		r, err := o.submit("ann", m)
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"bob", "cho"} {
			if err := o.decide(who, r.GetName(), apiv1.Decision_APPROVE, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	reader := &slow{DB: o.DB, fails: 2} // after the list, the first of the two
	o.controller = requests.New(requests.Config{Reader: reader, Proposer: clocked{o}, Chooser: o.Chooser, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now }})
	is := func(name string) apiv1.Request_Fulfilment { return o.show("ann", name).GetFulfilment() }
	o.turn()
	if is("r-1") != apiv1.Request_NONE || is("r-2") == apiv1.Request_NONE {
		t.Fatalf("the one is %s, and the other %s", is("r-1"), is("r-2"))
	}
	o.turn()
	if is("r-1") == apiv1.Request_NONE {
		t.Error("it was not looked at again")
	}
}
