package panel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var then = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

// world is a database in which people are put as they are needed.
type world struct {
	testing.TB
	db *state.DB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{ServerID: "server-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, db}
}

func (w *world) write(fn func(*state.Tx) error) {
	w.Helper()
	if err := w.db.Update(func(tx *state.Tx) error {
		m := tx.Meta()
		m.Revision++
		m.AppliedIndex++
		tx.SetMeta(m)
		return fn(tx)
	}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) read(fn func(*state.Tx) error) {
	w.Helper()
	if err := w.db.View(context.Background(), fn); err != nil {
		w.Fatal(err)
	}
}

func user(i int) *apiv1.User {
	return &apiv1.User{Id: fmt.Sprintf("u-%05d", i), Name: fmt.Sprintf("user-%05d", i), Kind: apiv1.User_PERSON, Organization: "all", OrganizationId: "o-all", CreatedAt: timestamppb.New(then)}
}

// asked is a request for something in project web and zone business, from zone dmz, with one stage.
func asked(stage *apiv1.Stage) *apiv1.Request {
	return &apiv1.Request{
		Id: "r-1", Name: "r-1", Requester: "user-00000", RequesterId: "u-00000", Project: "web", ProjectId: "p-web", Organization: "team", OrganizationId: "o-team",
		Zone: "business", ZoneId: "z-business", SourceZone: "dmz", SourceZoneId: "z-dmz", Approval: apiv1.Request_SUBMITTED,
		SubmittedAt: timestamppb.New(then.Add(time.Hour)), Stages: []*apiv1.Stage{stage},
	}
}

// furnish puts in what the request is about.
func (w *world) furnish(roles ...*apiv1.Role) {
	w.Helper()
	w.write(func(tx *state.Tx) error {
		for _, o := range []*apiv1.Organization{{Id: "o-all", Name: "all"}, {Id: "o-team", Name: "team", Parent: "all", ParentId: "o-all"}, {Id: "o-else", Name: "else"}} {
			if err := tx.Organizations.Put(o); err != nil {
				return err
			}
		}
		for _, z := range []*apiv1.Zone{{Id: "z-business", Name: "business", Kind: "business"}, {Id: "z-dmz", Name: "dmz", Kind: "dmz"}, {Id: "z-else", Name: "else"}} {
			if err := tx.Zones.Put(z); err != nil {
				return err
			}
		}
		for _, p := range []*apiv1.Project{{Id: "p-web", Name: "web", Organization: "team", OrganizationId: "o-team"}, {Id: "p-else", Name: "else"}} {
			if err := tx.Projects.Put(p); err != nil {
				return err
			}
		}
		for _, r := range roles {
			if err := tx.Roles.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// among finds who may decide in a stage by looking at each of them.
func among(p *Panel, stage *apiv1.Stage, ids []string) (out []string, err error) {
	for _, id := range ids {
		m, err := p.Member(id)
		if err != nil {
			return nil, err
		}
		by, err := p.part.Meets(id)
		if err != nil {
			return nil, err
		}
		if ok, _ := p.May(stage, m); ok && by == "" {
			out = append(out, id)
		}
	}
	return out, nil
}

func TestWhoMayDecideIsFoundByTheirRolesAsByLookingAtEverybody(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	draw := rand.New(rand.NewPCG(seed, 0))
	roles := []*apiv1.Role{
		{Id: "ro-user", Name: "user", Permissions: []string{"vm.read", "request.create"}, AtEdges: true, CreatedAt: timestamppb.New(then)},
		{Id: "ro-reviewer", Name: "reviewer", Permissions: []string{"request.decide"}, AtEdges: true, CreatedAt: timestamppb.New(then)},
		{Id: "ro-wide", Name: "wide", Permissions: []string{"request.*"}, CreatedAt: timestamppb.New(then)},
		{Id: "ro-all", Name: "all", Permissions: []string{"*"}, CreatedAt: timestamppb.New(then)},
		{Id: "ro-verb", Name: "verb", Permissions: []string{"*.decide"}, Condition: `resource.zone_kind == "dmz"`, CreatedAt: timestamppb.New(then)},
		{Id: "ro-new", Name: "new", Permissions: []string{"request.decide"}, CreatedAt: timestamppb.New(then.Add(2 * time.Hour))},
	}
	places := []*apiv1.RoleBinding{
		{Scope: apiv1.RoleBinding_FEDERATION},
		{Scope: apiv1.RoleBinding_ORGANIZATION, Place: "all", PlaceId: "o-all"}, {Scope: apiv1.RoleBinding_ORGANIZATION, Place: "team", PlaceId: "o-team"},
		{Scope: apiv1.RoleBinding_ORGANIZATION, Place: "else", PlaceId: "o-else"},
		{Scope: apiv1.RoleBinding_PROJECT, Place: "web", PlaceId: "p-web"}, {Scope: apiv1.RoleBinding_PROJECT, Place: "else", PlaceId: "p-else"},
		{Scope: apiv1.RoleBinding_ZONE, Place: "business", PlaceId: "z-business"}, {Scope: apiv1.RoleBinding_ZONE, Place: "dmz", PlaceId: "z-dmz"},
		{Scope: apiv1.RoleBinding_ZONE, Place: "else", PlaceId: "z-else"},
	}
	ats := []apiv1.Eligibility_At{apiv1.Eligibility_PROJECT, apiv1.Eligibility_ORGANIZATION, apiv1.Eligibility_SOURCE, apiv1.Eligibility_DESTINATION, apiv1.Eligibility_FEDERATION}
	found := 0
	for round := range 20 {
		w := newWorld(t)
		w.furnish(roles...)
		var ids []string
		w.write(func(tx *state.Tx) error {
			for i := range 30 {
				u := user(i)
				u.Disabled = draw.IntN(10) == 0
				if draw.IntN(10) == 0 {
					u.Kind = apiv1.User_SERVICE
				}
				ids = append(ids, u.GetId())
				if err := tx.Users.Put(u); err != nil {
					return err
				}
			}
			for g := range 4 {
				id := fmt.Sprintf("g-%d", g)
				if err := tx.Groups.Put(&apiv1.Group{Id: id, Name: id, CreatedAt: timestamppb.New(then.Add(time.Duration(draw.IntN(3)) * time.Hour))}); err != nil {
					return err
				}
				for range draw.IntN(8) {
					if err := tx.PutMembership(state.Membership{GroupID: id, UserID: ids[draw.IntN(len(ids))]}); err != nil {
						return err
					}
				}
			}
			for i := range 25 {
				role, at := roles[draw.IntN(len(roles))], places[draw.IntN(len(places))]
				b := &apiv1.RoleBinding{Id: fmt.Sprintf("b-%d", i), Role: role.GetName(), RoleId: role.GetId(), Scope: at.GetScope(), Place: at.GetPlace(), PlaceId: at.GetPlaceId()}
				if b.UserId = ids[draw.IntN(len(ids))]; draw.IntN(3) == 0 {
					b.UserId, b.GroupId = "", fmt.Sprintf("g-%d", draw.IntN(4))
				}
				if draw.IntN(4) == 0 {
					b.ExpiresAt = timestamppb.New(then.Add(time.Duration(draw.IntN(4)) * time.Hour))
				}
				if err := tx.RoleBindings.Put(b); err != nil {
					return err
				}
			}
			return nil
		})
		for range 10 {
			e := &apiv1.Eligibility{At: ats[draw.IntN(len(ats))]}
			switch draw.IntN(4) {
			case 0:
				e.Condition = `person.name < "user-00020"`
			case 1:
				e.Condition = `"g-1" in groups || person.name.endsWith("3")`
			case 2:
				e.Roles = []string{roles[draw.IntN(len(roles))].GetName(), "reviewer"}
			case 3:
				e.Groups, e.Users = []string{"g-2", "nowhere"}, []string{"user-00007", "nobody"}
			}
			stage := &apiv1.Stage{Name: "one", Needed: 1, Eligible: e, State: apiv1.Stage_OPEN}
			if draw.IntN(6) == 0 {
				stage.External, stage.Eligible = true, &apiv1.Eligibility{Users: []string{user(draw.IntN(30)).GetName(), user(draw.IntN(30)).GetName()}}
			} else if draw.IntN(3) == 0 {
				stage.OnDue, stage.DueHours, stage.EscalateTo, stage.EscalatedAt = apiv1.StageTemplate_ESCALATE, 1, &apiv1.Eligibility{Condition: "true", At: ats[draw.IntN(len(ats))]}, timestamppb.New(then)
			}
			w.read(func(tx *state.Tx) error {
				r := asked(stage)
				p, err := Of(tx, r, then.Add(2*time.Hour))
				if err != nil {
					return err
				}
				people, err := p.People(stage)
				if err != nil {
					return err
				}
				var got []string
				for _, m := range people {
					got = append(got, m.GetUser().GetId())
				}
				want, err := among(p, stage, ids)
				if err != nil {
					return err
				}
				if !slices.Equal(got, want) {
					t.Errorf("seed %d, round %d: in stage %v %v may decide; of everybody, %v may", seed, round, stage, got, want)
				}
				found += len(want)
				return nil
			})
		}
	}
	if found < 100 {
		t.Errorf("seed %d: only %d were found who may decide, and little was compared", seed, found)
	}
}

// crowd is a world of n people who may ask in the project, of whom five may decide there and in the zone.
func crowd(b testing.TB, n int) *world {
	b.Helper()
	w := newWorld(b)
	w.furnish(
		&apiv1.Role{Id: "ro-user", Name: "user", Permissions: []string{"vm.read", "request.create"}, CreatedAt: timestamppb.New(then)},
		&apiv1.Role{Id: "ro-reviewer", Name: "reviewer", Permissions: []string{"request.decide"}, CreatedAt: timestamppb.New(then)})
	bind := func(tx *state.Tx, role string, i int, scope apiv1.RoleBinding_Scope, place string) error {
		return tx.RoleBindings.Put(&apiv1.RoleBinding{Id: fmt.Sprintf("b-%s-%s-%d", role, place, i), Role: role, RoleId: "ro-" + role, UserId: user(i).GetId(), User: user(i).GetName(),
			Scope: scope, PlaceId: place, Place: place})
	}
	for from := 0; from < n; from += 1000 {
		w.write(func(tx *state.Tx) error {
			for i := from; i < min(n, from+1000); i++ {
				if err := tx.Users.Put(user(i)); err != nil {
					return err
				}
				if err := bind(tx, "user", i, apiv1.RoleBinding_PROJECT, "p-web"); err != nil {
					return err
				}
				if i%5 == 4 { // a fifth decides in other projects
					if err := bind(tx, "reviewer", i, apiv1.RoleBinding_PROJECT, fmt.Sprintf("p-%d", i)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	w.write(func(tx *state.Tx) error {
		for i := 1; i <= 5; i++ {
			if err := bind(tx, "reviewer", i, apiv1.RoleBinding_PROJECT, "p-web"); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

// BenchmarkPeople finds the five who may decide in a stage, among 200 and among 20,000 people; stages name a condition alone, or a role.
func BenchmarkPeople(b *testing.B) {
	for name, e := range map[string]*apiv1.Eligibility{
		"condition": {Condition: `person.organization == "all"`, At: apiv1.Eligibility_PROJECT}, "role": {Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT},
	} {
		few := 0.0
		for _, n := range []int{200, 20_000} {
			w := crowd(b, n)
			b.Run(fmt.Sprintf("%s/users=%d", name, n), func(b *testing.B) {
				stage := &apiv1.Stage{Name: "one", Needed: 1, Eligible: e, State: apiv1.Stage_OPEN}
				before := cpu(b)
				for b.Loop() {
					w.read(func(tx *state.Tx) error {
						p, err := Of(tx, asked(stage), then.Add(2*time.Hour))
						if err != nil {
							return err
						}
						people, err := p.People(stage)
						if err == nil && len(people) != 5 {
							b.Fatalf("%d people may decide, and not five", len(people))
						}
						return err
					})
				}
				each := float64(cpu(b)-before) / 1000 / float64(b.N)
				b.ReportMetric(each, "cpu-µs/op")
				if n == 200 {
					few = each
				} else if few > 0 {
					if b.ReportMetric(each/few, "times-of-200"); b.N > 50 && each > 4*few {
						b.Errorf("among %d people it takes %.0f µs, and among 200 %.0f", n, each, few)
					}
				}
			})
		}
	}
}

func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// TestASmallStageCostsTheSameAmongMany counts what is looked at: nobody is judged who has no right to decide on the request.
func TestASmallStageCostsTheSameAmongMany(t *testing.T) {
	w := crowd(t, 200)
	for _, e := range []*apiv1.Eligibility{{Condition: "true", At: apiv1.Eligibility_PROJECT}, {Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT}} {
		stage := &apiv1.Stage{Name: "one", Needed: 1, Eligible: e, State: apiv1.Stage_OPEN}
		w.read(func(tx *state.Tx) error {
			p, err := Of(tx, asked(stage), then.Add(2*time.Hour))
			if err != nil {
				return err
			}
			people, err := p.People(stage)
			if err == nil && (len(people) != 5 || len(p.known) != 5) {
				t.Errorf("of stage %v, %d people were judged, and %d may decide", stage, len(p.known), len(people))
			}
			return err
		})
	}
}
