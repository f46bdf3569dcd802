package service_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// entriesOf returns the entries of an action.
func entriesOf(w *servicetest.World, action string) (entries []*apiv1.AuditEntry) {
	w.Helper()
	err := w.DB.View(context.Background(), func(tx *state.Tx) error {
		leaves, err := tx.AuditLeaves(0, 100_000)
		for _, l := range leaves {
			e := &apiv1.AuditEntry{}
			if err := proto.Unmarshal(l.Leaf, e); err != nil {
				return err
			}
			if e.GetAction() == action {
				entries = append(entries, e)
			}
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return entries
}

// nobody asks for the zones without saying who asks.
func nobody(t *testing.T, w *servicetest.World) error {
	_, err := w.Nobody().Zones.ListZones(t.Context(), &apiv1.ListZonesRequest{})
	return problem.FromStatus(err)
}

func TestARefusedCallIsInTheAuditLog(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	_, err := w.In("web").Zones.CreateZone(t.Context(), &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "mine", Kind: "lab"}})
	if !problem.Is(err, problem.Forbidden) {
		t.Fatal(err)
	}
	found := entriesOf(w, "zone.create")
	last := found[len(found)-1]
	if last.GetActor() != "token:web" || last.GetOutcome() != apiv1.AuditEntry_REFUSED || last.GetProblemCode() != "FORBIDDEN" || last.GetMessage() == "" {
		t.Errorf("the log says %v", last)
	}
	// What was refused on the way to the state machine is no less refused.
	_, err = w.Admin().Zones.UpdateZone(t.Context(), &apiv1.UpdateZoneRequest{Zone: &apiv1.Zone{Id: "mars", Description: "red"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	if found := entriesOf(w, "zone.update"); !problem.Is(err, problem.NotFound) || len(found) != 1 || found[0].GetProblemCode() != "NOT_FOUND" {
		t.Errorf("%v; the log says %v", err, found)
	}
	if err := nobody(t, w); !problem.Is(err, problem.Unauthenticated) {
		t.Fatal(err)
	}
	if found := entriesOf(w, "zone.list"); len(found) != 1 || found[0].GetActor() != "anonymous" {
		t.Errorf("the log says %v", found)
	}
}

// TestAFloodOfRefusalsCostsNoCommands: one is written at once, the others are counted.
func TestAFloodOfRefusalsCostsNoCommands(t *testing.T) {
	w := servicetest.New(t)
	before := w.Records()
	for range 1000 {
		if err := nobody(t, w); !problem.Is(err, problem.Unauthenticated) {
			t.Fatal(err)
		}
	}
	if n := w.Records() - before; n != 1 {
		t.Errorf("1000 refusals cost %d commands", n)
	}
}

// TestP7NoEntryNoAnswer: what is sensitive is not shown when that cannot be written; a refusal stands all the same.
func TestP7NoEntryNoAnswer(t *testing.T) {
	w := servicetest.New(t)
	full := errors.New("no quorum")
	w.FailNext(full)
	if err := w.Service.RecordRead(t.Context(), "/naru.api.v1.AuditService/ListAuditEntries", &apiv1.ListAuditEntriesRequest{}); err == nil {
		t.Error("a read that could not be written down is allowed")
	}
	w.FailNext(full)
	if err := nobody(t, w); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("a refusal that could not be written down became %v", err)
	}
}

func TestALoginThatFailedIsWrittenAsTheOneWhoTried(t *testing.T) {
	w := servicetest.New(t)
	ctx := service.WithCall(t.Context(), service.Call{Principal: auth.Principal{}, TraceID: "t1"})
	err := w.Service.Record(ctx, service.Deed{Action: "session.log-in", Outcome: apiv1.AuditEntry_REFUSED, Actor: "user:kim",
		Problem: problem.New(problem.Unauthenticated, "the password is wrong", "Try again.")})
	if err != nil {
		t.Fatal(err)
	}
	found := entriesOf(w, "session.log-in")
	if len(found) != 1 || found[0].GetActor() != "user:kim" || found[0].GetMessage() != "the password is wrong" || found[0].GetTraceId() != "t1" {
		t.Errorf("the log says %v", found)
	}
}

// TestWhoReadsPeoplesDataIsInTheLog, with what was read: once a minute, and before anything is shown.
func TestWhoReadsPeoplesDataIsInTheLog(t *testing.T) {
	w := servicetest.New(t)
	for n := range 3 {
		w.User("u-"+string(rune('a'+n)), apiv1.User_PERSON)
	}
	full := errors.New("no quorum")
	w.FailNext(full)
	if r, err := w.Admin().Users.ListUsers(t.Context(), &apiv1.ListUsersRequest{}); err == nil {
		t.Errorf("a read that could not be written down shows %v", r)
	}
	before := w.Records()
	for range 100 {
		if _, err := w.Admin().Users.ListUsers(t.Context(), &apiv1.ListUsersRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for token := ""; ; { // page by page it is one question
		r, err := w.Admin().Users.ListUsers(t.Context(), &apiv1.ListUsersRequest{Filter: "name~u", PageSize: 1, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if n := w.Records() - before; n != 2 {
		t.Errorf("103 reads of two things cost %d commands", n)
	}
	found := entriesOf(w, "user.list")
	if len(found) != 2 || found[0].GetOutcome() != apiv1.AuditEntry_READ || found[0].GetMessage() != "all of them" || found[1].GetMessage() != `filter "name~u"` ||
		found[0].GetActor() != "admin:admin" || len(found[0].GetDigest()) != 32 {
		t.Errorf("the log says %v", found)
	}
	if _, err := w.Admin().IdentityProviders.ListIdentities(t.Context(), &apiv1.ListIdentitiesRequest{Filter: "user=u-a"}); err != nil {
		t.Fatal(err)
	}
	if found := entriesOf(w, "identity-provider.list-identities"); len(found) != 1 || found[0].GetMessage() != `filter "user=u-a"` {
		t.Errorf("the log says %v", found)
	}
}
