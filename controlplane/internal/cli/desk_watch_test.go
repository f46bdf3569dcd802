package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

// follow runs a command line beside the test and gives what it writes, line by line.
type follow struct {
	lines chan string
	ended chan result
	stop  context.CancelFunc
}

func (d *desk) follow(line string) *follow {
	ctx, cancel := context.WithCancel(d.Context())
	f := &follow{lines: make(chan string, 100), ended: make(chan result, 1), stop: cancel}
	d.Cleanup(cancel)
	r, w := io.Pipe()
	go func() {
		var text strings.Builder
		for b := make([]byte, 4096); ; {
			n, err := r.Read(b)
			text.Write(b[:n])
			for {
				whole := text.String()
				at := strings.IndexByte(whole, '\n')
				if at < 0 {
					break
				}
				f.lines <- whole[:at]
				text.Reset()
				text.WriteString(whole[at+1:])
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		var errOut bytes.Buffer
		code := Run(ctx, strings.Fields(line), strings.NewReader(""), w, io.MultiWriter(w, &errOut))
		_ = w.Close()
		f.ended <- result{code, "", errOut.String()}
	}()
	return f
}

// until returns the lines up to the first that has the words.
func (f *follow) until(t *testing.T, words string) []string {
	t.Helper()
	var got []string
	for late := time.After(20 * time.Second); ; {
		select {
		case line := <-f.lines:
			if got = append(got, line); strings.Contains(line, words) {
				return got
			}
		case <-late:
			t.Fatalf("%q was never written; %q was", words, got)
		}
	}
}

func TestAWatchShowsWhatIsThereAndThenEveryChangeUntilItIsInterrupted(t *testing.T) {
	d := newDesk(t)
	d.must("project create a-very-long-name")
	f := d.follow("project list --watch")
	rows := f.until(t, "web")
	d.must("project create new")
	rows = append(rows, f.until(t, "new")...)
	d.must("project delete new")
	gone := f.until(t, "gone")
	if len(gone) != 1 || !strings.HasPrefix(gone[0], "new ") {
		t.Errorf("a deletion is told as %q", gone)
	}
	column := strings.Index(rows[0], "ORGANIZATION")
	for _, row := range append(rows, gone...) {
		if len(row) <= column || row[column-1] != ' ' || row[column] == ' ' {
			t.Errorf("the row %q is not aligned with %q", row, rows[0])
		}
	}
	f.stop()
	if r := <-f.ended; r.code != 0 || r.err != "" {
		t.Fatalf("an interrupted watch ended with %+v", r)
	}
}

func TestAWatchTellsDeletionsInEveryFormat(t *testing.T) {
	d := newDesk(t)
	d.must("project create new")
	watches := map[string]*follow{}
	for _, format := range []string{"json", "yaml", "name"} {
		watches[format] = d.follow("project list --watch -o " + format)
		watches[format].until(t, "web")
	}
	d.must("project delete new")
	line := watches["json"].until(t, "DELETE")
	var told struct {
		Type string
		Noun struct{ Name string }
	}
	if err := json.Unmarshal([]byte(line[len(line)-1]), &told); err != nil || told.Type != "DELETE" || told.Noun.Name != "new" {
		t.Errorf("%v: %q", err, line)
	}
	watches["name"].until(t, "delete new")
	watches["yaml"].until(t, "type: DELETE")
	if rest := watches["yaml"].until(t, "name: "); !strings.Contains(strings.Join(rest, "\n"), "name: new") {
		t.Errorf("%q", rest)
	}
}
