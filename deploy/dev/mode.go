package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// insideVariable tells the program that it has been started again inside a user namespace.
const insideVariable = "NARU_DEV_INSIDE"

// Inside reports whether this program was started by itself inside a user namespace.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// ChooseMode returns how this machine can keep the networks apart.
func ChooseMode() Mode {
	switch {
	case Inside():
		return UserNamespaces
	case os.Geteuid() == 0 && exec.Command("ip", "netns", "list").Run() == nil:
		return Namespaces
	}
	if _, err := tryUserNamespace(); err == nil {
		return UserNamespaces
	}
	return Loopback
}

// ParseMode reads a mode's name; empty is the best that this machine has.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return ChooseMode(), nil
	case Namespaces, UserNamespaces, Loopback:
		return m, nil
	}
	return "", fmt.Errorf("there is no mode %q; there are %s, %s, %s", name, Namespaces, UserNamespaces, Loopback)
}

// What the program, started again inside, finds open: from 3 on the windows' listeners, then a pipe that ends with its
// starter, then the claim.
var (
	starterFD = 3 + len(networks)
	claimFD   = starterFD + 1
)

// StartInside starts this program again inside new user, mount and network namespaces, waits for its end and returns its
// exit code. The claim is handed on: where this program is killed, the one inside holds it until it has taken the site down.
func StartInside(ctx context.Context, claim *Claim) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	kinds := []string{"--user", "--map-root-user", "--net", "--mount"}
	if exec.CommandContext(ctx, "unshare", append(kinds, "--map-auto", "true")...).Run() == nil {
		kinds = append(kinds, "--map-auto") // a range of ids, with which groups can be set as libvirt does
	}
	// ip netns keeps its names under /run/netns, which a private mount namespace makes ours.
	args := append(kinds, "--", "sh", "-c",
		`mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0" "$@"`, self)
	cmd := again(ctx, "unshare", append(args, os.Args[1:]...))
	// The windows listen out here; inside there is another loopback.
	for _, n := range networks {
		f, err := listen(n)
		if err != nil {
			return 0, fmt.Errorf("open the window into %s: %w", n.Name, err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	defer theirs.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs, claim.f)
	return exitCode(cmd)
}

// WithStarter returns a context that ends when the program that started this one inside does, by whatever means.
func WithStarter(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	for fd := 3; fd <= claimFD; fd++ {
		syscall.CloseOnExec(fd) // they are this process's, not the site's
	}
	go func() {
		defer cancel()
		os.NewFile(uintptr(starterFD), "starter").Read(make([]byte, 1))
	}()
	return ctx
}

// Enter runs this program again inside the user namespace where the site stands, and returns its exit code and true. In
// other modes, and when already inside, it returns false.
func (s *Site) Enter(ctx context.Context) (code int, entered bool, err error) {
	if s.Mode != UserNamespaces || Inside() {
		return 0, false, nil
	}
	if s.Anchor == nil || !s.Anchor.alive() {
		return 0, false, errors.New("the run that held the site's user namespace has ended; clear away what it left with: naru-dev down --state " + s.dir)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, false, err
	}
	args := append([]string{"--target", strconv.Itoa(s.Anchor.PID), "--user", "--net", "--mount", "--preserve-credentials", "--", self}, os.Args[1:]...)
	code, err = exitCode(again(ctx, "nsenter", args))
	return code, true, err
}

// again returns a command that runs this program again inside.
func again(ctx context.Context, enter string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, enter, args...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

func exitCode(cmd *exec.Cmd) (int, error) {
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
