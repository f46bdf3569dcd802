package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestGoWritesTheCanonicalFormOfEveryMessageThatCrosses(t *testing.T) {
	types := crossing()
	if len(types) < 100 {
		t.Fatalf("only %d message types were found", len(types))
	}
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for _, mt := range types {
			for _, deterministic := range []bool{false, true} {
				_, b := filled(mt, r, deterministic)
				if err := CheckForm(b, mt.Descriptor()); err != nil {
					rt.Fatalf("%s: %v", mt.Descriptor().FullName(), err)
				}
			}
		}
	})
}

// P11: what is accepted has one reading. Any change of an accepted encoding is refused or decodes to bytes of its own.
func TestWhatIsAcceptedDecodesAndEncodesToTheSameBytes(t *testing.T) {
	types := crossing()
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		for _, mt := range types {
			_, b := filled(mt, r, false)
			for range 8 {
				b = mutate(b, r)
				if err := sameBytes(b, mt); err != nil {
					rt.Fatalf("%s: %v", mt.Descriptor().FullName(), err)
				}
			}
		}
	})
}

// sameBytes reports an error when b is accepted and is not what Go would write of it.
func sameBytes(b []byte, mt protoreflect.MessageType) error {
	if CheckForm(b, mt.Descriptor()) != nil {
		return nil
	}
	for _, deterministic := range []bool{false, true} {
		m := mt.New().Interface()
		if err := proto.Unmarshal(b, m); err != nil {
			return err
		}
		again, err := proto.MarshalOptions{Deterministic: deterministic}.Marshal(m)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, again) {
			return errors.New("accepted, and encoded again it has other bytes")
		}
	}
	return nil
}

func mutate(b []byte, r *rand.Rand) []byte {
	b = bytes.Clone(b)
	if len(b) == 0 {
		return []byte{byte(r.Uint32())}
	}
	at := r.IntN(len(b))
	switch r.IntN(5) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b = append(b[:at], b[at+1:]...)
	case 2:
		b = append(b[:at], append([]byte{byte(r.Uint32())}, b[at:]...)...)
	case 3:
		b = append(b, b[at:]...)
	case 4:
		b = b[:at]
	}
	return b
}

func TestUnusualFormsAreRefused(t *testing.T) {
	point := (&linkv1.JournalPoint{}).ProtoReflect().Descriptor()
	batch := (&linkv1.JournalBatch{}).ProtoReflect().Descriptor()
	entry := (&linkv1.JournalEntry{}).ProtoReflect().Descriptor()
	sample := (&apiv1.HostSample{}).ProtoReflect().Descriptor()
	frame := (&linkv1.Frame{}).ProtoReflect().Descriptor()
	report := (&linkv1.OperationReport{}).ProtoReflect().Descriptor()
	str := func(n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name  string
		md    protoreflect.MessageDescriptor
		b     []byte
		fault Fault
	}{
		{"fields out of order", point, join(str(2, "s"), str(1, "o")), FaultForm},
		{"a singular field twice", point, join(str(1, "o"), str(1, "p")), FaultForm},
		{"a longer varint than needed", point, []byte{3 << 3, 0x81, 0x00}, FaultForm},
		{"a longer tag than needed", point, []byte{1<<3 | 2 | 0x80, 0x00, 1, 'o'}, FaultForm},
		{"a longer length than needed", point, []byte{1<<3 | 2, 0x81, 0x00, 'o'}, FaultForm},
		{"a varint without end", point, []byte{3 << 3, 0x80}, FaultForm},
		{"a varint beyond 64 bits", point, []byte{3 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, FaultForm},
		{"a zero number", point, num(3, 0), FaultForm},
		{"an empty string", point, str(1, ""), FaultForm},
		{"a string that is not UTF-8", point, str(1, "\xff"), FaultForm},
		{"a length beyond the end", point, []byte{1<<3 | 2, 5, 'o'}, FaultForm},
		{"a wrong wire type", point, num(1, 7), FaultForm},
		{"a group", point, []byte{9<<3 | 3, 9<<3 | 4}, FaultForm},
		{"field number zero", point, []byte{0, 1}, FaultForm},
		{"an unknown field", point, num(99, 1), FaultUnknown},
		{"an unknown field within", batch, join(str(1, "o"), str(2, "s"), str(3, string(num(50, 1)))), FaultUnknown},
		{"a second member of a oneof", entry, join(str(100, ""), str(101, "")), FaultForm},
		{"a member of a oneof twice", entry, join(str(100, ""), str(100, "")), FaultForm},
		{"a number too large for uint32", sample, num(7, 1<<32), FaultForm},
		{"a cut double", sample, append(protowire.AppendTag(nil, 6, protowire.Fixed64Type), 1, 2, 3), FaultForm},
		{"a zero double", sample, protowire.AppendFixed64(protowire.AppendTag(nil, 6, protowire.Fixed64Type), 0), FaultForm},
		{"an unknown enum value", frame, num(2, 3), FaultUnknown},
		{"an enum value beyond 32 bits", frame, num(2, 1<<33|1), FaultForm},
		{"a bool of two", report, num(4, 2), FaultForm},
		{"nothing readable", point, []byte("\xff\xff\xff"), FaultForm},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := CheckForm(c.b, c.md)
			var fe *FormError
			if !errors.As(err, &fe) {
				t.Fatalf("%x was accepted: %v", c.b, err)
			}
			if fe.Fault != c.fault {
				t.Fatalf("fault %d, want %d: %v", fe.Fault, c.fault, err)
			}
		})
	}
}

