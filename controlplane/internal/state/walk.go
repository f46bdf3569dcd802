package state

import (
	"fmt"
	"slices"
	"strings"
)

// maxPaths is how many paths a page is put together of: SQLite joins up to 500.
const maxPaths = 400

// path is a condition that leaves rows which an index has in the usual order.
type path struct {
	where string
	args  []any
}

// paths are the table's bounds within a scope as paths, one for each value of a column of spec.walks: a row may lie on several. Where there
// are more than maxPaths, or one that no index has in order, it is one path through all rows. The scope itself is left to the statement.
func (t Table[M]) paths(scope Scope) (all []path, err error) {
	bounds := []Bound{{}}
	if t.spec.bounds != nil {
		bounds = *t.spec.bounds
	}
	for _, b := range bounds {
		column, by, values := t.spec.along(b, scope)
		if column == "" && t.spec.bounds == nil {
			return []path{{where: "1"}}, nil
		}
		if column == "" || len(all)+len(values) > maxPaths {
			within, args, err := t.withinSQL()
			return []path{{within, args}}, err
		}
		further := path{}
		for i, in := range b {
			if i == by {
				continue
			}
			holds, arg, err := t.inSQL(in)
			if err != nil {
				return nil, err
			}
			// The sign keeps SQLite from going by this one.
			further.where, further.args = further.where+" AND +"+holds, append(further.args, arg)
		}
		for _, v := range values {
			where := fmt.Sprintf("%s=? AND %s<>''", column, column)
			all = append(all, path{where + further.where, append([]any{v}, further.args...)})
		}
	}
	if len(all) == 0 {
		all = []path{{where: "0"}}
	}
	return all, nil
}

// along is the column by which the least is left of what is within a bound and a scope, which of the bound's terms is of it, -1 for none,
// and the values that it has there; empty where no index has it in order.
func (s *spec[M]) along(b Bound, scope Scope) (column string, by int, values []string) {
	for _, column := range s.walks {
		by := slices.IndexFunc(b, func(in In) bool { return in.Column == column })
		asked := scope[column]
		switch {
		case by >= 0 && asked == "":
			return column, by, b[by].Values
		case by >= 0 && !slices.Contains(b[by].Values, asked):
			return column, by, nil
		case asked != "":
			return column, by, []string{asked}
		}
	}
	return "", -1, nil
}

// walk is the statement of a page in the usual order that is put together of paths: each is gone along in an index as far as the page
// needs it, by what stands in the index where that is enough, and then the page's rows are read.
func (t Table[M]) walk(paths []path, where []string, args []any, order order[M], once bool) statement {
	columns := order.key()
	if t.spec.apart != "" {
		columns = append([]string{t.spec.apart}, columns...)
	}
	key := strings.Join(columns, ", ")
	s := statement{once: once || len(paths) > 1}
	var each []string
	for _, p := range paths {
		each = append(each, "SELECT "+key+" FROM "+t.spec.plural+" WHERE "+p.where+and(where))
		s.args = append(append(s.args, p.args...), args...)
	}
	s.sql = fmt.Sprintf("SELECT %s FROM (%s ORDER BY %s%s) CROSS JOIN %s USING (%s) ORDER BY %s",
		t.spec.text.fields, strings.Join(each, " UNION "), order.sql(), atMost, t.spec.plural, key, order.sql())
	return s
}

func (s *spec[M]) usualColumn() string {
	name, _, _ := strings.Cut(s.usual, " ")
	return name
}
