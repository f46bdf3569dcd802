package dev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// netns returns the name of the namespace of a group of processes.
func (s *Site) netns(group string) string { return s.prefix() + group }

// layNetworks makes a namespace for every group of processes, and for each network one more with a bridge that stands for
// its switch. No namespace forwards, and none has a route but to the networks it has a leg in.
func (s *Site) layNetworks(ctx context.Context, o Options) error {
	if s.Mode == Loopback {
		return nil
	}
	var groups []string
	for i := range 3 {
		groups = append(groups, serverName(i))
	}
	for _, n := range networks {
		groups = append(groups, "switch-"+n.Name, "desk-"+n.Name)
	}
	for _, z := range zones {
		groups = append(groups, "broker-"+z.Name, "host-"+z.Name)
		for i := range o.agents(z) {
			groups = append(groups, agentName(z, i))
		}
	}
	var add strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&add, "netns add %s\n", s.netns(g))
	}
	if err := s.noteNetnsFolder(); err != nil {
		return err
	}
	if err := ipBatch(ctx, "", add.String()); err != nil {
		return err
	}
	for _, g := range groups {
		if err := ipBatch(ctx, s.netns(g), "link set lo up\n"); err != nil {
			return err
		}
	}
	if err := s.forbidForwarding(); err != nil {
		return err
	}
	for _, n := range networks {
		if err := ipBatch(ctx, s.netns("switch-"+n.Name), "link add lan type bridge forward_delay 0\nlink set lan up\n"); err != nil {
			return err
		}
	}
	for i := range 3 {
		if err := s.plug(ctx, control, serverName(i), "eth0", serverHost+1+i); err != nil {
			return err
		}
	}
	if err := s.plug(ctx, control, "desk-control", "eth0", deskHost); err != nil {
		return err
	}
	for _, z := range zones {
		for _, leg := range []struct {
			n     Network
			group string
			dev   string
			host  int
		}{
			{control, "broker-" + z.Name, hubLeg, brokerHubHost(z)},
			{z, "broker-" + z.Name, zoneLeg, brokerHost},
			{z, "host-" + z.Name, "eth0", kvmHost},
			{z, "desk-" + z.Name, "eth0", deskHost},
		} {
			if err := s.plug(ctx, leg.n, leg.group, leg.dev, leg.host); err != nil {
				return err
			}
		}
		for i := range o.agents(z) {
			if err := s.plug(ctx, z, agentName(z, i), "eth0", agentHost+i); err != nil {
				return err
			}
		}
		if err := s.layGuests(ctx, z); err != nil {
			return err
		}
	}
	return nil
}

// forbidForwarding makes sure that none of the site's namespaces is a router, whatever the machine is.
func (s *Site) forbidForwarding() error {
	all, err := s.Namespaces()
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := n.SetForwarding(false); err != nil {
			return fmt.Errorf("forbid %s to forward: %w", n.Group, err)
		}
	}
	return nil
}

// plug puts a leg of a group into a network.
func (s *Site) plug(ctx context.Context, n Network, group, dev string, host int) error {
	port := portOf(group)
	sw := s.netns("switch-" + n.Name)
	if err := ipBatch(ctx, "", fmt.Sprintf("link add %s netns %s type veth peer name %s netns %s\n", dev, s.netns(group), port, sw)); err != nil {
		return err
	}
	if err := ipBatch(ctx, sw, fmt.Sprintf("link set %s master lan up\n", port)); err != nil {
		return err
	}
	return ipBatch(ctx, s.netns(group), fmt.Sprintf("addr add %s/24 dev %s\nlink set %s up\n", s.address(n, host), dev, dev))
}

// portOf names a group's port on a network's switch; interface names take 15 bytes.
func portOf(group string) string {
	role, rest, _ := strings.Cut(group, "-")
	place, number, _ := strings.Cut(rest, "-")
	return fmt.Sprintf("%.6s-%.3s%s", role, place, number)
}

// guestBridge is the bridge of a zone's flat guest network, on its host.
const guestBridge = "guests"