func TestEmptyElementsAndMessagesAreCanonical(t *testing.T) {
	for _, m := range []proto.Message{
		&linkv1.Hello{Chain: [][]byte{{}, {1}, {}}},
		&apiv1.Agent{Clusters: []string{"", "a", ""}},
		&linkv1.StateAck{Point: &linkv1.StateAckPoint{}},
		&linkv1.JournalEntry{Body: &linkv1.JournalEntry_Order{Order: &linkv1.Order{}}},
		&timestamppb.Timestamp{Seconds: -1, Nanos: 5},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckForm(b, m.ProtoReflect().Descriptor()); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
}

func TestNestingHasAnEnd(t *testing.T) {
	node := dynamicMessage(t, &descriptorpb.DescriptorProto{
		Name:  proto.String("Node"),
		Field: []*descriptorpb.FieldDescriptorProto{fieldOf("next", 1, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".t.Node")},
	})
	nested := func(depth int) []byte {
		var b []byte
		for range depth - 1 {
			b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
		}
		return b
	}
	if err := CheckForm(nested(MaxDepth), node); err != nil {
		t.Errorf("depth %d was refused: %v", MaxDepth, err)
	}
	if err := CheckForm(nested(MaxDepth+1), node); err == nil {
		t.Errorf("depth %d was accepted", MaxDepth+1)
	}
}

func TestTypesWithoutACanonicalFormAreNamed(t *testing.T) {
	early := dynamicMessage(t, &descriptorpb.DescriptorProto{
		Name:      proto.String("Early"),
		OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("o")}},
		Field: []*descriptorpb.FieldDescriptorProto{
			inOneof(fieldOf("member", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, "")),
			fieldOf("later", 2, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
		},
	})
	for _, md := range []protoreflect.MessageDescriptor{early, (&structpb.Struct{}).ProtoReflect().Descriptor()} {
		if _, err := Compile(md); err == nil || !strings.Contains(err.Error(), "no canonical form") {
			t.Errorf("%s was compiled: %v", md.FullName(), err)
		}
		if CheckForm(nil, md) == nil {
			t.Errorf("%s has no form and its bytes were accepted", md.FullName())
		}
	}
}

