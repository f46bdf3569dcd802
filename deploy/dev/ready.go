package dev

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// builtPrograms are what a site is made of, beside naru-dev.
var builtPrograms = []string{"naru", "naru-controlplane", "naru-broker", "naru-zoneagent"}

// tools are what each mode runs of the system.
var tools = map[Mode][]string{
	Namespaces:     {"ip", "nsenter", "ssh-keygen"},
	UserNamespaces: {"ip", "nsenter", "unshare", "mount", "ssh-keygen"},
	Loopback:       {"ssh-keygen"},
}

// Ready refuses a mode that this user or this machine cannot have, and says what is missing and how to get it, before
// anything is begun.
func Ready(mode Mode, bin string) error {
	if Inside() {
		return nil // it was asked outside
	}
	if mode == Namespaces && os.Geteuid() != 0 {
		return fmt.Errorf("--mode %s takes root: run it with sudo; or leave --mode out, which takes the best that you may have", Namespaces)
	}
	for _, name := range builtPrograms {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("%s is not beside naru-dev in %s: build it with make build", name, bin)
		}
	}
	var missing []string
	for _, tool := range tools[mode] {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("mode %s needs %s, which this machine does not have: make setup installs what is missing", mode, strings.Join(missing, ", "))
	}
	if mode == UserNamespaces {
		if out, err := tryUserNamespace(); err != nil {
			return fmt.Errorf("mode %s is not to be had here (%s): run it as root, or with --mode %s, which separates nothing",
				UserNamespaces, strings.TrimSpace(string(out)+" "+err.Error()), Loopback)
		}
	}
	return nil
}

// tryUserNamespace does once what a site in a user namespace does.
func tryUserNamespace() ([]byte, error) {
	return exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && ip netns list").CombinedOutput()
}

// Free refuses where another site stands on loopback: there is one set of addresses for all.
func Free(mode Mode) error {
	if mode != Loopback {
		return nil
	}
	l, err := net.Listen("tcp", (&Site{Mode: Loopback}).address(control, serverHost+1)+":8443")
	if err != nil {
		return fmt.Errorf("on loopback there is room for one site, and its place is taken: %w; end the other one with: naru-dev down --state FOLDER", err)
	}
	return l.Close()
}
