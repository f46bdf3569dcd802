package service

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// noun is what listing, showing, making, changing and deleting one noun have in common with doing so to the others.
type noun[M state.Noun] struct {
	*Service
	kind  string // "vm"
	topic string // "vms", as the state calls its table
	table func(*state.Tx) state.Table[M]
	// The columns that say whose and where a noun is; empty where it is nobody's, or nowhere. A column of ids ends in _id,
	// the others hold names.
	project, organization, zone, cluster string
	// source is the column of the zone at the other side of what leads from one to another: it is of both.
	source string
	// own is the column that says which user's own it is; empty where it is nobody's. parent is the column that says under which
	// organization a new one lies, where the column of organizations names itself.
	own, parent string
	// private nouns are seen by those whose own they are and by nobody else, whatever roles permit.
	private bool
	// veil, where set, leaves out of one what the caller may not see of it now.
	veil func(context.Context, *state.Tx, M) error
	// guard, where set, refuses to change or delete one that the caller has to leave alone.
	guard func(context.Context, *state.Tx, M) error
	// under, where set, says below which organization one stands, by id, and what in a binding names it with all in it.
	under func(M) (organization string, it *apiv1.RoleBinding)
	// columns, where set, says what columns hold that are no fields.
	columns func(m M, column string) (value string, ok bool)
	// wrap makes the message of a watch; feed follows the changes. Both are nil where there is no watch.
	wrap func(apiv1.WatchType_Value, string, M) proto.Message
	feed *feed[M]
}

// watched completes a noun that can be watched.
func (n noun[M]) watched(wrap func(apiv1.WatchType_Value, string, M) proto.Message) noun[M] {
	n.wrap = wrap
	n.feed = newFeed(n.Reader, n.topic, n.table, n.where, wrap)
	n.feeds = append(n.feeds, n.feed.run)
	return n
}

// where says whose and where a noun is, by its columns.
func (n noun[M]) where(m M) place {
	read := func(column string) string {
		if column == "" {
			return ""
		}
		return n.value(m, column)
	}
	return place{project: read(n.project), zone: read(n.zone), cluster: read(n.cluster), organization: read(n.organization)}
}

// place is what a request says of whose and where a noun is; each an id, a name, or empty.
type place struct{ project, zone, cluster, organization string }

// listRequest is what all requests for lists have.
type listRequest interface {
	GetFilter() string
	GetOrderBy() string
	GetPageSize() uint32
	GetPageToken() string
}

// list returns a page of what is in the caller's scope and in the place asked for.
func (n noun[M]) list(ctx context.Context, r listRequest, at place) (items []M, next string, err error) {
	err = n.read(ctx, func(tx *state.Tx) error {
		scope, err := n.scope(ctx, tx, at)
		if err != nil {
			return err
		}
		table, err := n.narrowed(ctx, tx)
		if err != nil {
			return err
		}
		without, err := n.withheld(ctx, scope)
		if err != nil {
			return err
		}
		items, next, err = table.Without(without...).List(state.Query{
			Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		})
		return err
	})
	return items, next, err
}

// get returns one noun by id or name.
func (n noun[M]) get(ctx context.Context, name string, at place) (m M, err error) {
	err = n.read(ctx, func(tx *state.Tx) error {
		m, err = n.find(ctx, tx, name, at)
		return err
	})
	return m, err
}

// find returns one noun by id or name, on a snapshot. What is out of the caller's reach is not there; what they may see, but
// not do to it what the call does, is refused.
func (n noun[M]) find(ctx context.Context, tx *state.Tx, name string, at place) (M, error) {
	var none M
	scope, err := n.scope(ctx, tx, at)
	if err != nil {
		return none, err
	}
	table, err := n.narrowed(ctx, tx)
	if err != nil {
		return none, err
	}
	m, err := n.found(table, name, scope)
	if problem.Is(err, problem.NotFound) {
		return none, n.refusal(ctx, tx, name, scope, err)
	}
	if err == nil {
		callOf(ctx).Asked.About(m)
	}
	return m, err
}

// within returns one noun by id or name within a scope that is known, whoever asks: what somebody refers to who may read it
// anyhow, or what is checked otherwise.
func (n noun[M]) within(tx *state.Tx, name string, scope state.Scope) (M, error) {
	return n.found(n.table(tx), name, scope)
}

func (n noun[M]) found(table state.Table[M], name string, scope state.Scope) (M, error) {
	m, err := lookUp(table, name, scope)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return m, n.notThere(name)
	case errors.Is(err, state.ErrAmbiguous):
		return m, problem.Newf(problem.Invalid, "Say which: "+n.places()+", or the id.", "there is more than one %s named %s", n.word(), name)
	}
	return m, err
}

// lookUp finds by name first what looks like one: names begin with a letter, and ids, UUIDs of this age, with a digit.
func lookUp[M state.Noun](table state.Table[M], name string, scope state.Scope) (M, error) {
	if name != "" && name[0] >= 'a' && name[0] <= 'z' {
		if m, err := table.ByName(name, scope); !errors.Is(err, state.ErrNotFound) {
			return m, err
		}
	}
	return table.Find(name, scope)
}

