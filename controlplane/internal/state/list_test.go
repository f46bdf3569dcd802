package state_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// fleet is ten VMs: even ones stopped, names web-0 … web-9, made in the order of their number.
func fleet(t testing.TB) *state.DB {
	db := open(t, state.Options{})
	for n := range 10 {
		m := vm(n)
		m.CreatedAt = &timestamppb.Timestamp{Seconds: 1_700_000_000 + int64(n)}
		if n%2 == 0 {
			m.State = apiv1.VM_STOPPED
		}
		if n > 7 {
			m.ProjectId, m.Project = "p2", "lab"
		}
		put(t, db, m)
	}
	return db
}

func list(t testing.TB, db *state.DB, q state.Query) (found []string, next string, err error) {
	t.Helper()
	read(t, db, func(tx *state.Tx) error {
		var vms []*apiv1.VM
		vms, next, err = tx.VMs.List(q)
		found = names(vms)
		return nil
	})
	return found, next, err
}

func TestFiltersAreTermsJoinedByAND(t *testing.T) {
	db := fleet(t)
	for filter, want := range map[string]string{
		"":                                      "0123456789",
		"state=STOPPED":                         "02468",
		"state=stopped":                         "02468",
		"state!=STOPPED":                        "13579",
		"  state = STOPPED   AND name!=web-4":   "0268",
		"name~b-3":                              "3",
		"name>=web-3 AND name<web-6":            "345",
		`name="web-7"`:                          "7",
		`host=""`:                               "0123456789",
		"project=lab":                           "89",
		"id<=vm-000001":                         "01",
		"created_at>2023-11-14T22:13:25Z":       "6789",
		"created_at<=2023-11-14T23:13:21+01:00": "01",
		"name~AND AND state=RUNNING":            "",
		"freshness=LEVEL_UNSPECIFIED":           "0123456789",
		"power!=ON AND task=TASK_UNSPECIFIED":   "0123456789",
	} {
		found, _, err := list(t, db, state.Query{Filter: filter})
		got := strings.ReplaceAll(strings.Join(found, ""), "web-", "")
		if err != nil || got != want {
			t.Errorf("%q leaves %s, %v; want %s", filter, got, err, want)
		}
		read(t, db, func(tx *state.Tx) error {
			if n, err := tx.VMs.Count(nil, filter); n != uint64(len(want)) || err != nil {
				t.Errorf("%q counts %d, %v", filter, n, err)
			}
			// A watch that filters in memory sees what the list sees.
			match, err := tx.VMs.Matcher(filter)
			if err != nil {
				return err
			}
			var kept []string
			for m, err := range tx.VMs.All(nil) {
				if err != nil {
					return err
				}
				if match(m) {
					kept = append(kept, strings.TrimPrefix(m.GetName(), "web-"))
				}
			}
			if got := strings.Join(kept, ""); got != want {
				t.Errorf("%q matches %s in memory, want %s", filter, got, want)
			}
			return nil
		})
	}
}

func TestAFilterThatCannotBeReadSaysWhatIsWrong(t *testing.T) {
	db := fleet(t)
	for filter, says := range map[string]string{
		"colour=red":                      "desired_state",
		"generation=1":                    "there is no column",
		"message=1":                       "there is no column",
		"state=FLYING":                    "RUNNING, STOPPED",
		"state~RUN":                       "looks into text",
		"state>RUNNING":                   "= or !=",
		"name":                            "column=value",
		"name web-1":                      "none of",
		"name=":                           "missing",
		"name=a or name=b":                "AND",
		"name=a and name=b":               "joined by AND",
		"name=a ANDname=b":                "joined by AND",
		"name=a AND":                      "AND",
		`name="web`:                       "not closed",
		"created_at>yesterday":            "2026-01-31",
		"=x":                              "column=value",
		"1=1; DROP TABLE vms":             "there is no column",
		strings.Repeat("name=a AND ", 40): "32 terms",
	} {
		_, _, err := list(t, db, state.Query{Filter: filter})
		if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v does not say %q", filter, err, says)
		}
		if p := problem.Of(err); len(p.GetErrors()) != 1 || p.GetErrors()[0].GetField() != "filter" {
			t.Errorf("%q: no field is named: %v", filter, p)
		}
	}
}

