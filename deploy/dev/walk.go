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
	"slices"
	"strings"
	"time"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// WalkResult is what came of the main job.
type WalkResult struct {
	OK      bool   `json:"ok"`
	Request string `json:"request"`
	VM      string `json:"vm"`
	Zone    string `json:"zone"`
	Host    string `json:"host"`
	Address string `json:"address"`
	// Seconds from the request to the guest that is usable, people included.
	Seconds float64 `json:"seconds"`
}

// DoWalk does the main job as people would, each with `naru` where they work: somebody in the internet zone asks for a VM in the
// business zone, the person in charge reviews, the administrators of both zones approve, the VM is built step by step, its guest
// lets in who asked, and the record of it all is verified.
func (s *Site) DoWalk(ctx context.Context, o Options) error {
	to, cluster := "business", "kvm"
	if s.simulated(o) {
		cluster = "test"
	}
	kim := person("kim")
	key := s.path("cli", "walk_key")
	if err := makeKey(ctx, key); err != nil {
		return err
	}
	s.say.Tell("the walk: a user in network %s asks for a VM in zone %s", kim.Network, to)
	began := time.Now()
	var name strings.Builder
	if err := s.act(ctx, kim, &name, "request", "create", "--offering", "web-server", "--zone", to, "--cluster", cluster, "--name", "web-1",
		"--field", "service_name=minwon", "--ssh-key", "@"+key+".pub", "--reason", "the old one is full", "-o", "name"); err != nil {
		return err
	}
	request := strings.TrimSpace(name.String())
	s.Walk = &WalkResult{Request: request, Zone: to}
	follow := s.as(ctx, kim, "request", "wait", request)
	follow.Stderr = os.Stderr
	if err := follow.Start(); err != nil {
		return err
	}
	decided := s.decide(ctx, request)
	if decided != nil {
		follow.Process.Kill()
	}
	if err := errors.Join(decided, follow.Wait()); err != nil {
		return fmt.Errorf("the request was not carried out: %w", err)
	}
	var vm struct{ ID, Name, Host, Address, State string }
	if err := s.reads(ctx, kim, &vm, "vm", "show", "web-1"); err != nil {
		return err
	}
	s.Walk.VM, s.Walk.Host, s.Walk.Address = vm.ID, vm.Host, vm.Address
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
	s.Walk.Seconds = time.Since(began).Seconds()
	s.say.Tell("usable %.1f s after it was asked for, on %s", s.Walk.Seconds, vm.Host)
	if err := s.leaseBegins(ctx, kim); err != nil {
		return err
	}
	if err := s.usageBegins(ctx, kim, request); err != nil {
		return err
	}
	if err := s.verifyAudit(ctx); err != nil {
		return err
	}
	s.Walk.OK = true
	return s.save()
}