// word is what people call the noun.
func (n noun[M]) word() string {
	switch n.kind {
	case "vm":
		return "VM"
	case "admin":
		return "administrator"
	case "approval-policy":
		return "approval policy"
	case "notification-channel":
		return "notification channel"
	case "usage":
		return "usage record"
	case "identity-provider":
		return "identity provider"
	}
	return n.kind
}

func withArticle(word string) string {
	if strings.ContainsRune("aeio", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}

// places names what tells two nouns of one name apart.
func (n noun[M]) places() string {
	var out []string
	for _, p := range [...]struct{ name, column string }{{"the project", n.project}, {"the zone", n.zone}, {"the cluster", n.cluster}} {
		if p.column != "" {
			out = append(out, p.name)
		}
	}
	return strings.Join(out, ", ")
}

// scope narrows a query to the place asked for. A project or a zone that the caller's reach does not touch is not there. What
// the reach leaves out, narrowed does; both are resolved before the query, never row by row.
func (n noun[M]) scope(ctx context.Context, tx *state.Tx, at place) (state.Scope, error) {
	out := state.Scope{}
	reach, err := n.reach(ctx, tx, n.permission(ctx))
	if err != nil {
		return nil, err
	}
	if at.project != "" && n.project != "" {
		p, err := n.projects.within(tx, at.project, nil)
		if err != nil {
			return nil, err
		}
		if !touches(reach, p.GetId(), "") {
			return nil, n.projects.notThere(at.project)
		}
		out[n.project] = pick(n.project, p.GetId(), p.GetName())
	}
	if at.zone != "" && n.zone != "" {
		z, err := n.zones.within(tx, at.zone, nil)
		if err != nil {
			return nil, err
		}
		if !touches(reach, "", z.GetId()) {
			return nil, n.zones.notThere(at.zone)
		}
		out[n.zone] = pick(n.zone, z.GetId(), z.GetName())
	}
	if at.cluster != "" && n.cluster != "" {
		in := state.Scope{}
		if zone := out[n.zone]; zone != "" {
			in["zone_id"] = zone
		}
		c, err := n.clusters.within(tx, at.cluster, in)
		if err != nil {
			return nil, err
		}
		out[n.cluster] = pick(n.cluster, c.GetId(), c.GetName())
	}
	return out, nil
}

// pick returns what a column holds of a noun.
func pick(column, id, name string) string {
	if strings.HasSuffix(column, "_id") {
		return id
	}
	return name
}

// create makes a noun of what the client sent. prepare resolves the names in it, on a snapshot, and gives the scope in
// which its name must be new; body wraps it for the command.
func (n noun[M]) create(ctx context.Context, req proto.Message, sent M, prepare func(*state.Tx, M) (state.Scope, error), body func(*commandv1.Command, M)) (*commandv1.Result, error) {
	return n.createBy(n.decideSettled, ctx, req, sent, prepare, func(context.Context, M) error { return nil }, body)
}

// createTold is create for a noun whose command says all that it rests on, with a last step after the snapshot was let go.
func (n noun[M]) createTold(ctx context.Context, req proto.Message, sent M, prepare func(*state.Tx, M) (state.Scope, error), settle func(context.Context, M) error, body func(*commandv1.Command, M)) (*commandv1.Result, error) {
	return n.createBy(n.decideTold, ctx, req, sent, prepare, settle, body)
}

func (n noun[M]) createBy(decide decider, ctx context.Context, req proto.Message, sent M, prepare func(*state.Tx, M) (state.Scope, error), settle func(context.Context, M) error, body func(*commandv1.Command, M)) (*commandv1.Result, error) {
	if err := schema.CheckCreate(sent); err != nil {
		return nil, err
	}
	id := newID()
	var m M
	return decide(ctx, req, func(tx *state.Tx, _ *commandv1.Command) (*commandv1.Result, error) {
		m = proto.CloneOf(sent)
		setID(m, id)
		scope, err := prepare(tx, m)
		if err != nil {
			return nil, err
		}
		if err := n.mayMake(ctx, tx, m); err != nil {
			return nil, err
		}
		return nil, n.nameIsFree(tx, m, scope)
	}, func(ctx context.Context, c *commandv1.Command) error {
		if err := settle(ctx, m); err != nil {
			return err
		}
		body(c, m)
		return nil
	})
}

// nameIsFree refuses a name that is taken, before the state machine does, so that it need not be asked.
func (n noun[M]) nameIsFree(tx *state.Tx, m M, scope state.Scope) error {
	field := fieldOf(m, "name")
	if field == nil {
		return nil
	}
	name := m.ProtoReflect().Get(field).String()
	_, err := n.table(tx).ByName(name, scope)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil && !errors.Is(err, state.ErrAmbiguous):
		return err
	}
	return problem.Newf(problem.NameTaken, "Choose another name.", "there is %s named %s already", withArticle(n.word()), name).With("name", "is taken")
}

