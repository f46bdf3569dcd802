package wire

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// compiled remembers what Compile made of a descriptor. Descriptors are immutable and compared by identity, so this
// is a memory of a pure function and no state.
var compiled sync.Map // protoreflect.MessageDescriptor → *Form

// CheckForm reports nil when b is the canonical encoding of a message of type md, and a *FormError when not. Then
// proto.Unmarshal accepts b, and marshalling what it gives writes b again. It does not allocate unless it fails or
// sees md for the first time. A type that has no canonical form (see Compile) fails for every b.
func CheckForm(b []byte, md protoreflect.MessageDescriptor) error {
	known, ok := compiled.Load(md)
	if !ok {
		form, err := Compile(md)
		if err != nil {
			return err
		}
		known, _ = compiled.LoadOrStore(md, form)
	}
	return known.(*Form).Check(b)
}

// Compile makes the form of a message type and of all that it contains. It fails for a type with maps, groups,
// extensions, required fields or 32-bit floats (whose NaNs do not survive reading), and for one whose oneof members are not numbered above all other fields, because
// Go's encoder would not write it in ascending order.
func Compile(md protoreflect.MessageDescriptor) (*Form, error) {
	seen := map[protoreflect.FullName]*Form{}
	form, err := compile(md, seen)
	if err != nil {
		return nil, err
	}
	// A type is as elaborate as what it holds; types may hold one another.
	for changed := true; changed; {
		changed = false
		for _, f := range seen {
			for i := range f.fields {
				if held := f.fields[i].form; held != nil && held.elaborate && !f.elaborate {
					f.elaborate, changed = true, true
				}
			}
		}
	}
	return form, nil
}

func compile(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]*Form) (*Form, error) {
	if form, ok := seen[md.FullName()]; ok {
		return form, nil
	}
	form := &Form{name: md.FullName()}
	seen[md.FullName()] = form
	if md.ExtensionRanges().Len() > 0 {
		return nil, fmt.Errorf("%s has no canonical form: it can be extended", md.FullName())
	}
	complete := true
	if form.oneofs, complete = requiredOneofs(md); !complete {
		form.elaborate = true
	}
	fields := md.Fields()
	for i := range fields.Len() {
		fd, err := compileField(fields.Get(i), seen)
		if err != nil {
			return nil, err
		}
		if complete, err = compileRules(&fd, fields.Get(i)); err != nil {
			return nil, err
		}
		form.elaborate = form.elaborate || !complete
		form.fields = append(form.fields, fd)
	}
	slices.SortFunc(form.fields, func(a, b field) int { return int(a.number) - int(b.number) })
	for i := 1; i < len(form.fields); i++ {
		// Go's order: fields outside oneofs, then each oneof as it was declared.
		if form.fields[i].oneof < form.fields[i-1].oneof {
			return nil, fmt.Errorf("%s has no canonical form: field %d of a oneof stands before field %d",
				md.FullName(), form.fields[i-1].number, form.fields[i].number)
		}
	}
	return form, nil
}

func compileField(d protoreflect.FieldDescriptor, seen map[protoreflect.FullName]*Form) (field, error) {
	fd := field{
		number:   d.Number(),
		repeated: d.IsList(),
		packed:   d.IsPacked(),
		presence: d.HasPresence(),
	}
	if d.IsMap() || d.Kind() == protoreflect.GroupKind || d.Cardinality() == protoreflect.Required {
		return fd, fmt.Errorf("%s has no canonical form: a map, a group or a required field", d.FullName())
	}
	if o := d.ContainingOneof(); o != nil && !o.IsSynthetic() {
		if o.Index() > 61 {
			return fd, fmt.Errorf("%s has no canonical form: too many oneofs", d.FullName())
		}
		fd.oneof = uint8(o.Index() + 1)
	}
	if proto.GetExtension(d.Options(), apiv1.E_Access).(apiv1.Access) == apiv1.Access_ACCESS_INTERNAL {
		fd.internal = true
	}
	switch d.Kind() {
	case protoreflect.BoolKind:
		fd.shape, fd.wire = shapeBool, protowire.VarintType
	case protoreflect.Int32Kind:
		fd.shape, fd.wire = shapeInt32, protowire.VarintType
	case protoreflect.Uint32Kind, protoreflect.Sint32Kind:
		fd.shape, fd.wire = shapeUint32, protowire.VarintType
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind:
		fd.shape, fd.wire = shapeVarint64, protowire.VarintType
	case protoreflect.EnumKind:
		fd.shape, fd.wire = shapeEnum, protowire.VarintType
		fd.values, fd.dense = enumValues(d.Enum())
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		fd.shape, fd.wire = shapeFixed32, protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		fd.shape, fd.wire = shapeFixed64, protowire.Fixed64Type
	case protoreflect.StringKind:
		fd.shape, fd.wire = shapeString, protowire.BytesType
	case protoreflect.BytesKind:
		fd.shape, fd.wire = shapeBytes, protowire.BytesType
	case protoreflect.MessageKind:
		form, err := compile(d.Message(), seen)
		if err != nil {
			return fd, err
		}
		fd.shape, fd.wire, fd.form = shapeMessage, protowire.BytesType, form
	default:
		return fd, fmt.Errorf("%s has no canonical form: kind %s", d.FullName(), d.Kind())
	}
	if fd.packed {
		fd.wire = protowire.BytesType
	}
	return fd, nil
}

func enumValues(d protoreflect.EnumDescriptor) (values []int32, dense bool) {
	for i := range d.Values().Len() {
		values = append(values, int32(d.Values().Get(i).Number()))
	}
	slices.Sort(values)
	values = slices.Compact(values)
	return values, values[0] == 0 && int(values[len(values)-1]) == len(values)-1
}