// Every shape of field, also those that the API does not use today.
func TestEveryShapeOfFieldKeepsItsBytes(t *testing.T) {
	md := (&descriptorpb.DescriptorProto{Name: proto.String("Shapes")})
	for kind := descriptorpb.FieldDescriptorProto_TYPE_DOUBLE; kind <= descriptorpb.FieldDescriptorProto_TYPE_SINT64; kind++ {
		if kind == descriptorpb.FieldDescriptorProto_TYPE_FLOAT || kind == descriptorpb.FieldDescriptorProto_TYPE_GROUP || kind == descriptorpb.FieldDescriptorProto_TYPE_ENUM {
			continue
		}
		name, number := strings.ToLower(kind.String()), int32(kind)
		sub := ""
		if kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE {
			sub = ".t.Shapes"
		}
		list, unpacked := fieldOf(name+"_list", 40+number, kind, sub), fieldOf(name+"_unpacked", 60+number, kind, sub)
		list.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		unpacked.Label = list.Label
		if kind != descriptorpb.FieldDescriptorProto_TYPE_STRING && kind != descriptorpb.FieldDescriptorProto_TYPE_BYTES && sub == "" {
			unpacked.Options = &descriptorpb.FieldOptions{Packed: proto.Bool(false)}
		}
		optional := fieldOf(name+"_optional", 20+number, kind, sub)
		md.Field = append(md.Field, fieldOf(name, number, kind, sub), list, unpacked)
		if sub == "" {
			optional.Proto3Optional, optional.OneofIndex = proto.Bool(true), proto.Int32(int32(len(md.OneofDecl)))
			md.OneofDecl = append(md.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_" + name)})
			md.Field = append(md.Field, optional)
		}
	}
	mt := dynamicType(dynamicMessage(t, md))
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 2))
		m := mt.New()
		fill(m, r, 2)
		// Dynamic messages are written in map order; deterministic is by number.
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		if err != nil {
			rt.Fatal(err)
		}
		if err := CheckForm(b, mt.Descriptor()); err != nil {
			rt.Fatal(err)
		}
		for range 32 {
			changed := mutate(b, r)
			if CheckForm(changed, mt.Descriptor()) != nil {
				continue
			}
			again := mt.New().Interface()
			if err := proto.Unmarshal(changed, again); err != nil {
				rt.Fatalf("accepted and cannot be decoded: %v", err)
			}
			if b, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(again); !bytes.Equal(b, changed) {
				rt.Fatal("accepted, and encoded again it has other bytes")
			}
		}
	})
}

func TestInternalFieldsAreSeenAtAnyDepth(t *testing.T) {
	form, err := Compile((&apiv1.GetVMResponse{}).ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	checkPublic := func(b []byte) error {
		if err := form.check(b, MaxDepth, public); err != nil {
			return err
		}
		return nil
	}
	for _, vm := range []*apiv1.VM{
		{Force: true},
		{Generation: &apiv1.Generation{}},
		{Reached: &apiv1.Generation{Epoch: 1}},
	} {
		b, _ := proto.Marshal(&apiv1.GetVMResponse{Vm: vm})
		var fe *FormError
		if err := checkPublic(b); !errors.As(err, &fe) || fe.Fault != FaultInternal {
			t.Errorf("%v passed: %v", vm, err)
		}
		if err := form.Check(b); err != nil {
			t.Errorf("%v is canonical: %v", vm, err)
		}
	}
	b, _ := proto.Marshal(&apiv1.GetVMResponse{Vm: &apiv1.VM{Name: "web-1", Reached: &apiv1.Generation{}}})
	if err := checkPublic(b); err != nil {
		t.Error(err)
	}
}

func TestTheFormIsCheckedWithoutAllocating(t *testing.T) {
	b, err := proto.Marshal(chunk(64))
	if err != nil {
		t.Fatal(err)
	}
	md := (&linkv1.StateChunk{}).ProtoReflect().Descriptor()
	if n := testing.AllocsPerRun(100, func() {
		if err := CheckForm(b, md); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
