package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/gateway"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// column is one column of a noun's table.
type column[M any] struct {
	head  string
	value func(M) string
	wide  bool // shows with -o wide only
	state bool // coloured by what it says
	text  bool // may be cut where the terminal is narrow
	// stale, where it is given, says of which nouns the value is not of now: it is shown faint.
	stale func(M) bool
}

// documents reports whether -o asks for whole messages.
func (a *app) documents() bool { return a.output == "json" || a.output == "yaml" }

func printList[M proto.Message](a *app, columns []column[M], items []M) error {
	switch {
	case a.documents():
		list := make([]json.RawMessage, 0, len(items))
		for _, m := range items {
			b, err := toJSON(m)
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return a.document(list)
	case a.output == "name":
		for _, m := range items {
			fmt.Fprintln(a.out, nameOf(m))
		}
		return nil
	}
	p := newRows(a, columns)
	for _, m := range items {
		p.put(m)
	}
	p.flush()
	return nil
}

func printOne[M proto.Message](a *app, m M, columns []column[M]) error {
	if a.documents() {
		return a.message(m)
	}
	return printList(a, columns, []M{m})
}

// message writes m as JSON or YAML, as -o says.
func (a *app) message(m proto.Message) error {
	b, err := toJSON(m)
	if err != nil {
		return err
	}
	return a.document(json.RawMessage(b))
}

// changed writes one change of a watch as a line of JSON, or as a document of YAML.
func (a *app) changed(kind apiv1.WatchType_Value, m proto.Message) error {
	noun, err := toJSON(m)
	if err != nil {
		return err
	}
	if a.output == "json" {
		fmt.Fprintf(a.out, "{\"type\":%q,\"noun\":%s}\n", kind, escaped(noun))
		return nil
	}
	fmt.Fprintln(a.out, "---")
	return a.document(struct {
		Type string          `json:"type"`
		Noun json.RawMessage `json:"noun"`
	}{kind.String(), noun})
}

// document writes v as JSON or YAML, as -o says.
func (a *app) document(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = escaped(b)
	if a.output == "json" {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, b, "", "  "); err != nil {
			return err
		}
		fmt.Fprintln(a.out, pretty.String())
		return nil
	}
	// JSON is YAML: read as such, the order of the fields stays.
	var node yaml.Node
	if err := yaml.Unmarshal(b, &node); err != nil {
		return err
	}
	block(&node)
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return err
	}
	_, err = a.out.Write(escaped(text.Bytes()))
	return err
}

// block takes the JSON style off a YAML document; what has nothing in it, and what has to be escaped, keeps it.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style &^= yaml.FlowStyle
	}
	if !strings.ContainsFunc(n.Value, steersIn) {
		n.Style &^= yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		block(c)
	}
}

// toJSON returns a message as the API shows it.
func toJSON(m proto.Message) ([]byte, error) { return (&gateway.Encoder{}).Append(nil, m) }

// nameOf returns a noun's name, or by what else it is known.
func nameOf(m proto.Message) string {
	r := m.ProtoReflect()
	for _, name := range []protoreflect.Name{"name", "id", "vm", "host", "agent"} {
		if f := r.Descriptor().Fields().ByName(name); f != nil && r.Get(f).String() != "" {
			return r.Get(f).String()
		}
	}
	return ""
}

// rows writes nouns as rows of a table.
type rows[M proto.Message] struct {
	columns []column[M]
	table   *table
}

func newRows[M proto.Message](a *app, columns []column[M]) *rows[M] {
	p := &rows[M]{table: &table{to: a.out}}
	for _, c := range columns {
		if !c.wide || a.output == "wide" {
			p.columns = append(p.columns, c)
			p.table.heads = append(p.table.heads, c.head)
			p.table.cut = append(p.table.cut, c.text)
		}
	}
	return p
}

func (p *rows[M]) put(m M) {
	row := make([]cell, len(p.columns))
	for i, c := range p.columns {
		row[i].text = c.value(m)
		switch {
		case c.state:
			row[i].colour = tint(row[i].text)
		case c.stale != nil && c.stale(m):
			row[i].colour = faint
		}
	}
	p.table.add(row...)
}

// gone writes that a noun is no longer there.
func (p *rows[M]) gone(m M) {
	p.table.add(cell{text: nameOf(m)}, cell{text: "gone"})
}

func (p *rows[M]) flush() { p.table.flush() }

// lower is an enum's name as people read it; empty for the unspecified.
func lower(e interface {
	protoreflect.Enum
	fmt.Stringer
}) string {
	if e.Number() == 0 {
		return ""
	}
	return strings.ToLower(e.String())
}

// age is how long ago t was, in one unit.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	d := time.Since(t.AsTime())
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ago is age as people say it.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return age(t) + " ago"
}

// local is a time on the reader's clock.
func local(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format(time.DateTime)
}

// figures are columns of what was measured, as it was last known, and how current that is.
func figures[M interface {
	GetTime() *timestamppb.Timestamp
	GetSeenAt() *timestamppb.Timestamp
	GetFreshness() apiv1.Freshness_Level
}](measured []column[M]) []column[M] {
	for i, c := range measured {
		measured[i].value = func(m M) string {
			if m.GetTime() == nil {
				return ""
			}
			return c.value(m)
		}
		measured[i].stale = func(m M) bool { return m.GetFreshness() > apiv1.Freshness_LIVE }
	}
	return append(measured,
		column[M]{head: "FRESH", value: func(m M) string { return lower(m.GetFreshness()) }, state: true},
		column[M]{head: "SEEN", value: func(m M) string { return ago(m.GetSeenAt()) }})
}

// shares are columns of what is taken of what there is.
func shares[M any](taken, total func(M) *apiv1.Resources) []column[M] {
	of := func(head string, get func(*apiv1.Resources) uint32) column[M] {
		return column[M]{head: head, value: func(m M) string { return fmt.Sprintf("%d/%d", get(taken(m)), get(total(m))) }}
	}
	return []column[M]{
		of("CORES", (*apiv1.Resources).GetCores), of("MEMORY_MIB", (*apiv1.Resources).GetMemoryMib), of("DISK_GIB", (*apiv1.Resources).GetDiskGib),
	}
}
