package libvirt_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/naru-project/naru/deploy/dev/libvirthost"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/libvirt"
)

// inNamespace tells the tests' second life from their first.
const inNamespace = "NARU_TEST_IN_NAMESPACE"

// TestMain runs the tests again in a network namespace of their own, where they are root, so that a host's bridge, its
// guests and its TLS port can be reached from the tests and from nowhere else, and end with them.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inNamespace+"=yes")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := again.Run(); err != nil && again.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "no network namespace:", err)
		os.Exit(1)
	}
	os.Exit(again.ProcessState.ExitCode())
}

// needs skips a test with its reason, and fails it where nothing may be skipped.
func needs(t *testing.T, there bool, what string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a libvirt host with a guest network of its own, and what it takes to use it.
type lab struct {
	config  libvirthost.Config
	host    *libvirthost.Host
	address string // at which the host listens for TLS
	bits    []byte // of the guest image
	key     ssh.Signer
	tls     libvirt.Options
	next    atomic.Uint32 // last byte of the next guest's address
}

const (
	bridge  = "guests"
	gateway = "10.91.2.1"
	tlsPort = 16514
)

func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabAt(t, 1)
}

// newLabAt returns the first or the second lab; two share the bridge and nothing else.
func newLabAt(t *testing.T, number byte) *lab {
	t.Helper()
	needs(t, os.Geteuid() == 0, "root")
	for _, program := range []string{"libvirtd", "qemu-system-x86_64", "qemu-img", "virsh", "ip", "nsenter", "syslinux", "mcopy", "cpio", "depmod"} {
		_, err := exec.LookPath(program)
		needs(t, err == nil, program)
	}
	l := &lab{bits: guestImage(t), address: fmt.Sprintf("127.0.0.%d", number)}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	ok(t, err)
	l.key, err = ssh.NewSignerFromKey(private)
	ok(t, err)

	folder, err := os.MkdirTemp("", "kvm") // the tests' own folders have paths too long for a socket
	ok(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	cache, err := os.UserCacheDir()
	ok(t, err)
	l.config = libvirthost.Config{
		Dir: folder, Name: fmt.Sprintf("kvm-%d", number), UUID: uuid.NewString(), Bridge: bridge, Bound: true,
		Capabilities: filepath.Join(cache, "naru", "qemu-capabilities"),
	}
	l.certificates(t, filepath.Join(folder, "pki"))
	l.next.Store(100*uint32(number-1) + 10)
	if _, err := net.InterfaceByName(bridge); err != nil {
		run(t, "ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0")
	}
	run(t, "ip", "address", "replace", gateway+"/24", "dev", bridge)
	l.power(t)
	return l
}

// power switches the host on; it is switched off with the test.
func (l *lab) power(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	host, err := libvirthost.Start(ctx, l.config)
	ok(t, err)
	l.host = host
	t.Cleanup(func() {
		if err := host.Kill(); err != nil {
			t.Error(err)
		}
	})
}

func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, arguments, err, out)
	}
	return string(out)
}

// guestImage returns the tiny guest's image, built once for each state of what it is built from.
func guestImage(t *testing.T) []byte {
	t.Helper()
	source, err := filepath.Abs("../../../../deploy/guest")
	ok(t, err)
	sum := sha256.New()
	for _, name := range []string{"build.sh", "init", "dhcp"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		ok(t, err)
		sum.Write(text)
	}
	cache, err := os.UserCacheDir()
	ok(t, err)
	image := filepath.Join(cache, "naru", "guest-"+hex.EncodeToString(sum.Sum(nil)[:8])+".qcow2")
	if _, err := os.Stat(image); err != nil {
		run(t, filepath.Join(source, "build.sh"), image)
	}
	bits, err := os.ReadFile(image)
	ok(t, err)
	return bits
}

