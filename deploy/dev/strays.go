package dev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// mark is the variable that every process of this site bears in its environment, and its children after it, so that they
// are found when the run that started them was killed before it could record them.
func (s *Site) mark() string { return "NARU_DEV_SITE=" + s.dir }

// endStrays ends what bears the site's mark and is in no record.
func (s *Site) endStrays(ctx context.Context) error {
	for {
		found, err := s.strays()
		if err != nil || len(found) == 0 {
			return err
		}
		for _, p := range found {
			if err := p.end(ctx, syscall.SIGKILL); err != nil {
				return err
			}
		}
	}
}

func (s *Site) strays() ([]ProcessIdentity, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes of the site: %w", err)
	}
	var found []ProcessIdentity
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// First who it is, then what it bears: a process that ended in between is not taken for its successor.
		p, err := identify(pid)
		if err != nil {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue // ended, or another user's
		}
		if bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+s.mark()+"\x00")) {
			found = append(found, p)
		}
	}
	return found, nil
}
