package seed_test

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kdomanski/iso9660"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/seed"
)

const (
	vmID = "01930000-0000-7000-8000-000000000001"
	key  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP+Ra7xBMOrAmlbhXSWsx5rmlvZcyeLsR7b8mitbhSkH someone@desk"
)

func machine() hypervisor.Machine {
	return hypervisor.Machine{
		VM:          &apiv1.VM{Id: vmID, Name: "web-1", SshKeys: []string{key}},
		MAC:         "52:54:00:12:34:56",
		Address:     netip.MustParsePrefix("10.91.2.10/24"),
		Gateway:     netip.MustParseAddr("10.91.2.1"),
		Nameservers: []netip.Addr{netip.MustParseAddr("10.91.2.1")},
	}
}

func compose(t *testing.T, m hypervisor.Machine) seed.Files {
	t.Helper()
	files, err := seed.Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheThreeFilesReadAsAGuestExpectsThem(t *testing.T) {
	files := compose(t, machine())
	for name, pair := range map[string][2]string{
		"meta-data": {string(files.MetaData), `instance-id: "` + vmID + `"
local-hostname: "web-1"
`},
		"user-data": {string(files.UserData), `#cloud-config
hostname: "web-1"
ssh_authorized_keys:
  - "` + key + `"
final_message: "naru-ready ` + vmID + `"
`},
		"network-config": {string(files.NetworkConfig), `version: 2
ethernets:
  primary:
    match:
      macaddress: "52:54:00:12:34:56"
    addresses:
      - "10.91.2.10/24"
    routes:
      - to: "0.0.0.0/0"
        via: "10.91.2.1"
    nameservers:
      addresses:
        - "10.91.2.1"
`},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is\n%s\nwant\n%s", name, pair[0], pair[1])
		}
	}
}

func TestAMachineWithoutAnAddressAsksByDHCP(t *testing.T) {
	m := machine()
	m.Address, m.Gateway, m.Nameservers = netip.Prefix{}, netip.Addr{}, nil
	if got := string(compose(t, m).NetworkConfig); !strings.Contains(got, "dhcp4: true") || strings.Contains(got, "addresses") {
		t.Fatalf("got\n%s", got)
	}
}

func TestAnIPv6GatewayIsTheWayToEverywhere(t *testing.T) {
	m := machine()
	m.Address, m.Gateway = netip.MustParsePrefix("fd00::10/64"), netip.MustParseAddr("fd00::1")
	if got := string(compose(t, m).NetworkConfig); !strings.Contains(got, `to: "::/0"`) {
		t.Fatalf("got\n%s", got)
	}
}

func TestTheImageHoldsTheFilesUnderTheirNames(t *testing.T) {
	image, err := seed.Build(machine())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := iso9660.OpenImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if label, err := opened.Label(); err != nil || strings.TrimSpace(label) != seed.VolumeID {
		t.Fatalf("label %q, %v", label, err)
	}
	root, err := opened.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	children, err := root.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	files := compose(t, machine())
	want := map[string][]byte{"meta-data": files.MetaData, "user-data": files.UserData, "network-config": files.NetworkConfig}
	for _, child := range children {
		got, err := io.ReadAll(child.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[child.Name()]) {
			t.Errorf("%s holds %q", child.Name(), got)
		}
		delete(want, child.Name())
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestTheSameMachineGivesTheSameBytesAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, err := seed.Build(machine())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * 24 * time.Hour) // the bubble's clock
		second, err := seed.Build(machine())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Fatal("a year later the seed differs")
		}
	})
}

func TestWhatCannotBeANameOrAKeyIsRefusedForGood(t *testing.T) {
	for name, spoil := range map[string]func(*hypervisor.Machine){
		"name with a line break":  func(m *hypervisor.Machine) { m.VM.Name = "web\nruncmd: [reboot]" },
		"name with a capital":     func(m *hypervisor.Machine) { m.VM.Name = "Web" },
		"no name":                 func(m *hypervisor.Machine) { m.VM.Name = "" },
		"id with a line break":    func(m *hypervisor.Machine) { m.VM.Id = "1\nx: y" },
		"no id":                   func(m *hypervisor.Machine) { m.VM.Id = "" },
		"key of two lines":        func(m *hypervisor.Machine) { m.VM.SshKeys = []string{"ssh-rsa a\nssh-rsa b"} },
		"key with a carriage":     func(m *hypervisor.Machine) { m.VM.SshKeys = []string{"ssh-rsa a\rb"} },
		"empty key":               func(m *hypervisor.Machine) { m.VM.SshKeys = []string{" "} },
		"no mac":                  func(m *hypervisor.Machine) { m.MAC = "" },
		"invalid nameserver":      func(m *hypervisor.Machine) { m.Nameservers = []netip.Addr{{}} },
		"user data not in UTF-8":  func(m *hypervisor.Machine) { m.VM.UserData = "#cloud-config\na: \xff" },
		"user data not YAML":      func(m *hypervisor.Machine) { m.VM.UserData = "#cloud-config\na: [1" },
		"user data a list":        func(m *hypervisor.Machine) { m.VM.UserData = "#cloud-config\n- a" },
		"user data two documents": func(m *hypervisor.Machine) { m.VM.UserData = "#cloud-config\na: 1\n---\nb: 2" },
		"aliases that multiply": func(m *hypervisor.Machine) {
			bomb := "#cloud-config\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
			for i := range 9 {
				n, next := string(rune('0'+i)), string(rune('1'+i))
				bomb += "a" + next + ": &a" + next + " [" + strings.TrimSuffix(strings.Repeat("*a"+n+",", 10), ",") + "]\n"
			}
			m.VM.UserData = bomb
		},
	} {
		m := machine()
		spoil(&m)
		if _, err := seed.Build(m); !hypervisor.IsFatal(err) {
			t.Errorf("%s: got %v, want a fatal error", name, err)
		}
	}
}

