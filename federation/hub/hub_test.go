package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestABoardShowsTheLatestWord(t *testing.T) {
	var b Board
	status, changed := b.read()
	if status != nil {
		t.Errorf("it says %v before anything was said", status)
	}
	b.Publish(&linkv1.ServerStatus{Serving: true})
	b.Publish(&linkv1.ServerStatus{Leader: true})
	<-changed
	status, changed = b.read()
	if !status.Leader || status.Serving {
		t.Errorf("it says %v", status)
	}
	select {
	case <-changed:
		t.Error("it tells of a change that was read already")
	default:
	}
}

// registry enrols everybody and counts.
type registry struct {
	Registrar
	enrolled int
}

func (r *registry) EnrollBroker(context.Context, string, []byte) ([][]byte, error) {
	r.enrolled++
	return [][]byte{{1}}, nil
}

func config(r Registrar, fingerprint string) Config {
	return Config{
		Broker: "b1", Address: "broker.test:1", Fingerprint: fingerprint, Board: &Board{}, Registrar: r,
		Certificate: func() (*tls.Certificate, error) { return nil, pki.ErrNoCertificate },
		Serve:       func(context.Context, *Session) error { return nil },
	}
}

func TestABrokerGetsACertificateForItsPinnedKeyOnly(t *testing.T) {
	own, other := holder(t), holder(t)
	r := &registry{}
	c, err := New(config(r, own.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	round := &round{Client: c}
	csr, err := other.CSR()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := round.issue(t.Context(), csr); err == nil || r.enrolled != 0 {
		t.Errorf("another key: %v", err)
	}
	if _, err := round.issue(t.Context(), []byte("rubbish")); err == nil || r.enrolled != 0 {
		t.Errorf("rubbish: %v", err)
	}
	if csr, err = own.CSR(); err != nil {
		t.Fatal(err)
	}
	if _, err := round.issue(t.Context(), csr); err != nil || r.enrolled != 1 {
		t.Errorf("its own: %v", err)
	}
}

func holder(t *testing.T) *pki.Holder {
	t.Helper()
	h, err := pki.LoadOrCreate(t.TempDir(), "broker")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAClientThatLacksSomethingIsNotMade(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"no broker":      func(c *Config) { c.Broker = "" },
		"no address":     func(c *Config) { c.Address = "" },
		"no fingerprint": func(c *Config) { c.Fingerprint = "" },
		"no board":       func(c *Config) { c.Board = nil },
		"no registrar":   func(c *Config) { c.Registrar = nil },
		"no certificate": func(c *Config) { c.Certificate = nil },
		"nobody serves":  func(c *Config) { c.Serve = nil },
	} {
		c := config(&registry{}, "SHA256:x")
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestAClientTriesForEverAndEndsWithItsCause(t *testing.T) {
	c := config(&registry{}, "SHA256:x")
	c.Address = "127.0.0.1:1" // nobody listens
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(over) })
	if err := client.Run(ctx); !errors.Is(err, over) {
		t.Errorf("ended with %v", err)
	}
}

// rounds counts the rounds that a client begins within a time; each ends at once, and the broker was heard for so long.
func rounds(t *testing.T, within time.Duration, heard func(round int) time.Duration) (n int) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(config(&registry{}, "SHA256:x"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		c.keep(ctx, func(context.Context) (time.Duration, error) {
			n++
			return heard(n), errors.New("broken")
		})
	})
	return n
}

func TestABrokerThatIsAwayIsTriedEveryFewSeconds(t *testing.T) {
	if n := rounds(t, time.Hour, func(int) time.Duration { return 0 }); n < 1200 || n > 2500 {
		t.Errorf("%d rounds in an hour", n)
	}
}

func TestABrokerThatWasHeardForAWhileIsTriedAgainAtOnce(t *testing.T) {
	const last = 100
	since := func(heard time.Duration) time.Duration {
		var at time.Time
		var took time.Duration
		rounds(t, time.Hour, func(round int) time.Duration {
			switch round {
			case last:
				at = time.Now()
				return heard
			case last + 1:
				took = time.Since(at)
			}
			return 0
		})
		return took
	}
	if took := since(proven); took > firstRetry {
		t.Errorf("it waits for %v after a stream that worked", took)
	}
	if took := since(proven - 1); took < lastRetry/2 {
		t.Errorf("it waits for %v after one that was opened and broken", took)
	}
}

func TestARefusalReachesTheAskerWithWhatToDoNext(t *testing.T) {
	err := problem.New(problem.TokenUsed, "token 7 was used by another key", "Ask for a new token.")
	text := advice(err, status.Convert(problem.ToStatus(err)).Message())
	if !strings.Contains(text, "another key") || !strings.Contains(text, "Ask for a new token.") {
		t.Errorf("told %q", text)
	}
	foreign := errors.New("disk /secret is full")
	if text := advice(foreign, status.Convert(problem.ToStatus(foreign)).Message()); strings.Contains(text, "secret") {
		t.Errorf("told %q", text)
	}
	if got := status.Code(problem.ToStatus(status.Error(codes.PermissionDenied, "no"))); got != codes.PermissionDenied {
		t.Errorf("a status became %s", got)
	}
}

func TestATextIsShortenedAtACharacter(t *testing.T) {
	for _, c := range []struct {
		text string
		max  int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"나루터", 2, "나루"}, {"a\xffb", 9, "a?b"}, {"", 0, ""}} {
		if got := shorten(c.text, c.max); got != c.want {
			t.Errorf("%q to %d: %q", c.text, c.max, got)
		}
	}
}
