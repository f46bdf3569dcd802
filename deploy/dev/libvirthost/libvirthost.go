//go:build linux

// Package libvirthost runs one libvirt "host" on a machine that may run several: a libvirtd and its QEMU processes in
// mount, process, host-name and IPC namespaces of their own, in a network namespace that the caller made, with a
// libvirt configuration, state and disk folder of their own below one folder. It needs root and no systemd.
//
// The first process of the host's process namespace stands for its power: Kill ends it, and with it, at once, every
// other process of the host. What lies in the folder survives, as disks do. Killing the daemon alone is KillDaemon: it
// comes back by itself, and the guests run on, as under systemd.
//
// It is for development and tests; nothing of the product imports it.
package libvirthost

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// PoolPath is where the host sees its folder for disks, unless Config.Pool says otherwise.
const PoolPath = "/var/lib/naru"

//go:embed host.sh
var script string

// Config of a host. Dir, Name and UUID are required.
type Config struct {
	// Dir holds all that the host keeps; a host started again in the same folder is the same host. Absolute, and short
	// enough for the socket below it (the system takes paths of up to 107 bytes).
	Dir string
	// Name is the host's own host name.
	Name string
	// UUID of the host, which has to differ from host to host.
	UUID string
	// NetNS is the path of the network namespace, /run/netns/NAME or /proc/PID/ns/net; empty is the caller's own.
	NetNS string
	// Bridge for guests; made in the network namespace when it is not there.
	Bridge string
	// TLS makes the daemon listen in the network namespace.
	TLS *TLS
	// Capabilities is a folder shared by the hosts of a machine, for what libvirt finds out about QEMU, which takes it 5
	// to 12 seconds the first time. Empty: one in Dir.
	Capabilities string
	// KVM leaves /dev/kvm in sight. Without it a read-only plain file lies over it, and libvirt emulates: on many virtual
	// machines the device opens and no guest boots with it. (A device like /dev/null in its place would make libvirt
	// look at QEMU anew with every call.)
	KVM bool
	// Pool is where the host sees its folder for disks; empty is PoolPath.
	Pool string
	// Env is added to the environment of the host's processes, NAME=VALUE.
	Env []string
	// Bound cuts the host's power when the process that started it ends, by whatever means.
	Bound bool
}

// TLS is how the daemon listens: PEM files, and an address of the network namespace.
type TLS struct {
	Certificate, Key, Authorities string
	// Address to listen on; empty is all.
	Address string
	// Port; 0 is libvirt's own, 16514.
	Port int
}

// Host is a host that was started.
type Host struct {
	config Config
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the first process has been waited for
}

// Start starts the host and returns when its daemon answers. The host then runs until Kill or Stop, whatever becomes of
// ctx, or, unless it is Bound, of the caller.
func Start(ctx context.Context, config Config) (_ *Host, err error) {
	if err := config.prepare(); err != nil {
		return nil, fmt.Errorf("libvirt host %s: %w", config.Name, err)
	}
	h := &Host{config: config, ended: make(chan struct{})}
	log, err := os.OpenFile(config.path("log", "host.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("libvirt host %s: %w", config.Name, err)
	}
	defer log.Close()
	command := []string{"/bin/sh", config.path("host.sh")}
	if config.NetNS != "" {
		command = append([]string{"nsenter", "--net=" + config.NetNS}, command...) // becomes the script, keeps its id
	}
	h.cmd = exec.Command(command[0], command[1:]...)
	h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = "/", log, log
	h.cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root",
		"HOST_DIR=" + config.Dir, "HOST_NAME=" + config.Name, "HOST_BRIDGE=" + config.Bridge,
		"HOST_CAPABILITIES=" + config.Capabilities, "HOST_POOL=" + cmp.Or(config.Pool, PoolPath),
		"HOST_LISTEN=" + map[bool]string{true: "--listen"}[config.TLS != nil],
		"HOST_KVM=" + map[bool]string{true: "yes"}[config.KVM],
	}
	h.cmd.Env = append(h.cmd.Env, config.Env...)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if config.Bound {
		h.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("libvirt host %s: %w", config.Name, err)
	}
	go func() {
		defer close(h.ended)
		h.cmd.Wait()
	}()
	if err := h.Ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("libvirt host %s: %w", config.Name, err), h.Kill())
	}
	return h, nil
}

// Ready waits until the daemon answers on its socket.
func (h *Host) Ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if h.answers() {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.ended:
			return fmt.Errorf("it ended while it started:\n%s", h.log())
		case <-ctx.Done():
			return fmt.Errorf("its daemon does not answer (%w):\n%s", ctx.Err(), h.log())
		}
	}
}

// answers asks the daemon how one may log in, its protocol's first question. A socket alone says nothing: it is there
// before the daemon has read its certificates, and after it was killed.
func (h *Host) answers() bool {
	connection, err := net.Dial("unix", h.Socket())
	if err != nil {
		return false
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(time.Second))
	const length, program, version, authList, call, serial, status = 28, 0x20008086, 1, 66, 0, 1, 0
	var question []byte
	for _, word := range []uint32{length, program, version, authList, call, serial, status} {
		question = binary.BigEndian.AppendUint32(question, word)
	}
	if _, err := connection.Write(question); err != nil {
		return false
	}
	_, err = io.ReadFull(connection, make([]byte, length))
	return err == nil
}

// log returns the end of what the host and its daemon have written.
func (h *Host) log() string {
	var all []byte
	for _, name := range []string{"host.log", "libvirtd.log"} {
		text, err := os.ReadFile(h.config.path("log", name))
		if err == nil {
			all = append(all, text[max(0, len(text)-1000):]...)
		}
	}
	return string(all)
}

// Socket returns the path of the daemon's socket, good outside of the host's namespaces too.
func (h *Host) Socket() string { return h.config.path("run", "libvirt-sock") }

// Endpoint returns the host's endpoint over the socket, as a Host noun has it.
func (h *Host) Endpoint() string { return "qemu+unix:///system?socket=" + h.Socket() }

// PID returns the id of the host's first process, as the caller sees it.
func (h *Host) PID() int { return h.cmd.Process.Pid }

// Ended is closed when the host has come to its end, by whatever means.
func (h *Host) Ended() <-chan struct{} { return h.ended }

// Kill cuts the host's power and waits until nothing of it runs.
func (h *Host) Kill() error {
	if err := h.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-h.ended
	return nil
}

// Stop ends the daemon in an orderly way, and then the host, guests included. When ctx ends first, it is Kill.
func (h *Host) Stop(ctx context.Context) error {
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-h.ended:
		return nil
	case <-ctx.Done():
		return h.Kill()
	}
}

// KillDaemon kills the daemon alone (kill -9). It is started again at once; Ready tells when it answers.
func (h *Host) KillDaemon(ctx context.Context) error {
	out, err := h.Command(ctx, "/bin/sh", "-c", "kill -9 $(cat /run/libvirt/libvirtd.pid) && rm -f /run/libvirt/libvirt-sock").CombinedOutput()
	if err != nil {
		return fmt.Errorf("killing the daemon of %s: %w: %s", h.config.Name, err, out)
	}
	return nil
}

// Command returns a command that runs inside the host.
func (h *Host) Command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(h.PID()), "--mount", "--root", "--wd", "--uts", "--ipc", "--net", "--pid", "--", name}
	return exec.CommandContext(ctx, "nsenter", append(enter, arguments...)...)
}

func (c *Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}
