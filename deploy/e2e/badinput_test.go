package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Exit codes of the command line, as docs/cli.md has them, and the one of every daemon that refuses to start.
const (
	refused, usage, notFound, notAllowed, conflict, ended = 1, 2, 3, 4, 5, 1
)

// Whatever is wrong, whoever gave it hears what it is and how to go on, and nothing is lost or left half done.
func TestBadInputIsAnsweredWithWhatIsWrongAndTheWayOut(t *testing.T) {
	needs(t)
	s := raise(t, "--servers", "1", "--without-libvirt")
	b := &badInput{standing: s, folder: t.TempDir()}
	before := b.inventory(t)
	t.Run("a user", b.user)
	t.Run("an administrator", b.administrator)
	t.Run("tokens and certificates", b.credentials)
	t.Run("agents that join", b.joining)
	t.Run("servers that join", b.joiningServers)
	t.Run("configurations and folders", b.starting)
	t.Run("a cluster that loses its last host", b.lastHost)
	t.Run("an etcd that is not there yet", b.absentStore)
	if after := b.inventory(t); after != before {
		t.Errorf("something was lost or left:\n%s\nwas\n%s", after, before)
	}
}

type badInput struct {
	*standing
	folder string
}

// inventory is everything that is there, by its names, and that all processes of the site live.
func (b *badInput) inventory(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, noun := range []string{"zone", "cluster", "host", "flavor", "image", "project", "broker", "server", "vm", "token"} {
		fmt.Fprintln(&all, noun, strings.Fields(b.naru(t, "control", noun, "list", "-o", "name")))
	}
	fmt.Fprintln(&all, len(b.status(t).Processes), "processes")
	return all.String()
}

// answer demands of a command that it ends with a code, and says each of the words on standard error.
func answer(t *testing.T, cmd *exec.Cmd, code int, words ...string) {
	t.Helper()
	var told strings.Builder
	cmd.Stderr = &told
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	for _, word := range words {
		if !strings.Contains(told.String(), word) {
			t.Errorf("it does not say %q", word)
		}
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("it ends with %d, not %d", got, code)
	}
	if t.Failed() {
		t.Logf("$ %s\n%s", strings.Join(cmd.Args, " "), told.String())
	}
}

// call is a command line, and what it is answered.
type call struct {
	about string
	line  string
	code  int
	words []string
}

// calls makes each call in a network.
func (b *badInput) calls(t *testing.T, network string, all []call) {
	for _, c := range all {
		t.Run(c.about, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			answer(t, b.command(ctx, network, strings.Split(c.line, " ")...), c.code, c.words...)
		})
	}
}

