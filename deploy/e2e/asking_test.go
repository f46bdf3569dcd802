package e2e

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// asking is a `naru vm create --wait` that runs at the internet zone's edge, as a user has it in a terminal.
type asking struct {
	name  string
	cmd   *exec.Cmd
	steps chan string // each step that the client has told of
	done  chan struct{}
	out   bytes.Buffer
	told  bytes.Buffer
	err   error
}

// ask begins to ask for a VM.
func (s *standing) ask(t *testing.T, name, zone, cluster string) *asking {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	a := &asking{name: name, steps: make(chan string, 32), done: make(chan struct{})}
	a.cmd = s.command(ctx, "internet", "vm", "create", name, "--image", "tiny", "--flavor", "s1", "--zone", zone, "--cluster", cluster, "--wait")
	a.cmd.Stdout = &a.out
	progress, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer cancel()
		defer close(a.done)
		defer close(a.steps)
		lines := bufio.NewScanner(io.TeeReader(progress, &a.told))
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "✓" {
				a.steps <- words[1]
			}
		}
		a.err = a.cmd.Wait()
	}()
	t.Cleanup(func() { cancel(); <-a.done })
	return a
}

// reaches waits until the client has told of a step and then so long again, or until the client has ended.
func (a *asking) reaches(step string, delay time.Duration) {
	for step != "" {
		told, more := <-a.steps
		if told == step || !more {
			break
		}
	}
	select {
	case <-time.After(delay):
	case <-a.done:
	}
}

// ended reports whether the client has ended.
func (a *asking) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// succeeds waits for the client's end and demands that it ended well, with the VM usable.
func (a *asking) succeeds(t *testing.T) {
	t.Helper()
	<-a.done
	if a.err != nil {
		t.Errorf("naru vm create %s --wait did not survive: %v\n%s", a.name, a.err, a.told.String())
		return
	}
	if got := strings.Count(a.told.String(), "✓ usable"); got != 1 || !strings.Contains(a.out.String(), a.name) {
		t.Errorf("naru vm create %s --wait told of usable %d times:\n%s%s", a.name, got, a.told.String(), a.out.String())
	}
}
