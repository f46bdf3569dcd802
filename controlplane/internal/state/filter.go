package state

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/naru-project/naru/pkg/problem"
)

// maxTerms bounds a filter.
const maxTerms = 32

// term is one comparison of a filter.
type term[M any] struct {
	column column[M]
	op     string
	value  value
}

// operators, longest first, so that != is not read as = behind a stray !.
var operators = []string{"!=", "<=", ">=", "=", "<", ">", "~"}

// parseFilter reads terms `column op value` joined by AND. A value ends at a space, or is quoted as in Go. Only = and !=
// apply to enums and booleans, ~ (contains) only to text. Errors: problem INVALID for the field filter.
func (s *spec[M]) parseFilter(filter string) ([]term[M], error) {
	var terms []term[M]
	rest := strings.TrimSpace(filter)
	for rest != "" {
		if len(terms) == maxTerms {
			return nil, s.invalidFilter("it has more than " + strconv.Itoa(maxTerms) + " terms")
		}
		if len(terms) > 0 {
			after, ok := strings.CutPrefix(rest, "AND")
			if !ok || strings.TrimLeft(after, " ") == after {
				return nil, s.invalidFilter("terms are joined by AND, and " + strconv.Quote(rest) + " does not begin with it")
			}
			if rest = strings.TrimSpace(after); rest == "" {
				return nil, s.invalidFilter("it ends with AND")
			}
		}
		t, tail, err := s.parseTerm(rest)
		if err != nil {
			return nil, s.invalidFilter(err.Error())
		}
		terms, rest = append(terms, t), strings.TrimSpace(tail)
	}
	return terms, nil
}

func (s *spec[M]) parseTerm(text string) (t term[M], rest string, err error) {
	end := strings.IndexAny(text, "!<>=~ ")
	if end <= 0 {
		return t, "", sentence(strconv.Quote(text) + " is not of the form column=value")
	}
	name, rest := text[:end], strings.TrimLeft(text[end:], " ")
	c, ok := s.filterColumn(name)
	if !ok {
		return t, "", sentence(s.noColumn(name))
	}
	t.column = c
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			t.op = op
			break
		}
	}
	switch {
	case t.op == "":
		return t, "", sentence("behind " + name + " stands none of " + strings.Join(operators, " "))
	case t.op == "~" && c.kind != textKind:
		return t, "", sentence("~ looks into text, and " + name + " is none")
	case t.op != "=" && t.op != "!=" && c.kind == wordsKind:
		return t, "", sentence(name + " has several, and is compared with = or != only")
	case t.op != "=" && t.op != "!=" && (c.kind == enumKind || c.kind == boolKind):
		return t, "", sentence(name + " is compared with = or != only")
	}
	raw, rest, err := cutValue(strings.TrimLeft(rest[len(t.op):], " "))
	if err != nil {
		return t, "", sentence("the value of " + name + ": " + err.Error())
	}
	if t.value, err = c.parse(raw); err != nil {
		return t, "", sentence("the value of " + name + ": " + err.Error())
	}
	return t, rest, nil
}

// cutValue takes a value, quoted or up to the next space, off the front of s. An empty one has to be quoted.
func cutValue(s string) (raw, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", sentence("the quotation is not closed")
		}
		raw, err = strconv.Unquote(q)
		return raw, s[len(q):], err
	}
	raw, rest, _ = strings.Cut(s, " ")
	if raw == "" {
		return "", "", sentence(`it is missing; write "" for an empty one`)
	}
	return raw, rest, nil
}

// filterColumn returns the column of a name that a client may use.
func (s *spec[M]) filterColumn(name string) (column[M], bool) {
	if name == "id" {
		return s.idColumn(), true
	}
	c, ok := s.column(name)
	return c, ok && s.usable(c)
}

// usable reports whether a client may filter and order by a column.
func (s *spec[M]) usable(c column[M]) bool {
	return !c.hidden && !slices.Contains(s.without, cmp.Or(c.of, c.name))
}

// noColumn says why a client may not filter or order by a name.
func (s *spec[M]) noColumn(name string) string {
	if c, ok := s.column(name); ok && !c.hidden {
		return "by " + name + " nothing is looked for here: this edge does not show it of every zone"
	}
	return "there is no column " + strconv.Quote(name) + "; there are " + strings.Join(s.filterColumns(), ", ")
}

func (s *spec[M]) filterColumns() []string {
	names := []string{"id"}
	for _, c := range s.columns {
		if s.usable(c) {
			names = append(names, c.name)
		}
	}
	return names
}

func (s *spec[M]) idColumn() column[M] { return text("id", M.GetId) }

func (s *spec[M]) invalidFilter(detail string) error {
	return problem.New(problem.Invalid, "the filter cannot be read: "+detail,
		"Write terms like name=web-1 AND created_at>2026-01-31T00:00:00Z; the operators are = != < <= > >= and ~ for contains.").With("filter", detail)
}

// sql returns the term as a condition with one argument.
func (t term[M]) sql() string {
	switch {
	case t.op == "~", t.op == "=" && t.column.kind == wordsKind:
		return "instr(" + t.column.term() + ", ?)>0"
	case t.column.kind == wordsKind:
		return "instr(" + t.column.term() + ", ?)=0"
	}
	return t.column.term() + t.op + "?"
}

// holds reports whether the term is true of a message.
func (t term[M]) holds(m M) bool {
	v := t.column.get(m)
	if t.op == "~" {
		return strings.Contains(v.text, t.value.text)
	}
	c := v.compare(t.value)
	if t.column.kind == wordsKind && strings.Contains(v.text, t.value.text) {
		c = 0
	}
	switch t.op {
	case "=":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// Matcher returns a filter as a function over messages as they were read from this table: what a watch needs. Errors:
// problem INVALID.
func (t Table[M]) Matcher(filter string) (func(M) bool, error) {
	terms, err := t.spec.parseFilter(filter)
	if err != nil {
		return nil, err
	}
	return func(m M) bool {
		for _, t := range terms {
			if !t.holds(m) {
				return false
			}
		}
		return true
	}, nil
}
