package dev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// insideVariable tells the program that it has been started again inside a user namespace.
const insideVariable = "NARU_DEV_INSIDE"

// ChooseMode returns how this machine can keep the networks apart.
func ChooseMode() Mode {
	switch {
	case os.Getenv(insideVariable) != "":
		return UserNamespaces
	case os.Geteuid() == 0 && exec.Command("ip", "netns", "list").Run() == nil:
		return Namespaces
	case exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "true").Run() == nil:
		return UserNamespaces
	}
	return Loopback
}

// Enter makes sure that a site in user namespaces is handled from inside them: it starts this program again there, waits
// for it, and returns its exit code and true. In other modes, and when already inside, it returns false.
func Enter(ctx context.Context, mode Mode, anchor *ProcessIdentity) (code int, entered bool, err error) {
	if mode != UserNamespaces || os.Getenv(insideVariable) != "" {
		return 0, false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return 0, false, err
	}
	var cmd *exec.Cmd
	if anchor == nil {
		// ip netns keeps its names under /run/netns, which a private mount namespace makes ours.
		args := append([]string{"--user", "--map-root-user", "--net", "--mount", "--", "sh", "-c",
			`mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0" "$@"`, self}, os.Args[1:]...)
		cmd = exec.CommandContext(ctx, "unshare", args...)
	} else {
		if !anchor.alive() {
			return 0, false, ErrNotRunning
		}
		args := append([]string{"--target", strconv.Itoa(anchor.PID), "--user", "--net", "--mount", "--preserve-credentials", "--", self}, os.Args[1:]...)
		cmd = exec.CommandContext(ctx, "nsenter", args...)
	}
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if anchor == nil {
		// The windows listen out here; inside there is another loopback.
		for _, n := range networks {
			f, err := listen(n)
			if err != nil {
				return 0, false, fmt.Errorf("open the window into %s: %w", n.Name, err)
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return 0, false, err
	}
	return cmd.ProcessState.ExitCode(), true, nil
}
