package state_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func in(column string, values ...string) state.In {
	return state.In{Column: column, Values: values}
}

// oneOf is a request or an entry of the log, of one of few people and places.
func oneOf(n int, random *rand.Rand) (*apiv1.Request, *apiv1.AuditEntry) {
	pick := func(kind string) string { return []string{"", kind + "-1", kind + "-2", kind + "-3"}[random.IntN(4)] }
	r := &apiv1.Request{
		Id: fmt.Sprintf("r-%03d", n), Name: fmt.Sprintf("r-%d", n), CreatedAt: &timestamppb.Timestamp{Seconds: int64(1000 + random.IntN(20))},
		RequesterId: pick("u"), OnBehalfOfId: pick("u"), ProjectId: pick("p"), OrganizationId: pick("o"), ZoneId: pick("z"),
	}
	e := auditEntry(n)
	e.ProjectId, e.ZoneId = pick("p"), pick("z")
	return r, e
}

// TestAPageIsPutTogetherOfAllThatIsInReach: whatever the bounds, pages bring each row that they leave once, in order.
func TestAPageIsPutTogetherOfAllThatIsInReach(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	db := open(t, state.Options{})
	var requests []*apiv1.Request
	var entries []*apiv1.AuditEntry
	write(t, db, func(tx *state.Tx) error {
		for n := range 200 {
			r, e := oneOf(n, random)
			requests, entries = append(requests, r), append(entries, e)
			if err := tx.Requests.Put(r); err != nil {
				return err
			}
			if err := tx.AppendAudit(e); err != nil {
				return err
			}
			others := proto.CloneOf(e) // of another zone's log, under the same numbers
			others.Actor, others.ProjectId, others.ZoneId = "somebody else", "p-1", "z-1"
			if err := errors.Join(bring(tx, "business/1", e), bring(tx, "internet/1", others)); err != nil {
				return err
			}
		}
		return nil
	})
	columns := func(r *apiv1.Request) func(string) string {
		return func(c string) string {
			return map[string]string{"requester_id": r.GetRequesterId(), "on_behalf_of_id": r.GetOnBehalfOfId(), "project_id": r.GetProjectId(),
				"organization_id": r.GetOrganizationId(), "zone_id": r.GetZoneId(), "name": r.GetName()}[c]
		}
	}
	for range 40 {
		var bounds, places []state.Bound
		for range random.IntN(4) {
			some := func(kind string) []string {
				all := []string{kind + "-1", kind + "-2", kind + "-3", kind + "-4"}
				random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				return all[:random.IntN(4)]
			}
			bounds = append(bounds, [][]state.In{
				{in("requester_id", "u-1")}, {in("on_behalf_of_id", "u-1")}, {in("project_id", some("p")...)}, {in("zone_id", some("z")...), in("organization_id", some("o")...)},
				{in("zone_id", some("z")...), in("project_id", some("p")...)}, {}, {in("name", "r-7", "r-9")},
			}[random.IntN(7)])
			places = append(places, [][]state.In{
				{in("project_id", some("p")...)}, {in("zone_id", some("z")...)}, {in("zone_id", some("z")...), in("project_id", some("p")...)},
			}[random.IntN(3)])
		}
		asked := state.Scope{}
		for column, value := range map[string]string{"project_id": "p-1", "zone_id": "z-2"} {
			if random.IntN(2) == 0 {
				asked[column] = value
			}
		}
		fits := func(project, zone string) bool {
			return (asked["project_id"] == "" || asked["project_id"] == project) && (asked["zone_id"] == "" || asked["zone_id"] == zone)
		}
		var want, found []string
		for _, r := range requests {
			if state.Holds(bounds, columns(r)) && fits(r.GetProjectId(), r.GetZoneId()) && r.GetZoneId() != "z-1" {
				want = append(want, r.GetCreatedAt().AsTime().String()+r.GetId())
			}
		}
		slices.Sort(want)
		slices.Reverse(want)
		look(t, db, func(tx *state.Tx) {
			for q := (state.Query{Filter: "zone_id!=z-1", PageSize: 7, Scope: asked}); ; {
				page, next, err := tx.Requests.Within(bounds).List(q)
				if err != nil {
					t.Fatal(bounds, err)
				}
				for _, r := range page {
					found = append(found, r.GetCreatedAt().AsTime().String()+r.GetId())
				}
				if q.PageToken = next; next == "" {
					break
				}
			}
			if !slices.Equal(found, want) {
				t.Fatalf("of %v are within %v %d requests, not %d:\n%v\n%v", asked, bounds, len(found), len(want), found, want)
			}
		})
		within := &places
		if random.IntN(4) == 0 {
			within = nil // who sees all
		}
		for _, log := range []string{"", "business/1"} {
			want, found = nil, nil
			for _, e := range slices.Backward(entries) {
				at := map[string]string{"project_id": e.GetProjectId(), "zone_id": e.GetZoneId()}
				if (within == nil || state.Holds(places, func(c string) string { return at[c] })) && fits(e.GetProjectId(), e.GetZoneId()) {
					want = append(want, e.GetSequence()+" "+e.GetActor())
				}
			}
			look(t, db, func(tx *state.Tx) {
				for q := (state.Query{PageSize: 7, Scope: asked}); ; {
					page, next, err := tx.Log(log).List(q, within)
					if err != nil {
						t.Fatal(places, err)
					}
					for _, e := range page {
						found = append(found, e.GetSequence()+" "+e.GetActor())
					}
					if q.PageToken = next; next == "" {
						break
					}
				}
				if !slices.Equal(found, want) {
					t.Fatalf("of the log %q and %v are within %v the entries %v, not %v", log, asked, within, found, want)
				}
			})
		}
	}
}

