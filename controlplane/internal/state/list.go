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
	order, err := t.spec.parseOrder(q.OrderBy)
	if err != nil {
		return nil, "", err
	}
	binding := token{noun: t.spec.noun, filter: q.Filter, order: order.String(), scope: q.Scope, bounds: t.spec.bounds}
	page, err := t.page(q, order, binding)
	if err != nil {
		return nil, "", err
	}
	size := pageSizeOf(q.PageSize)
	query := t.tx.query
	if page.once {
		query = t.tx.queryOnce
	}
	more := false
	err = query(page.sql, func(s *sqlite.Stmt) error {
		if len(items) == size {
			more = true
			return nil
		}
		m, err := t.decode(s)
		items = append(items, m)
		return err
	}, append(page.args, size+1)...)
	if err != nil {
		return nil, "", err
	}
	if more {
		last := items[len(items)-1]
		next = binding.seal(order.column.get(last), last.GetId())
	}
	return items, next, nil
}

// statement is SQL with its arguments; once is one whose text hardly comes again.
type statement struct {
	sql  string
	args []any
	once bool
}

// page is the statement that reads a page. Its last argument is how many rows at most, which is not among its args.
func (t Table[M]) page(q Query, order order[M], binding token) (statement, error) {
	terms, err := t.spec.parseFilter(q.Filter)
	if err != nil {
		return statement{}, err
	}
	where, args, err := t.scoped(q.Scope)
	if err != nil {
		return statement{}, err
	}
	for _, term := range terms {
		where, args = append(where, term.sql()), append(args, term.value.any())
	}
	if q.PageToken != "" {
		last, id, err := binding.open(q.PageToken)
		if err != nil {
			return statement{}, err
		}
		where = append(where, order.behind())
		if order.column.name != "id" {
			args = append(args, last.any())
		}
		args = append(args, id)
	}
	if len(t.spec.walks) > 0 && order.column.name == t.spec.usualColumn() {
		paths, err := t.paths(q.Scope)
		if err != nil {
			return statement{}, err
		}
		return t.walk(paths, where, args, order, len(terms) > 0), nil
	}
	if t.spec.bounds != nil {
		within, more, err := t.withinSQL()
		if err != nil {
			return statement{}, err
		}
		where, args = append(where, within), append(args, more...)
	}
	return statement{t.spec.text.all + " WHERE 1" + and(where) + " ORDER BY " + order.sql() + atMost, args, len(terms) > 0}, nil
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
		detail := s.noColumn(name)
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
	return strings.Join(o.key(), turn+", ") + turn
}

// key is what it orders by.
func (o order[M]) key() []string {
	if o.column.term() == "id" {
		return []string{"id"}
	}
	return []string{o.column.term(), "id"}
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
