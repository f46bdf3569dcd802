package dev

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Story tells what happens, with the seconds since it began.
type Story struct {
	mu    sync.Mutex
	w     io.Writer
	began time.Time
}

// NewStory returns a story that begins now and is told to w.
func NewStory(w io.Writer) *Story { return &Story{w: w, began: time.Now()} }

// Tell writes one line.
func (s *Story) Tell(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "%6.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, a...))
}

// Say writes a line without the time.
func (s *Story) Say(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, format+"\n", a...)
}