func (b *badInput) user(t *testing.T) {
	b.naru(t, "control", "flavor", "create", "huge", "--cores", "128", "--memory-mib", "900000", "--disk-gib", "100")
	defer b.naru(t, "control", "flavor", "delete", "huge")
	const here = " --image tiny --flavor s1 --zone business --cluster test"
	b.calls(t, "internet", []call{
		{"a wrong name", "vm create Web_1" + here, usage, []string{"NAME: takes 1 to 63 lower-case letters, digits and dashes", "Correct the fields"}},
		{"a missing zone", "vm create bad --image tiny --flavor s1", usage, []string{"--zone: is required"}},
		{"several missing fields", "vm create bad", usage, []string{"zone", "flavor", "image", "required"}},
		{"a missing name", "vm create", usage, []string{"Usage: naru vm create NAME"}},
		{"an unknown flag", "vm create bad --colour blue", usage, []string{"--colour", "naru vm create --help"}},
		{"no key", "vm create bad --ssh-key rubbish" + here, usage, []string{"--ssh-key: is no public key of SSH", ".pub"}},
		{"a file that is not there", "vm create bad --ssh-key @/no/such/key" + here, usage, []string{"/no/such/key"}},
		{"an unknown zone", "vm create bad --image tiny --flavor s1 --zone nowhere", notFound, []string{"no zone nowhere", "naru zone list"}},
		{"an unknown flavor", "vm create bad --image tiny --flavor s9 --zone business", notFound, []string{"no flavor s9", "naru flavor list"}},
		{"an unknown image", "vm create bad --image no-such --flavor s1 --zone business", notFound, []string{"no image no-such", "naru image list"}},
		{"an unknown cluster", "vm create bad --image tiny --flavor s1 --zone business --cluster nope", notFound, []string{"no cluster nope", "naru cluster list"}},
		{"a taken name", "vm create web-1" + here, conflict, []string{"a VM named web-1 already", "Choose another name"}},
		{"a VM too large for a cluster", "vm create bad --image tiny --flavor huge --zone business --cluster test", refused,
			[]string{"4 hosts looked at: 4 lack cores and memory", "128 cores and 900000 MiB asked", "Choose a smaller flavor"}},
		{"a VM too large for every host", "vm create bad --image tiny --flavor huge --zone business", refused,
			[]string{"CLUSTER", "4 lack cores and memory", "128 cores and 900000 MiB asked", "Choose a smaller flavor", "another zone"}},
		{"an unknown VM", "vm show nope", notFound, []string{"no VM nope", "naru vm list"}},
		{"what is not for users", "flavor create bad --cores 1 --memory-mib 64 --disk-gib 1", notAllowed, []string{"naru flavor create cannot be called at a zone's edge", "control network"}},
		{"an unknown column", "vm list --filter colour=blue", usage, []string{`no column "colour"`, "state", "Write terms like"}},
	})
}

func (b *badInput) administrator(t *testing.T) {
	b.calls(t, "control", []call{
		{"a flavor of nothing", "flavor create bad --cores 0 --memory-mib 64 --disk-gib 1", usage, []string{"cores"}},
		{"a flavor's taken name", "flavor create s1 --cores 1 --memory-mib 64 --disk-gib 1", conflict, []string{"flavor named s1 already", "Choose another name"}},
		{"a zone's wrong name", "zone create Bad --kind x --grade open --broker business", usage, []string{"NAME: takes 1 to 63 lower-case letters"}},
		{"an unknown grade", "zone create bad --kind x --grade secret --broker business", usage, []string{"secret", "open, sensitive or classified"}},
		{"an unknown broker", "zone create bad --kind x --grade open --broker nope", notFound, []string{"no broker nope", "naru broker list"}},
		{"a zone's taken name", "zone create business --kind x --grade open --broker business", conflict, []string{"zone named business already"}},
		{"a zone that has things", "zone delete business", conflict, []string{"web-1", "test", "Delete what depends on it first"}},
		{"a flavor in use", "flavor delete s1", conflict, []string{"web-1", "Delete what depends on it first"}},
		{"a host of an unknown cluster", "host create bad --zone business --cluster nope --endpoint sim://bad", notFound, []string{"no cluster nope"}},
		{"an image that is not there", "image create bad --file /no/such/image --os x", usage, []string{"/no/such/image"}},
		{"a token of an unknown project", "token create bad --project nope", notFound, []string{"no project nope"}},
		{"a token that has ended", "token create bad --project web --lifetime -1h", usage, []string{"--lifetime -1h", "longer than nothing"}},
	})
}

// with returns a command line in a network, with more in its environment.
func (b *badInput) with(t *testing.T, network, variable string, args ...string) *exec.Cmd {
	cmd := b.command(t.Context(), network, args...)
	cmd.Env = append(cmd.Env, variable)
	return cmd
}

