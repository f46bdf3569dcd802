package wire

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"unicode/utf8"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rules are what is asked of one field's value that a check reads off the bytes, beside its form. The kinds that proto/
// uses everywhere are compiled here, because evaluating them on decoded messages costs a broker ten times as much as
// all its other work; a test holds their verdict against protovalidate's. Every other rule makes its form elaborate,
// and is left to protovalidate.
type rules struct {
	// Length of a string in characters or of bytes, or the value of an unsigned number.
	min, max uint64
	pattern  *regexp.Regexp
	// notIn lists enum values.
	notIn []int32
	// zeroPasses: rules are not asked about the zero value.
	zeroPasses bool
}

// value reports whether a string's or bytes' contents keep the rules.
func (r *rules) value(b []byte, text bool) bool {
	if len(b) == 0 && r.zeroPasses {
		return true
	}
	n := uint64(len(b))
	if text && (n > r.max || n < r.min*utf8.UTFMax) {
		n = uint64(utf8.RuneCount(b))
	}
	return n >= r.min && n <= r.max && (r.pattern == nil || r.pattern.Match(b))
}

// number reports whether an unsigned number or an enum value keeps the rules.
func (r *rules) number(v uint64) bool {
	if v == 0 && r.zeroPasses {
		return true
	}
	return v >= r.min && v <= r.max && (r.notIn == nil || !slices.Contains(r.notIn, int32(v)))
}

// compileRules fills in what a field's options ask of it, and reports whether everything they ask is compiled.
func compileRules(fd *field, d protoreflect.FieldDescriptor) (complete bool, err error) {
	if !proto.HasExtension(d.Options(), validate.E_Field) {
		return true, nil
	}
	asked := proto.CloneOf(proto.GetExtension(d.Options(), validate.E_Field).(*validate.FieldRules))
	ifSet := asked.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE
	if asked.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED && !ifSet {
		return false, nil
	}
	if asked.GetRequired() {
		if ifSet || fd.oneof != 0 || fd.presence && fd.shape != shapeMessage {
			return false, nil
		}
		fd.needed = true
	}
	asked.Required, asked.Ignore = nil, nil

	of := asked
	if list := asked.GetRepeated(); list != nil {
		fd.minItems, fd.maxItems = list.GetMinItems(), list.GetMaxItems()
		fd.needed = fd.needed || fd.minItems > 0 && !ifSet
		of = list.GetItems()
		list.MinItems, list.MaxItems, list.Items = nil, nil, nil
		if proto.Size(list) > 0 || ifSet && of != nil {
			return false, nil
		}
		asked.Type = nil
		if proto.Size(asked) > 0 {
			return false, nil
		}
		if of == nil {
			return true, nil
		}
		of = proto.CloneOf(of)
		if of.GetRequired() || of.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED {
			return false, nil
		}
	}
	r := &rules{max: math.MaxUint64, zeroPasses: ifSet}
	if complete, err := r.compile(of, d); !complete || err != nil {
		return false, err
	}
	if proto.Size(of) > 0 {
		return false, nil
	}
	fd.rules = r
	if !fd.presence && !fd.repeated && !r.zero(fd.shape) {
		fd.needed = true
	}
	return true, nil
}

// compile takes what it understands out of the rules of a value.
func (r *rules) compile(of *validate.FieldRules, d protoreflect.FieldDescriptor) (complete bool, err error) {
	var rest proto.Message
	switch of.GetType().(type) {
	case nil:
		return true, nil
	case *validate.FieldRules_String_:
		s := of.GetString()
		r.bounds(s.Len, s.MinLen, s.MaxLen)
		if s.Pattern != nil {
			if r.pattern, err = regexp.Compile(s.GetPattern()); err != nil {
				return false, fmt.Errorf("pattern of %s: %w", d.FullName(), err)
			}
		}
		s.Len, s.MinLen, s.MaxLen, s.Pattern = nil, nil, nil, nil
		rest = s
	case *validate.FieldRules_Bytes:
		s := of.GetBytes()
		r.bounds(s.Len, s.MinLen, s.MaxLen)
		s.Len, s.MinLen, s.MaxLen = nil, nil, nil
		rest = s
	case *validate.FieldRules_Uint32:
		s := of.GetUint32()
		gte, isGte := s.GreaterThan.(*validate.UInt32Rules_Gte)
		lte, isLte := s.LessThan.(*validate.UInt32Rules_Lte)
		if isGte {
			r.min, s.GreaterThan = uint64(gte.Gte), nil
		}
		if isLte {
			r.max, s.LessThan = uint64(lte.Lte), nil
		}
		if r.min > r.max {
			return false, nil // protovalidate reads an empty range as its complement
		}
		rest = s
	case *validate.FieldRules_Enum:
		s := of.GetEnum()
		r.notIn = s.GetNotIn()
		s.NotIn, s.DefinedOnly = nil, nil // an undefined value is no canonical form
		rest = s
	default:
		return false, nil
	}
	if proto.Size(rest) > 0 {
		return false, nil
	}
	of.Type = nil
	return true, nil
}

func (r *rules) bounds(exact, min, max *uint64) {
	if exact != nil {
		r.min, r.max = *exact, *exact
	}
	if min != nil {
		r.min = *min
	}
	if max != nil {
		r.max = *max
	}
}

// zero reports whether the zero value keeps the rules.
func (r *rules) zero(s shape) bool {
	switch s {
	case shapeString, shapeBytes:
		return r.value(nil, s == shapeString)
	}
	return r.number(0)
}

// requiredOneofs returns a bit for each oneof of which one member must be set.
func requiredOneofs(md protoreflect.MessageDescriptor) (mask uint64, complete bool) {
	for i := range md.Oneofs().Len() {
		o := md.Oneofs().Get(i)
		if !proto.HasExtension(o.Options(), validate.E_Oneof) {
			continue
		}
		asked := proto.CloneOf(proto.GetExtension(o.Options(), validate.E_Oneof).(*validate.OneofRules))
		if asked.GetRequired() && i < 63 {
			mask |= 1 << (i + 1)
			asked.Required = nil
		}
		if proto.Size(asked) > 0 {
			return mask, false
		}
	}
	return mask, !proto.HasExtension(md.Options(), validate.E_Message)
}
