package federation_test

import (
	"bufio"
	"io"
	"testing"
	"time"
)

// lines reads a process's output.
type lines struct{ c chan string }

func newLines(r io.Reader) *lines {
	l := &lines{make(chan string, 64)}
	go func() {
		defer close(l.c)
		for s := bufio.NewScanner(r); s.Scan(); {
			l.c <- s.Text()
		}
	}()
	return l
}

func (l *lines) next(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-l.c:
		if !ok {
			t.Fatal("the process has ended")
		}
		return line
	case <-time.After(patience):
		t.Fatal("the process says nothing")
		return ""
	}
}
