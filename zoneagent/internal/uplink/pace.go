package uplink

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/problem"
)

const (
	// firstRetry doubles up to lastRetry while sessions fail. A session that was open for as long as proven has worked: the
	// next wait is the first one again. Whom the control plane bars hears that within two seconds of the opening.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 3 * time.Second
	proven     = 3 * time.Second
	// barredRetry is the pace of an agent that the control plane lets in no more: only an administrator changes that, and the
	// agent should notice.
	barredRetry = time.Minute
)

// standing is how the control plane stands to this agent.
type standing string

const (
	welcome     standing = ""
	revoked     standing = "revoked"
	quarantined standing = "quarantined"
)

// standingOf reads from the end of a session whether the control plane has barred this agent.
func standingOf(err error) standing {
	var g *link.Goodbye
	switch {
	case errors.As(err, &g) && g.Code == link.CodeRevoked, problem.Is(problem.FromStatus(err), problem.Revoked):
		return revoked
	case errors.As(err, &g) && g.Code == link.CodeQuarantined, errors.Is(err, link.ErrQuarantine):
		return quarantined
	}
	return welcome
}

// wayOut is what people can do about it.
func (s standing) wayOut() string {
	if s == revoked {
		return "Let an agent join with a token under another name: naru zone token."
	}
	return "Look why: naru zone show, and whether two control planes run."
}

// bar is why an agent is let in no more.
type bar struct {
	standing standing
	why      error
}

// keep has one session after the other until ctx ends, whose cause it returns. Sessions that fail are tried again ever more
// slowly; an agent that is barred says so once, and asks at a slow pace until a session lasts again.
func (u *Uplink) keep(ctx context.Context, session func(context.Context) error) error {
	defer u.unbar()
	for wait := firstRetry; ; {
		err := session(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if u.state.worked.Swap(false) {
			wait = firstRetry
		}
		if s := standingOf(err); s != welcome {
			u.bar(s, err)
		}
		pause := wait
		if b := u.state.barred.Load(); b != nil {
			u.state.turn(string(b.standing), b.why)
			pause = barredRetry
		} else {
			u.state.turn(Connecting, err)
			u.Log.Info("no session with the control plane", "cause", err, "again_in", wait)
			wait = min(2*wait, lastRetry)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// bar notes that the control plane lets this agent in no more, and tells it when that is news.
func (u *Uplink) bar(s standing, why error) {
	if was := u.state.barred.Swap(&bar{s, why}); was != nil {
		if was.standing == s {
			return
		}
		u.barred.WithLabelValues(string(was.standing)).Set(0)
	}
	u.barred.WithLabelValues(string(s)).Set(1)
	u.Log.Error("the control plane lets this agent in no more; the zone carries on, and this is said only once",
		"standing", s, "cause", why, "next", s.wayOut(), "again_every", barredRetry)
}

// unbar notes that it is let in, or that this agent no longer asks; it returns whether that is news.
func (u *Uplink) unbar() bool {
	was := u.state.barred.Swap(nil)
	if was != nil {
		u.barred.WithLabelValues(string(was.standing)).Set(0)
	}
	return was != nil
}

// lasting counts a session that has just opened as one that works, and as proof that this agent is let in, once it has lasted
// for a moment. stop is to be called when the session ends.
func (u *Uplink) lasting() (stop func() bool) {
	return time.AfterFunc(proven, func() {
		u.state.worked.Store(true)
		if u.unbar() {
			u.state.turn(Connected, nil)
			u.Log.Info("the control plane lets this agent in again")
		}
	}).Stop
}
