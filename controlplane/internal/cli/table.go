package cli

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

const (
	gap     = "  "
	minimum = 8 // columns that a text is left at least
)

// cell is one value of a row.
type cell struct {
	text   string
	colour colour
}

// table lays out rows under a head. Rows are kept until flush; widths never shrink, so that a watch's rows stay aligned.
// On a terminal that is too narrow, columns that may be cut are.
type table struct {
	to     *screen
	indent string // before each line
	heads  []string
	cut    []bool
	widths []int
	rows   [][]cell
	headed bool
}

func (t *table) add(row ...cell) {
	for i := range row {
		row[i].text = printable(row[i].text)
		if row[i].text == "" {
			row[i].text = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// flush writes the rows that were added, and before the first ones the head.
func (t *table) flush() {
	if t.widths == nil {
		t.widths = make([]int, len(t.heads))
		for i, h := range t.heads {
			t.widths[i] = runewidth.StringWidth(h)
		}
	}
	for _, row := range t.rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], runewidth.StringWidth(c.text))
		}
	}
	t.squeeze()
	var out strings.Builder
	if !t.headed {
		head := make([]cell, len(t.heads))
		for i, h := range t.heads {
			head[i].text = h
		}
		t.line(&out, head)
		t.headed = true
	}
	for _, row := range t.rows {
		t.line(&out, row)
	}
	t.rows = nil
	_, _ = t.to.Write([]byte(out.String())) // the screen keeps the error
}

// squeeze takes from the widest columns that may be cut until a row fits the terminal.
func (t *table) squeeze() {
	if !t.to.terminal() {
		return
	}
	for {
		total, widest := len(t.indent)+len(gap)*(len(t.widths)-1), -1
		for i, w := range t.widths {
			total += w
			if t.cut[i] && w > minimum && (widest < 0 || w > t.widths[widest]) {
				widest = i
			}
		}
		if total <= t.to.width || widest < 0 {
			return
		}
		t.widths[widest]--
	}
}

func (t *table) line(out *strings.Builder, row []cell) {
	out.WriteString(t.indent)
	for i, c := range row {
		text := c.text
		if t.cut[i] {
			text = runewidth.Truncate(text, t.widths[i], "…")
		}
		out.WriteString(t.to.paint(c.colour, text))
		if i < len(row)-1 {
			out.WriteString(strings.Repeat(" ", max(t.widths[i]-runewidth.StringWidth(text), 0)) + gap)
		}
	}
	out.WriteByte('\n')
}
