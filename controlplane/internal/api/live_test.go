package api

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/pkg/problem"
)

// leader answers while there is one; without, nobody gets an answer.
type leader struct {
	lost  atomic.Bool
	asked atomic.Int32
}

func (l *leader) ask(ctx context.Context) error {
	l.asked.Add(1)
	if l.lost.Load() {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

// known finds every credential good.
type known struct{}

func (known) Authenticate(context.Context, auth.Credentials) (auth.Principal, error) {
	return auth.Principal{}, errors.New("nobody asks")
}
func (known) Recheck(context.Context, auth.Principal) error { return nil }

func TestP12WithoutALeaderStreamsEndWithinTwoSecondsAndAdministratorsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leader{}
		g := &gate{who: known{}, current: current{ask: l.ask}}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		streams := map[string]context.Context{}
		for name, p := range map[string]auth.Principal{
			"a session": {Kind: auth.User, Name: "kim"}, "a token": {Kind: auth.AccessToken, Name: "ci"}, "a certificate": {Kind: auth.Admin, Name: "boss"},
		} {
			stream, cut := context.WithCancelCause(ctx)
			if _, err := g.live.enter(p, cut); err != nil {
				t.Fatal(err)
			}
			streams[name] = stream
		}
		go g.watch(ctx)
		time.Sleep(time.Minute)
		for name, s := range streams {
			if s.Err() != nil {
				t.Fatalf("the stream with %s ended while there was a leader: %v", name, context.Cause(s))
			}
		}
		l.lost.Store(true)
		time.Sleep(knownTime + time.Millisecond)
		for name, s := range streams {
			if ended := problem.Is(context.Cause(s), problem.Unavailable); ended != (name != "a certificate") {
				t.Errorf("the stream with %s: %v", name, context.Cause(s))
			}
		}
		stop()
		time.Sleep(sureTime) // the last question ends by itself
	})
}

func TestWithoutALeaderNobodyWaitsLongAndAllAskOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leader{}
		l.lost.Store(true)
		g := &gate{who: known{}, current: current{ask: l.ask}}
		began := time.Now()
		ended := make(chan error)
		for range 1000 {
			go func() { ended <- g.sure(t.Context(), &visit{principal: auth.Principal{Kind: auth.User, Name: "kim"}}) }()
		}
		for range 1000 {
			if err := <-ended; !problem.Is(err, problem.Unavailable) || problem.Of(err).GetNext() == "" {
				t.Fatalf("a call ended with %v", err)
			}
		}
		if took := time.Since(began); took > sureTime || l.asked.Load() != 1 {
			t.Errorf("they ended after %s, and asked %d times", took, l.asked.Load())
		}
		if err := g.sure(t.Context(), &visit{principal: auth.Principal{Kind: auth.Admin, Name: "boss"}}); err != nil || time.Since(began) > sureTime {
			t.Errorf("an administrator was answered %v after %s", err, time.Since(began))
		}
		l.lost.Store(false)
		for range 3 {
			if err := g.sure(t.Context(), &visit{principal: auth.Principal{Kind: auth.User, Name: "kim"}}); err != nil {
				t.Errorf("once there is a leader again: %v", err)
			}
		}
		if n := l.asked.Load(); n != 2 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// TestAnAnswerThatTookTooLongIsAskedForAgain: what was known when the question was asked may be too old when the answer comes.
func TestAnAnswerThatTookTooLongIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		c := &current{ask: func(context.Context) error {
			if asked++; asked == 1 {
				time.Sleep(knownTime + 100*time.Millisecond)
			}
			return nil
		}}
		if err := c.renew(t.Context()); err != nil || asked != 2 || !time.Now().Before(c.until()) {
			t.Errorf("%v, after %d questions; known until %s", err, asked, c.until())
		}
	})
}