func (b *badInput) credentials(t *testing.T) {
	t.Run("no token", func(t *testing.T) {
		answer(t, b.with(t, "internet", "NARU_TOKEN=rubbish", "vm", "list"), notAllowed, "no access token", "naru_")
	})
	t.Run("a token of another zone's edge", func(t *testing.T) {
		var config struct{ Token string }
		readYAML(t, b.path("cli", "business.yaml"), &config)
		answer(t, b.with(t, "internet", "NARU_TOKEN="+config.Token, "vm", "list"), notAllowed, "user-business", "zone business only")
	})
	t.Run("an expired token", func(t *testing.T) {
		token := b.naru(t, "control", "token", "create", "short", "--project", "web", "--zone", "internet", "--lifetime", "1s")
		defer b.naru(t, "control", "token", "delete", "short")
		<-time.After(1100 * time.Millisecond) // the token's life
		answer(t, b.with(t, "internet", "NARU_TOKEN="+strings.TrimSpace(token), "vm", "list"), notAllowed, "short expired at", "Ask an administrator for a new one")
	})
	t.Run("a certificate of another federation", func(t *testing.T) {
		foreign := filepath.Join(b.folder, "foreign")
		config := b.write(t, "foreign.yaml", map[string]any{
			"name": "cp-1", "data": filepath.Join(b.folder, "foreign-data"),
			"api": map[string]any{"address": "127.0.0.1:1"}, "peer": map[string]any{"address": "127.0.0.1:2"},
		})
		run(t, exec.Command(program("naru-controlplane"), "init", "--config", config, "--federation", "naru.test", "--admin", foreign))
		var cli map[string]any
		readYAML(t, b.path("cli", "control.yaml"), &cli)
		cli["certificate_file"], cli["key_file"] = filepath.Join(foreign, "admin.pem"), filepath.Join(foreign, "admin.key")
		answer(t, b.with(t, "control", "NARU_CONFIG="+b.write(t, "cli.yaml", cli), "zone", "list"), notAllowed, "is not accepted", "another federation")
		delete(cli, "certificate_file")
		delete(cli, "key_file")
		answer(t, b.with(t, "control", "NARU_CONFIG="+b.write(t, "cli.yaml", cli), "zone", "list"), notAllowed, "certificate", "access token")
	})
}

// in runs a daemon's program in a namespace of the site. It is ended if it does not end.
func (b *badInput) in(t *testing.T, group, name string, args ...string) *exec.Cmd {
	t.Helper()
	n := named(t, b.namespaces(t), group)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path, "--", program(name)}, args...)...)
}

// changed writes the configuration of one of the site's processes, changed, and returns its path.
func (b *badInput) changed(t *testing.T, process string, change func(config map[string]any)) string {
	t.Helper()
	var config map[string]any
	readYAML(t, b.path("config", process+".yaml"), &config)
	change(config)
	return b.write(t, process+".yaml", config)
}

func (b *badInput) write(t *testing.T, name string, config map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return b.text(t, name, string(text))
}

