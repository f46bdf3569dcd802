package wire

import (
	"errors"
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Seat is where a Checker stands.
type Seat int

const (
	// AtBroker: between the ends. A frame that only a broker writes is refused.
	AtBroker Seat = iota
	// AtEnd: a broker's frames are accepted. In the body of a call only the form is checked: whoever serves the call
	// checks its rules anyway, as with calls that come by other ways.
	AtEnd
)

// Checker judges frames. It is immutable and safe for concurrent use; a process needs one for each seat.
type Checker struct {
	seat      Seat
	table     map[linkv1.Type]*entry
	methods   map[string]*Method
	validator protovalidate.Validator
}

// NewChecker compiles the closed table and the methods of the public API.
func NewChecker(seat Seat) (*Checker, error) {
	table, err := compileTable()
	if err != nil {
		return nil, err
	}
	methods, err := methods()
	if err != nil {
		return nil, err
	}
	var elaborate []proto.Message
	keep := func(b body) {
		if b.form.elaborate {
			elaborate = append(elaborate, b.kind.Zero().Interface())
		}
	}
	for _, e := range table {
		keep(e.body)
	}
	for _, m := range methods {
		keep(m.input)
		keep(m.output)
	}
	// Rules that do not compile must be seen when a process starts, not when a frame comes.
	validator, err := protovalidate.New(protovalidate.WithMessages(elaborate...), protovalidate.WithDisableLazy(), protovalidate.WithFailFast())
	if err != nil {
		return nil, fmt.Errorf("compile the rules: %w", err)
	}
	return &Checker{seat: seat, table: table, methods: methods, validator: validator}, nil
}

// Checked is what a frame turned out to hold.
type Checked struct {
	Class Class
	// Message is the decoded payload: a *linkv1.Hello for HELLO, and so on. At a broker, which forwards the bytes, only
	// the opening is decoded.
	Message proto.Message
	// Method of a call's request or response; nil for every other type.
	Method *Method
}

// Check says whether a frame may travel in direction d, and what it holds. It does not look at counter and tag, which
// only the ends can judge. The frame is not changed, and what is returned shares no memory with it.
func (c *Checker) Check(f *linkv1.Frame, d linkv1.Direction) (Checked, *Refusal) {
	e, refusal := c.envelope(f, d)
	if refusal != nil {
		return Checked{}, refusal
	}
	if refusal := c.content(e.body, f.Payload, withRules); refusal != nil {
		return Checked{}, refusal
	}
	checked := Checked{Class: e.class}
	if e.class == ClassCall {
		if checked.Method, refusal = c.call(e, f); refusal != nil {
			return Checked{}, refusal
		}
	}
	if c.seat == AtEnd || e.class == ClassOpening {
		checked.Message = e.kind.New().Interface()
		if err := proto.Unmarshal(f.Payload, checked.Message); err != nil {
			return Checked{}, hostile(ReasonForm, fmt.Sprintf("%s cannot be decoded", f.Type))
		}
	}
	return checked, nil
}

// envelope checks the frame around the payload.
func (c *Checker) envelope(f *linkv1.Frame, d linkv1.Direction) (*entry, *Refusal) {
	e, known := c.table[f.Type]
	switch {
	case len(f.ProtoReflect().GetUnknown()) > 0:
		// The tag covers the fields we know; whatever else a frame carries is nobody's word.
		return nil, hostile(ReasonEnvelope, "the frame has unknown fields")
	case len(f.Session) != sessionSize:
		return nil, hostile(ReasonEnvelope, "the session is not 16 bytes")
	case !known:
		return nil, hostile(ReasonType, fmt.Sprintf("type %d is not known", int32(f.Type)))
	case e.broker && c.seat == AtBroker:
		return nil, hostile(ReasonType, fmt.Sprintf("only a broker writes %s", f.Type))
	case f.Direction != d:
		return nil, hostile(ReasonDirection, fmt.Sprintf("a frame that says %s came %s", f.Direction, d))
	case !e.travels(d):
		return nil, hostile(ReasonDirection, fmt.Sprintf("%s does not travel %s", f.Type, d))
	case e.untagged && len(f.Tag) != 0 || !e.untagged && len(f.Tag) != tagSize:
		return nil, hostile(ReasonEnvelope, fmt.Sprintf("a tag of %d bytes on %s", len(f.Tag), f.Type))
	case (f.Counter == 0) != (f.Type == linkv1.Type_REFUSED):
		return nil, hostile(ReasonEnvelope, fmt.Sprintf("counter %d on %s", f.Counter, f.Type))
	case len(f.Payload) > e.max:
		return nil, refuse(ReasonOversize, fmt.Sprintf("%s of %d bytes; at most %d", f.Type, len(f.Payload), e.max))
	}
	return e, nil
}

// call checks the body of a call against its method. CallCancel and CallCredit have none.
func (c *Checker) call(e *entry, f *linkv1.Frame) (*Method, *Refusal) {
	if f.Type != linkv1.Type_CALL_REQUEST && f.Type != linkv1.Type_CALL_RESPONSE {
		return nil, nil
	}
	m, ok := c.methods[string(bytesField(f.Payload, e.methodField))]
	if !ok {
		return nil, refuse(ReasonMethod, "no such method, or none that a zone may call")
	}
	asked := m.output
	if f.Type == linkv1.Type_CALL_REQUEST {
		asked = m.input
	}
	how := public
	b := bytesField(f.Payload, e.bodyField)
	if c.seat == AtBroker && !(f.Type == linkv1.Type_CALL_RESPONSE && len(b) == 0) {
		how |= withRules
	}
	return m, c.content(asked, b, how)
}

// content checks bytes as a message of a type.
func (c *Checker) content(of body, b []byte, how mode) *Refusal {
	if err := of.form.check(b, MaxDepth, how); err != nil {
		return ofForm(err)
	}
	if how&withRules == 0 || !of.form.elaborate {
		return nil
	}
	m := of.kind.New().Interface()
	if err := proto.Unmarshal(b, m); err != nil {
		return hostile(ReasonForm, fmt.Sprintf("%s cannot be decoded", of.form.name))
	}
	err := c.validator.Validate(m)
	var broken *protovalidate.ValidationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken) && len(broken.Violations) > 0:
		return refuse(ReasonRules, fmt.Sprintf("%s, field %s: a rule is broken", of.form.name,
			protovalidate.FieldPathString(broken.Violations[0].Proto.GetField())))
	}
	return refuse(ReasonRules, fmt.Sprintf("the rules of %s cannot be checked", of.form.name))
}