// bring writes an entry to the log of a zone, under the number that it has.
func bring(tx *state.Tx, log string, e *apiv1.AuditEntry) error {
	leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return err
	}
	return tx.Log(log).Append(e, leaf)
}

// TestWhoReadsOfOnePlaceGoesAlongWhatIsOfIt, and not through all that there is: requests, records of changes, and the audit log.
func TestWhoReadsOfOnePlaceGoesAlongWhatIsOfIt(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		for n := range 3 {
			if err := tx.Requests.Put(&apiv1.Request{Id: fmt.Sprint(n), Name: fmt.Sprint("r-", n), ProjectId: "p"}); err != nil {
				return err
			}
		}
		return nil
	})
	many := make([]string, 300)
	read(t, db, func(tx *state.Tx) error {
		requests := func(q state.Query, bounds ...state.Bound) ([]string, error) {
			return state.PlanOf(tx.Requests.Within(bounds), q)
		}
		audit := func(q state.Query, bounds ...state.Bound) ([]string, error) {
			return state.PlanOf(tx.Entries("", &bounds), q)
		}
		all := func(q state.Query, _ ...state.Bound) ([]string, error) {
			return state.PlanOf(tx.Entries("", nil), q)
		}
		ofZone := func(q state.Query, bounds ...state.Bound) ([]string, error) {
			q.Scope = maps.Clone(q.Scope)
			maps.Copy(q.Scope, state.Scope{"log": "business/1"})
			if bounds == nil {
				return state.PlanOf(tx.Entries("business/1", nil), q)
			}
			return state.PlanOf(tx.Entries("business/1", &bounds), q)
		}
		web, business := state.Scope{"project_id": "p"}, state.Scope{"zone_id": "z"}
		mine := []state.Bound{{in("requester_id", "u")}, {in("on_behalf_of_id", "u")}}
		ofProjects := []state.Bound{{in("project_id", "p", "q")}}
		_, token, err := tx.Requests.Within(ofProjects).List(state.Query{PageSize: 1})
		if err != nil || token == "" {
			t.Fatal(token, err)
		}
		for name, c := range map[string]struct {
			plan   func(state.Query, ...state.Bound) ([]string, error)
			q      state.Query
			bounds []state.Bound
			paths  []string
		}{
			"two projects":      {requests, state.Query{}, ofProjects, []string{"(project_id=?)", "(project_id=?)"}},
			"a further page":    {requests, state.Query{PageToken: token}, ofProjects, []string{"(project_id=? AND (created_at,id)<(?,?))", "(project_id=? AND (created_at,id)<(?,?))"}},
			"one's own":         {requests, state.Query{Filter: "asked=true"}, mine, []string{"COVERING INDEX requests_3 (requester_id=?)", "COVERING INDEX requests_5 (on_behalf_of_id=?)"}},
			"a zone":            {requests, state.Query{}, []state.Bound{{in("zone_id", "z")}}, []string{"(zone_id=?)"}},
			"an organization":   {requests, state.Query{}, []state.Bound{{in("zone_id", "y", "z"), in("organization_id", "o")}}, []string{"(organization_id=?)"}},
			"a VM":              {requests, state.Query{Filter: "vm=web-1"}, []state.Bound{{in("project_id", "p")}}, []string{"(project_id=?)"}},
			"of the record":     {audit, state.Query{}, []state.Bound{{in("project_id", "p")}, {in("zone_id", "z")}}, []string{"(project_id=?)", "(zone_id=?)"}},
			"many projects of":  {audit, state.Query{}, []state.Bound{{in("project_id", many...)}}, slices.Repeat([]string{"(project_id=?)"}, len(many))},
			"looked for in one": {audit, state.Query{Filter: "actor=x"}, []state.Bound{{in("project_id", "p")}}, []string{"(project_id=?)"}},
			// What is asked for is one path, where it leaves less than what is in reach.
			"all, of a project":         {all, state.Query{Scope: web}, nil, []string{"(project_id=?)"}},
			"all, of a zone":            {all, state.Query{Scope: business}, nil, []string{"(zone_id=?)"}},
			"one of many in reach":      {audit, state.Query{Scope: web}, []state.Bound{{in("project_id", "o", "p", "q")}}, []string{"(project_id=?)"}},
			"a project, of a zone's":    {audit, state.Query{Scope: web}, []state.Bound{{in("zone_id", "y", "z")}}, []string{"(project_id=?)"}},
			"a zone, of a project's":    {audit, state.Query{Scope: business}, []state.Bound{{in("project_id", "p")}}, []string{"(project_id=?)"}},
			"a zone's own log":          {ofZone, state.Query{Scope: state.Scope{}}, nil, []string{"PRIMARY KEY (log=?)"}},
			"a zone's, of a project":    {ofZone, state.Query{Scope: web}, nil, []string{"(log=? AND project_id=?)"}},
			"a zone's, in reach":        {ofZone, state.Query{Scope: state.Scope{}}, ofProjects, []string{"(log=? AND project_id=?)", "(log=? AND project_id=?)"}},
			"requests, one of the many": {requests, state.Query{Scope: web}, ofProjects, []string{"(project_id=?)"}},
		} {
			plan, err := c.plan(c.q, c.bounds...)
			if err != nil {
				t.Error(name, err)
				continue
			}
			var paths []string
			for _, line := range plan {
				if strings.HasPrefix(line, "SEARCH ") && !strings.HasSuffix(line, "PRIMARY KEY (id=?)") && !strings.HasSuffix(line, "PRIMARY KEY (log=? AND id=?)") {
					paths = append(paths, line)
				}
				if strings.HasPrefix(line, "SCAN requests") || strings.HasPrefix(line, "SCAN audit") || strings.HasPrefix(line, "SCAN zone") || strings.Contains(line, "TEMP B-TREE") {
					t.Errorf("%s: %s", name, line)
				}
			}
			if !slices.EqualFunc(paths, c.paths, strings.HasSuffix) {
				t.Errorf("%s goes by\n%s\nand not by %v", name, strings.Join(paths, "\n"), c.paths)
			}
		}
		// Who may see all goes through all, and of what concerns a VM through an index that says so.
		plan, err := state.PlanOf(tx.Requests, state.Query{Filter: "vm=web-1"})
		if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "SCAN requests USING COVERING INDEX requests_0") || strings.Contains(text, "TEMP B-TREE") {
			t.Error(text, err)
		}
		return nil
	})
}