func (b *badInput) text(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(b.folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *badInput) joining(t *testing.T) {
	config := b.changed(t, "agent-business", func(c map[string]any) {
		c["name"], c["data"] = "agent-9", filepath.Join(b.folder, "agent-9")
	})
	used, err := os.ReadFile(b.path("run", "agent-business.token"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := b.naru(t, "control", "zone", "token", "business")
	old := b.naru(t, "control", "zone", "token", "business", "--lifetime", "1s")
	<-time.After(1100 * time.Millisecond) // the token's life
	for about, c := range map[string]struct {
		token string
		words []string
	}{
		"no token at all":  {"rubbish", []string{"no join token", "copy the whole text"}},
		"a damaged token":  {strings.TrimSpace(fresh) + "x", []string{"no join token", "copy the whole text"}},
		"a used token":     {string(used), []string{"used by another key", "make a new one"}},
		"an expired token": {old, []string{"expired at", "make a new one"}},
		"a server's token": {b.naru(t, "control", "server", "token"), []string{"not known here", "naru zone token"}},
	} {
		t.Run(about, func(t *testing.T) {
			token := b.text(t, "token", c.token)
			answer(t, b.in(t, "agent-business", "naru-zoneagent", "join", "--config", config, "--token-file", token), ended, c.words...)
		})
	}
	t.Run("an agent that has not joined", func(t *testing.T) {
		answer(t, b.in(t, "agent-business", "naru-zoneagent", "run", "--config", config), ended, "has not joined", "naru-zoneagent join")
	})
}

func (b *badInput) joiningServers(t *testing.T) {
	config := b.changed(t, "controlplane-1", func(c map[string]any) {
		c["name"], c["data"] = "controlplane-9", filepath.Join(b.folder, "controlplane-9")
	})
	good, old := b.naru(t, "control", "server", "token"), b.naru(t, "control", "server", "token", "--lifetime", "1s")
	<-time.After(1100 * time.Millisecond) // the token's life
	for about, c := range map[string]struct {
		token, address string
		words          []string
	}{
		"a zone's token":       {b.naru(t, "control", "zone", "token", "business"), "10.90.0.11:8444", []string{"not known here", "naru server token"}},
		"an expired token":     {old, "10.90.0.11:8444", []string{"expired at", "make a new one"}},
		"the API's address":    {good, "10.90.0.11:8443", []string{"10.90.0.11:8443", "peer address"}},
		"nobody's address":     {good, "10.90.0.11:9", []string{"10.90.0.11:9", "is it up"}},
		"no token where it is": {"", "10.90.0.11:8444", []string{"no join token"}},
	} {
		t.Run(about, func(t *testing.T) {
			token := b.text(t, "token", c.token)
			answer(t, b.in(t, "controlplane-1", "naru-controlplane", "join", "--config", config, "--server", c.address, "--token-file", token), ended, c.words...)
		})
	}
	t.Run("a server that has not joined", func(t *testing.T) {
		answer(t, b.in(t, "controlplane-1", "naru-controlplane", "run", "--config", config), ended, "belongs to no federation", "naru-controlplane join")
	})
}

func (b *badInput) starting(t *testing.T) {
	at := func(group, name string, args ...string) *exec.Cmd { return b.in(t, group, name, args...) }
	colour := func(c map[string]any) { c["colour"] = "blue" }
	elsewhere := func(key, name string) func(map[string]any) {
		return func(c map[string]any) { c[key] = filepath.Join(b.folder, name) }
	}
	t.Run("an unknown key", func(t *testing.T) {
		for process, c := range map[string]struct{ program, known string }{
			"controlplane-1": {"naru-controlplane", "name"}, "agent-business": {"naru-zoneagent", "name"}, "broker-business": {"naru-broker", "zone_listen"},
		} {
			answer(t, at(process, c.program, "run", "--config", b.changed(t, process, colour)), ended, `unknown key "colour"`, "known here", c.known)
		}
	})
	t.Run("a missing key", func(t *testing.T) {
		config := b.changed(t, "controlplane-1", func(c map[string]any) { delete(c, "data") })
		answer(t, at("controlplane-1", "naru-controlplane", "run", "--config", config), ended, `key "data" is missing`)
	})
	t.Run("no file", func(t *testing.T) {
		answer(t, at("agent-business", "naru-zoneagent", "run", "--config", "/no/such/file"), ended, "/no/such/file")
	})
	t.Run("a folder in use", func(t *testing.T) {
		answer(t, at("controlplane-1", "naru-controlplane", "run", "--config", b.path("config", "controlplane-1.yaml")), ended,
			b.path("data", "controlplane-1"), "in use", "a folder of its own")
	})
	t.Run("a federation begun twice", func(t *testing.T) {
		answer(t, at("controlplane-1", "naru-controlplane", "init", "--config", b.path("config", "controlplane-1.yaml"),
			"--federation", "naru.test", "--admin", filepath.Join(b.folder, "again")), ended, "belongs to federation naru.test", "another data folder")
	})
	t.Run("a taken port", func(t *testing.T) {
		answer(t, at("agent-business", "naru-zoneagent", "run", "--config", b.path("config", "agent-business.yaml")), ended, "10.90.2.10:7946", "taken", "another port")
		answer(t, at("broker-business", "naru-broker", "run", "--config", b.changed(t, "broker-business", elsewhere("state_dir", "broker"))), ended,
			"zone_listen", "10.90.2.2:7443", "choose another")
	})
	t.Run("the folder of another server", func(t *testing.T) {
		b.dev(t, "kill", "controlplane-1")
		defer b.dev(t, "start", "controlplane-1")
		config := b.changed(t, "controlplane-1", func(c map[string]any) { c["name"] = "controlplane-7" })
		answer(t, at("controlplane-1", "naru-controlplane", "run", "--config", config), ended,
			b.path("data", "controlplane-1"), "belongs to server controlplane-1", "this is server controlplane-7", "a folder of its own")
	})
	t.Run("the folder of another agent", func(t *testing.T) {
		config := b.changed(t, "agent-business", func(c map[string]any) { c["name"] = "agent-7" })
		answer(t, at("agent-business", "naru-zoneagent", "run", "--config", config), ended, "agent-7", "agent-1", b.path("data", "agent-business"))
	})
}

func (b *badInput) lastHost(t *testing.T) {
	b.naru(t, "control", "cluster", "create", "small", "--zone", "business", "--purpose", "WEB", "--hypervisor", "sim")
	b.naru(t, "control", "host", "create", "small-1", "--zone", "business", "--cluster", "small", "--endpoint", "sim://small-1?cores=4&memory_mib=4096&disk_gib=50")
	b.host(t, "small-1")
	b.ask(t, "last", "business", "small").succeeds(t)
	b.calls(t, "control", []call{
		{"while a VM is on it", "host delete small-1 --zone business --cluster small", conflict, []string{"small-1", "last", "Delete what depends on it first"}},
	})
	b.vm(t, "last", "runs on", func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_RUNNING && vm.GetHost() == "small-1" })
	b.naru(t, "internet", "vm", "delete", "last", "--wait")
	b.naru(t, "control", "host", "delete", "small-1", "--zone", "business", "--cluster", "small")
	b.calls(t, "internet", []call{
		{"and then a VM is asked for", "vm create bad --image tiny --flavor s1 --zone business --cluster small", refused, []string{"no host", "another cluster"}},
	})
	b.naru(t, "control", "cluster", "delete", "small", "--zone", "business")
}

func (b *badInput) absentStore(t *testing.T) {
	config := b.changed(t, "agent-management", func(c map[string]any) {
		c["etcd"] = map[string]any{"endpoints": []string{"https://10.90.3.10:9999"}}
	})
	b.dev(t, "kill", "agent-management")
	cmd := b.in(t, "agent-management", "naru-zoneagent", "run", "--config", config)
	waits := &lookout{word: "does not answer yet", seen: func() { cmd.Process.Signal(os.Interrupt) }}
	cmd.Stderr = waits
	if err := cmd.Run(); err == nil {
		t.Error("an agent that never had a store ends well")
	}
	for _, word := range []string{"https://10.90.3.10:9999", waits.word, "see that it runs"} {
		if !strings.Contains(waits.String(), word) {
			t.Errorf("it does not say %q:\n%s", word, waits.String())
		}
	}
	b.dev(t, "start", "agent-management")
	b.zone(t, "management", "is online again", func(z *apiv1.Zone) bool { return z.GetState() == apiv1.Zone_ONLINE })
}

// lookout keeps what is written, and calls seen when it first holds a word.
type lookout struct {
	strings.Builder
	word string
	seen func()
}

func (l *lookout) Write(b []byte) (int, error) {
	l.Builder.Write(b)
	if l.seen != nil && strings.Contains(l.String(), l.word) {
		l.seen()
		l.seen = nil
	}
	return len(b), nil
}
