package wire

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// MaxDepth is how many messages may be nested in one another, the outermost counted.
const MaxDepth = 32

// Fault is what kind of thing is wrong with an encoding.
type Fault uint8

const (
	// FaultForm: not canonical, or no protobuf at all. An honest encoder never writes it.
	FaultForm Fault = iota + 1
	// FaultUnknown: a field or enum value that this side's schema does not have.
	FaultUnknown
	// FaultRules: a rule written in proto/ is broken.
	FaultRules
	// FaultInternal: a field annotated ACCESS_INTERNAL where such fields may not stand.
	FaultInternal
)

// FormError says where an encoding first leaves the canonical form.
type FormError struct {
	Fault   Fault
	Message protoreflect.FullName
	// Field is 0 where no field could be told.
	Field protoreflect.FieldNumber
	What  string
}

func (e *FormError) Error() string {
	if e.Field == 0 {
		return fmt.Sprintf("%s: %s", e.Message, e.What)
	}
	return fmt.Sprintf("%s, field %d: %s", e.Message, e.Field, e.What)
}

// Form is the canonical form of one message type, compiled from its descriptor. It is immutable and safe for
// concurrent use.
type Form struct {
	name protoreflect.FullName
	// Ascending by number, so that a check walks it once, beside the bytes.
	fields []field
	// oneofs has a bit for each oneof of which one member must be set.
	oneofs uint64
	// elaborate: the type, or one that it holds, has rules that only protovalidate can judge.
	elaborate bool
}

// mode is what a check asks beside the form.
type mode uint8

const (
	// withRules: the compiled rules.
	withRules mode = 1 << iota
	// public: no field annotated ACCESS_INTERNAL, at any depth.
	public
)

// shape is how a field's value is encoded.
type shape uint8

const (
	shapeBool shape = iota + 1
	shapeInt32
	shapeUint32
	shapeVarint64
	shapeEnum
	shapeFixed32
	shapeFixed64
	shapeString
	shapeBytes
	shapeMessage
)

type field struct {
	number   protowire.Number
	wire     protowire.Type
	shape    shape
	repeated bool
	packed   bool
	// presence: absent and zero differ, so zero may stand on the wire.
	presence bool
	internal bool
	// oneof is 1 + the index of the field's oneof, 0 without.
	oneof uint8
	// needed: a message without the field breaks a rule.
	needed             bool
	minItems, maxItems uint64
	// rules of the value, or of each element; nil without.
	rules *rules
	// form of a message field.
	form *Form
	// values of an enum field, ascending; dense when they are exactly 0 … len-1.
	values []int32
	dense  bool
}

// Check reports nil when b is the canonical encoding of a message of the form's type, and a *FormError when not. It
// does not allocate unless it fails.
func (f *Form) Check(b []byte) error {
	if err := f.check(b, MaxDepth, 0); err != nil {
		return err
	}
	return nil
}

func (f *Form) check(b []byte, depth int, m mode) *FormError {
	if depth == 0 {
		return f.fault(0, "nested too deep")
	}
	var (
		at     = -1   // the field at which the walk stands
		count  uint64 // its elements so far
		oneofs uint64 // bits of the oneofs seen
	)
	for len(b) > 0 {
		tag, n := minimalVarint(b)
		if n == 0 {
			return f.fault(0, "a tag that is no minimal varint")
		}
		if tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
			return f.fault(0, "a field number out of range")
		}
		b = b[n:]
		number, kind := protowire.Number(tag>>3), protowire.Type(tag&7)
		if at < 0 || f.fields[at].number != number {
			next, err := f.find(at, number, kind, count, m)
			if err != nil {
				return err
			}
			at, count = next, 0
			if one := f.fields[at].oneof; one != 0 {
				if oneofs&(1<<one) != 0 {
					return f.fault(number, "a second member of a oneof")
				}
				oneofs |= 1 << one
			}
		} else if fd := &f.fields[at]; !fd.repeated || fd.packed {
			return f.fault(number, "a singular field more than once")
		}
		fd := &f.fields[at]
		if kind != fd.wire {
			return f.fault(number, "the wrong wire type")
		}
		if fd.internal && m&public != 0 {
			return &FormError{Fault: FaultInternal, Message: f.name, Field: number, What: "an internal field"}
		}
		if !fd.packed {
			count++
		}
		if kind != protowire.BytesType {
			n, err := f.scalar(fd, b, fd.presence || fd.repeated, m)
			if err != nil {
				return err
			}
			b = b[n:]
		} else {
			size, n := minimalVarint(b)
			if n == 0 {
				return f.fault(number, "a length that is no minimal varint")
			}
			b = b[n:]
			if size > uint64(len(b)) {
				return f.fault(number, "a length beyond the end")
			}
			value := b[:size]
			b = b[size:]
			if fd.packed {
				n, err := f.list(fd, value, m)
				if err != nil {
					return err
				}
				count = n
			} else if err := f.value(fd, value, depth, m); err != nil {
				return err
			}
		}
		if fd.maxItems > 0 && count > fd.maxItems && m&withRules != 0 {
			return f.broken(fd)
		}
	}
	if m&withRules == 0 {
		return nil
	}
	if err := f.passed(at, len(f.fields), count); err != nil {
		return err
	}
	if f.oneofs&^oneofs != 0 {
		return &FormError{Fault: FaultRules, Message: f.name, What: "a oneof without a member"}
	}
	return nil
}

