package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Asked notes that the decision about an object was asked for while a call was carried out. The gate gives out no answer of a
// method that needs a permission and forgot to ask.
type Asked struct {
	done, recorded atomic.Bool

	mu    sync.Mutex
	zones map[string]bool // by name or id
}

// Recorded reports whether the refusal of the call is in the record already, written by who refused it.
func (a *Asked) Recorded() bool { return a != nil && a.recorded.Load() }

func (a *Asked) noteRecorded() {
	if a != nil {
		a.recorded.Store(true)
	}
}

// Done reports whether it was.
func (a *Asked) Done() bool { return a != nil && a.done.Load() }

// Note notes it.
func (a *Asked) Note() { a.note() }

func (a *Asked) note() {
	if a != nil {
		a.done.Store(true)
	}
}

// About notes the zones that a message tells of: what the call asks for, or what it found.
func (a *Asked) About(m proto.Message) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	rights.Zones(m, func(zone string) {
		if a.zones == nil {
			a.zones = map[string]bool{}
		}
		a.zones[zone] = true
	})
}

// isAbout reports whether the call is about a zone. One that named none may be about any.
func (a *Asked) isAbout(book *zoneBook, z *apiv1.Zone) bool {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known := false
	for ref := range a.zones {
		known = known || book.byName[ref] != nil || book.byID[ref] != nil
	}
	return !known || a.zones[z.GetName()] || a.zones[z.GetId()]
}

// method is what the API says of the method that ctx's call is of.
func method(ctx context.Context) rights.Method {
	m, _ := rights.MethodOf(callOf(ctx).Method)
	return m
}

// everywhere asks whether the call's method is permitted in the whole federation: for what is no noun, or is everybody's.
func (s *Service) everywhere(ctx context.Context) error {
	callOf(ctx).Asked.note()
	r, err := s.rightsOf(ctx, nil)
	if err != nil {
		return err
	}
	if m := method(ctx); !r.Reach(m.Permission, m).Everywhere() {
		return r.Missing(m, "the federation")
	}
	return nil
}

// permission is what the call needs for nouns of this kind: that of its method where it is about them, else the one to read
// them, since then it refers to them only.
func (n noun[M]) permission(ctx context.Context) string {
	m := method(ctx)
	if about, _, _ := strings.Cut(m.Permission, "."); about == n.subject() {
		return m.Permission
	}
	return n.subject() + ".read"
}

// subject is the noun as permissions name it.
func (n noun[M]) subject() string {
	switch n.kind {
	case "token":
		return "access-token"
	case "admin":
		return "administrator"
	}
	return n.kind
}

// reach is where the caller may do to nouns of this kind what the call does. This is where every list, look, watch and change
// of an object asks for the decision.
func (n noun[M]) reach(ctx context.Context, tx *state.Tx, permission string) (rights.Reach, error) {
	callOf(ctx).Asked.note()
	r, err := n.rightsOf(ctx, tx)
	if err != nil {
		return nil, err
	}
	return r.Reach(permission, method(ctx)), nil
}

// bounds writes a reach as bounds of the noun's table, beside what is the caller's own; nil where it leaves nothing out.
func (n noun[M]) bounds(ctx context.Context, reach rights.Reach, permission string) *[]state.Bound {
	if n.private {
		if callOf(ctx).Principal.UserID == "" {
			return &[]state.Bound{}
		}
		return &[]state.Bound{{{Column: n.own, Values: []string{callOf(ctx).Principal.UserID}}}}
	}
	out := n.placed(reach, permission)
	if who := callOf(ctx).Principal.UserID; out != nil && n.own != "" && who != "" && method(ctx).Own {
		*out = append(*out, state.Bound{{Column: n.own, Values: []string{who}}})
	}
	return out
}

// placed writes a reach as bounds of the noun's table; nil where it leaves nothing out.
func (n noun[M]) placed(reach rights.Reach, permission string) *[]state.Bound {
	if reach.Everywhere() {
		return nil
	}
	out := []state.Bound{}
	common := rights.Common(permission)
	if n.source != "" {
		other := n
		other.zone, other.source = n.source, ""
		out = *other.placed(reach, permission)
	}
	for _, g := range reach {
		where := []state.In{}
		switch {
		case g.AnyZone || n.zone == "" && common:
		case n.zone == "":
			continue // what is nowhere is in no zone
		default:
			where = append(where, in(n.zone, g.Zones))
		}
		if g.AnyOwner || common && n.project == "" && n.organization == "" {
			out = append(out, where)
			continue
		}
		if n.project != "" && len(g.Projects) > 0 {
			out = append(out, append(slices.Clone(where), in(n.project, g.Projects)))
		}
		if n.organization != "" && len(g.Organizations) > 0 {
			out = append(out, append(slices.Clone(where), in(n.organization, g.Organizations)))
		}
	}
	return &out
}

// in says that a column has what stands for one of the refs.
func in(column string, refs []rights.Ref) state.In {
	out := state.In{Column: column, Values: make([]string, len(refs))}
	for i, r := range refs {
		out.Values[i] = pick(column, r.ID, r.Name)
	}
	slices.Sort(out.Values)
	return out
}