// bytesField returns the contents of a string or bytes field of a message whose form has been checked; nil when it is
// absent.
func bytesField(b []byte, field protowire.Number) []byte {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		b = b[n:]
		if number > field {
			return nil
		}
		if number == field {
			value, _ := protowire.ConsumeBytes(b)
			return value
		}
		b = b[protowire.ConsumeFieldValue(number, kind, b):]
	}
	return nil
}

func ofForm(err *FormError) *Refusal {
	switch err.Fault {
	case FaultUnknown:
		return refuse(ReasonUnknown, err.Error())
	case FaultRules:
		return refuse(ReasonRules, err.Error())
	case FaultInternal:
		return refuse(ReasonInternal, err.Error())
	}
	return hostile(ReasonForm, err.Error())
}

// Method returns a method that a zone may call.
func (c *Checker) Method(name string) (*Method, bool) {
	m, ok := c.methods[name]
	return m, ok
}

// MaxPayload returns how many bytes a payload of the type may have; 0 for a type that is not known.
func (c *Checker) MaxPayload(t linkv1.Type) int {
	if e, ok := c.table[t]; ok {
		return e.max
	}
	return 0
}

// ClassOf returns the class of a type, and ClassControl for one that is not known.
func (c *Checker) ClassOf(t linkv1.Type) Class {
	if e, ok := c.table[t]; ok {
		return e.class
	}
	return ClassControl
}