// find walks from the field at which the check stands to the one with the number.
func (f *Form) find(at int, number protowire.Number, kind protowire.Type, count uint64, m mode) (int, *FormError) {
	if at >= 0 && number < f.fields[at].number {
		return 0, f.fault(number, "fields out of order")
	}
	next := at + 1
	for next < len(f.fields) && f.fields[next].number < number {
		next++
	}
	if next == len(f.fields) || f.fields[next].number != number {
		switch kind {
		case protowire.VarintType, protowire.Fixed32Type, protowire.Fixed64Type, protowire.BytesType:
			return 0, &FormError{Fault: FaultUnknown, Message: f.name, Field: number, What: "an unknown field"}
		}
		return 0, f.fault(number, "a wire type that is not in use")
	}
	if m&withRules != 0 {
		if err := f.passed(at, next, count); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// passed checks the rules that are settled when the walk leaves the field at for the field next: how many elements the
// one has, and that none between them was needed.
func (f *Form) passed(at, next int, count uint64) *FormError {
	if at >= 0 && count < f.fields[at].minItems {
		return f.broken(&f.fields[at])
	}
	for i := at + 1; i < next; i++ {
		if f.fields[i].needed {
			return f.broken(&f.fields[i])
		}
	}
	return nil
}

// value checks one string, bytes or message.
func (f *Form) value(fd *field, b []byte, depth int, m mode) *FormError {
	if fd.shape == shapeMessage {
		return fd.form.check(b, depth-1, m)
	}
	if fd.shape == shapeString && !utf8.Valid(b) {
		return f.fault(fd.number, "a string that is not UTF-8")
	}
	if len(b) == 0 && !fd.repeated && !fd.presence {
		return f.fault(fd.number, "a zero value that should be absent")
	}
	if fd.rules != nil && m&withRules != 0 && !fd.rules.value(b, fd.shape == shapeString) {
		return f.broken(fd)
	}
	return nil
}

// list checks the elements of a packed field and counts them.
func (f *Form) list(fd *field, b []byte, m mode) (count uint64, err *FormError) {
	if len(b) == 0 {
		return 0, f.fault(fd.number, "a packed field that is empty")
	}
	for len(b) > 0 {
		n, err := f.scalar(fd, b, true, m)
		if err != nil {
			return 0, err
		}
		b = b[n:]
		count++
	}
	return count, nil
}

// scalar checks the value at the beginning of b and returns its length.
func (f *Form) scalar(fd *field, b []byte, zero bool, m mode) (int, *FormError) {
	var v uint64
	var n int
	switch fd.shape {
	case shapeFixed32:
		if len(b) < 4 {
			return 0, f.fault(fd.number, "a value beyond the end")
		}
		v, n = uint64(b[0])|uint64(b[1])|uint64(b[2])|uint64(b[3]), 4
	case shapeFixed64:
		if len(b) < 8 {
			return 0, f.fault(fd.number, "a value beyond the end")
		}
		v, n = uint64(b[0])|uint64(b[1])|uint64(b[2])|uint64(b[3])|uint64(b[4])|uint64(b[5])|uint64(b[6])|uint64(b[7]), 8
	default:
		if v, n = minimalVarint(b); n == 0 {
			return 0, f.fault(fd.number, "a value that is no minimal varint")
		}
	}
	if v == 0 && !zero {
		return 0, f.fault(fd.number, "a zero value that should be absent")
	}
	switch fd.shape {
	case shapeBool:
		if v > 1 {
			return 0, f.fault(fd.number, "a bool that is neither 0 nor 1")
		}
	case shapeUint32:
		if v > math.MaxUint32 {
			return 0, f.fault(fd.number, "a value that does not fit its type")
		}
	case shapeInt32:
		if int64(v) != int64(int32(v)) {
			return 0, f.fault(fd.number, "a value that does not fit its type")
		}
	case shapeEnum:
		if int64(v) != int64(int32(v)) {
			return 0, f.fault(fd.number, "a value that does not fit its type")
		}
		if !fd.knows(int32(v)) {
			return 0, &FormError{Fault: FaultUnknown, Message: f.name, Field: fd.number, What: "an unknown enum value"}
		}
	}
	if fd.rules != nil && m&withRules != 0 && !fd.rules.number(v) {
		return 0, f.broken(fd)
	}
	return n, nil
}

func (fd *field) knows(v int32) bool {
	if fd.dense {
		return v >= 0 && int(v) < len(fd.values)
	}
	for _, known := range fd.values {
		if known == v {
			return true
		}
	}
	return false
}

func (f *Form) fault(number protowire.Number, what string) *FormError {
	return &FormError{Fault: FaultForm, Message: f.name, Field: number, What: what}
}

func (f *Form) broken(fd *field) *FormError {
	return &FormError{Fault: FaultRules, Message: f.name, Field: fd.number, What: "a rule is broken"}
}

// minimalVarint reads a varint in its shortest encoding; n is 0 where there is none.
func minimalVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n = protowire.ConsumeVarint(b)
	if n <= 0 || b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}
