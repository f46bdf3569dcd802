package credential

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/problem"
)

func TestAPasswordIsVerifiedByWhatIsKeptOfIt(t *testing.T) {
	p := NewPasswords()
	kept, err := p.Hash(t.Context(), "business", "한글 비밀번호 열두 자")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kept, "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Errorf("kept is %s", kept)
	}
	again, err := p.Hash(t.Context(), "business", "한글 비밀번호 열두 자")
	if err != nil || again == kept {
		t.Errorf("the same password is kept alike twice (%v)", err)
	}
	for password, want := range map[string]bool{"한글 비밀번호 열두 자": true, "한글 비밀번호 열두": false, "": false} {
		if got, err := p.Verify(t.Context(), "business", kept, password); err != nil || got != want {
			t.Errorf("%q is right: %v (%v)", password, got, err)
		}
	}
	if got, err := p.Verify(t.Context(), "business", "", ""); err != nil || got {
		t.Errorf("where nothing is kept: %v (%v)", got, err)
	}
	if _, err := p.Verify(t.Context(), "business", strings.Replace(kept, "t=3", "t=1", 1), "x"); err == nil {
		t.Error("a hash of another cost is taken")
	}
}

// TestAnUnknownUserTakesAsLong holds that a hash is made where there is nothing to compare with.
func TestAnUnknownUserTakesAsLong(t *testing.T) {
	p := NewPasswords()
	var hashed atomic.Int32
	p.hash = func([]byte, []byte) []byte { hashed.Add(1); return make([]byte, hashSize) }
	if ok, err := p.Verify(t.Context(), "", "", "anything"); ok || err != nil || hashed.Load() != 1 {
		t.Errorf("%v (%v) after %d hashes", ok, err, hashed.Load())
	}
}

// TestTwoPasswordsAreHashedAtOnceAndAPlaceHasEightWaiting floods from one place: the others still get their turn.
func TestTwoPasswordsAreHashedAtOnceAndAPlaceHasEightWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPasswords()
		var now, most atomic.Int32
		release := make(chan struct{})
		p.hash = func([]byte, []byte) []byte {
			most.Store(max(most.Load(), now.Add(1)))
			<-release
			now.Add(-1)
			return make([]byte, hashSize)
		}
		results := make(chan error, 100)
		ask := func(place string) {
			go func() {
				_, err := p.Hash(t.Context(), place, "x")
				results <- err
			}()
			synctest.Wait()
		}
		for range 8 {
			ask("internet")
		}
		ask("internet")
		if err := <-results; !problem.Is(err, problem.TooMany) {
			t.Errorf("the ninth of a place: %v", err)
		}
		ask("business")
		select {
		case err := <-results:
			t.Errorf("another place is refused: %v", err)
		default:
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, err := p.Hash(ctx, "business", "x"); results <- err }()
		synctest.Wait()
		cancel()
		if err := <-results; err == nil {
			t.Error("who gave up still got a hash")
		}
		close(release)
		for range 9 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 2 {
			t.Errorf("%d were hashed at once", most.Load())
		}
		if p.waiting != 0 || len(p.of) != 0 {
			t.Errorf("%d wait, of %v, when none does", p.waiting, p.of)
		}
	})
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
	a, b := OneTime(), OneTime()
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
