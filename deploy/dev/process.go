package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/naru-project/naru/deploy/dev/libvirthost"
)

// ProcessIdentity names a process for ever: an id alone is given out again.
type ProcessIdentity struct {
	PID int `json:"pid"`
	// Start is the kernel's clock ticks at which it started.
	Start uint64 `json:"start"`
}

// record is what lies in run/NAME.json: how a process is started, and the one that was.
type record struct {
	Name  string   `json:"name"`
	Group string   `json:"group"`
	Args  []string `json:"args,omitempty"`
	// Host is set for a libvirt host, whose first process is recorded.
	Host *libvirthost.Config `json:"host,omitempty"`
	ProcessIdentity
}

// start starts a process in the namespace of its group, in a session of its own, with its output in log/NAME.log, and
// records it.
func (s *Site) start(r record, extra ...*os.File) error {
	log, err := os.OpenFile(s.path("log", r.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.inside(context.Background(), r.Group, r.Args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", r.Name, err)
	}
	go cmd.Wait() // reaps it while this process lives; afterwards init does
	if r.ProcessIdentity, err = identify(cmd.Process.Pid); err != nil {
		return fmt.Errorf("%s ended at once: %s", r.Name, s.logTail(r.Name))
	}
	return s.writeRecord(r)
}

func (s *Site) writeRecord(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(s.path("run", r.Name+".json"), b)
}

// records returns what has been started under this folder, also by a run that was killed.
func (s *Site) records() []record {
	files, _ := filepath.Glob(s.path("run", "*.json"))
	var out []record
	for _, f := range files {
		var r record
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &r) == nil {
			out = append(out, r)
		}
	}
	return out
}

// Running returns the processes of the site that live now.
func (s *Site) Running() []ProcessState {
	out := []ProcessState{}
	for _, r := range s.records() {
		if r.alive() {
			out = append(out, ProcessState{r.Name, r.PID})
		}
	}
	return out
}

// daemon returns the record of one of the federation's processes. The windows are none, and cannot be started anew: their
// listeners were made out here.
func (s *Site) daemon(name string) (record, error) {
	var names []string
	for _, r := range s.records() {
		if strings.HasPrefix(r.Name, windowPrefix) {
			continue
		}
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return record{}, fmt.Errorf("there is no process %q; there are %s", name, strings.Join(names, ", "))
}

// Kill ends a process with SIGKILL, and returns when it is gone.
func (s *Site) Kill(ctx context.Context, name string) error {
	r, err := s.daemon(name)
	if err != nil {
		return err
	}
	if !r.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	return r.end(ctx, syscall.SIGKILL)
}

// Start starts a process again as it was started at first.
func (s *Site) Start(ctx context.Context, name string) error {
	r, err := s.daemon(name)
	if err != nil {
		return err
	}
	if r.alive() {
		return fmt.Errorf("%s runs already", name)
	}
	if r.Host != nil {
		return s.startHost(ctx, r)
	}
	return s.start(r)
}

// endAll ends every process of the site: politely at first, hosts last, so that no guest outlives its agent's say.
func (s *Site) endAll(ctx context.Context) error {
	all := s.records()
	rank := func(r record) int {
		if strings.HasPrefix(r.Name, "host-") {
			return 1
		}
		return 0
	}
	var errs []error
	for _, now := range []int{0, 1} {
		for _, r := range all {
			if rank(r) == now {
				r.signal(syscall.SIGTERM)
			}
		}
		for _, r := range all {
			if rank(r) != now {
				continue
			}
			err := r.goneWithin(ctx, patience(r))
			if err != nil {
				err = r.end(ctx, syscall.SIGKILL)
			}
			if err == nil {
				err = os.RemoveAll(s.path("run", r.Name+".json"))
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// patience is how long a process has to end by itself. A host is switched off.
func patience(r record) time.Duration {
	if r.Host != nil {
		return 0
	}
	return 5 * time.Second
}

// alive reports whether the recorded process, and not another with its id, runs.
func (p ProcessIdentity) alive() bool {
	now, err := identify(p.PID)
	return p.PID > 0 && err == nil && now == p
}

func (p ProcessIdentity) signal(sig syscall.Signal) {
	if p.alive() {
		// It leads a session and a process group of its own.
		if syscall.Kill(-p.PID, sig) != nil {
			syscall.Kill(p.PID, sig)
		}
	}
}

func (p ProcessIdentity) end(ctx context.Context, sig syscall.Signal) error {
	p.signal(sig)
	return p.gone(ctx)
}

func (p ProcessIdentity) goneWithin(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return p.gone(ctx)
}

// gone waits until the process has ended.
func (p ProcessIdentity) gone(ctx context.Context) error {
	for p.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", p.PID, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// identify reads when the process with the id was started; an error when there is none, or only its remains. One that is killed keeps its files
// until the last of its threads is gone, and its first may be the first to go.
func identify(pid int) (ProcessIdentity, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ProcessIdentity{}, err
	}
	// The second field, in parentheses, may hold anything; the state is the first after it, the number of threads the eighteenth, the start
	// the twentieth.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "X" {
		return ProcessIdentity{}, os.ErrProcessDone
	}
	if threads, err := strconv.Atoi(fields[17]); fields[0] == "Z" && (err != nil || threads <= 1) {
		return ProcessIdentity{}, os.ErrProcessDone
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return ProcessIdentity{pid, start}, err
}

// logTail returns the last lines of a process's log.
func (s *Site) logTail(name string) string {
	b, err := os.ReadFile(s.path("log", name+".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n    ")
}

// until asks done again and again, and ends early when one of the named processes has died.
func (s *Site) until(ctx context.Context, what string, processes []string, done func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var why error // as it was last told before the time was over
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		for _, r := range s.records() {
			if slices.Contains(processes, r.Name) && !r.alive() {
				return fmt.Errorf("%s: %s has ended; the end of its log (%s):\n    %s", what, r.Name, s.path("log", r.Name+".log"), s.logTail(r.Name))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, why)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// run runs a program of the site to its end and returns what it printed.
func (s *Site) run(ctx context.Context, group, program string, args ...string) (string, error) {
	cmd := s.inside(ctx, group, append([]string{s.program(program)}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