// certificates makes an authority, the host's certificate as files, and the agent's as options.
func (l *lab) certificates(t *testing.T, folder string) {
	t.Helper()
	ok(t, os.MkdirAll(folder, 0o700))
	serial := int64(0)
	issue := func(name string, parent *tls.Certificate, template x509.Certificate) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ok(t, err)
		serial++
		template.SerialNumber = big.NewInt(serial)
		template.Subject = pkix.Name{CommonName: name}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		signer, issuer := any(key), &template
		if parent != nil {
			signer, issuer = parent.PrivateKey, parent.Leaf
		}
		der, err := x509.CreateCertificate(rand.Reader, &template, issuer, &key.PublicKey, signer)
		ok(t, err)
		leaf, err := x509.ParseCertificate(der)
		ok(t, err)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		ok(t, err)
		ok(t, os.WriteFile(filepath.Join(folder, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		ok(t, os.WriteFile(filepath.Join(folder, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	leaf := x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, // libvirt wants both, of ECDSA keys too
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP(l.address)},
	}
	authority := issue("authority", nil, x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	issue("host", &authority, leaf)
	agent := issue("agent", &authority, leaf)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	l.config.TLS = &libvirthost.TLS{
		Certificate: filepath.Join(folder, "host.pem"), Key: filepath.Join(folder, "host.key"),
		Authorities: filepath.Join(folder, "authority.pem"), Address: l.address, Port: tlsPort,
	}
	l.tls = libvirt.Options{
		Certificates: func() ([]tls.Certificate, error) { return []tls.Certificate{agent}, nil },
		Roots:        func() *x509.CertPool { return roots },
	}
}

func (l *lab) tlsEndpoint() string { return "qemu+tls://" + l.address + "/system" }

// noun returns the host as the zone knows it.
func (l *lab) noun(endpoint string) *apiv1.Host {
	return &apiv1.Host{Id: uuid.NewString(), Name: l.config.Name, Endpoint: endpoint}
}

func (l *lab) image() hypervisor.Image {
	sum := sha256.Sum256(l.bits)
	return hypervisor.Image{SHA256: hex.EncodeToString(sum[:]), Format: apiv1.Image_QCOW2}
}

func (l *lab) open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.bits)), nil }

// machine returns a new machine with an address of its own and the lab's key.
func (l *lab) machine(*testing.T) hypervisor.Machine {
	id := uuid.Must(uuid.NewV7()).String()
	number := l.next.Add(1)
	return hypervisor.Machine{
		VM: &apiv1.VM{
			Id: id, Name: fmt.Sprintf("web-%d", number), Project: "web",
			Size:        &apiv1.Resources{Cores: 1, MemoryMib: 96, DiskGib: 1},
			ImageSha256: l.image().SHA256, ImageFormat: apiv1.Image_QCOW2,
			SshKeys: []string{string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(l.key.PublicKey())))},
		},
		MAC: hypervisor.MACOf(id), Bridge: bridge,
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 91, 2, byte(number)}), 24),
		Gateway: netip.MustParseAddr(gateway),
	}
}

// at is where on a guest's disk a test's word lies: behind everything that the tiny guest has there.
const at = 512 << 20

// write puts a word on the disk of a VM that is off, with QEMU's own tools, where the host sees its files.
func (l *lab) write(t *testing.T, m hypervisor.Machine, word string) {
	t.Helper()
	l.tool(t, fmt.Sprintf("%-512s", word), "qemu-io -f qcow2 -c 'write -s /dev/stdin %d 512' %s", at, l.disk(m))
}

// read returns the word on the disk of a VM that is off.
func (l *lab) read(t *testing.T, m hypervisor.Machine) string {
	t.Helper()
	out := l.tool(t, "", "qemu-io -r -f qcow2 -c 'read -v %d 512' %s | cut -c60-75", at, l.disk(m))
	return strings.Trim(strings.SplitN(out, "\n", 2)[0], ". ")
}

func (l *lab) tool(t *testing.T, input, format string, a ...any) string {
	t.Helper()
	c := l.host.Command(t.Context(), "/bin/sh", "-c", fmt.Sprintf(format, a...))
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func (l *lab) disk(m hypervisor.Machine) string { return "/var/lib/naru/disks/" + m.VM.Id + ".qcow2" }

// lossy is a driver whose handles lose the reply to one call when told to.
type lossy struct {
	hypervisor.Driver
	procedure atomic.Uint32 // whose reply is lost next; 0 is none
}

func (d *lossy) Open(ctx context.Context, wanted *apiv1.Host) (hypervisor.Host, error) {
	host, err := d.Driver.Open(ctx, wanted)
	if err == nil {
		libvirt.Intercept(host, func(conn net.Conn) net.Conn { return &lossyConn{Conn: conn, driver: d} })
	}
	return host, err
}

// lose arms the driver. The numbers are libvirt's remote procedures.
func (d *lossy) lose(t *testing.T, step string) {
	procedure, known := map[string]uint32{
		"disk": storageVolCreateXML, "seed": storageVolCreateXML, "define": domainDefineXMLFlags,
		"start": domainCreateWithFlags, "forced stop": domainDestroyFlags, "gone": domainUndefineFlags,
		"size": storageVolResize, "snapshot": domainSnapshotCreateXML, "restore": domainRevertToSnapshot, "drop": domainSnapshotDelete,
	}[step]
	if !known {
		t.Fatalf("no procedure is known for %s", step)
	}
	d.procedure.Store(procedure)
}

const (
	storageVolCreateXML   = 93
	domainDefineXMLFlags  = 350
	domainCreateWithFlags = 196
	domainDestroyFlags    = 234
	domainUndefineFlags   = 231

	storageVolResize        = 260
	domainSnapshotCreateXML = 185
	domainRevertToSnapshot  = 192
	domainSnapshotDelete    = 193
)

// lossyConn passes libvirt's packets on whole, until the one that is to be lost, with which it ends.
type lossyConn struct {
	net.Conn
	driver *lossy
	packet []byte
}

func (c *lossyConn) Read(p []byte) (int, error) {
	if len(c.packet) == 0 {
		head := make([]byte, 28) // length, program, version, procedure, type, serial, status
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return 0, err
		}
		c.packet = append(head, make([]byte, binary.BigEndian.Uint32(head)-28)...)
		if _, err := io.ReadFull(c.Conn, c.packet[28:]); err != nil {
			return 0, err
		}
		procedure, reply := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:]) == 1
		if reply && c.driver.procedure.CompareAndSwap(procedure, 0) {
			c.Conn.Close()
			return 0, io.EOF
		}
	}
	n := copy(p, c.packet)
	c.packet = c.packet[n:]
	return n, nil
}
