package provider

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// atOnce bounds how many ask one provider at once, maxOfPlace those of one place who ask or wait for that, so that neither a flood
	// from one place nor a provider that hangs keeps others out.
	atOnce     = 8
	maxOfPlace = 6
	maxWaiting = 32
	// silences is after how many questions in a row without an answer a provider is left alone, and rest for how long.
	silences = 3
	rest     = 20 * time.Second
)

// errUnasked is what came of a question that did not have to be asked: it says nothing of whether the provider answers.
var errUnasked = errors.New("it was known already")

// line is where those stand who ask one provider.
type line struct {
	slots chan struct{}

	mu     sync.Mutex
	all    int
	of     map[string]int // by place
	silent int
	until  time.Time
}

func (a *Asker) line(id string) *line {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lines[id]
	if l == nil {
		l = &line{slots: make(chan struct{}, atOnce), of: map[string]int{}}
		a.lines[id] = l
	}
	return l
}

// enter waits for one's turn to ask a provider, and gives the question its time. leave is told what came of it.
func (a *Asker) enter(asked context.Context, p *apiv1.IdentityProvider, place string) (_ context.Context, leave func(*error), err error) {
	l := a.line(p.GetId())
	if err := l.admit(a.now(), p.GetName(), place); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(asked, patience)
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		cancel()
		l.gone(place)
		return nil, nil, &Failure{Err: errors.New("others ask it already, and get no answer")}
	}
	return ctx, func(came *error) {
		cancel()
		<-l.slots
		l.gone(place)
		if asked.Err() == nil && *came != errUnasked { // who went away says nothing of the provider
			l.judge(a.now(), *came)
		}
	}, nil
}

func (l *line) admit(now time.Time, name, place string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.until.Sub(now); wait > 0 {
		return &Failure{Err: fmt.Errorf("it did not answer %d times in a row, and is asked again in %s", l.silent, wait.Round(time.Second))}
	}
	if l.all >= maxWaiting || l.of[place] >= maxOfPlace {
		return problem.New(problem.TooMany, "as many as can wait for identity provider "+name+" already", "Try again in a moment.")
	}
	l.all++
	l.of[place]++
	return nil
}

func (l *line) gone(place string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[place]--; l.of[place] == 0 {
		delete(l.of, place)
	}
}

// judge counts the questions that got no answer. A refusal is one, whoever asked: nobody closes a provider to others by what they type.
func (l *line) judge(now time.Time, came error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if failure := (*Failure)(nil); !errors.As(came, &failure) || failure.Answered {
		l.silent = 0
		return
	}
	if l.silent++; l.silent >= silences {
		l.until = now.Add(rest)
	}
}
