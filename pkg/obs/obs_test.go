package obs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/pkg/obs"
)

func get(h http.Handler, verb, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(verb, path, nil))
	return w
}

func TestHealthIsOfTheProcessAndReadinessOfWhatItNeeds(t *testing.T) {
	var missing error
	h := obs.Handler(prometheus.NewRegistry(), func(context.Context) error { return missing })
	for _, c := range []struct {
		missing         error
		healthz, readyz int
		says            string
	}{
		{nil, http.StatusOK, http.StatusOK, "ready\n"},
		{errors.New("no leader is known"), http.StatusOK, http.StatusServiceUnavailable, "no leader is known\n"},
	} {
		missing = c.missing
		if w := get(h, "GET", "/healthz"); w.Code != c.healthz || w.Body.String() != "ok\n" {
			t.Errorf("missing %v: /healthz is %d %q", c.missing, w.Code, w.Body)
		}
		if w := get(h, "GET", "/readyz"); w.Code != c.readyz || w.Body.String() != c.says {
			t.Errorf("missing %v: /readyz is %d %q", c.missing, w.Code, w.Body)
		}
	}
	if w := get(h, "POST", "/healthz"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz is %d", w.Code)
	}
}

func TestMetricsHaveTheProgramsOwnAndTheProcesss(t *testing.T) {
	r := obs.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "naru_test_things_total", Help: "Things."})
	r.MustRegister(c)
	c.Add(3)
	body := get(obs.Handler(r, func(context.Context) error { return nil }), "GET", "/metrics").Body.String()
	for _, want := range []string{"naru_test_things_total 3", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

func TestALoggerWritesWhatItsLevelLetsThrough(t *testing.T) {
	var out bytes.Buffer
	log, err := obs.NewLogger(&out, obs.LogConfig{Level: slog.LevelWarn, Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("silent")
	log.Warn("heard", "zone", "business")
	var line struct{ Msg, Zone string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != "heard" || line.Zone != "business" {
		t.Fatalf("%v: %s", err, &out)
	}
	if _, err := obs.NewLogger(&out, obs.LogConfig{Format: "xml"}); err == nil || !strings.Contains(err.Error(), "text or json") {
		t.Fatalf("%v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- obs.Serve(ctx, l, obs.Handler(prometheus.NewRegistry(), func(context.Context) error { return nil }))
	}()
	r, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	cancel()
	if err := <-ended; err != nil || string(body) != "ok\n" {
		t.Fatalf("%q, %v", body, err)
	}
}
