package fsm_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func webOffering(category string) *apiv1.Offering {
	return &apiv1.Offering{Id: "of-web", Name: "web", Category: category, Image: "tiny", Zones: []string{"business"}, ApprovalPolicy: "usual", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1"}}}
}

func createOffering() *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateOffering{CreateOffering: &commandv1.CreateOffering{Offering: webOffering("1")}}}
}

func updateOffering(category string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_UpdateOffering{UpdateOffering: &commandv1.UpdateOffering{Offering: webOffering(category)}}}
}

func publishOffering(category string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_PublishOffering{PublishOffering: &commandv1.PublishOffering{Offering: webOffering(category)}}}
}

func retireOffering() *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RetireOffering{RetireOffering: &commandv1.RetireOffering{Id: "of-web"}}}
}

func deleteOffering(draft bool) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_DeleteOffering{DeleteOffering: &commandv1.DeleteOffering{Id: "of-web", Draft: draft}}}
}

func usualPolicy() *apiv1.ApprovalPolicy {
	return &apiv1.ApprovalPolicy{Id: "ap-usual", Name: "usual", Stages: []*apiv1.StageTemplate{{Name: "a", Calendar: "office"}}}
}

func createPolicy() *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: usualPolicy()}}}
}

func createCalendar() *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateCalendar{CreateCalendar: &commandv1.CreateCalendar{Calendar: &apiv1.Calendar{Id: "ca-office", Name: "office"}}}}
}

// see is view of what may fail.
func (p *plane) see(fn func(*state.Tx) error) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		if err := fn(tx); err != nil {
			p.Fatal(err)
		}
	})
}

// offering is the row of the offering.
func (p *plane) offering() (m *apiv1.Offering) {
	p.Helper()
	p.see(func(tx *state.Tx) (err error) {
		m, err = tx.Offerings.Get("of-web")
		return err
	})
	return m
}

// versions are the stored versions of the offering: "2:DRAFT:b 1:PUBLISHED:a".
func (p *plane) versions() string {
	p.Helper()
	var out []string
	p.see(func(tx *state.Tx) error {
		all, err := tx.Offerings.Versions("of-web", 1000, 1000)
		for _, m := range all {
			out = append(out, fmt.Sprintf("%d:%v:%s", m.GetVersion(), m.GetState(), m.GetCategory()))
		}
		return err
	})
	return strings.Join(out, " ")
}

func TestAnOfferingIsWrittenPublishedWrittenAgainAndRetired(t *testing.T) {
	p := furnished(t)
	expect := func(state apiv1.Offering_State, version, next uint32, category, versions string) {
		t.Helper()
		m := p.offering()
		if m.GetState() != state || m.GetVersion() != version || m.GetNextVersion() != next || m.GetCategory() != category || p.versions() != versions {
			t.Errorf("it is %v version %d, next %d, category %s, with versions %q", m.GetState(), m.GetVersion(), m.GetNextVersion(), m.GetCategory(), p.versions())
		}
	}
	p.accept(createOffering())
	expect(apiv1.Offering_DRAFT, 1, 0, "1", "")
	p.refuse(problem.WrongState, retireOffering())
	p.accept(updateOffering("a"))
	expect(apiv1.Offering_DRAFT, 1, 0, "a", "")
	p.accept(publishOffering("a"))
	expect(apiv1.Offering_PUBLISHED, 1, 0, "a", "1:PUBLISHED:a")
	if m := p.offering(); m.GetPublishedAt() == nil || m.GetCreatedAt() == nil {
		t.Errorf("nothing says when: %v", m)
	}
	p.refuse(problem.WrongState, publishOffering("a"))
	p.refuse(problem.InUse, deleteOffering(false))
	p.refuse(problem.NotFound, deleteOffering(true))

	p.accept(updateOffering("b"))
	expect(apiv1.Offering_PUBLISHED, 1, 2, "a", "2:DRAFT:b 1:PUBLISHED:a")
	p.accept(deleteOffering(true))
	expect(apiv1.Offering_PUBLISHED, 1, 0, "a", "1:PUBLISHED:a")
	p.accept(updateOffering("c"))
	p.accept(publishOffering("c"))
	expect(apiv1.Offering_PUBLISHED, 2, 0, "c", "2:PUBLISHED:c 1:PUBLISHED:a")

	p.accept(retireOffering())
	p.accept(retireOffering())
	expect(apiv1.Offering_RETIRED, 2, 0, "c", "2:PUBLISHED:c 1:PUBLISHED:a")
	p.accept(publishOffering("ignored"))
	expect(apiv1.Offering_PUBLISHED, 2, 0, "c", "2:PUBLISHED:c 1:PUBLISHED:a")
}

