package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// column is one column of a noun's table; a wide one shows with -o wide only.
type column[M any] struct {
	head  string
	value func(M) string
	wide  bool
}

func visible[M any](a *app, columns []column[M]) []column[M] {
	var out []column[M]
	for _, c := range columns {
		if !c.wide || a.output == "wide" {
			out = append(out, c)
		}
	}
	return out
}

func printList[M proto.Message](a *app, columns []column[M], items []M) error {
	switch a.output {
	case "json", "yaml":
		list := make([]json.RawMessage, 0, len(items))
		for _, m := range items {
			b, err := toJSON(m)
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return a.document(list)
	case "name":
		for _, m := range items {
			fmt.Fprintln(a.out, nameOf(m))
		}
		return nil
	}
	p := newRowPrinter(a, columns)
	for _, m := range items {
		p.row(m)
	}
	return p.tab.Flush()
}

func printOne[M proto.Message](a *app, m M, columns []column[M]) error {
	switch a.output {
	case "json", "yaml":
		b, err := toJSON(m)
		if err != nil {
			return err
		}
		return a.document(json.RawMessage(b))
	}
	return printList(a, columns, []M{m})
}

// document writes v as JSON or YAML, as -o says.
func (a *app) document(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
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
	e := yaml.NewEncoder(a.out)
	e.SetIndent(2)
	return e.Encode(&node)
}

// block takes the JSON style off a YAML document.
func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, c := range n.Content {
		block(c)
	}
}

func toJSON(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
}

// nameOf returns a noun's name, or its id where it has none.
func nameOf(m proto.Message) string {
	r := m.ProtoReflect()
	for _, name := range []protoreflect.Name{"name", "id"} {
		if f := r.Descriptor().Fields().ByName(name); f != nil && r.Get(f).String() != "" {
			return r.Get(f).String()
		}
	}
	return ""
}

// rowPrinter writes rows under a head that is written once.
type rowPrinter[M proto.Message] struct {
	a       *app
	columns []column[M]
	tab     *tabwriter.Writer
}

func newRowPrinter[M proto.Message](a *app, columns []column[M]) *rowPrinter[M] {
	p := &rowPrinter[M]{a: a, columns: visible(a, columns), tab: tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)}
	if a.output == "table" || a.output == "wide" {
		heads := make([]string, len(p.columns))
		for i, c := range p.columns {
			heads[i] = c.head
		}
		fmt.Fprintln(p.tab, strings.Join(heads, "\t"))
	}
	return p
}

func (p *rowPrinter[M]) row(m M) {
	values := make([]string, len(p.columns))
	for i, c := range p.columns {
		if values[i] = printable(c.value(m)); values[i] == "" {
			values[i] = "-"
		}
	}
	fmt.Fprintln(p.tab, strings.Join(values, "\t"))
}

// print writes one change of a watch.
func (p *rowPrinter[M]) print(kind apiv1.WatchType_Value, m M) error {
	switch p.a.output {
	case "json":
		b, err := toJSON(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(p.a.out, "{\"type\":%q,\"noun\":%s}\n", kind, b)
		return nil
	case "yaml":
		fmt.Fprintln(p.a.out, "---")
		return printOne(p.a, m, p.columns)
	case "name":
		fmt.Fprintln(p.a.out, strings.ToLower(kind.String()), nameOf(m))
		return nil
	}
	p.row(m)
	if kind == apiv1.WatchType_DELETE {
		fmt.Fprintln(p.tab, nameOf(m)+"\t(gone)")
	}
	return p.tab.Flush()
}

// printable keeps what others wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '·'
		}
		return r
	}, s)
}

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

// amount shows resources: 8 cores, 32768 MiB.
func amount(r *apiv1.Resources) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d/%d", r.GetCores(), r.GetMemoryMib(), r.GetDiskGib())
}
