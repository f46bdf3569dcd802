package wire

import (
	"math/rand/v2"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"pgregory.net/rapid"
)

// The compiled rules and protovalidate say the same of every message that crosses.
func TestCompiledRulesAgreeWithProtovalidate(t *testing.T) {
	validator, err := protovalidate.New(protovalidate.WithFailFast())
	if err != nil {
		t.Fatal(err)
	}
	types := crossing()
	forms := map[protoreflect.FullName]*Form{}
	for _, mt := range types {
		form, err := Compile(mt.Descriptor())
		if err != nil {
			t.Fatal(err)
		}
		if form.elaborate {
			t.Logf("%s is left to protovalidate", form.name)
			continue
		}
		forms[form.name] = form
	}
	kept, broken := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 3))
		for _, mt := range types {
			form := forms[mt.Descriptor().FullName()]
			if form == nil {
				continue
			}
			m := mt.New()
			obey(m, r, 5, r.IntN(3) == 0)
			b, err := proto.Marshal(m.Interface())
			if err != nil {
				rt.Fatal(err)
			}
			want := validator.Validate(m.Interface())
			got := form.check(b, MaxDepth, withRules)
			if (want == nil) != (got == nil) {
				rt.Fatalf("%s: protovalidate says %v, the form says %v", form.name, want, got)
			}
			if want == nil {
				kept++
			} else {
				broken++
			}
		}
	})
	// Messages that nothing rules keep them all; what matters is that both sides were really seen.
	t.Logf("%d messages kept the rules, %d broke them", kept, broken)
	if kept < 1000 || broken < 1000 {
		t.Error("the messages are too much alike to show anything")
	}
}

// obey fills a message so that it mostly keeps its rules, or with careless, at times just misses one.
func obey(m protoreflect.Message, r *rand.Rand, depth int, careless bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		asked, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
		if fd.ContainingOneof() != nil && m.WhichOneof(fd.ContainingOneof()) != nil {
			continue
		}
		slip := careless && r.IntN(12) == 0
		needed := asked.GetRequired() || asked.GetRepeated().GetMinItems() > 0 || fd.ContainingOneof() != nil && r.IntN(3) == 0
		if fd.Message() != nil && depth == 0 && !needed {
			continue
		}
		if fd.IsList() {
			n := r.IntN(3)
			if needed && !slip {
				n = max(n, int(asked.GetRepeated().GetMinItems()))
			}
			if most := asked.GetRepeated().GetMaxItems(); slip && most > 0 && most < 65 {
				n = int(most) + r.IntN(2)
			}
			list := m.Mutable(fd).List()
			for range n {
				if fd.Message() != nil {
					obey(list.AppendMutable().Message(), r, depth-1, careless)
				} else {
					list.Append(ruled(fd, asked.GetRepeated().GetItems(), r, slip))
				}
			}
			continue
		}
		if fd.Message() != nil {
			if needed && !slip || r.IntN(2) == 0 {
				obey(m.Mutable(fd).Message(), r, depth-1, careless)
			}
			continue
		}
		if slip && r.IntN(2) == 0 {
			continue
		}
		m.Set(fd, ruled(fd, asked, r, slip))
	}
}

// ruled returns a value that keeps the rules, and with slip one at or beyond their edge.
func ruled(fd protoreflect.FieldDescriptor, asked *validate.FieldRules, r *rand.Rand, slip bool) protoreflect.Value {
	length := func(exact, least, most uint64) int {
		if exact > 0 {
			least, most = exact, exact
		}
		if most == 0 {
			most = least + 3
		}
		if slip {
			return max(0, []int{int(least) - 1, int(most), int(most) + 1}[r.IntN(3)])
		}
		return int(least) + r.IntN(int(min(most-least, 4))+1)
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		s := asked.GetString()
		if s.GetPattern() != "" {
			names := []string{"web-1", "a", strings.Repeat("a", 32), strings.Repeat("0a", 32), "SHA256:" + strings.Repeat("A", 43)}
			if slip || r.IntN(8) == 0 {
				names = []string{"", "-a", "a-", "A", strings.Repeat("a", 64), "a\n", "나루", strings.Repeat("0", 63)}
			}
			return protoreflect.ValueOfString(names[r.IntN(len(names))])
		}
		n := length(s.GetLen(), s.GetMinLen(), s.GetMaxLen())
		return protoreflect.ValueOfString(strings.Repeat([]string{"x", "나", "é", "🛶"}[r.IntN(4)], n))
	case protoreflect.BytesKind:
		b := asked.GetBytes()
		return protoreflect.ValueOfBytes(make([]byte, length(b.GetLen(), b.GetMinLen(), b.GetMaxLen())))
	case protoreflect.Uint32Kind:
		u := asked.GetUint32()
		if u.GetLte() > 0 || u.GetGte() > 0 {
			if slip {
				return protoreflect.ValueOfUint32([]uint32{u.GetGte() - 1, u.GetGte(), u.GetLte(), u.GetLte() + 1}[r.IntN(4)])
			}
			return protoreflect.ValueOfUint32(u.GetGte())
		}
	}
	return scalar(fd, r)
}

func TestRulesThatAreNotCompiledMakeTheirTypesElaborate(t *testing.T) {
	options := func(rules *validate.FieldRules) *descriptorpb.FieldOptions {
		o := &descriptorpb.FieldOptions{}
		proto.SetExtension(o, validate.E_Field, rules)
		return o
	}
	text := func(s *validate.StringRules) *validate.FieldRules {
		return &validate.FieldRules{Type: &validate.FieldRules_String_{String_: s}}
	}
	for _, c := range []struct {
		name      string
		rules     *validate.FieldRules
		elaborate bool
	}{
		{"a length", text(&validate.StringRules{MaxLen: proto.Uint64(3)}), false},
		{"a prefix", text(&validate.StringRules{Prefix: proto.String("a")}), true},
		{"an expression", &validate.FieldRules{Cel: []*validate.Rule{{Id: proto.String("x"), Expression: proto.String("true")}}}, true},
		{"rules that are always ignored", &validate.FieldRules{Ignore: validate.Ignore_IGNORE_ALWAYS.Enum()}, true},
	} {
		fd := fieldOf("f", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, "")
		fd.Options = options(c.rules)
		md := dynamicMessage(t, &descriptorpb.DescriptorProto{Name: proto.String("M"), Field: []*descriptorpb.FieldDescriptorProto{
			fd, fieldOf("self", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".t.M"),
		}})
		form, err := Compile(md)
		if err != nil {
			t.Fatal(err)
		}
		if form.elaborate != c.elaborate {
			t.Errorf("%s: elaborate is %v", c.name, form.elaborate)
		}
	}
}
