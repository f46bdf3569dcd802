package gateway

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var protoNames = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// answers are the messages that the API can answer with, and all that they hold.
func answers(t interface{ Fatal(...any) }) []protoreflect.MessageType {
	table, err := readRoutes()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[protoreflect.FullName]bool{}
	var out []protoreflect.MessageType
	var visit func(d protoreflect.MessageDescriptor)
	visit = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || d.ParentFile().Package() != "naru.api.v1" {
			return
		}
		seen[d.FullName()] = true
		mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, mt)
		for i := range d.Fields().Len() {
			if m := d.Fields().Get(i).Message(); m != nil {
				visit(m)
			}
		}
	}
	for _, r := range table.all {
		visit(r.output.Descriptor())
	}
	return out
}

// fill sets some of m's fields to random values.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	if ts, ok := m.Interface().(*timestamppb.Timestamp); ok {
		ts.Seconds = rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds")
		ts.Nanos = rapid.SampledFrom([]int32{0, 0, 5e8, 123e6, 1e3, 1, 999999999}).Draw(t, "nanos")
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if rapid.Bool().Draw(t, "skip") {
			continue
		}
		switch {
		case f.IsList():
			l := m.Mutable(f).List()
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				if f.Message() == nil {
					l.Append(scalar(t, f))
				} else if depth > 0 {
					fill(t, l.AppendMutable().Message(), depth-1)
				}
			}
		case f.Message() != nil:
			if depth > 0 {
				fill(t, m.Mutable(f).Message(), depth-1)
			}
		default:
			m.Set(f, scalar(t, f))
		}
	}
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, "double"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(0, 12).Draw(t, "enum")))
	case protoreflect.Uint64Kind: // only internal fields have it
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	}
	t.Fatalf("field %s is of a kind that answers do not have", f.FullName())
	return protoreflect.Value{}
}

// withoutInternal takes out of decoded JSON what the descriptor says is internal.
func withoutInternal(v any, d protoreflect.MessageDescriptor) {
	object, ok := v.(map[string]any)
	if !ok {
		return
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := string(f.Name())
		switch {
		case Hidden(f):
			delete(object, name)
		case f.IsList() && f.Message() != nil:
			if items, ok := object[name].([]any); ok {
				for _, item := range items {
					withoutInternal(item, f.Message())
				}
			}
		case f.Message() != nil:
			withoutInternal(object[name], f.Message())
		}
	}
}

func TestAnswersAreProtobufsJSONWithoutInternalFields(t *testing.T) {
	types := answers(t)
	e := &Encoder{}
	rapid.Check(t, func(t *rapid.T) {
		mt := rapid.SampledFrom(types).Draw(t, "type")
		m := mt.New()
		fill(t, m, 3)
		got, err := e.Append(nil, m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		want, err := protoNames.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		withoutInternal(b, mt.Descriptor())
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%s:\n got %s\nwant %s", mt.Descriptor().FullName(), got, want)
		}
	})
}

func TestAnAnswerReadsBackAsWhatItWas(t *testing.T) {
	e := &Encoder{}
	rapid.Check(t, func(t *rapid.T) {
		vm := &apiv1.VM{}
		fill(t, vm.ProtoReflect(), 2)
		schema.Strip(vm)
		data, err := e.Append(nil, vm)
		if err != nil {
			t.Fatal(err)
		}
		back := &apiv1.VM{}
		if err := protojson.Unmarshal(data, back); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		vm.Reached = nil
		if !proto.Equal(vm, back) {
			t.Fatalf("got %v, want %v", back, vm)
		}
	})
}

func TestNoInternalFieldIsEverWritten(t *testing.T) {
	vm := &apiv1.VM{Name: "web-1", Force: true, Generation: &apiv1.Generation{Epoch: 7, Index: 9}, Reached: &apiv1.Generation{Epoch: 7}}
	token := &apiv1.AccessToken{Name: "ci", SecretHash: []byte("hash")}
	e := &Encoder{}
	for _, m := range []proto.Message{vm, token, &apiv1.ListVMsResponse{Vms: []*apiv1.VM{vm}}} {
		data, err := e.Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"force", "generation", "reached", "secret_hash"} {
			if strings.Contains(string(data), secret) {
				t.Errorf("%T shows %s: %s", m, secret, data)
			}
		}
	}
}

// manyVMs is a page as a busy federation has it.
func manyVMs(n int) *apiv1.ListVMsResponse {
	page := &apiv1.ListVMsResponse{}
	for range n {
		page.Vms = append(page.Vms, &apiv1.VM{
			Id: "0192f0c1-2345-7abc-8def-0123456789ab", Name: "web-1", Project: "web", ProjectId: "0192f0c1-2345-7abc-8def-0123456789ac",
			Zone: "business", ZoneId: "0192f0c1-2345-7abc-8def-0123456789ad", Cluster: "kvm", Flavor: "s1", Image: "tiny",
			Size: &apiv1.Resources{Cores: 2, MemoryMib: 2048, DiskGib: 10}, ImageSha256: strings.Repeat("ab", 32), SshKeys: []string{"ssh-ed25519 AAAA"},
			DesiredState: apiv1.VM_RUNNING, State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Host: "kvm-1", Address: "10.91.2.10",
			Freshness: apiv1.Freshness_LIVE, CreatedAt: timestamppb.Now(), UsableAt: timestamppb.Now(), Revision: "1792-123456",
		})
	}
	return page
}

func BenchmarkEncodeAPageOf100VMs(b *testing.B) {
	page := manyVMs(100)
	b.Run("naru", func(b *testing.B) {
		e := &Encoder{}
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			var err error
			if buf, err = e.Append(buf[:0], page); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("protojson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := protoNames.Marshal(page); err != nil {
				b.Fatal(err)
			}
		}
	})
}
