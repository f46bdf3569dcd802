// Package credential judges what people show of themselves: passwords and authenticators' codes. It reads and writes no state.
package credential

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

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
	// maxWaiting bounds those who wait to have a password hashed, maxOfPlace those of one place, so that a flood from one place
	// does not keep the others out.
	maxWaiting = 32
	maxOfPlace = 8
)

// Passwords hashes and compares passwords, few at a time. Safe for concurrent use.
type Passwords struct {
	slots chan struct{}

	mu      sync.Mutex
	waiting int
	of      map[string]int // by place

	// nobodys is what a password is compared with where there is none, so that it takes as long.
	nobodys func() string
	// hash is Argon2id; a test may put another in its place.
	hash func(password, salt []byte) []byte
}

// NewPasswords returns one for a server.
func NewPasswords() *Passwords {
	p := &Passwords{slots: make(chan struct{}, atOnce), of: map[string]int{}, hash: argon}
	p.nobodys = sync.OnceValue(func() string { return phc(make([]byte, saltSize), make([]byte, hashSize)) })
	return p
}

func argon(password, salt []byte) []byte {
	return argon2.IDKey(password, salt, passes, memoryKiB, lanes, hashSize)
}

// Hash returns what is kept of a password, as PHC string. place is where the request is from. Errors: problem TOO_MANY.
func (p *Passwords) Hash(ctx context.Context, place, password string) (string, error) {
	leave, err := p.enter(ctx, place)
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
func (p *Passwords) LocalRoot(ctx context.Context, place, password string) (salt, root []byte, err error) {
	leave, err := p.enter(ctx, place)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	salt = make([]byte, locallogin.SaltSize)
	rand.Read(salt) // never fails
	return salt, locallogin.Root(password, salt), nil
}

// Verify reports whether a password is the one that kept was made of. With nothing kept it takes as long, and it is not.
// Errors: problem TOO_MANY.
func (p *Passwords) Verify(ctx context.Context, place, kept, password string) (bool, error) {
	known := kept != ""
	if !known {
		kept = p.nobodys()
	}
	salt, hash, err := parse(kept)
	if err != nil {
		return false, err
	}
	leave, err := p.enter(ctx, place)
	if err != nil {
		return false, err
	}
	defer leave()
	return subtle.ConstantTimeCompare(p.hash([]byte(password), salt), hash) == 1 && known, nil
}

// enter waits for one's turn.
func (p *Passwords) enter(ctx context.Context, place string) (leave func(), err error) {
	p.mu.Lock()
	if p.waiting >= maxWaiting || p.of[place] >= maxOfPlace {
		p.mu.Unlock()
		return nil, problem.New(problem.TooMany, "the server is checking as many passwords as it takes", "Try again in a few seconds.")
	}
	p.waiting++
	p.of[place]++
	p.mu.Unlock()
	out := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting--
		if p.of[place]--; p.of[place] == 0 {
			delete(p.of, place)
		}
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots; out() }, nil
	case <-ctx.Done():
		out()
		return nil, context.Cause(ctx)
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

// OneTime makes a password for one login, of 100 random bits, that can be read aloud.
func OneTime() string {
	raw := make([]byte, 13)
	rand.Read(raw) // never fails
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))[:20]
	return text[:5] + "-" + text[5:10] + "-" + text[10:15] + "-" + text[15:]
}