// leaseBegins waits until the VM's lease runs, which it does from when the VM can be used, and shows it to who asked.
func (s *Site) leaseBegins(ctx context.Context, kim Person) error {
	var m struct {
		State     string
		ExpiresAt time.Time `json:"expires_at"`
	}
	err := s.until(ctx, "waiting until the lease begins", nil, func(ctx context.Context) error {
		if err := s.reads(ctx, kim, &m, "lease", "show", "web-1"); err != nil {
			return err
		}
		if m.State != apiv1.Lease_ACTIVE.String() {
			return fmt.Errorf("it is %s", m.State)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.say.Tell("its lease runs, until %s", m.ExpiresAt.Local().Format(time.DateTime))
	return nil
}

// usageBegins waits until the VM's use is metered, which it is from when the VM can be used, and shows it to who asked.
func (s *Site) usageBegins(ctx context.Context, who Person, request string) error {
	var records []struct {
		Kind, Request, Offering string
		EndsAt                  time.Time `json:"ends_at"`
		NextSize                struct {
			Cores     int
			MemoryMiB int `json:"memory_mib"`
			DiskGiB   int `json:"disk_gib"`
		} `json:"next_size"`
	}
	err := s.until(ctx, "waiting until the use is metered", nil, func(ctx context.Context) error {
		if err := s.reads(ctx, who, &records, "usage", "list", "--vm", "web-1", "--filter", "kind=begun"); err != nil {
			return err
		}
		if len(records) != 1 || records[0].Request != request {
			return fmt.Errorf("there are %d records of its beginning", len(records))
		}
		return nil
	})
	if err != nil {
		return err
	}
	m := records[0]
	s.say.Tell("its use is metered since %s, from offering %s: cores %d, memory %d MiB, disk %d GiB", m.EndsAt.Local().Format(time.DateTime), m.Offering,
		m.NextSize.Cores, m.NextSize.MemoryMiB, m.NextSize.DiskGiB)
	return nil
}

// decide has everybody decide whose decision the request waits for; the last one when the zone keeps room for it.
func (s *Site) decide(ctx context.Context, request string) error {
	for _, who := range []string{"lee", "park", "choi"} {
		p := person(who)
		if who == "choi" {
			if err := s.roomIsKept(ctx, p, request); err != nil {
				return err
			}
		}
		err := s.until(ctx, "waiting until "+who+" may decide", nil, func(ctx context.Context) error {
			var waiting strings.Builder
			if err := s.does(ctx, p, &waiting, "approve", "-o", "name"); err != nil {
				return err
			}
			if !slices.Contains(strings.Fields(waiting.String()), request) {
				return fmt.Errorf("%s does not wait for %s", request, who)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.act(ctx, p, io.Discard, "approve", request, "--yes", "--comment", "needed, and within the budget"); err != nil {
			return err
		}
	}
	return nil
}

// reads fills in what somebody is shown as JSON.
func (s *Site) reads(ctx context.Context, who Person, into any, args ...string) error {
	var out bytes.Buffer
	if err := s.does(ctx, who, &out, append(args, "-o", "json")...); err != nil {
		return err
	}
	return json.Unmarshal(out.Bytes(), into)
}

// roomIsKept waits until the zone has said that it keeps room, which it is asked for when the last stage is entered.
func (s *Site) roomIsKept(ctx context.Context, who Person, request string) error {
	return s.until(ctx, "waiting until room is kept", nil, func(ctx context.Context) error {
		var m struct{ Fulfilment string }
		if err := s.reads(ctx, who, &m, "request", "show", request); err != nil {
			return err
		}
		if m.Fulfilment != apiv1.Request_RESERVED.String() {
			return fmt.Errorf("it is %s", m.Fulfilment)
		}
		return nil
	})
}

// verifyAudit exports the audit log and verifies the file, which takes no server.
func (s *Site) verifyAudit(ctx context.Context) error {
	file, keys := s.path("cli", "audit.log"), s.path("cli", "audit.keys")
	began := time.Now().Truncate(time.Second)
	// Who looks into the log is in it too, so that there is something new to sign.
	err := s.naru(ctx, control.Name, io.Discard, "audit", "list", "--limit", "1")
	if err != nil {
		return err
	}
	err = s.until(ctx, "waiting until the audit log is signed", nil, func(ctx context.Context) error {
		return s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
			r, err := c.Audit.GetAuditCheckpoint(ctx, &apiv1.GetAuditCheckpointRequest{})
			if err == nil && r.GetCheckpoint().GetTime().AsTime().Before(began) {
				err = fmt.Errorf("it was signed at %s", r.GetCheckpoint().GetTime().AsTime())
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	var said strings.Builder
	if err := s.naru(ctx, control.Name, &said, "audit", "checkpoint", "--keys"); err != nil {
		return err
	}
	if err := writeFile(keys, []byte(said.String())); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.naru(ctx, control.Name, os.Stderr, "audit", "export", file); err != nil {
		return err
	}
	s.say.Say("          $ naru audit verify %s --key @%s", nearby(file), nearby(keys))
	return s.naru(ctx, control.Name, os.Stderr, "audit", "verify", file, "--key", "@"+keys)
}

// act is does, before everybody's eyes.
func (s *Site) act(ctx context.Context, p Person, out io.Writer, args ...string) error {
	s.say.Say("          %s (%s) $ naru %s", p.Name, p.Network, strings.Join(args, " "))
	return s.does(ctx, p, out, args...)
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
