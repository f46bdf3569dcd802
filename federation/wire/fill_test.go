package wire

import (
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// crossing returns every message type of the two packages whose messages cross a boundary, well-known types that they
// hold included.
func crossing() []protoreflect.MessageType {
	var found []protoreflect.MessageType
	seen := map[protoreflect.FullName]bool{}
	var visit func(md protoreflect.MessageDescriptor)
	visit = func(md protoreflect.MessageDescriptor) {
		if seen[md.FullName()] {
			return
		}
		seen[md.FullName()] = true
		mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
		if err != nil {
			panic(err)
		}
		found = append(found, mt)
		for i := range md.Messages().Len() {
			visit(md.Messages().Get(i))
		}
		for i := range md.Fields().Len() {
			if sub := md.Fields().Get(i).Message(); sub != nil {
				visit(sub)
			}
		}
	}
	for _, pkg := range []protoreflect.FullName{"naru.api.v1", "naru.link.v1"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(file protoreflect.FileDescriptor) bool {
			for i := range file.Messages().Len() {
				visit(file.Messages().Get(i))
			}
			return true
		})
	}
	return found
}

// fill sets a random choice of a message's fields to random values, edges of their ranges among them.
func fill(m protoreflect.Message, r *rand.Rand, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if r.IntN(3) == 0 || fd.Message() != nil && depth == 0 {
			continue
		}
		if fd.IsList() {
			list := m.Mutable(fd).List()
			for range r.IntN(4) {
				if fd.Message() != nil {
					fill(list.AppendMutable().Message(), r, depth-1)
				} else {
					list.Append(scalar(fd, r))
				}
			}
			continue
		}
		if fd.Message() != nil {
			fill(m.Mutable(fd).Message(), r, depth-1)
			continue
		}
		m.Set(fd, scalar(fd, r))
	}
}

func scalar(fd protoreflect.FieldDescriptor, r *rand.Rand) protoreflect.Value {
	edges := []uint64{0, 1, 127, 128, 300, math.MaxInt32, math.MaxUint32, 1 << 31, 1 << 32, math.MaxInt64, math.MaxUint64, r.Uint64()}
	n := edges[r.IntN(len(edges))]
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n&1 == 1)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(r.IntN(values.Len())).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32([]float32{0, float32(math.Copysign(0, -1)), 1.5, float32(math.NaN()), float32(math.Inf(1))}[r.IntN(5)])
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{0, math.Copysign(0, -1), 1.5, math.NaN(), math.Inf(-1)}[r.IntN(5)])
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "a", "나루", "\x00", "web-1"}[r.IntN(5)])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([][]byte{nil, {0}, {0xff, 0x80}, []byte("bytes")}[r.IntN(4)])
	}
	panic("no value of kind " + fd.Kind().String())
}

// filled returns a random message of a type and its bytes.
func filled(mt protoreflect.MessageType, r *rand.Rand, deterministic bool) (proto.Message, []byte) {
	m := mt.New()
	fill(m, r, 5)
	b, err := proto.MarshalOptions{Deterministic: deterministic}.Marshal(m.Interface())
	if err != nil {
		panic(err)
	}
	return m.Interface(), b
}
