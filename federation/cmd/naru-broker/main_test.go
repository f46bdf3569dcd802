package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/obs"
)

const pin = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "broker.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func settings(state, more string) string {
	return fmt.Sprintf("state_dir: %s\ntrust_pin: %s\nzone_listen: 127.0.0.1:0\nhub_listen: 127.0.0.2:0\n%s", state, pin, more)
}

// call runs the program with its log going to log, and returns what it printed.
func call(ctx context.Context, log io.Writer, args ...string) (stdout string, err error) {
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetErr(log)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(ctx)
	return out.String(), err
}

func TestWhatIsWrongIsSaidWithTheWayOut(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	with := func(more string) string { return write(t, settings(t.TempDir(), more)) }
	for about, c := range map[string]struct{ config, say string }{
		"no configuration":         {"/nonexistent/x.yaml", "/nonexistent/x.yaml"},
		"an unknown key":           {with("zone_listens: x\n"), "zone_listens"},
		"a missing key":            {write(t, "state_dir: x\n"), "trust_pin"},
		"a port that is taken":     {with("admin_listen: " + taken.Addr().String() + "\n"), taken.Addr().String()},
		"a limit that is no limit": {with("limits: {connections: 0}\n"), "limits.connections"},
		"a log of no format":       {with("log: {format: xml}\n"), "text or json"},
	} {
		stdout, err := call(t.Context(), io.Discard, "run", "--config", c.config)
		if err == nil || !strings.Contains(err.Error(), c.say) || stdout != "" {
			t.Errorf("%s: %v, on stdout %q", about, err, stdout)
		}
	}
}

func TestTheFingerprintIsPrintedAndStays(t *testing.T) {
	path := write(t, settings(t.TempDir(), ""))
	var prints []string
	for range 2 {
		stdout, err := call(t.Context(), io.Discard, "fingerprint", "--config", path)
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, stdout)
	}
	if prints[0] != prints[1] || !regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}\n$`).MatchString(prints[0]) {
		t.Errorf("printed %q", prints)
	}
}

// heard is a log that tells when a line with a word in it has been written.
type heard struct {
	bytes.Buffer
	word string
	come chan struct{}
}

func (h *heard) Write(line []byte) (int, error) {
	if h.come != nil && strings.Contains(string(line), h.word) {
		close(h.come)
		h.come = nil
	}
	return h.Buffer.Write(line)
}

func TestABrokerLogsAsItIsToldAndEndsWell(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	listens := make(chan struct{})
	log := &heard{word: "broker listens", come: listens}
	path := write(t, settings(t.TempDir(), "log: {format: json}\n"))
	ended := make(chan error, 1)
	go func() {
		_, err := call(ctx, log, "run", "--config", path)
		ended <- err
	}()
	<-listens
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{`"msg":"broker listens"`, "waiting to be enrolled", "SHA256:", "broker ended"} {
		if !strings.Contains(log.String(), say) {
			t.Errorf("the log lacks %q:\n%s", say, log)
		}
	}
}

func TestASecondBrokerIsRefusedTheFolderOfOneThatRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	listens := make(chan struct{})
	state := t.TempDir()
	path := write(t, settings(state, ""))
	ended := make(chan error, 1)
	go func() {
		_, err := call(ctx, &heard{word: "broker listens", come: listens}, "run", "--config", path)
		ended <- err
	}()
	<-listens
	log := &heard{word: "broker listens", come: make(chan struct{})}
	second, stop := context.WithCancel(t.Context())
	go func(listens chan struct{}) {
		select {
		case <-listens:
			stop()
		case <-second.Done():
		}
	}(log.come)
	_, err := call(second, log, "run", "--config", path)
	stop()
	if err == nil || !strings.Contains(err.Error(), state) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("a second broker in the folder: %v\n%s", err, log)
	}
	if print, err := call(t.Context(), io.Discard, "fingerprint", "--config", path); err != nil || !strings.HasPrefix(print, "SHA256:") {
		t.Errorf("the fingerprint of a broker that runs: %q %v", print, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestABrokerServesItsProfilesInItsFolder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	state := t.TempDir()
	path := write(t, settings(state, ""))
	ended := make(chan error, 1)
	go func() {
		_, err := call(ctx, io.Discard, "run", "--config", path)
		ended <- err
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(state, obs.ProfileSocket))
			if err == nil || ctx.Err() != nil {
				return c, errors.Join(err, ctx.Err())
			}
		}
	}}}
	r, err := client.Get("http://profiles/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if profile, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(profile), "broker.(*Broker).Run") {
		t.Errorf("%v: %s", err, profile)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
