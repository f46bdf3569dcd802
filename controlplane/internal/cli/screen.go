package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is where something is written: a terminal, or a file, a pipe, a test's buffer.
type screen struct {
	w      io.Writer
	width  int  // in columns; 0: no terminal
	colour bool // only where people see it and have not asked for none (NO_COLOR)
	failed error
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	if s.width = 80; true {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			s.width = width
		}
	}
	s.colour = os.Getenv("NO_COLOR") == ""
	return s
}

// Write keeps the first error, so that a full disk is not taken for success.
func (s *screen) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if s.failed == nil {
		s.failed = err
	}
	return n, err
}

// terminal reports whether people look on.
func (s *screen) terminal() bool { return s.width > 0 }

// colour is a terminal's code for one.
type colour string

const (
	plain  colour = ""
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	faint  colour = "2"
)

// paint colours text where the screen has colours.
func (s *screen) paint(c colour, text string) string {
	if !s.colour || c == plain {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// tints are the states that want to be seen at a glance; what is well has no colour.
var tints = map[string]colour{
	"error": red, "failed": red, "down": red, "missing": red, "unreachable": red, "disconnected": red, "quarantined": red,
	"fencing": red, "fenced": red, "lost": red, "critical": red, "retired": red,
	"stale": yellow, "degraded": yellow, "suspect": yellow, "checking": yellow, "warning": yellow, "unknown": yellow,
	"cordoned": yellow, "draining": yellow, "maintenance": yellow, "joining": yellow, "waiting": yellow,
}

// tint is the colour of a state, by its first word.
func tint(state string) colour {
	word, _, _ := strings.Cut(state, " ")
	return tints[strings.TrimSuffix(word, ":")]
}

// steers reports whether a character steers a terminal, or has text read in another order than it stands in.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// printable keeps what others wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return '·'
		}
		return r
	}, s)
}

// steersIn is steers within a document of JSON or YAML, which has lines.
func steersIn(r rune) bool { return r != '\n' && r != '\t' && steers(r) }

// printableLines is printable, of a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// escaped writes what would steer the terminal in a document of JSON or YAML as they do within quotes: there is none without.
func escaped(document []byte) []byte {
	if !bytes.ContainsFunc(document, steersIn) {
		return document
	}
	var out []byte
	for _, r := range string(document) {
		if steersIn(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}
