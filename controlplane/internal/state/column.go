package state

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// kind is what a column holds, as filters know it.
type kind int

const (
	textKind kind = iota
	numberKind
	boolKind
	timeKind
	enumKind
	wordsKind // several texts: = means that one of them is it
)

// value is one value of a column: text or a number, never both.
type value struct {
	text   string
	number int64
	isText bool
}

func textValue(s string) value { return value{text: s, isText: true} }

func numberValue(n int64) value { return value{number: n} }

func (v value) any() any {
	if v.isText {
		return v.text
	}
	return v.number
}

func (v value) compare(o value) int {
	return cmp.Or(cmp.Compare(v.number, o.number), strings.Compare(v.text, o.text))
}

// column is what a query needs of a message, beside the message.
type column[M any] struct {
	name string
	kind kind
	get  func(M) value
	// enum is the descriptor of an enum column.
	enum protoreflect.EnumDescriptor
	// fixed columns hardly ever change after the insert: neither they nor their indexes are written where they do not.
	fixed bool
	// hidden columns are not for filters.
	hidden bool
	// of, where set, is the field of the message that the column tells of, where that has another name: who may not see it does not look for it.
	of string
	// sql, where set, is what the column is reckoned from when read; it is not stored unless it is kept.
	sql  string
	kept bool
}

func text[M any](name string, get func(M) string) column[M] {
	return column[M]{name: name, kind: textKind, get: func(m M) value { return textValue(get(m)) }}
}

// words holds several texts, each between two line ends.
func words[M any](name string, get func(M) []string) column[M] {
	return column[M]{name: name, kind: wordsKind, get: func(m M) value {
		all := get(m)
		if len(all) == 0 {
			return textValue("")
		}
		return textValue(word(strings.Join(all, wordEnd)))
	}}
}

const wordEnd = "\n"

func word(s string) string { return wordEnd + s + wordEnd }

func number[M any](name string, get func(M) uint32) column[M] {
	return column[M]{name: name, kind: numberKind, get: func(m M) value { return numberValue(int64(get(m))) }}
}

func flag[M any](name string, get func(M) bool) column[M] {
	return column[M]{name: name, kind: boolKind, get: func(m M) value {
		if get(m) {
			return numberValue(1)
		}
		return numberValue(0)
	}}
}

func moment[M any](name string, get func(M) *timestamppb.Timestamp) column[M] {
	return column[M]{name: name, kind: timeKind, get: func(m M) value { return numberValue(Micros(get(m))) }}
}

func enum[M any, E protoreflect.Enum](name string, get func(M) E) column[M] {
	var zero E
	return column[M]{name: name, kind: enumKind, enum: zero.Descriptor(), get: func(m M) value { return numberValue(int64(get(m).Number())) }}
}

// hidden is a number that only this package reads.
func hidden[M any](name string, get func(M) uint64) column[M] {
	return column[M]{name: name, kind: numberKind, hidden: true, get: func(m M) value { return numberValue(int64(get(m))) }}
}

// reckoned is an enum that no row stores: SQL reckons it when read, and get takes it from the message that was read.
func reckoned[M any, E protoreflect.Enum](name, sql string, get func(M) E) column[M] {
	c := enum(name, get)
	c.sql = sql
	return c
}

// readAs makes a stored column one that SQL reckons when read, from what is stored among others.
func (c column[M]) readAs(sql string) column[M] {
	c.sql, c.kept = sql, true
	return c
}

// stored tells whether rows hold the column.
func (c column[M]) stored() bool { return c.sql == "" || c.kept }

// term is what stands for the column in a statement.
func (c column[M]) term() string {
	if c.sql != "" {
		return c.sql
	}
	return c.name
}

func (c column[M]) asFixed() column[M]             { c.fixed = true; return c }
func (c column[M]) asHidden() column[M]            { c.hidden = true; return c }
func (c column[M]) tellsOf(field string) column[M] { c.of = field; return c }

// Micros returns t in microseconds since 1970; 0 for none.
func Micros(t *timestamppb.Timestamp) int64 {
	return t.GetSeconds()*1e6 + int64(t.GetNanos())/1e3
}

// sqlType is the column's type in a STRICT table.
func (c column[M]) sqlType() string {
	if c.kind == textKind || c.kind == wordsKind {
		return "TEXT"
	}
	return "INTEGER"
}

// parse reads a value as a filter writes it. The error is a sentence about the value.
func (c column[M]) parse(s string) (value, error) {
	switch c.kind {
	case numberKind:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return value{}, sentence(strconv.Quote(s) + " is not a whole number")
		}
		return numberValue(n), nil
	case boolKind:
		switch s {
		case "true":
			return numberValue(1), nil
		case "false":
			return numberValue(0), nil
		}
		return value{}, sentence(strconv.Quote(s) + " is neither true nor false")
	case timeKind:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return value{}, sentence(strconv.Quote(s) + " is not a time like 2026-01-31T12:00:00Z")
		}
		return numberValue(t.UnixMicro()), nil
	case enumKind:
		if v := c.enum.Values().ByName(protoreflect.Name(strings.ToUpper(s))); v != nil {
			return numberValue(int64(v.Number())), nil
		}
		return value{}, sentence(strconv.Quote(s) + " is none of " + strings.Join(enumNames(c.enum), ", "))
	case wordsKind:
		return textValue(word(s)), nil
	}
	return textValue(s), nil
}

type sentence string

func (s sentence) Error() string { return string(s) }

func enumNames(d protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range d.Values().Len() {
		if d.Values().Get(i).Number() != 0 {
			names = append(names, string(d.Values().Get(i).Name()))
		}
	}
	return slices.Clip(names)
}
