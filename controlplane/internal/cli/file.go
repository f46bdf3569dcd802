package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// written are the verbs of a noun that is written in a file and not by flags: YAML or JSON as `show -o yaml` shows it.
func written[M proto.Message](a *app, n noun[M], create func(context.Context, *client.Client, M) (*apiv1.Operation, error), update func(context.Context, *client.Client, M, *fieldmaskpb.FieldMask) (M, error)) []*cobra.Command {
	var file, etag string
	var w waiting
	make := &cobra.Command{
		Use: "create NAME --file FILE", Short: n.make, Args: oneArgument,
		Long: n.make + ", as a file says: YAML or JSON, with the fields that `naru " + n.name + " show -o yaml` shows.",
	}
	make.Flags().StringVarP(&file, "file", "f", "", "the `file` that says it; - is standard input")
	w.flags(make)
	make.RunE = func(cmd *cobra.Command, args []string) error {
		m := fresh[M]()
		if _, err := a.readFile(file, m); err != nil {
			return err
		}
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			setText(m, "name", args[0])
			op, err := create(ctx, c, m)
			if err != nil {
				return err
			}
			return a.finish(ctx, c, op, w)
		})
	}
	change := &cobra.Command{
		Use: "update NAME --file FILE", Short: "Change what can be changed of a " + n.name, Args: oneArgument,
		Long: "Change what can be changed of a " + n.name + ": the fields that stand in the file, and no other. An empty value clears a field.",
	}
	change.Flags().StringVarP(&file, "file", "f", "", "the `file` that says it; - is standard input")
	etagFlag(change, &etag)
	a.completeArguments(change, n.name, 1, &scope{})
	change.RunE = func(cmd *cobra.Command, args []string) error {
		m := fresh[M]()
		paths, err := a.readFile(file, m)
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return usagef("%s says nothing that can be changed", file)
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			setText(m, "id", args[0])
			changed, err := update(ifMatch(ctx, etag), c, m, &fieldmaskpb.FieldMask{Paths: paths})
			if err != nil {
				return err
			}
			return printOne(a, changed, n.columns)
		})
	}
	return []*cobra.Command{make, change}
}

// readFile reads what a file says of a noun into m, and returns the fields that it names and that can be changed. What only Naru writes is passed over,
// so that what was shown can be written again.
func (a *app) readFile(name string, m proto.Message) (paths []string, err error) {
	if name == "" {
		return nil, usagef("--file says what to make of it: YAML or JSON, - for standard input")
	}
	text, err := a.argument("@" + name)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, usagef("%s: it is not YAML: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, usagef("%s holds more than one document", name)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, usagef("%s: it is not a mapping of fields", name)
	}
	kept := &yaml.Node{Kind: yaml.MappingNode, Line: root.Line}
	for i := 0; i < len(root.Content); i += 2 {
		f := fieldOf(m, protoreflect.Name(root.Content[i].Value))
		changes := f == nil || schema.Access(f) == apiv1.Access_ACCESS_CLIENT || schema.Access(f) == apiv1.Access_ACCESS_UNSPECIFIED
		if changes || schema.Access(f) == apiv1.Access_ACCESS_IMMUTABLE {
			kept.Content = append(kept.Content, root.Content[i], root.Content[i+1])
		}
		if changes {
			paths = append(paths, root.Content[i].Value)
		}
	}
	if err := read(m.ProtoReflect(), kept, ""); err != nil {
		return nil, usagef("%s: %v", name, err)
	}
	return paths, nil
}

// read fills a message from a YAML mapping. at is where, for people.
func read(m protoreflect.Message, n *yaml.Node, at string) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s is a mapping of fields", n.Line, at)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := m.Descriptor().Fields().ByName(protoreflect.Name(key.Value))
		where := strings.TrimPrefix(at+"."+key.Value, ".")
		switch {
		case f == nil || schema.Access(f) == apiv1.Access_ACCESS_INTERNAL:
			return fmt.Errorf("line %d: there is no field %s", key.Line, where)
		case seen[key.Value]:
			return fmt.Errorf("line %d: %s is given twice", key.Line, where)
		}
		seen[key.Value] = true
		if value.Tag == "!!null" {
			continue
		}
		if !f.IsList() {
			v, err := readValue(m.NewField(f), f, value, where)
			if err != nil {
				return err
			}
			m.Set(f, v)
			continue
		}
		if value.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: %s is a list", value.Line, where)
		}
		list := m.Mutable(f).List()
		for j, item := range value.Content {
			v, err := readValue(list.NewElement(), f, item, fmt.Sprintf("%s[%d]", where, j))
			if err != nil {
				return err
			}
			list.Append(v)
		}
	}
	return nil
}

// readValue reads one value of a field; empty is a new one.
func readValue(empty protoreflect.Value, f protoreflect.FieldDescriptor, n *yaml.Node, at string) (protoreflect.Value, error) {
	if f.Message() != nil {
		if ts, ok := empty.Message().Interface().(*timestamppb.Timestamp); ok {
			return empty, readTime(ts, n, at)
		}
		return empty, read(empty.Message(), n, at)
	}
	if n.Kind != yaml.ScalarNode {
		return empty, fmt.Errorf("line %d: %s is one value", n.Line, at)
	}
	switch f.Kind() {
	case protoreflect.StringKind: // a day, a price or yes are texts where a text is asked for
		return protoreflect.ValueOfString(n.Value), nil
	case protoreflect.BoolKind:
		if v, err := strconv.ParseBool(n.Value); err == nil {
			return protoreflect.ValueOfBool(v), nil
		}
		return empty, fmt.Errorf("line %d: %s is true or false", n.Line, at)
	case protoreflect.Uint32Kind:
		if v, err := strconv.ParseUint(n.Value, 10, 32); err == nil {
			return protoreflect.ValueOfUint32(uint32(v)), nil
		}
		return empty, fmt.Errorf("line %d: %s is a whole number", n.Line, at)
	case protoreflect.EnumKind:
		if v := f.Enum().Values().ByName(protoreflect.Name(strings.ToUpper(n.Value))); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
		var words []string
		for i := range f.Enum().Values().Len() {
			if v := f.Enum().Values().Get(i); v.Number() != 0 {
				words = append(words, strings.ToLower(string(v.Name())))
			}
		}
		return empty, fmt.Errorf("line %d: %s is %s", n.Line, at, either(words))
	}
	return empty, fmt.Errorf("line %d: %s cannot be given in a file", n.Line, at)
}

func readTime(ts *timestamppb.Timestamp, n *yaml.Node, at string) error {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %s is a time as 2026-01-31T12:00:00Z", n.Line, at)
	}
	proto.Merge(ts, timestamppb.New(t))
	return nil
}
