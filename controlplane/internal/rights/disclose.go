package rights

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Shown is what crosses of what a zone has.
type Shown struct{ Names, Addresses, Figures bool }

// All reports whether everything crosses.
func (s Shown) All() bool { return s == Shown{true, true, true} }

func (s Shown) shows(d apiv1.Discloses) bool {
	switch d {
	case apiv1.Discloses_DISCLOSES_NAME:
		return s.Names
	case apiv1.Discloses_DISCLOSES_ADDRESS:
		return s.Addresses
	case apiv1.Discloses_DISCLOSES_FIGURE:
		return s.Figures
	case apiv1.Discloses_DISCLOSES_SENTENCE:
		return s.All()
	}
	return true
}

// Crosses says what of a zone may be shown at the edge of a zone: what the first lets out and the second lets in. A zone without
// a policy shows everything, but a classified one only to classified ones. A zone that is not known shows nothing.
func Crosses(of, at *apiv1.Zone) Shown {
	if of.GetId() == "" || at.GetId() == "" {
		return Shown{}
	}
	if of.GetId() == at.GetId() {
		return Shown{true, true, true}
	}
	open := of.GetGrade() != apiv1.Zone_CLASSIFIED || at.GetGrade() == apiv1.Zone_CLASSIFIED
	out := lets(of, apiv1.Disclosure_OUT, at.GetGrade(), Shown{open, open, open})
	in := lets(at, apiv1.Disclosure_IN, of.GetGrade(), Shown{true, true, true})
	return Shown{out.Names && in.Names, out.Addresses && in.Addresses, out.Figures && in.Figures}
}

// lets says what a zone's policy lets cross in a direction; usual is where it says nothing of the direction.
func lets(z *apiv1.Zone, direction apiv1.Disclosure_Direction, grade apiv1.Zone_Grade, usual Shown) Shown {
	var rest, exact *apiv1.Disclosure
	said := false
	for _, d := range z.GetPolicy().GetDisclosures() {
		if d.GetDirection() != direction {
			continue
		}
		said = true
		switch d.GetGrade() {
		case grade:
			exact = d
		case apiv1.Zone_GRADE_UNSPECIFIED:
			rest = d
		}
	}
	if !said {
		return usual
	}
	if exact == nil {
		exact = rest
	}
	return Shown{exact.GetNames(), exact.GetAddresses(), exact.GetFigures()}
}

// Everywhere stands for all zones: what is summed up over them tells of each.
const Everywhere = "*"

// Redact takes out of a message each field that tells of a zone what may not be shown: shown is asked with the zone's name.
// A message tells of the zone that it names, or that the message around it does, and a quota or an entry of the record that
// names none of Everywhere; what tells of none stays. A problem that stands in a message of no zone may tell of any:
// unplaced is called with it.
func Redact(m proto.Message, shown func(zone string) Shown, unplaced func(*apiv1.Problem)) {
	redact(m.ProtoReflect(), "", shown, unplaced)
}

// RedactProblem takes out of a problem what may tell of zones of which something may not be shown.
func RedactProblem(p *apiv1.Problem) {
	redact(p.ProtoReflect(), "?", func(string) Shown { return Shown{} }, nil)
}

func redact(m protoreflect.Message, zone string, shown func(string) Shown, unplaced func(*apiv1.Problem)) {
	if p, ok := m.Interface().(*apiv1.Problem); ok && zone == "" {
		unplaced(p)
		return
	}
	d := disclosing(m.Descriptor())
	switch {
	case d.zone != nil && m.Get(d.zone).String() != "":
		zone = m.Get(d.zone).String()
	case d.itself && m.Get(m.Descriptor().Fields().ByName("name")).String() != "":
		zone = m.Get(m.Descriptor().Fields().ByName("name")).String()
	case d.any:
		zone = Everywhere
	}
	if zone != "" && len(d.fields) > 0 {
		may := shown(zone)
		for _, f := range d.fields {
			if !may.shows(f.class) {
				m.Clear(f.field)
			}
		}
	}
	for _, f := range d.within {
		switch {
		case f.IsList():
			for i := range m.Get(f).List().Len() {
				redact(m.Get(f).List().Get(i).Message(), zone, shown, unplaced)
			}
		case m.Has(f):
			redact(m.Get(f).Message(), zone, shown, unplaced)
		}
	}
}

// Zones calls yield with each zone that a message tells of, by the name or id that it gives.
func Zones(m proto.Message, yield func(string)) { tellOf(m.ProtoReflect(), yield) }

func tellOf(m protoreflect.Message, yield func(string)) {
	d := disclosing(m.Descriptor())
	if d.zone != nil && m.Get(d.zone).String() != "" {
		yield(m.Get(d.zone).String())
	}
	if d.itself {
		for _, f := range []protoreflect.Name{"name", "id"} {
			if ref := m.Get(m.Descriptor().Fields().ByName(f)).String(); ref != "" {
				yield(ref)
			}
		}
	}
	for _, f := range d.within {
		switch {
		case f.IsList():
			for i := range m.Get(f).List().Len() {
				tellOf(m.Get(f).List().Get(i).Message(), yield)
			}
		case m.Has(f):
			tellOf(m.Get(f).Message(), yield)
		}
	}
}

// disclosure is what there is to take out of messages of one type.
type disclosure struct {
	zone   protoreflect.FieldDescriptor // names the zone
	itself bool                         // the message is the zone
	any    bool                         // where it names no zone, it may tell of all
	fields []disclosed
	within []protoreflect.FieldDescriptor // messages
}

type disclosed struct {
	field protoreflect.FieldDescriptor
	class apiv1.Discloses
}

var disclosures sync.Map // by protoreflect.FullName; what the descriptors say, read once

func disclosing(d protoreflect.MessageDescriptor) *disclosure {
	if known, ok := disclosures.Load(d.FullName()); ok {
		return known.(*disclosure)
	}
	out := &disclosure{
		itself: d.FullName() == (&apiv1.Zone{}).ProtoReflect().Descriptor().FullName(),
		any: d.FullName() == (&apiv1.Quota{}).ProtoReflect().Descriptor().FullName() ||
			d.FullName() == (&apiv1.AuditEntry{}).ProtoReflect().Descriptor().FullName(),
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.Name() == "zone" && f.Kind() == protoreflect.StringKind && !f.IsList() {
			out.zone = f
		}
		if class, _ := proto.GetExtension(f.Options(), apiv1.E_Discloses).(apiv1.Discloses); class != apiv1.Discloses_DISCLOSES_UNSPECIFIED {
			out.fields = append(out.fields, disclosed{f, class})
			if class == apiv1.Discloses_DISCLOSES_FIGURE {
				continue
			}
		}
		if f.Message() != nil && !f.IsMap() {
			out.within = append(out.within, f)
		}
	}
	known, _ := disclosures.LoadOrStore(d.FullName(), out)
	return known.(*disclosure)
}

// Withheld returns the fields of a noun that tell of a zone what is not shown, and those within its fields as parts.name: by them nothing
// may be looked for either.
func Withheld(d protoreflect.MessageDescriptor, shown Shown) []string {
	var out []string
	for _, f := range disclosing(d).fields {
		if !shown.shows(f.class) {
			out = append(out, string(f.field.Name()))
		}
	}
	for _, f := range disclosing(d).within {
		for i, name := range Withheld(f.Message(), shown) {
			if i == 0 {
				out = append(out, string(f.Name()))
			}
			out = append(out, string(f.Name())+"."+name)
		}
	}
	return out
}
