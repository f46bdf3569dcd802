// Package credential judges what people show of themselves: passwords and authenticators' codes. It reads and writes no state.
package credential

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/naru-project/naru/pkg/door"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
)

// The cost of Argon2id: RFC 9106's second choice, for servers that do other things besides.
const (
	memoryKiB = 64 * 1024
	passes    = 3
	lanes     = 1
	saltSize  = 16
	hashSize  = 32
)

const (
	// MinLength is how many characters a password has at least.
	MinLength = 10
	// atOnce bounds the memory that hashing takes: 64 MiB each.
	atOnce = 2
	// maxWaiting bounds those who wait to have a password hashed.
	maxWaiting = 32
	// lotsLast is how long a lot counts that is drawn among those who would wait.
	lotsLast = 10 * time.Second
)

// Whose says who asks for a hash. Known is set for those who have shown something already that nobody else has; it says
// whose that is. Of others Place and From say from where they come.
type Whose struct {
	Known, Place, From string
}

// branches is in what one shares with others who wait: as one who is known or is not, then the place, then the address
// there.
func (w Whose) branches() [3]string {
	if w.Known != "" {
		return [3]string{"known", w.Known}
	}
	return [3]string{"", w.Place, w.From}
}

// Passwords hashes and compares passwords, few at a time. Those who wait come in turn by kind, place and address, so that
// whoever comes with many fills the room for themselves alone. Safe for concurrent use.
type Passwords struct {
	now    func() time.Time
	random io.Reader

	mu      sync.Mutex
	hashing int
	waiting []*waiter
	secret  []byte    // of the lots
	drawn   time.Time // when they were drawn

	// nobodys is what a password is compared with where there is none, so that it takes as long.
	nobodys func() string
	// hash is Argon2id; a test may put another in its place.
	hash func(password, salt []byte) []byte
}

// waiter is somebody who waits for their turn, or for a refusal.
type waiter struct {
	in   [3]string
	turn chan error
}

// NewPasswords returns one for a server. random draws lots; reading it never fails.
func NewPasswords(now func() time.Time, random io.Reader) *Passwords {
	p := &Passwords{now: now, random: random, hash: argon}
	p.nobodys = sync.OnceValue(func() string { return phc(make([]byte, saltSize), make([]byte, hashSize)) })
	return p
}

func argon(password, salt []byte) []byte {
	return argon2.IDKey(password, salt, passes, memoryKiB, lanes, hashSize)
}

// Hash returns what is kept of a password, as PHC string. Errors: problem TOO_MANY.
func (p *Passwords) Hash(ctx context.Context, whose Whose, password string) (string, error) {
	leave, err := p.enter(ctx, whose)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	return phc(salt, p.hash([]byte(password), salt)), nil
}

// LocalRootRole is as what the state keeps a LocalRoot, sealed.
func LocalRootRole(userID string) string { return "local-root/" + userID }

// LocalRoot returns what a password makes with a salt of its own for zones that are cut off. Errors: problem TOO_MANY.
func (p *Passwords) LocalRoot(ctx context.Context, whose Whose, password string) (salt, root []byte, err error) {
	leave, err := p.enter(ctx, whose)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	salt = make([]byte, locallogin.SaltSize)
	rand.Read(salt) // never fails
	return salt, locallogin.Root(password, salt), nil
}

// Verify reports whether a password is the one that kept was made of. With nothing kept, or a password for one login, it
// takes as long, and it is not. Errors: problem TOO_MANY.
func (p *Passwords) Verify(ctx context.Context, whose Whose, kept, password string) (bool, error) {
	known := kept != "" && !strings.HasPrefix(kept, onceHead)
	if !known {
		kept = p.nobodys()
	}
	salt, hash, err := parse(kept)
	if err != nil {
		return false, err
	}
	leave, err := p.enter(ctx, whose)
	if err != nil {
		return false, err
	}
	defer leave()
	return subtle.ConstantTimeCompare(p.hash([]byte(password), salt), hash) == 1 && known, nil
}

// enter waits for one's turn.
func (p *Passwords) enter(ctx context.Context, whose Whose) (leave func(), err error) {
	w := &waiter{whose.branches(), make(chan error, 1)}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.call()
	if len(p.waiting) > maxWaiting {
		p.end(p.tooMany(), problem.New(problem.TooMany, "the server is checking as many passwords as it takes", "Try again in a few seconds."))
	}
	p.mu.Unlock()
	select {
	case err = <-w.turn:
	case <-ctx.Done():
		p.mu.Lock()
		p.end(w, context.Cause(ctx))
		p.mu.Unlock()
		err = <-w.turn // it may have been called meanwhile
	}
	if err != nil {
		return nil, err
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.hashing--
		p.call()
	}, nil
}