func TestEnumsNumbersAndFlagsFilterByTheirNames(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		for i, h := range []*apiv1.Host{{Id: "1", Name: "a", VmCount: 3, Health: apiv1.Host_DOWN}, {Id: "2", Name: "b", VmCount: 9, Health: apiv1.Host_AVAILABLE}} {
			h.ClusterId = fmt.Sprint(i)
			if err := tx.Hosts.Put(h); err != nil {
				return err
			}
		}
		return tx.Clusters.Put(&apiv1.Cluster{Id: "c", Name: "c", Cordoned: true})
	})
	read(t, db, func(tx *state.Tx) error {
		for filter, want := range map[string]uint64{"vm_count>3": 1, "vm_count<=9": 2, "health=DOWN AND vm_count=3": 1} {
			if n, err := tx.Hosts.Count(nil, filter); n != want || err != nil {
				t.Errorf("%q: %d, %v", filter, n, err)
			}
		}
		for filter, want := range map[string]uint64{"cordoned=true": 1, "cordoned!=true": 0} {
			if n, err := tx.Clusters.Count(nil, filter); n != want || err != nil {
				t.Errorf("%q: %d, %v", filter, n, err)
			}
		}
		for _, filter := range []string{"vm_count=many", "vm_count=1.5"} {
			if _, err := tx.Hosts.Count(nil, filter); !problem.Is(err, problem.Invalid) {
				t.Errorf("%q: %v", filter, err)
			}
		}
		if _, err := tx.Clusters.Count(nil, "cordoned=maybe"); !problem.Is(err, problem.Invalid) {
			t.Errorf("%v", err)
		}
		return nil
	})
}

func TestOrderIsAColumnThenTheId(t *testing.T) {
	db := fleet(t)
	for order, want := range map[string]string{
		"": "0123456789", "name desc": "9876543210", "state": "1357902468", "state desc": "8642097531", "created_at desc": "9876543210", "id": "0123456789", "id desc": "9876543210",
	} {
		found, _, err := list(t, db, state.Query{OrderBy: order})
		if got := strings.ReplaceAll(strings.Join(found, ""), "web-", ""); err != nil || got != want {
			t.Errorf("%q gives %s, %v; want %s", order, got, err, want)
		}
	}
	for _, order := range []string{"colour", "name up", "name desc desc", "generation", "name;"} {
		if _, _, err := list(t, db, state.Query{OrderBy: order}); !problem.Is(err, problem.Invalid) {
			t.Errorf("%q: %v", order, err)
		}
	}
}

func TestPagesFollowOneAnotherWhateverTheOrder(t *testing.T) {
	db := fleet(t)
	rapid.Check(t, func(rt *rapid.T) {
		q := state.Query{
			PageSize: rapid.IntRange(1, 12).Draw(rt, "size"),
			OrderBy:  rapid.SampledFrom([]string{"", "name desc", "state", "state desc", "created_at", "id", "id desc", "freshness", "project desc"}).Draw(rt, "order"),
			Filter:   rapid.SampledFrom([]string{"", "state=STOPPED", "name!=web-5"}).Draw(rt, "filter"),
			Scope:    rapid.SampledFrom([]state.Scope{nil, {"project_id": "p1"}, {"zone_id": "z1", "project_id": "p2"}}).Draw(rt, "scope"),
		}
		whole := q
		whole.PageSize = 100
		want, next, err := list(t, db, whole)
		if err != nil || next != "" {
			rt.Fatal(next, err)
		}
		var got []string
		for {
			page, next, err := list(t, db, q)
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, page...)
			if len(page) > q.PageSize || len(page) == 0 && next != "" {
				rt.Fatalf("a page of %d with %q behind it", len(page), next)
			}
			if next == "" {
				break
			}
			q.PageToken = next
		}
		if !slices.Equal(got, want) {
			rt.Errorf("pages give %v, the whole %v", got, want)
		}
	})
}

