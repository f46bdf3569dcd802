// Package door makes those wait who show something wrong of themselves again and again, and keeps nobody out by what others
// do.
package door

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

const (
	// free is how often one may be wrong before one has to wait.
	free = 5
	// longest is how long a way is closed after a try at most.
	longest = 5 * time.Minute
	// turn is how long who was drawn has the next try to themselves.
	turn = 2 * time.Minute
	// forgotten is after how long without another failure everything is forgotten.
	forgotten = time.Hour
	// maxKept bounds what is remembered. Beyond that what is oldest is forgotten: whoever floods it has made that many tries.
	maxKept = 65536
	// maxServed bounds of how many addresses a way remembers that they have had their try.
	maxServed = 32
)

// Way is by which way somebody comes to a door: as whom, and from where.
type Way struct {
	User, Place string
	// Own makes it a way of one's own, which stays open whatever others try: the hash of what the machine keeps, where the
	// user has logged in with it before, or of a password for one login that was shown. Empty for all other machines, which
	// share a way.
	Own string
	// From is the address within the place. Those who share a way are drawn by it.
	From string
}

// shared is the way as those who share it have it.
func (w Way) shared() Way { w.From = ""; return w }

// Doors makes those wait who were wrong, ever longer, each on their own way. Where several addresses share a way that is
// closed, the next try is not of whoever comes first: it is drawn among the addresses that have come meanwhile, and those go
// first that have not had one lately. It is this server's memory and nothing more. Safe for concurrent use.
type Doors struct {
	now    func() time.Time
	random io.Reader

	mu   sync.Mutex
	kept map[Way]*tries
}

type tries struct {
	wrong int
	until time.Time // nobody may try before; then who was drawn may, for one turn
	last  time.Time
	drawn lot // of those who came while it was closed
	after lot // of those who came while it was another's turn
	// before is when the try before the last was made, and was what until was then.
	before, was time.Time
	served      []string // addresses that have had their try, the latest last
	// given says that the turn is one that Halfway gave, again that the last try was made in one.
	given, again bool
}

// New returns doors that are all open. random draws lots; reading it never fails.
func New(now func() time.Time, random io.Reader) *Doors {
	return &Doors{now: now, random: random, kept: map[Way]*tries{}}
}

// Knock counts a try, and refuses it where it comes too early. A try counts as wrong until Open says otherwise, so that many at
// once are no way around it. Errors: problem TOO_MANY.
func (d *Doors) Knock(w Way) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	t := d.kept[w.shared()]
	if t != nil && now.Sub(t.last) >= forgotten {
		t = nil
	}
	if t == nil {
		d.makeRoom(now)
		t = &tries{}
		d.kept[w.shared()] = t
	}
	t.settle(now)
	switch {
	case now.Before(t.until):
		t.drawn.put(d.random, w.From, slices.Contains(t.served, w.From))
		return tooMany(t.until.Sub(now))
	case t.drawn.of != nil && *t.drawn.of != w.From:
		t.after.put(d.random, w.From, slices.Contains(t.served, w.From))
		return tooMany(t.until.Add(turn).Sub(now))
	}
	t.serve(w.From)
	t.wrong++
	t.before, t.last, t.was = t.last, now, t.until
	t.until, t.again, t.given = t.closed(), t.given, false
	t.drawn, t.after = t.after, lot{}
	return nil
}

func tooMany(wait time.Duration) error {
	return problem.Newf(problem.TooMany, "Try again then, within two minutes; or log in from a machine that you have logged in from before.",
		"there were too many wrong tries as this user from here: the next may be made in %s", readable(wait))
}

// Open says that what was shown was right.
func (d *Doors) Open(w Way) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, w.shared())
}

// Undo says that a try was not judged: it counts no more than if it had not been made, and what is left of the turn is
// theirs again.
func (d *Doors) Undo(w Way) {
	d.takeBack(w, func(t *tries) {
		t.until, t.given = t.was, t.again
		t.drawn, t.after = lot{of: &w.From}, t.drawn
	})
}

// Halfway says that what was shown was right as far as it goes: the try does not count, and the next is theirs; but not time
// after time, or whoever knows half of what is to be shown keeps out who knows all.
func (d *Doors) Halfway(w Way) {
	d.takeBack(w, func(t *tries) {
		if t.until = d.now(); t.again {
			return
		}
		t.given = true
		t.drawn, t.after = lot{of: &w.From}, t.drawn
	})
}

// takeBack makes a try count no more, and where the way had been closed before it has then say whose turn it is.
func (d *Doors) takeBack(w Way, then func(*tries)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.kept[w.shared()]
	if t == nil {
		return
	}
	if t.wrong--; t.wrong <= 0 {
		delete(d.kept, w.shared())
		return
	}
	t.last = t.before
	t.until = time.Time{}
	if t.wrong >= free {
		then(t)
	}
}

// closed is until when nobody may try again.
func (t *tries) closed() time.Time {
	if t.wrong < free {
		return time.Time{}
	}
	return t.last.Add(min(longest, time.Second<<min(t.wrong-free, 20)))
}

// settle passes the turn on from those who have not come for it.
func (t *tries) settle(now time.Time) {
	for t.drawn.of != nil && !now.Before(t.until.Add(turn)) {
		t.serve(*t.drawn.of)
		t.until, t.given = t.until.Add(turn), false
		t.drawn, t.after = t.after, lot{}
	}
}

// serve remembers that an address has had its try.
func (t *tries) serve(from string) {
	t.served = append(slices.DeleteFunc(t.served, func(s string) bool { return s == from }), from)
	t.served = t.served[max(0, len(t.served)-maxServed):]
}

// lot draws one of any number of addresses and keeps no other: each has a number that a secret makes of it, however often it
// comes, and the lowest is drawn.
type lot struct {
	secret []byte
	of     *string // nil where nobody has come
	served bool
	number uint64
}

func (l *lot) put(random io.Reader, from string, served bool) {
	if l.secret == nil {
		l.secret = make([]byte, 16)
		io.ReadFull(random, l.secret) // never fails
	}
	number := Number(l.secret, from)
	if l.of == nil || l.served && !served || l.served == served && number < l.number {
		l.of, l.served, l.number = &from, served, number
	}
}

// Number is what a secret makes of a text: nobody who does not know the secret can tell which of two has the lower.
func Number(secret []byte, text string) uint64 {
	sum := sha256.Sum256(append(slices.Clip(secret), text...))
	return binary.BigEndian.Uint64(sum[:])
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
