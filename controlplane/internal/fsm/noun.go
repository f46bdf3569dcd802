package fsm

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/action"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// named is a noun that people call by a name.
type named interface {
	state.Noun
	GetName() string
}

func reference[M named](kind string, m M) *apiv1.Reference {
	return &apiv1.Reference{Kind: kind, Id: m.GetId(), Name: m.GetName()}
}

// referenceTo is what people call a noun; nil of what is none.
func referenceTo(m proto.Message) *apiv1.Reference {
	kind := action.Kebab(string(m.ProtoReflect().Descriptor().Name()))
	switch m := m.(type) {
	case *apiv1.RoleBinding:
		return bindingReference(m)
	case *apiv1.Crossing:
		return crossingReference(m)
	case *apiv1.Delegation:
		return delegationReference(m)
	case *apiv1.Lease:
		return referenceLease(m)
	case *apiv1.Session:
		return &apiv1.Reference{Kind: kind, Id: m.GetId(), Name: m.GetUser()}
	case *apiv1.Delivery:
		return deliveryReference(m)
	case interface {
		GetId() string
		GetName() string
	}:
		return &apiv1.Reference{Kind: kind, Id: m.GetId(), Name: m.GetName()}
	case interface {
		GetId() string
		GetRevision() string
	}:
		return &apiv1.Reference{Kind: kind, Id: m.GetId()}
	}
	return nil
}

// whereabouts says whose and where something is. Names are for people; who may see it goes by the ids, since what is made anew
// under the name of what was deleted is something else.
type whereabouts struct{ project, projectID, zone, zoneID string }

// where says whose and where a noun is, as its fields do.
func where(m proto.Message) whereabouts {
	switch m := m.(type) {
	case *apiv1.Project:
		return whereabouts{project: m.GetName(), projectID: m.GetId()}
	case *apiv1.Zone:
		return whereabouts{zone: m.GetName(), zoneID: m.GetId()}
	case *apiv1.RoleBinding:
		switch m.GetScope() {
		case apiv1.RoleBinding_PROJECT:
			return whereabouts{project: m.GetPlace(), projectID: m.GetPlaceId()}
		case apiv1.RoleBinding_ZONE:
			return whereabouts{zone: m.GetPlace(), zoneID: m.GetPlaceId()}
		}
		return whereabouts{}
	}
	r := m.ProtoReflect()
	return whereabouts{project: textOf(r, "project"), projectID: textOf(r, "project_id"), zone: textOf(r, "zone"), zoneID: textOf(r, "zone_id")}
}

// mayCreate checks that a noun has an id and a name, and that both are free; the name within scope.
func mayCreate[M named](t state.Table[M], kind string, m M, scope state.Scope) error {
	if m.GetId() == "" || m.GetName() == "" {
		return invalid("a " + kind + " without id or name cannot be created")
	}
	if _, err := t.Get(m.GetId()); err == nil {
		return problem.Newf(problem.Conflict, "Send it again; it gets another id.", "the id %s is taken by another %s", m.GetId(), kind)
	} else if !missing(err) {
		return err
	}
	return nameFree(t, kind, m.GetName(), scope)
}

func nameFree[M named](t state.Table[M], kind, name string, scope state.Scope) error {
	switch other, err := t.ByName(name, scope); {
	case err == nil:
		return problem.Newf(problem.NameTaken, "Choose another name, or use the "+kind+" that has it.",
			"the name %s belongs to %s %s", name, kind, other.GetId())
	case !missing(err):
		return err
	}
	return nil
}

// stored returns the noun that a command updates or deletes, at the revision that it expects; an empty one expects nothing.
func stored[M state.Noun](t state.Table[M], kind, id, expected string) (M, error) {
	m, err := t.Get(id)
	if err != nil {
		return m, orNotFound(err, kind, id)
	}
	if expected != "" && m.GetRevision() != expected {
		name := id
		if n, ok := any(m).(interface{ GetName() string }); ok {
			name = n.GetName()
		}
		return m, problem.Newf(problem.Conflict, "Read it again, and repeat the change if it still makes sense.",
			"%s %s is at revision %s, not %s", kind, name, m.GetRevision(), expected)
	}
	return m, nil
}

// mayRename refuses a noun whose name is not the stored one: names never change.
func mayRename[M named](kind string, was, is M) error {
	if was.GetName() != is.GetName() {
		return invalid("the name of " + kind + " " + was.GetName() + " cannot become " + strconv.Quote(is.GetName()))
	}
	return nil
}

// dependents says what nouns of a table have the values of scope: "3 clusters (web, was, db)", or "" for none.
func dependents[M named](t state.Table[M], kind string, scope state.Scope) (string, error) {
	n, err := t.Count(scope, "")
	if err != nil || n == 0 {
		return "", err
	}
	first, _, err := t.List(state.Query{Scope: scope, PageSize: 3})
	if err != nil {
		return "", err
	}
	var names []string
	for _, m := range first {
		names = append(names, m.GetName())
	}
	if n > uint64(len(names)) {
		names = append(names, "…")
	}
	return counted(kind, n) + " (" + strings.Join(names, ", ") + ")", nil
}

// counted is so many of a kind: "1 cluster", "3 clusters", "2 policies".
func counted(kind string, n uint64) string {
	if n > 1 {
		if stem, y := strings.CutSuffix(kind, "y"); y {
			kind = stem + "ies"
		} else {
			kind += "s"
		}
	}
	return strconv.FormatUint(n, 10) + " " + kind
}

// uses collects what depends on a noun that is to be deleted.
type uses struct {
	sentences []string
	err       error
}

// add takes what dependents returns.
func (u *uses) add(sentence string, err error) {
	if u.err == nil {
		u.err = err
	}
	if sentence != "" {
		u.sentences = append(u.sentences, sentence)
	}
}

// refuse is the refusal to delete what something depends on; nil when nothing does.
func (u *uses) refuse(kind, name string) error {
	if u.err != nil || len(u.sentences) == 0 {
		return u.err
	}
	return problem.Newf(problem.InUse, "Delete what depends on it first.", "%s %s is in use by %s", kind, name, strings.Join(u.sentences, " and "))
}

// remove deletes a noun at once and makes the operation that says so.
func remove[M named](c *command, t state.Table[M], kind string, m M) (*commandv1.Result, error) {
	return removeAs(c, t, kind+".delete", m, reference(kind, m))
}

// removeAs does so with a noun that people call by no name of its own; did is what the operation says: crossing.delete.
func removeAs[M state.Noun](c *command, t state.Table[M], did string, m M, target *apiv1.Reference) (*commandv1.Result, error) {
	if err := t.Delete(m.GetId()); err != nil {
		return nil, err
	}
	op, err := c.done(did, target, where(m))
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// create stores a new noun and makes the operation that says so.
func create[M named](c *command, t state.Table[M], kind string, m M) (*commandv1.Result, error) {
	if err := t.Put(m); err != nil {
		return nil, err
	}
	op, err := c.done(kind+".create", reference(kind, m), where(m))
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// put stores a noun that was changed.
func put[M named](t state.Table[M], m M) (*commandv1.Result, error) {
	if err := t.Put(m); err != nil {
		return nil, err
	}
	return made(m, nil)
}