// Whatever is done to an offering, in whatever order, a version that was published stays as it was, byte for byte.
func TestAPublishedVersionNeverChanges(t *testing.T) {
	p := furnished(t)
	offerings := 0
	rapid.Check(t, func(t *rapid.T) {
		offerings++
		id := fmt.Sprint("of-", offerings)
		p.accept(of(id, createOffering()))
		published := map[uint32]string{}
		for n := range rapid.IntRange(1, 25).Draw(t, "steps") {
			category := fmt.Sprint("c", n)
			c := of(id, rapid.SampledFrom([]*commandv1.Command{updateOffering(category), publishOffering(category), retireOffering(), deleteOffering(true), deleteOffering(false)}).Draw(t, "command"))
			if r := p.apply(c); c.GetDeleteOffering() != nil && r.GetProblem() == nil && len(published) == 0 {
				p.accept(of(id, createOffering()))
			}
			p.see(func(tx *state.Tx) error {
				seen := 0
				all, err := tx.Offerings.Versions(id, 1000, 1000)
				for _, m := range all {
					if m.GetState() != apiv1.Offering_PUBLISHED {
						continue
					}
					is, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
					if was, known := published[m.GetVersion()]; err != nil || known && was != string(is) {
						t.Fatalf("version %d became %v, %v", m.GetVersion(), m, err)
					}
					published[m.GetVersion()] = string(is)
					seen++
				}
				if seen != len(published) {
					t.Fatalf("of %d published versions %d are there", len(published), seen)
				}
				return err
			})
		}
	})
}

// of makes a command one about another offering.
func of(id string, c *commandv1.Command) *commandv1.Command {
	switch {
	case c.GetDeleteOffering() != nil:
		c.GetDeleteOffering().Id = id
	case c.GetRetireOffering() != nil:
		c.GetRetireOffering().Id = id
	}
	for _, m := range []*apiv1.Offering{c.GetCreateOffering().GetOffering(), c.GetUpdateOffering().GetOffering(), c.GetPublishOffering().GetOffering()} {
		if m != nil {
			m.Id, m.Name = id, id
		}
	}
	return c
}

func TestWhatAnOfferingOrAPolicyNamesCannotBeDeleted(t *testing.T) {
	p := furnished(t)
	p.accept(createCalendar())
	p.accept(createPolicy())
	p.accept(createOffering())
	p.accept(publishOffering("1"))
	policy := &commandv1.Command{Body: &commandv1.Command_DeleteApprovalPolicy{DeleteApprovalPolicy: &commandv1.DeleteNoun{Id: "ap-usual"}}}
	office := &commandv1.Command{Body: &commandv1.Command_DeleteCalendar{DeleteCalendar: &commandv1.DeleteNoun{Id: "ca-office"}}}
	for _, c := range []*commandv1.Command{deletion("flavor", "f-s1", ""), deletion("image", "i-tiny", ""), deletion("zone", "z-business", ""), policy} {
		if got := p.refuse(problem.InUse, c).GetDetail(); !strings.Contains(got, "1 offering (web)") {
			t.Errorf("%q", got)
		}
	}
	if got := p.refuse(problem.InUse, office).GetDetail(); got != "calendar office is in use by 1 approval policy (usual)" {
		t.Errorf("%q", got)
	}
	// What is being written counts beside what is published.
	next := updateOffering("2")
	next.GetUpdateOffering().Offering.Flavors[0].Flavor = "other"
	p.accept(next)
	p.accept(retireOffering())
	p.accept(deletion("flavor", "f-s1", ""))
	p.refuse(problem.InUse, policy)
	p.accept(deleteOffering(true))
	p.accept(policy)
	p.accept(office)
}

func TestEachEditOfAPolicyIsAnotherVersionAndTheEarlierOnesStay(t *testing.T) {
	p := furnished(t)
	p.accept(createPolicy())
	for n := range 3 {
		m := usualPolicy()
		m.Description = fmt.Sprint("edit ", n)
		r := p.accept(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: m}}})
		var answer apiv1.ApprovalPolicy
		if err := proto.Unmarshal(r.GetNoun(), &answer); err != nil || answer.GetVersion() != uint32(n+2) {
			t.Errorf("edit %d answers version %d, %v", n, answer.GetVersion(), err)
		}
	}
	p.see(func(tx *state.Tx) error {
		for v, want := range map[uint32]string{1: "", 2: "edit 0", 3: "edit 1", 4: "edit 2"} {
			if m, err := tx.ApprovalPolicies.Version("ap-usual", v); err != nil || m.GetDescription() != want {
				t.Errorf("version %d: %v, %v", v, m, err)
			}
		}
		return nil
	})
}

func TestWhatAnOfferingRestsOnIsComparedWhenItIsWritten(t *testing.T) {
	p := furnished(t)
	p.accept(createPolicy())
	stale := []*commandv1.Read{{Noun: &apiv1.Reference{Kind: "approval-policy", Id: "ap-usual", Name: "usual"}, Revision: "7-1"}}
	c := createOffering()
	c.GetCreateOffering().Reads = stale
	p.refuse(problem.Conflict, c)
	p.accept(createOffering())
	for _, c := range []*commandv1.Command{updateOffering("x"), publishOffering("x")} {
		if u := c.GetUpdateOffering(); u != nil {
			u.Reads = stale
		} else {
			c.GetPublishOffering().Reads = stale
		}
		p.refuse(problem.Conflict, c)
	}
}