// call lets in whose turn it is, while there is room.
func (p *Passwords) call() {
	for p.hashing < atOnce && len(p.waiting) > 0 {
		next := narrow(p.waiting, func(branches [][]*waiter, _ int) []*waiter {
			n := make([]byte, 1)
			io.ReadFull(p.random, n) // never fails
			return branches[int(n[0])%len(branches)]
		})
		p.hashing++
		p.end(next[0], nil)
	}
}

// tooMany is who has to go: the last of the branch in which most wait, and of those in which as many do the one that has
// drawn the highest number. A lot counts for a while, so that it does not help to come again and again.
func (p *Passwords) tooMany() *waiter {
	if now := p.now(); p.secret == nil || now.Sub(p.drawn) >= lotsLast {
		p.secret, p.drawn = make([]byte, 16), now
		io.ReadFull(p.random, p.secret) // never fails
	}
	last := narrow(p.waiting, func(branches [][]*waiter, level int) []*waiter {
		return slices.MaxFunc(branches, func(a, b []*waiter) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(door.Number(p.secret, a[0].in[level]), door.Number(p.secret, b[0].in[level])))
		})
	})
	return last[len(last)-1]
}

// narrow goes down to those who wait in one branch, which choose picks at each level.
func narrow(all []*waiter, choose func(branches [][]*waiter, level int) []*waiter) []*waiter {
	for level := range all[0].in {
		var branches [][]*waiter
		at := map[string]int{}
		for _, w := range all {
			i, seen := at[w.in[level]]
			if !seen {
				i = len(branches)
				at[w.in[level]], branches = i, append(branches, nil)
			}
			branches[i] = append(branches[i], w)
		}
		all = choose(branches, level)
	}
	return all
}

// end tells somebody who waits that they do no more; nil says that it is their turn.
func (p *Passwords) end(w *waiter, err error) {
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		w.turn <- err
	}
}

var b64 = base64.RawStdEncoding

// phc writes a hash as the PHC string format has it: $argon2id$v=19$m=65536,t=3,p=1$SALT$HASH.
func phc(salt, hash []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memoryKiB, passes, lanes, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

// parse reads what phc wrote. Another cost than today's is refused: no hash of another one was ever kept.
func parse(kept string) (salt, hash []byte, err error) {
	rest, found := strings.CutPrefix(kept, fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, memoryKiB, passes, lanes))
	s, h, both := strings.Cut(rest, "$")
	if !found || !both {
		return nil, nil, fmt.Errorf("a password is kept in a form that is not known")
	}
	if salt, err = b64.Strict().DecodeString(s); err == nil {
		hash, err = b64.Strict().DecodeString(h)
	}
	if err != nil || len(salt) != saltSize || len(hash) != hashSize {
		return nil, nil, fmt.Errorf("a password is kept in a form that is not known")
	}
	return salt, hash, nil
}

// Acceptable refuses a password that is too easily found, with a problem.
func Acceptable(password, user string) error {
	refuse := func(why string) error {
		return problem.New(problem.Invalid, why, "Choose another: several words are easily remembered and hardly guessed.").With("new_password", why)
	}
	switch n := utf8.RuneCountInString(password); {
	case n < MinLength:
		return refuse("a password has " + strconv.Itoa(MinLength) + " characters at least")
	case strings.Contains(strings.ToLower(password), strings.ToLower(user)):
		return refuse("the password has the user's name in it")
	case kinds(password) < 4:
		return refuse("the password has hardly more than one character in it")
	}
	return nil
}

// kinds counts the different characters of a text.
func kinds(s string) int {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	return len(seen)
}

// onceHead begins what is kept of a password for one login.
const onceHead = "$sha256$"

// OneTime makes a password for one login, of 100 random bits, that can be read aloud, and what is kept of it. Nobody finds
// so much by trying, so it is not hashed at a price: who shows it waits for nobody.
func OneTime() (password, kept string) {
	raw := make([]byte, 13)
	rand.Read(raw) // never fails
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))[:20]
	password = text[:5] + "-" + text[5:10] + "-" + text[10:15] + "-" + text[15:]
	return password, once(password)
}

func once(password string) string {
	sum := sha256.Sum256([]byte(password))
	return onceHead + b64.EncodeToString(sum[:])
}

// IsOneTime reports whether a password is the one for one login that kept was made of. It takes no time worth hiding.
func IsOneTime(kept, password string) bool {
	return subtle.ConstantTimeCompare([]byte(kept), []byte(once(password))) == 1
}
