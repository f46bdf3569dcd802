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

// paths are the table's bounds as paths, one for each value of a column of spec.walks: a row may lie on several. Where there are
// no bounds, more than maxPaths, or one that no index has in order, it is one path through all rows.
func (t Table[M]) paths() (all []path, err error) {
	if t.spec.bounds == nil {
		return []path{{where: "1"}}, nil
	}
	for _, b := range *t.spec.bounds {
		by := -1
		for _, column := range t.spec.walks {
			if by = slices.IndexFunc(b, func(in In) bool { return in.Column == column }); by >= 0 {
				break
			}
		}
		if by < 0 || len(all)+len(b[by].Values) > maxPaths {
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
		for _, v := range b[by].Values {
			where := fmt.Sprintf("%s=? AND %s<>''", b[by].Column, b[by].Column)
			all = append(all, path{where + further.where, append([]any{v}, further.args...)})
		}
	}
	if len(all) == 0 {
		all = []path{{where: "0"}}
	}
	return all, nil
}

// walk is the statement of a page in the usual order that is put together of paths: each is gone along in an index as far as the page
// needs it, by what stands in the index where that is enough, and then the page's rows are read.
func (t Table[M]) walk(paths []path, where []string, args []any, order order[M], once bool) statement {
	key := strings.Join(order.key(), ", ")
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
