package fsm_test

import (
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// columns is every row of every table as SQLite has it: the columns too, which a snapshot does not hold.
func (p *plane) columns() string {
	p.Helper()
	c, err := sqlite.OpenConn(p.path, sqlite.OpenReadOnly)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	rows := func(sql string, row func(*sqlite.Stmt)) {
		if err := sqlitex.ExecuteTransient(c, sql, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error { row(s); return nil }}); err != nil {
			p.Fatal(sql, err)
		}
	}
	var tables []string
	rows("SELECT name FROM sqlite_schema WHERE type='table' AND name NOT IN ('local', 'meta') ORDER BY name", func(s *sqlite.Stmt) {
		tables = append(tables, s.ColumnText(0))
	})
	var all strings.Builder
	for _, table := range tables {
		var names, quoted []string
		rows("SELECT name FROM pragma_table_info('"+table+"')", func(s *sqlite.Stmt) {
			names, quoted = append(names, s.ColumnText(0)), append(quoted, "quote(\""+s.ColumnText(0)+"\")")
		})
		rows("SELECT "+strings.Join(quoted, ", ")+" FROM "+table, func(s *sqlite.Stmt) {
			for i, name := range names {
				fmt.Fprintf(&all, "%s.%s=%s ", table, name, s.ColumnText(i))
			}
			all.WriteByte('\n')
		})
	}
	return all.String()
}

// hasColumns fails where it has other rows.
func (p *plane) hasColumns(want, what string) {
	p.Helper()
	is, are := strings.Split(p.columns(), "\n"), strings.Split(want, "\n")
	for i := range min(len(is), len(are)) {
		if is[i] != are[i] {
			p.Errorf("%s is\n%s\nand not\n%s", what, is[i], are[i])
			return
		}
	}
	if len(is) != len(are) {
		p.Errorf("%s: there are %d rows, not %d", what, len(is), len(are))
	}
}