func readYAML(t interface{ Fatalf(string, ...any) }, text []byte) map[string]any {
	var read map[string]any
	if err := yaml.Unmarshal(text, &read); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return read
}

// Whatever a key holds, it arrives as that one key, and no other setting appears beside it.
func TestHostileKeysStayKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := machine()
		hostile := rapid.OneOf(
			rapid.StringMatching(`[ -~]{1,120}`),
			rapid.SampledFrom([]string{`" ]}`, `'`, `\`, `\"`, `x: y`, `- z`, `&a *b`, `!!binary aGk=`, `# no comment`, `{{ ds }}`, "\ttab", "a\u00e9\u4e2d", "null", "1.0", "%YAML", "---", "a\x07b", "\ufeffx"}),
			rapid.String(),
		)
		m.VM.SshKeys = rapid.SliceOfN(hostile, 0, 16).Draw(t, "keys")
		files, err := seed.Compose(m)
		for _, line := range m.VM.SshKeys {
			if strings.ContainsAny(line, "\r\n\x00\u0085\u2028\u2029") || strings.TrimSpace(line) == "" {
				if err == nil {
					t.Fatalf("%q was taken for a key", line)
				}
				return
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		read := readYAML(t, files.UserData)
		got, _ := read["ssh_authorized_keys"].([]any)
		if len(got) != len(m.VM.SshKeys) {
			t.Fatalf("%d keys became %d", len(m.VM.SshKeys), len(got))
		}
		for i, line := range m.VM.SshKeys {
			if got[i] != line {
				t.Fatalf("key %q became %q", line, got[i])
			}
		}
		for name := range read {
			if name != "hostname" && name != "ssh_authorized_keys" && name != "final_message" {
				t.Fatalf("a key became the setting %q", name)
			}
		}
		if lines := bytes.Count(files.UserData, []byte("\n")); lines != 3+len(got)+min(len(got), 1) {
			t.Fatalf("a key broke its line:\n%s", files.UserData)
		}
	})
}

// FuzzUserData: any user data is refused, or carried beside the marker in a form that reads; nothing panics.
func FuzzUserData(f *testing.F) {
	for _, start := range []string{
		"", "#cloud-config\n", "#cloud-config\npackages: [nginx]\n", "#!/bin/sh\necho hi\n", "#include\nhttps://example.org/x\n",
		"Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n--x\nContent-Type: text/plain\n\nhi\n--x--\n",
		"#cloud-config\nssh_authorized_keys: &k\n- &one a\n- b\nusers:\n- ssh_authorized_keys: *k\n  x: *one\n",
		"#cloud-config\nfinal_message: |\n  up\n  after $UPTIME\n", "#cloud-config\n? [a, b]\n: c\n", "#cloud-config\n<<: {a: b}\n",
		"#cloud-config\r\nhostname: other\r\n", "## template: jinja\n#cloud-config\nhostname: {{ v1.x }}\n",
	} {
		f.Add(start)
	}
	f.Fuzz(func(t *testing.T, data string) {
		m := machine()
		m.VM.UserData = data
		files, err := seed.Compose(m)
		if err != nil {
			return
		}
		if again, _ := seed.Compose(m); !bytes.Equal(files.UserData, again.UserData) {
			t.Fatalf("%q: two seeds differ", data)
		}
		if !bytes.Contains(files.UserData, []byte(hypervisor.ReadyMarker(vmID))) {
			t.Fatalf("%q: no marker in\n%s", data, files.UserData)
		}
		if bytes.HasPrefix(files.UserData, []byte("#cloud-config")) {
			readYAML(t, files.UserData)
		}
	})
}
