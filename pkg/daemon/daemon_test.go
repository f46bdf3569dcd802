package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/problem"
)

type sample struct{ path, format string }

// call runs a daemon with one verb, greet, that ends with err, and returns what became of it.
func call(t *testing.T, err error, args ...string) (exit int, read *sample, stdout, stderr string) {
	t.Helper()
	file := Configuration[sample]{
		File: "/etc/naru/sample.yaml",
		Load: func(path string) (*sample, error) {
			if path == "/missing" {
				return nil, errors.New("configuration /missing: there is none")
			}
			c := &sample{path: path}
			if path == "/odd" {
				c.format = "xml"
			}
			return c, nil
		},
		Log: func(c *sample) obs.LogConfig { return obs.LogConfig{Format: c.format} },
	}
	root := Command("naru-sample", "A sample", file.Verb("greet", "Greet", func(_ context.Context, c *sample, log *slog.Logger) error {
		read = c
		log.Info("greeting")
		return err
	}), &cobra.Command{Use: "plain", Run: func(cmd *cobra.Command, _ []string) { cmd.Print("plain") }})
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(args)
	exit = run(t.Context(), root, &errOut)
	return exit, read, out.String(), errOut.String()
}

func TestADaemonWithoutConfigurationSaysHowToGiveOne(t *testing.T) {
	file := Configuration[sample]{File: "/etc/naru/sample.yaml", Load: func(path string) (*sample, error) {
		return nil, fmt.Errorf("configuration %s: %w", path, fs.ErrNotExist)
	}}
	var stderr bytes.Buffer
	root := Command("naru-sample", "A sample", file.Verb("greet", "Greet", nil))
	root.SetArgs([]string{"greet"})
	if exit := run(t.Context(), root, &stderr); exit != 1 || !strings.Contains(stderr.String(), "/etc/naru/sample.yaml") || !strings.Contains(stderr.String(), "--config FILE") {
		t.Errorf("exit %d: %s", exit, &stderr)
	}
}

func TestAVerbReadsTheConfigurationAndLogsToStandardError(t *testing.T) {
	for path, args := range map[string][]string{"/etc/naru/sample.yaml": {"greet"}, "/elsewhere": {"greet", "--config", "/elsewhere"}} {
		exit, read, stdout, stderr := call(t, nil, args...)
		if exit != 0 || read == nil || read.path != path || stdout != "" || !strings.Contains(stderr, "msg=greeting") {
			t.Errorf("%v: exit %d, read %+v, said %q and %q", args, exit, read, stdout, stderr)
		}
	}
}

func TestWhatIsWrongEndsTheDaemonWithOneSentence(t *testing.T) {
	fits := problem.Newf(problem.Unavailable, "Start it first", "nothing answers")
	for about, c := range map[string]struct {
		args []string
		err  error
		says []string
	}{
		"what the verb says":    {[]string{"greet"}, fits, []string{"naru-sample: ", "nothing answers", "Start it first"}},
		"no such file":          {[]string{"greet", "--config", "/missing"}, nil, []string{"naru-sample: configuration /missing: there is none"}},
		"no such format of log": {[]string{"greet", "--config", "/odd"}, nil, []string{"configuration /odd", "text or json"}},
		"no such verb":          {[]string{"gret"}, nil, []string{`"gret"`}},
		"no such flag":          {[]string{"greet", "--colour"}, nil, []string{"--colour"}},
		"a word too many":       {[]string{"greet", "twice"}, nil, []string{`"twice"`}},
	} {
		exit, _, stdout, stderr := call(t, c.err, c.args...)
		if exit != 1 || stdout != "" {
			t.Errorf("%s: exit %d, on stdout %q", about, exit, stdout)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr, s) {
				t.Errorf("%s: %q is not said in %q", about, s, stderr)
			}
		}
	}
}