// layGuests makes the zone's guest network: a bridge on the host with the gateway's address, and a leg to the desk.
func (s *Site) layGuests(ctx context.Context, z Network) error {
	host, desk := s.netns("host-"+z.Name), s.netns("desk-"+z.Name)
	if err := ipBatch(ctx, host, fmt.Sprintf("link add %s type bridge forward_delay 0\naddr add %s/24 dev %s\nlink set %s up\n",
		guestBridge, s.guestAddress(z, 1), guestBridge, guestBridge)); err != nil {
		return err
	}
	if err := ipBatch(ctx, "", fmt.Sprintf("link add guests netns %s type veth peer name to-desk netns %s\n", desk, host)); err != nil {
		return err
	}
	if err := ipBatch(ctx, host, fmt.Sprintf("link set to-desk master %s up\n", guestBridge)); err != nil {
		return err
	}
	return ipBatch(ctx, desk, fmt.Sprintf("addr add %s/24 dev guests\nlink set guests up\n", s.guestAddress(z, 254)))
}

// Cut takes a zone's link down: the broker's leg in the zone loses its carrier. Heal takes it up again.
func (s *Site) Cut(ctx context.Context, zone string) error { return s.setLink(ctx, zone, "down") }

// Heal is the end of Cut.
func (s *Site) Heal(ctx context.Context, zone string) error { return s.setLink(ctx, zone, "up") }

func (s *Site) setLink(ctx context.Context, zone, state string) error {
	z, err := zoneNamed(zone)
	if err != nil {
		return err
	}
	if s.Mode == Loopback {
		return fmt.Errorf("this site runs on loopback, where no link can be cut; it takes root, or user namespaces")
	}
	return ipBatch(ctx, s.netns("switch-"+z.Name), fmt.Sprintf("link set %s %s\n", portOf("broker-"+z.Name), state))
}

// Command returns a command that runs inside a network, where a person with a desk in it would sit, or where a process of
// the site runs or ran.
func (s *Site) Command(ctx context.Context, place string, args ...string) (*exec.Cmd, error) {
	for _, n := range networks {
		if n.Name == place {
			return s.inside(ctx, "desk-"+n.Name, args...), nil
		}
	}
	r, err := s.daemon(place)
	if err != nil {
		return nil, fmt.Errorf("%w; there are the networks control, internet, business, management, too", err)
	}
	return s.inside(ctx, r.Group, args...), nil
}

// inside returns a command that runs in the namespace of a group.
func (s *Site) inside(ctx context.Context, group string, args ...string) *exec.Cmd {
	if s.Mode != Loopback {
		args = append(enter(s.netns(group)), args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), s.mark())
	return cmd
}

// liftNetworks removes every namespace of this site; processes in them must have ended.
func (s *Site) liftNetworks(ctx context.Context) error {
	if s.Mode == Loopback {
		return nil
	}
	out, err := exec.CommandContext(ctx, "ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("ip netns list: %w", err)
	}
	var del strings.Builder
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, s.prefix()) {
			fmt.Fprintf(&del, "netns del %s\n", name)
		}
	}
	if err := ipBatch(ctx, "", del.String()); err != nil {
		return err
	}
	return s.liftNetnsFolder()
}

// enter begins a command that runs in a namespace. Unlike ip netns exec it mounts nothing, which in a chroot cannot be done.
func enter(ns string) []string {
	return []string{"nsenter", "--net=" + filepath.Join(netnsFolder, ns), "--"}
}

// ipBatch runs ip commands, a line each, in a namespace; in the present one where ns is empty.
func ipBatch(ctx context.Context, ns, lines string) error {
	if lines == "" {
		return nil
	}
	args := []string{"ip", "-batch", "-"}
	if ns != "" {
		args = append(enter(ns), args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(lines)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func zoneNamed(name string) (Network, error) {
	for _, z := range zones {
		if z.Name == name {
			return z, nil
		}
	}
	return Network{}, fmt.Errorf("there is no zone %q; there are internet, business, management", name)
}

func serverName(i int) string { return fmt.Sprintf("controlplane-%d", i+1) }