// narrowed is the noun's table with nothing in it but what the caller may do to it what the call does.
func (n noun[M]) narrowed(ctx context.Context, tx *state.Tx) (state.Table[M], error) {
	return n.narrowedTo(ctx, tx, n.permission(ctx))
}

func (n noun[M]) narrowedTo(ctx context.Context, tx *state.Tx, permission string) (state.Table[M], error) {
	t := n.table(tx)
	reach, err := n.reach(ctx, tx, permission)
	if err != nil {
		return t, err
	}
	if b := n.bounds(ctx, reach, permission); b != nil {
		t = t.Within(*b)
	}
	return t, nil
}

// mayMake refuses a noun that would lie where the caller may not make one; that it would be their own is no reason to.
func (n noun[M]) mayMake(ctx context.Context, tx *state.Tx, m M) error {
	return n.mayMakeBy(ctx, tx, m, n.permission(ctx))
}

// mayMakeBy is mayMake by the permission to make one, of a call that needs another.
func (n noun[M]) mayMakeBy(ctx context.Context, tx *state.Tx, m M, permission string) error {
	reach, err := n.reach(ctx, tx, permission)
	if err != nil {
		return err
	}
	b := n.placed(reach, permission)
	if b == nil || state.Holds(*b, func(column string) string {
		if column == n.organization && n.parent != "" {
			column = n.parent // what is new belongs where it is put
		}
		return n.value(m, column)
	}) {
		return nil
	}
	r, err := n.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	lacks := method(ctx)
	lacks.Permission = permission
	return r.Missing(lacks, n.whereabouts(m))
}

// mayMove refuses to put a noun under an organization in which the caller may not do what the call does, or where it would be in
// reach of more than the caller can reach it with.
func (n noun[M]) mayMove(ctx context.Context, tx *state.Tx, was, is M) error {
	if err := n.mayPut(ctx, tx, was, is); err != nil || n.under == nil {
		return err
	}
	from, _ := n.under(was)
	to, it := n.under(is)
	if from == to {
		return nil
	}
	return n.mayPutUnder(ctx, tx, from, to, it)
}

func (n noun[M]) mayPut(ctx context.Context, tx *state.Tx, was, is M) error {
	column := n.organization
	if n.parent != "" {
		column = n.parent
	}
	if column == "" || n.value(was, column) == n.value(is, column) {
		return nil
	}
	permission := n.permission(ctx)
	reach, err := n.reach(ctx, tx, permission)
	if err != nil || reach.Everywhere() {
		return err
	}
	for _, g := range reach {
		if g.AnyZone && (g.AnyOwner || slices.Contains(in(column, g.Organizations).Values, n.value(is, column))) {
			return nil
		}
	}
	r, err := n.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	return r.Missing(method(ctx), "the organization "+n.value(is, column))
}

// whereabouts says in which place a noun is, for people.
func (n noun[M]) whereabouts(m M) string {
	for _, column := range []struct{ field, kind string }{{"project", "project"}, {"zone", "zone"}, {"organization", "organization"}, {"place", ""}} {
		f := fieldOf(m, protoreflect.Name(column.field))
		if f == nil || f.Kind() != protoreflect.StringKind {
			continue
		}
		if name := m.ProtoReflect().Get(f).String(); name != "" {
			return strings.TrimSpace(column.kind + " " + name)
		}
	}
	return "the federation"
}

// value is what a column of the noun's table holds of a noun.
func (n noun[M]) value(m M, column string) string {
	if n.columns != nil {
		if v, ok := n.columns(m, column); ok {
			return v
		}
	}
	f := fieldOf(m, protoreflect.Name(column))
	if f == nil {
		return ""
	}
	return m.ProtoReflect().Get(f).String()
}

// refusal is the answer where no noun of the name is in the caller's reach: that there is none, unless they may see it.
func (n noun[M]) refusal(ctx context.Context, tx *state.Tx, name string, scope state.Scope, missing error) error {
	permission := n.permission(ctx)
	if permission == n.subject()+".read" {
		return missing
	}
	seen, err := n.narrowedTo(ctx, tx, n.subject()+".read")
	if err != nil {
		return err
	}
	m, err := lookUp(seen, name, scope)
	if errors.Is(err, state.ErrNotFound) {
		return missing
	}
	if err != nil {
		return err
	}
	r, err := n.rightsOf(ctx, tx)
	if err != nil {
		return err
	}
	return r.Missing(method(ctx), n.whereabouts(m))
}

// touches reports whether a reach has anything of a project or a zone in it; what it does not touch is not there.
func touches(reach rights.Reach, project, zone string) bool {
	return slices.ContainsFunc(reach, func(g rights.Region) bool {
		has := func(refs []rights.Ref, id string) bool {
			return slices.ContainsFunc(refs, func(r rights.Ref) bool { return r.ID == id })
		}
		return (project == "" || g.AnyOwner || has(g.Projects, project)) && (zone == "" || g.AnyZone || has(g.Zones, zone))
	})
}

// notThere is the answer about a noun that does not exist, or not for the caller.
func (n noun[M]) notThere(name string) error {
	return problem.Newf(problem.NotFound, "naru "+intake.Command(n.kind)+" list shows which there are.", "there is no %s %s", n.word(), name)
}
