package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// WalkResult is what came of the main job.
type WalkResult struct {
	OK      bool    `json:"ok"`
	VM      string  `json:"vm"`
	Zone    string  `json:"zone"`
	Host    string  `json:"host"`
	Address string  `json:"address"`
	Seconds float64 `json:"seconds"`
}

// DoWalk does the main job as a user would, with `naru`: from the internet zone's edge ask for a VM in the business zone,
// see it built step by step, and log in to it from its guest network.
func (s *Site) DoWalk(ctx context.Context, o Options) error {
	from, to := "internet", "business"
	cluster := "kvm"
	if s.simulated(o) {
		cluster = "test"
	}
	key := s.path("cli", "walk_key")
	if err := makeKey(ctx, key); err != nil {
		return err
	}
	s.say.Tell("the walk: a user in network %s asks for a VM in zone %s", from, to)
	args := []string{"vm", "create", "web-1", "--image", "tiny", "--flavor", "s1", "--zone", to, "--cluster", cluster, "--ssh-key", "@" + key + ".pub", "--wait"}
	s.say.Say("          $ NARU_CONFIG=%s naru %s", s.path("cli", from+".yaml"), strings.Join(args, " "))
	began := time.Now()
	if err := s.naru(ctx, from, os.Stderr, args...); err != nil {
		return fmt.Errorf("the VM was not built: %w", err)
	}
	var vm struct{ ID, Name, Host, Address, State string }
	var out bytes.Buffer
	if err := s.naru(ctx, from, &out, "vm", "show", "web-1", "-o", "json"); err != nil {
		return err
	}
	if err := json.Unmarshal(out.Bytes(), &vm); err != nil {
		return err
	}
	s.Walk = &WalkResult{VM: vm.ID, Zone: to, Host: vm.Host, Address: vm.Address}
	if cluster == "kvm" {
		name, err := s.logIn(ctx, to, key, vm.Address)
		if err != nil {
			return err
		}
		if name != "web-1" {
			return fmt.Errorf("the guest at %s calls itself %q, not web-1", vm.Address, name)
		}
		s.say.Tell("SSH from the guest network of %s to %s with the seed's key: it calls itself %s", to, vm.Address, name)
	}
	s.Walk.OK, s.Walk.Seconds = true, time.Since(began).Seconds()
	s.say.Tell("usable %.1f s after it was asked for, on %s", s.Walk.Seconds, vm.Host)
	return s.save()
}

// naru runs the command line with a network's configuration.
func (s *Site) naru(ctx context.Context, network string, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, s.program("naru"), args...)
	cmd.Env = append(os.Environ(), s.mark(), "NARU_CONFIG="+s.path("cli", network+".yaml"))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd.Run()
}

// makeKey makes the key pair with which the walk logs in.
func makeKey(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "walk", "-f", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	return nil
}

// logIn runs hostname in the guest, from a desk in the zone's guest network.
func (s *Site) logIn(ctx context.Context, network, key, address string) (string, error) {
	cmd, err := s.Command(ctx, network, "ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "root@"+address, "hostname")
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("SSH to %s: %w: %s", address, err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}