// made is the operation of a noun that was made.
func (n noun[M]) made(ctx context.Context, r *commandv1.Result, err error) (*apiv1.Operation, error) {
	target := &apiv1.Reference{Kind: n.kind}
	if m, err := n.decode(r); err == nil {
		target.Id, target.Name = m.GetId(), m.ProtoReflect().Get(fieldOf(m, "name")).String()
	}
	return n.ended(ctx, n.kind+".create", target, r, err)
}

// decode returns the noun that a result carries.
func (n noun[M]) decode(r *commandv1.Result) (M, error) {
	var zero M
	m := zero.ProtoReflect().New().Interface().(M)
	if len(r.GetNoun()) == 0 {
		return m, errors.New("the result carries no noun")
	}
	return m, proto.Unmarshal(r.GetNoun(), m)
}

// update changes the fields that mask names. An If-Match of the call guards against a lost update; without it, a noun that
// was changed meanwhile is read and changed again. prepare checks what comes of it.
func (n noun[M]) update(ctx context.Context, req proto.Message, sent M, mask *fieldmaskpb.FieldMask, at place, prepare func(*state.Tx, M) error, body func(c *commandv1.Command, m M, expected string)) (M, error) {
	r, err := n.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		stored, err := n.find(ctx, tx, sent.GetId(), at)
		if err != nil {
			return nil, err
		}
		if err := n.matches(ctx, stored); err != nil {
			return nil, err
		}
		if err := n.mayTouch(ctx, tx, stored); err != nil {
			return nil, err
		}
		changed := proto.CloneOf(stored)
		if err := schema.ApplyUpdate(changed, sent, mask); err != nil {
			return nil, err
		}
		if proto.Equal(stored, changed) {
			noun, err := proto.Marshal(stored)
			return &commandv1.Result{Noun: noun}, err
		}
		if prepare != nil {
			if err := prepare(tx, changed); err != nil {
				return nil, err
			}
		}
		if err := n.mayMove(ctx, tx, stored, changed); err != nil {
			return nil, err
		}
		body(c, changed, stored.GetRevision())
		return nil, nil
	})
	if err != nil {
		var none M
		return none, err
	}
	return n.shown(ctx, r)
}

func (n noun[M]) mayTouch(ctx context.Context, tx *state.Tx, m M) error {
	if n.guard == nil {
		return nil
	}
	return n.guard(ctx, tx, m)
}

// matches compares the call's If-Match with what is stored.
func (n noun[M]) matches(ctx context.Context, stored M) error {
	want := callOf(ctx).IfMatch
	if want == "" || want == "*" || want == stored.GetRevision() {
		return nil
	}
	return problem.Newf(problem.Conflict, "Read it again, and decide again.", "%s %s is at revision %s, and the change rests on %s", n.word(), stored.GetId(), stored.GetRevision(), want)
}

// remove deletes a noun by id or name.
func (n noun[M]) remove(ctx context.Context, req proto.Message, name string, at place, body func(*commandv1.Command, *commandv1.DeleteNoun)) (*apiv1.Operation, error) {
	target := &apiv1.Reference{Kind: n.kind}
	r, err := n.removal(ctx, req, name, at, target, body)
	return n.ended(ctx, n.kind+".delete", target, r, err)
}

// removal is remove that returns what the state machine answers. It fills in what target is.
func (n noun[M]) removal(ctx context.Context, req proto.Message, name string, at place, target *apiv1.Reference, body func(*commandv1.Command, *commandv1.DeleteNoun)) (*commandv1.Result, error) {
	return n.decide(ctx, req, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := n.find(ctx, tx, name, at)
		if err != nil {
			return nil, err
		}
		if err := n.matches(ctx, m); err != nil {
			return nil, err
		}
		if err := n.mayTouch(ctx, tx, m); err != nil {
			return nil, err
		}
		target.Id, target.Name = m.GetId(), m.ProtoReflect().Get(fieldOf(m, "name")).String()
		d := &commandv1.DeleteNoun{Id: m.GetId()}
		if callOf(ctx).IfMatch != "" {
			d.ExpectedRevision = m.GetRevision()
		}
		body(c, d)
		return nil, nil
	})
}

func fieldOf(m proto.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.ProtoReflect().Descriptor().Fields().ByName(name)
}

func setID(m proto.Message, id string) {
	m.ProtoReflect().Set(fieldOf(m, "id"), protoreflect.ValueOfString(id))
}

// reference names a noun in an operation or in what a decision rests on.
func reference[M interface {
	GetId() string
	GetName() string
}](kind string, m M) *apiv1.Reference {
	return &apiv1.Reference{Kind: kind, Id: m.GetId(), Name: m.GetName()}
}

// anyName prepares a noun that refers to nothing and whose name is unique in the federation.
func anyName[M state.Noun](*state.Tx, M) (state.Scope, error) { return nil, nil }

// inField says which field of the request names what is not there.
func inField(err error, field string) error {
	var e *problem.Error
	if !errors.As(err, &e) || e.Code() != problem.NotFound {
		return err
	}
	return e.With(field, e.Problem.GetDetail())
}
