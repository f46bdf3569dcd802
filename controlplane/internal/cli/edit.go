package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
)

func createCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	var w waiting
	m := fresh[M]()
	cmd := &cobra.Command{Use: "create NAME", Short: n.make, Args: oneArgument}
	a.scopeFlags(cmd, n.in, &s)
	n.fields(cmd.Flags(), m)
	if n.fixed != nil {
		n.fixed(cmd.Flags(), m)
	}
	a.completeFields(cmd)
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			setText(m, "name", args[0])
			if n.put != nil {
				n.put(m, s)
			}
			op, err := n.create(ctx, c, m)
			if err != nil {
				return err
			}
			return a.finish(ctx, c, op, w)
		})
	}
	return cmd
}

func updateCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	var etag string
	m := fresh[M]()
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change what can be changed of a " + n.name, Args: oneArgument,
		Long: "Change what can be changed of a " + n.name + ": the fields whose flags are given, and no other. An empty value clears a text.",
	}
	a.scopeFlags(cmd, n.in, &s)
	etagFlag(cmd, &etag)
	changes := pflag.NewFlagSet("changes", pflag.ContinueOnError)
	n.fields(changes, m)
	cmd.Flags().AddFlagSet(changes)
	if n.options != nil {
		n.options(cmd.Flags())
	}
	a.completeFields(cmd)
	a.completeArguments(cmd, n.name, 1, &s)
	if n.fixed != nil {
		fixed := pflag.NewFlagSet("fixed", pflag.ContinueOnError)
		n.fixed(fixed, fresh[M]())
		cmd.SetFlagErrorFunc(fixedFlag(n.name, fixed))
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given, flags := map[string]bool{}, []string{}
		changes.VisitAll(func(f *pflag.Flag) {
			flags = append(flags, "--"+f.Name)
			if f.Changed {
				given[strings.ReplaceAll(f.Name, "-", "_")] = true
			}
		})
		if len(given) == 0 {
			return usagef("nothing to change was given; it is %s", either(flags))
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			setText(m, "id", args[0])
			mask, parts := maskOf(m, given)
			if len(parts) > 0 { // what is not given of a message that is must stay as it is
				stored, err := n.get(ctx, c, args[0], s)
				if err != nil {
					return err
				}
				for _, f := range parts {
					complete(m.ProtoReflect().Mutable(f).Message(), stored.ProtoReflect().Get(f).Message(), given)
				}
				if etag == "" {
					etag = textOf(stored, "revision")
				}
			}
			changed, err := n.update(ifMatch(ctx, etag), c, m, mask, s)
			if err != nil {
				return err
			}
			return printOne(a, changed, n.columns)
		})
	}
	return cmd
}

// fixedFlag says of a flag of create that update does not have that its value never changes, and how to get another.
func fixedFlag(noun string, fixed *pflag.FlagSet) func(*cobra.Command, error) error {
	return func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && fixed.Lookup(unknown.GetSpecifiedName()) != nil {
			return usagef("--%s of a %s is set when it is made and never changes; make another one: naru %s create NAME --%[1]s …",
				unknown.GetSpecifiedName(), noun, noun)
		}
		return badFlag(cmd, err)
	}
}

// maskOf names the fields whose flags were given, and returns those that are messages given by flags of their parts.
func maskOf(m proto.Message, given map[string]bool) (*fieldmaskpb.FieldMask, []protoreflect.FieldDescriptor) {
	mask := &fieldmaskpb.FieldMask{}
	var parts []protoreflect.FieldDescriptor
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case given[string(f.Name())]:
			mask.Paths = append(mask.Paths, string(f.Name()))
		case m.ProtoReflect().Has(f) && f.Message() != nil && hasAny(f.Message(), given):
			mask.Paths = append(mask.Paths, string(f.Name()))
			parts = append(parts, f)
		}
	}
	return mask, parts
}

func hasAny(d protoreflect.MessageDescriptor, given map[string]bool) bool {
	return slices.ContainsFunc(fieldsOf(d), func(f protoreflect.FieldDescriptor) bool { return given[string(f.Name())] })
}

func fieldsOf(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	out := make([]protoreflect.FieldDescriptor, d.Fields().Len())
	for i := range out {
		out[i] = d.Fields().Get(i)
	}
	return out
}

// complete takes from stored what was not given.
func complete(m, stored protoreflect.Message, given map[string]bool) {
	for _, f := range fieldsOf(m.Descriptor()) {
		if !given[string(f.Name())] {
			m.Set(f, stored.Get(f))
		}
	}
}

// word is a flag for a field that holds one of a closed set of words.
type word struct {
	m proto.Message
	f protoreflect.FieldDescriptor
}

// wordFlag adds a flag for an enum of m: its words in lower case.
func wordFlag(flags *pflag.FlagSet, m proto.Message, name, usage string) {
	w := word{m, fieldOf(m, protoreflect.Name(strings.ReplaceAll(name, "-", "_")))}
	flags.Var(w, name, either(w.words())+usage)
}

func (w word) words() []string {
	var out []string
	for i := range w.f.Enum().Values().Len() {
		if v := w.f.Enum().Values().Get(i); v.Number() != 0 {
			out = append(out, strings.ToLower(string(v.Name())))
		}
	}
	return out
}

// String is empty where nothing was given: the default is the server's.
func (w word) String() string {
	if w.m == nil {
		return ""
	}
	v := w.f.Enum().Values().ByNumber(w.m.ProtoReflect().Get(w.f).Enum())
	if v == nil || v.Number() == 0 {
		return ""
	}
	return strings.ToLower(string(v.Name()))
}

func (w word) Type() string { return "word" }

func (w word) Set(text string) error {
	v := w.f.Enum().Values().ByName(protoreflect.Name(strings.ToUpper(text)))
	if v == nil || v.Number() == 0 {
		return fmt.Errorf("it is %s", either(w.words()))
	}
	w.m.ProtoReflect().Set(w.f, protoreflect.ValueOfEnum(v.Number()))
	return nil
}

// fresh returns an empty message.
func fresh[M proto.Message]() M {
	var none M
	return none.ProtoReflect().New().Interface().(M)
}

func setText(m proto.Message, field protoreflect.Name, text string) {
	m.ProtoReflect().Set(fieldOf(m, field), protoreflect.ValueOfString(text))
}

func textOf(m proto.Message, field protoreflect.Name) string {
	return m.ProtoReflect().Get(fieldOf(m, field)).String()
}

func fieldOf(m proto.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.ProtoReflect().Descriptor().Fields().ByName(name)
}
