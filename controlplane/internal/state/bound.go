package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Bound narrows to rows of which every one of its terms holds; one without terms holds of all rows.
type Bound []In

// In says that a column has one of some values. Text columns only, and id.
type In struct {
	Column string
	Values []string
}

// Within narrows a table to the rows of which any of the bounds holds: without bounds, none do. Looking up, listing, counting
// and going through its rows keep to that; what writes does not, nor does Since.
func (t Table[M]) Within(bounds []Bound) Table[M] {
	narrowed := *t.spec
	narrowed.bounds = &bounds
	return Table[M]{t.tx, &narrowed}
}

// Without hides columns from filters and orders, as if they did not exist.
func (t Table[M]) Without(columns ...string) Table[M] {
	if len(columns) == 0 {
		return t
	}
	narrowed := *t.spec
	narrowed.without = columns
	return Table[M]{t.tx, &narrowed}
}

// withinSQL is the bounds as one condition. Its text depends on the columns only, so that statements are few.
func (t Table[M]) withinSQL() (condition string, args []any, err error) {
	var any []string
	for _, b := range *t.spec.bounds {
		all := []string{"1"}
		for _, in := range b {
			holds, arg, err := t.inSQL(in)
			if err != nil {
				return "", nil, err
			}
			all, args = append(all, holds), append(args, arg)
		}
		any = append(any, strings.Join(all, " AND "))
	}
	if len(any) == 0 {
		return "0", nil, nil
	}
	return "(" + strings.Join(any, " OR ") + ")", args, nil
}

// inSQL is a term of a bound as a condition with one argument.
func (t Table[M]) inSQL(in In) (condition string, arg any, err error) {
	if c, ok := t.spec.column(in.Column); in.Column != "id" && (!ok || c.kind != textKind) {
		return "", nil, fmt.Errorf("bound by %s, which is no text column of %s", in.Column, t.spec.plural)
	}
	if len(in.Values) == 1 { // an index can be used
		return in.Column + "=?", in.Values[0], nil
	}
	list, err := json.Marshal(append([]string{}, in.Values...))
	return in.Column + " IN (SELECT value FROM json_each(?))", string(list), err
}

// Holds reports whether any of the bounds holds of what has these values in its columns.
func Holds(bounds []Bound, column func(string) string) bool {
	return slices.ContainsFunc(bounds, func(b Bound) bool {
		for _, in := range b {
			if !slices.Contains(in.Values, column(in.Column)) {
				return false
			}
		}
		return true
	})
}

func appendBounds(b []byte, bounds []Bound) []byte {
	b = appendValue(b, numberValue(int64(len(bounds))))
	for _, bound := range bounds {
		b = appendValue(b, numberValue(int64(len(bound))))
		for _, in := range bound {
			b = appendValue(b, textValue(in.Column))
			b = appendValue(b, numberValue(int64(len(in.Values))))
			for _, v := range in.Values {
				b = appendValue(b, textValue(v))
			}
		}
	}
	return b
}
