//go:build linux

package libvirthost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// socketMax is the longest path that fits into a sockaddr_un with its closing zero.
const socketMax = 107

// prepare checks the configuration and writes the host's folder.
func (c *Config) prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, program := range []string{"libvirtd", "qemu-system-x86_64", "nsenter", "mount", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed", program)
		}
	}
	if c.Name == "" || c.UUID == "" {
		return errors.New("a name and a uuid are required")
	}
	if !strings.HasPrefix(c.Dir, "/") {
		return fmt.Errorf("folder %q is not absolute", c.Dir)
	}
	if socket := c.path("run", "libvirt-sock"); len(socket) > socketMax {
		return fmt.Errorf("socket path %s has %d bytes, of which the system takes %d; choose a shorter folder", socket, len(socket), socketMax)
	}
	if c.Capabilities == "" {
		c.Capabilities = c.path("capabilities")
	}
	for _, folder := range []string{c.path("etc", "qemu", "networks"), c.path("var"), c.path("run"), c.path("log"), c.path("cache"), c.path("pool"), c.Capabilities} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	// What a killed daemon leaves would be taken for a daemon that answers, or that still runs.
	for _, stale := range []string{"libvirt-sock", "libvirt-sock-ro", "libvirt-admin-sock", "libvirtd.pid"} {
		if err := os.RemoveAll(c.path("run", stale)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"host.sh":           script,
		"etc/libvirtd.conf": c.daemon(),
		"etc/qemu.conf":     qemu,
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// daemon returns the daemon's configuration.
func (c *Config) daemon() string {
	var text strings.Builder
	set := func(key string, value any) {
		if s, ok := value.(string); ok {
			value = `"` + s + `"`
		}
		fmt.Fprintf(&text, "%s = %v\n", key, value)
	}
	set("host_uuid", c.UUID)
	set("auth_unix_rw", "none")
	set("auth_unix_ro", "none")
	set("log_outputs", "3:file:/var/log/libvirt/libvirtd.log")
	if c.TLS == nil {
		return text.String()
	}
	port, address := c.TLS.Port, c.TLS.Address
	if port == 0 {
		port = 16514
	}
	if address == "" {
		address = "0.0.0.0"
	}
	set("listen_tls", 1)
	set("listen_addr", address)
	set("tls_port", fmt.Sprint(port))
	set("key_file", c.TLS.Key)
	set("cert_file", c.TLS.Certificate)
	set("ca_file", c.TLS.Authorities)
	set("crl_file", "")
	set("tls_no_sanity_certificate", 1) // short-lived certificates of our own authority
	return text.String()
}

// qemu is QEMU's configuration: no helper daemon for logs, no security labels, no namespaces and no control groups of
// its own, for none of these is to be had in every container.
const qemu = `user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
`