// TestAFileOfAVersionWithOtherIndexesGetsThoseOfThisOne, and is left alone where it has them.
func TestAFileOfAVersionWithOtherIndexesGetsThoseOfThisOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	start := func() *state.DB {
		db, err := state.Open(path, state.Options{ServerID: "cp-1"})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := start()
	write(t, db, func(tx *state.Tx) error { return tx.Requests.Put(&apiv1.Request{Id: "1", Name: "r-1", ZoneId: "z"}) })
	schema := func() (all string) {
		look(t, db, func(tx *state.Tx) { all = tx.Schema() })
		return all
	}
	whole := schema()
	for _, sql := range []string{"DROP INDEX requests_17", "DROP INDEX audit_entries_zone_id", "DROP INDEX requests_0", "CREATE INDEX requests_0 ON requests (created_at)",
		"CREATE INDEX requests_99 ON requests (title)"} {
		if err := db.Writer(sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	older := schema()
	if older == whole {
		t.Fatal("nothing is other")
	}
	for _, again := range []string{"first", "second"} {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = start()
		if is := schema(); is != whole {
			t.Errorf("at the %s start it has\n%s\nand not\n%s", again, is, whole)
		}
	}
	look(t, db, func(tx *state.Tx) {
		found, _, err := tx.Requests.Within([]state.Bound{{in("zone_id", "z")}}).List(state.Query{})
		if err != nil || len(found) != 1 {
			t.Error(found, err)
		}
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
