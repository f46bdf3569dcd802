// Package door makes those wait who show something wrong of themselves again and again.
package door

import (
	"fmt"
	"sync"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

const (
	// free is how often one may be wrong before one has to wait.
	free = 5
	// longest is how long one waits at most.
	longest = 15 * time.Minute
	// forgotten is after how long without another failure everything is forgotten.
	forgotten = time.Hour
	// maxKept bounds what is remembered. Beyond that what is oldest is forgotten: whoever floods it has made that many tries.
	maxKept = 65536
)

// Way is by which way somebody comes to a door: as whom, and from where. Device is the hash of what the machine keeps, where
// the user has logged in with it before: then it is a way of its own, and whatever others try, it stays open.
type Way struct {
	User, Place, Device string
}

// Doors makes those wait who were wrong, ever longer, each on their own way. It is this server's memory and nothing more:
// nobody is shut out by it for longer than a quarter of an hour, nor by what others do on other ways. Safe for concurrent use.
type Doors struct {
	now func() time.Time

	mu   sync.Mutex
	kept map[Way]*tries
}

type tries struct {
	wrong int
	until time.Time // nobody may try before
	last  time.Time
	// before is when the try before the last was made.
	before time.Time
}

// New returns doors that are all open.
func New(now func() time.Time) *Doors { return &Doors{now: now, kept: map[Way]*tries{}} }

// Knock counts a try, and refuses it where it comes too early. A try counts as wrong until Open says otherwise, so that many at
// once are no way around it. Errors: problem TOO_MANY.
func (d *Doors) Knock(w Way) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	t := d.kept[w]
	if t != nil && now.Sub(t.last) >= forgotten {
		t = nil
	}
	if t == nil {
		d.makeRoom(now)
		t = &tries{}
		d.kept[w] = t
	}
	if wait := t.until.Sub(now); wait > 0 {
		return problem.Newf(problem.TooMany, "Wait, and try again; or log in from a machine that you have logged in from before.",
			"there were too many wrong tries as this user from here: the next may be made in %s", readable(wait))
	}
	t.wrong++
	t.before, t.last = t.last, now
	t.until = t.closed()
	return nil
}

// Open says that what was shown was right.
func (d *Doors) Open(w Way) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, w)
}

// Undo says that a try was not judged to its end: it counts no more than if it had not been made.
func (d *Doors) Undo(w Way) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.kept[w]
	if t == nil {
		return
	}
	if t.wrong--; t.wrong <= 0 {
		delete(d.kept, w)
		return
	}
	t.last = t.before
	t.until = t.closed()
}

// closed is until when nobody may try again.
func (t *tries) closed() time.Time {
	if t.wrong < free {
		return time.Time{}
	}
	return t.last.Add(min(longest, time.Second<<min(t.wrong-free, 20)))
}

// makeRoom forgets what is old, and where that is not enough the oldest.
func (d *Doors) makeRoom(now time.Time) {
	if len(d.kept) < maxKept {
		return
	}
	var oldest Way
	var since time.Time
	for w, t := range d.kept {
		if now.Sub(t.last) >= forgotten {
			delete(d.kept, w)
			continue
		}
		if since.IsZero() || t.last.Before(since) {
			oldest, since = w, t.last
		}
	}
	if len(d.kept) >= maxKept {
		delete(d.kept, oldest)
	}
}

func readable(d time.Duration) string {
	if d = d.Round(time.Second); d < time.Second {
		d = time.Second
	}
	return fmt.Sprint(d)
}
