package credential

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

func TestAPasswordIsVerifiedByWhatIsKeptOfIt(t *testing.T) {
	p := NewPasswords(time.Now, rand.Reader)
	kept, err := p.Hash(t.Context(), Whose{Place: "business"}, "한글 비밀번호 열두 자")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kept, "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Errorf("kept is %s", kept)
	}
	again, err := p.Hash(t.Context(), Whose{Place: "business"}, "한글 비밀번호 열두 자")
	if err != nil || again == kept {
		t.Errorf("the same password is kept alike twice (%v)", err)
	}
	for password, want := range map[string]bool{"한글 비밀번호 열두 자": true, "한글 비밀번호 열두": false, "": false} {
		if got, err := p.Verify(t.Context(), Whose{Place: "business"}, kept, password); err != nil || got != want {
			t.Errorf("%q is right: %v (%v)", password, got, err)
		}
	}
	if got, err := p.Verify(t.Context(), Whose{Place: "business"}, "", ""); err != nil || got {
		t.Errorf("where nothing is kept: %v (%v)", got, err)
	}
	if _, err := p.Verify(t.Context(), Whose{Place: "business"}, strings.Replace(kept, "t=3", "t=1", 1), "x"); err == nil {
		t.Error("a hash of another cost is taken")
	}
}

// TestAnUnknownUserTakesAsLong holds that a hash is made where there is nothing to compare with.
func TestAnUnknownUserTakesAsLong(t *testing.T) {
	p := NewPasswords(time.Now, rand.Reader)
	var hashed atomic.Int32
	p.hash = func([]byte, []byte) []byte { hashed.Add(1); return make([]byte, hashSize) }
	if ok, err := p.Verify(t.Context(), Whose{Place: ""}, "", "anything"); ok || err != nil || hashed.Load() != 1 {
		t.Errorf("%v (%v) after %d hashes", ok, err, hashed.Load())
	}
}

// slow has each hash take a tenth of a second, and counts how many are made at once.
func slow(seed byte) (p *Passwords, most *atomic.Int32) {
	var now atomic.Int32
	most = &atomic.Int32{}
	p = NewPasswords(time.Now, mathrand.NewChaCha8([32]byte{seed}))
	p.hash = func([]byte, []byte) []byte {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(100 * time.Millisecond)
		now.Add(-1)
		return make([]byte, hashSize)
	}
	return p, most
}

func TestTwoPasswordsAreHashedAtOnceAndThirtyTwoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, most := slow(0)
		results := make(chan error, 100)
		ask := func(ctx context.Context) {
			go func() {
				_, err := p.Hash(ctx, Whose{Place: "internet"}, "x")
				results <- err
			}()
			synctest.Wait()
		}
		for range atOnce + maxWaiting {
			ask(t.Context())
		}
		ask(t.Context())
		if err := <-results; !problem.Is(err, problem.TooMany) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(150 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		ask(ctx)
		cancel()
		failed := 0
		for range atOnce + maxWaiting + 1 {
			if err := <-results; err != nil {
				failed++
			}
		}
		if failed > 1 { // who gave up, unless it was their turn already
			t.Errorf("%d of those who waited were refused", failed)
		}
		if most.Load() != atOnce {
			t.Errorf("%d were hashed at once", most.Load())
		}
		if p.hashing != 0 || len(p.waiting) != 0 {
			t.Errorf("%d are hashed and %d wait, when none does", p.hashing, len(p.waiting))
		}
	})
}

// TestWhoFloodsKeepsNobodyWaiting: from addresses of one zone come ever more passwords, of names that are made up, so that
// more are refused than are let wait; and one comes from that zone, another from another one and a third from a machine that
// is known, each a second after having been refused.
func TestWhoFloodsKeepsNobodyWaiting(t *testing.T) {
	for addresses, most := range map[int]time.Duration{1: time.Second, 8: 2 * time.Second, 200: 5 * time.Minute} {
		for seed := range byte(3) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := slow(seed)
				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				for i := range 200 {
					flood.Go(func() {
						for ctx.Err() == nil {
							if _, err := p.Verify(ctx, Whose{Place: "internet", From: fmt.Sprint(i % addresses)}, "", "x"); err != nil {
								time.Sleep(100 * time.Millisecond)
							}
						}
					})
				}
				time.Sleep(5 * time.Second)
				for name, whose := range map[string]Whose{"another address": {Place: "internet", From: "kim"}, "another zone": {Place: "business"}, "known": {Place: "internet", From: "0", Known: "kim"}} {
					limit := most
					if name != "another address" {
						limit = 2 * time.Second
					}
					began := time.Now()
					for {
						_, err := p.Verify(ctx, whose, "", "x")
						if err == nil {
							break
						}
						time.Sleep(time.Second)
					}
					if waited := time.Since(began); waited > limit {
						t.Errorf("%s waits %s while %d addresses flood, want %s at most", name, waited, addresses, limit)
					}
				}
				stop()
				flood.Wait()
			})
		}
	}
}

func TestAWeakPasswordIsRefusedInWords(t *testing.T) {
	for password, says := range map[string]string{
		"short": "10 characters", "kim-is-my-name": "name", "aaaaaaaaaaaaaa": "hardly more than one", "correct horse battery": "", "비밀번호는 열 자": "10 characters", "비밀번호는 열 자 이상": "",
	} {
		err := Acceptable(password, "kim")
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v", password, err)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the refusal repeats the password: %v", err)
		}
	}
}

func TestAPasswordForOneLoginIsNeverTheSame(t *testing.T) {
	a, kept := OneTime()
	b, _ := OneTime()
	if !IsOneTime(kept, a) || IsOneTime(kept, b) || IsOneTime("", "") || IsOneTime(kept, kept) || strings.Contains(kept, a) {
		t.Errorf("of %s is kept %s", a, kept)
	}
	if right, err := NewPasswords(time.Now, rand.Reader).Verify(t.Context(), Whose{}, kept, b); right || err != nil {
		t.Errorf("another one is right: %v (%v)", right, err)
	}
	if a == b || len(a) != 23 || Acceptable(a, "kim") != nil {
		t.Errorf("%s and %s", a, b)
	}
}

// The secret and codes of RFC 6238, appendix B, the last six digits.
func TestCodesAreThoseOfRFC6238(t *testing.T) {
	secret := []byte("12345678901234567890")
	for unix, code := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037"} {
		at := time.Unix(unix, 0)
		step, ok := Step(secret, code[:3]+" "+code[3:], at, 0)
		if !ok || step != uint64(unix)/30 {
			t.Errorf("at %d: step %d, %v", unix, step, ok)
		}
		if _, ok := Step(secret, code, at, step); ok {
			t.Errorf("at %d the code counts twice", unix)
		}
		if _, ok := Step(secret, code, at.Add(30*time.Second), 0); !ok {
			t.Errorf("at %d the code does not count half a minute later", unix)
		}
		if _, ok := Step(secret, code, at.Add(61*time.Second), 0); ok {
			t.Errorf("at %d the code counts a minute later", unix)
		}
	}
	if _, ok := Step(secret, "", time.Unix(59, 0), 0); ok {
		t.Error("no code counts")
	}
}

func TestAnAuthenticatorReadsWhoseItIs(t *testing.T) {
	if got := AuthenticatorURI([]byte("12345678901234567890"), "naru.example", "kim"); got != "otpauth://totp/naru.example:kim?issuer=naru.example&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" {
		t.Error(got)
	}
}