func TestAPageTokenBelongsToItsList(t *testing.T) {
	db := fleet(t)
	q := state.Query{PageSize: 3, Filter: "name~web", Scope: state.Scope{"project_id": "p1"}}
	_, token, err := list(t, db, q)
	if err != nil || token == "" {
		t.Fatal(token, err)
	}
	bad := map[string]state.Query{
		"another filter": {PageToken: token, Scope: q.Scope},
		"another order":  {PageToken: token, Scope: q.Scope, Filter: q.Filter, OrderBy: "state"},
		"another scope":  {PageToken: token, Scope: state.Scope{"project_id": "p2"}, Filter: q.Filter},
		"no token":       {PageToken: "x!", Scope: q.Scope, Filter: q.Filter},
		"an empty one":   {PageToken: base64.RawURLEncoding.EncodeToString([]byte("short")), Scope: q.Scope, Filter: q.Filter},
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := slices.Clone(raw)
		changed[i] ^= 1
		bad[fmt.Sprint("byte ", i, " changed")] = state.Query{PageToken: base64.RawURLEncoding.EncodeToString(changed), Scope: q.Scope, Filter: q.Filter}
	}
	for name, q := range bad {
		if _, _, err := list(t, db, q); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	read(t, db, func(tx *state.Tx) error {
		if _, _, err := tx.Hosts.List(state.Query{PageToken: token, Scope: state.Scope{"cluster_id": "c"}}); !problem.Is(err, problem.Invalid) {
			t.Errorf("a token of VMs lists hosts: %v", err)
		}
		return nil
	})
	q.PageToken, q.PageSize = token, 5 // the size may change
	if found, _, err := list(t, db, q); err != nil || len(found) != 5 || found[0] != "web-3" {
		t.Errorf("%v, %v", found, err)
	}
}

func TestRowsThatComeAndGoBetweenPagesAreNeitherRepeatedNorSkipped(t *testing.T) {
	db := fleet(t)
	_, token, err := list(t, db, state.Query{PageSize: 4})
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, func(tx *state.Tx) error { return tx.VMs.Delete("vm-000001") })
	early := vm(50)
	early.Name = "alpha"
	put(t, db, early)
	found, _, err := list(t, db, state.Query{PageSize: 4, PageToken: token})
	if err != nil || fmt.Sprint(found) != "[web-4 web-5 web-6 web-7]" {
		t.Errorf("%v, %v", found, err)
	}
}

func TestThePageSizeIsBounded(t *testing.T) {
	db := open(t, state.Options{})
	write(t, db, func(tx *state.Tx) error {
		for n := range 1200 {
			if err := tx.VMs.Put(vm(n)); err != nil {
				return err
			}
		}
		return nil
	})
	for size, want := range map[int]int{0: 100, -1: 100, 7: 7, 5000: 1000} {
		if found, _, err := list(t, db, state.Query{PageSize: size}); len(found) != want || err != nil {
			t.Errorf("size %d gives %d, %v", size, len(found), err)
		}
	}
}

// Lists in the usual orders go along an index: a page costs the same in a fleet of any size.
func TestUsualListsGoAlongAnIndex(t *testing.T) {
	db := open(t, state.Options{})
	read(t, db, func(tx *state.Tx) error {
		for sql, index := range map[string]string{
			"SELECT message FROM vms WHERE 1 AND (name, id)>(?, ?) ORDER BY name, id LIMIT ?":                      "vms_by_name",
			"SELECT message FROM vms WHERE 1 AND project_id=? AND (name, id)>(?, ?) ORDER BY name, id LIMIT ?":     "vms_name",
			"SELECT message FROM vms WHERE revision>? AND revision<=? ORDER BY revision, id":                       "vms_revision",
			"SELECT id, generation FROM vms WHERE zone_id=? AND generation>? ORDER BY generation, id LIMIT ?":      "vms_0",
			"SELECT message FROM operations WHERE done=0 AND target_id=? ORDER BY id":                              "operations_0",
			"SELECT message FROM outcomes WHERE actor=? AND idempotency_key=? AND idempotency_key<>'' ORDER BY id": "outcomes_0",
		} {
			plan, err := tx.Explain(sql)
			if err != nil {
				t.Errorf("%s: %v", sql, err)
				continue
			}
			if all := strings.Join(plan, "; "); !strings.Contains(all, index) || strings.Contains(all, "TEMP B-TREE") {
				t.Errorf("%s goes by %s, not by %s", sql, all, index)
			}
		}
		return nil
	})
}

func FuzzFilter(f *testing.F) {
	db := fleet(f)
	for _, s := range []string{"state=STOPPED AND name!=web-1", `name="a b" AND x`, "name~", "created_at>2026-01-01T00:00:00Z", "\"", "a=\x00"} {
		f.Add(s, "name desc", "token")
	}
	f.Fuzz(func(t *testing.T, filter, order, token string) {
		_, _, err := list(t, db, state.Query{Filter: filter, OrderBy: order, PageToken: token})
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Error(err)
		}
	})
}
