package state

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/naru-project/naru/pkg/problem"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// Query is what a list asks for.
type Query struct {
	// Filter is terms `column op value` joined by AND.
	Filter string
	// OrderBy is a column, with " desc" behind it to turn it round. Empty: by name, or by id where there is none; what
	// has happened, newest first. Rows that are equal in it are ordered by id.
	OrderBy string
	// PageSize is how many at most; 0 means 100, above 1000 means 1000.
	PageSize int
	// PageToken is what the page before gave. It belongs to the same filter, order and scope.
	PageToken string
	Scope     Scope
}

// List returns a page and the token of the next one, empty on the last. A page costs the same wherever it lies: it begins
// behind the last row of the page before, so rows that come and go meanwhile are neither repeated nor skipped.
// Errors: problem INVALID for the field that is wrong.
func (t Table[M]) List(q Query) (items []M, next string, err error) {
	terms, err := t.spec.parseFilter(q.Filter)
	if err != nil {
		return nil, "", err
	}
	order, err := t.spec.parseOrder(q.OrderBy)
	if err != nil {
		return nil, "", err
	}
	where, args, err := t.where(q.Scope)
	if err != nil {
		return nil, "", err
	}
	for _, term := range terms {
		where, args = append(where, term.sql()), append(args, term.value.any())
	}
	binding := token{noun: t.spec.noun, filter: q.Filter, order: order.String(), scope: q.Scope, bounds: t.spec.bounds}
	if q.PageToken != "" {
		last, id, err := binding.open(q.PageToken)
		if err != nil {
			return nil, "", err
		}
		where = append(where, order.behind())
		if order.column.name != "id" {
			args = append(args, last.any())
		}
		args = append(args, id)
	}
	size := pageSizeOf(q.PageSize)
	sql := t.spec.text.all + " WHERE 1" + and(where) + " ORDER BY " + order.sql() + atMost
	args = append(args, size+1)
	query := t.tx.query
	if len(terms) > 0 {
		query = t.tx.queryOnce
	}
	more := false
	err = query(sql, func(s *sqlite.Stmt) error {
		if len(items) == size {
			more = true
			return nil
		}
		m, err := t.decode(s)
		items = append(items, m)
		return err
	}, args...)
	if err != nil {
		return nil, "", err
	}
	if more {
		last := items[len(items)-1]
		next = binding.seal(order.column.get(last), last.GetId())
	}
	return items, next, nil
}

// Count returns how many nouns a filter leaves within scope.
func (t Table[M]) Count(scope Scope, filter string) (n uint64, err error) {
	terms, err := t.spec.parseFilter(filter)
	if err != nil {
		return 0, err
	}
	where, args, err := t.where(scope)
	if err != nil {
		return 0, err
	}
	for _, term := range terms {
		where, args = append(where, term.sql()), append(args, term.value.any())
	}
	err = t.tx.queryOnce(fmt.Sprintf("SELECT count(*) FROM %s WHERE 1%s", t.spec.plural, and(where)), func(s *sqlite.Stmt) error {
		n = uint64(s.ColumnInt64(0))
		return nil
	}, args...)
	return n, err
}

func pageSizeOf(n int) int {
	switch {
	case n <= 0:
		return defaultPageSize
	case n > maxPageSize:
		return maxPageSize
	}
	return n
}

// order is a column, then the id.
type order[M any] struct {
	column column[M]
	desc   bool
}

func (s *spec[M]) parseOrder(by string) (order[M], error) {
	switch {
	case by != "":
	case s.usual != "":
		by = s.usual
	case s.named && !slices.Contains(s.without, "name"):
		by = "name"
	default:
		by = "id"
	}
	name, direction, _ := strings.Cut(strings.TrimSpace(by), " ")
	direction = strings.TrimSpace(direction)
	c, ok := s.filterColumn(name)
	switch {
	case !ok:
		detail := "there is no column " + strconv.Quote(name) + "; there are " + strings.Join(s.filterColumns(), ", ")
		return order[M]{}, problem.New(problem.Invalid, "the order cannot be read: "+detail, "Name one of the columns.").With("order_by", detail)
	case direction != "" && direction != "desc":
		detail := "behind the column stands " + strconv.Quote(direction) + "; only desc may"
		return order[M]{}, problem.New(problem.Invalid, "the order cannot be read: "+detail, "Write a column, or a column and desc.").With("order_by", detail)
	}
	return order[M]{c, direction == "desc"}, nil
}

func (o order[M]) String() string { return o.column.name + " " + strconv.FormatBool(o.desc) }

func (o order[M]) sql() string {
	turn := ""
	if o.desc {
		turn = " DESC"
	}
	if o.column.name == "id" {
		return "id" + turn
	}
	return o.column.term() + turn + ", id" + turn
}

// behind is the condition of rows after the last one of a page.
func (o order[M]) behind() string {
	op := ">"
	if o.desc {
		op = "<"
	}
	if o.column.name == "id" {
		return "id" + op + "?"
	}
	return "(" + o.column.term() + ", id)" + op + "(?, ?)"
}
