package sealed_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func keys(t *testing.T) (private, public []byte) {
	t.Helper()
	private, public, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestSecretsOpenForWhatTheyWereSealedForAndNothingElse(t *testing.T) {
	private, public := keys(t)
	other, _ := keys(t)
	is := sealed.For{Method: "/naru.api.v1.SessionService/LogIn", User: "kim", SecretHash: bytes.Repeat([]byte{1}, 32)}
	want := &apiv1.Secrets{Password: "한글 비밀번호", Code: "123456", Device: bytes.Repeat([]byte{2}, 32)}
	s, err := sealed.Secrets(public, "k1", is, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sealed.OpenSecrets(private, is, s); err != nil || !proto.Equal(got, want) || s.GetKeyId() != "k1" {
		t.Fatalf("opened %v (%v)", got, err)
	}
	for name, f := range map[string]sealed.For{
		"another method":  {Method: "/naru.api.v1.SessionService/StepUp", User: is.User, SecretHash: is.SecretHash},
		"another user":    {Method: is.Method, User: "kin", SecretHash: is.SecretHash},
		"another session": {Method: is.Method, User: is.User, SecretHash: bytes.Repeat([]byte{3}, 32)},
	} {
		if _, err := sealed.OpenSecrets(private, f, s); !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("for %s: %v", name, err)
		}
	}
	if _, err := sealed.OpenSecrets(other, is, s); !errors.Is(err, sealed.ErrSealed) {
		t.Errorf("with another key: %v", err)
	}
	for i := range s.GetCiphertext() {
		flipped := proto.CloneOf(s)
		flipped.Ciphertext[i] ^= 1
		if _, err := sealed.OpenSecrets(private, is, flipped); !errors.Is(err, sealed.ErrSealed) {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
		if _, err := sealed.OpenSecrets(private, is, &apiv1.Sealed{Ciphertext: s.GetCiphertext()[:i]}); !errors.Is(err, sealed.ErrSealed) {
			t.Fatalf("with %d bytes of it: %v", i, err)
		}
	}
}

func TestTheLengthOfWhatIsSealedTellsNothingOfThePassword(t *testing.T) {
	_, public := keys(t)
	lengths := map[int]bool{}
	for _, n := range []int{1, 8, 20, 100} {
		s, err := sealed.Secrets(public, "k", sealed.For{}, &apiv1.Secrets{Password: strings.Repeat("x", n)})
		if err != nil {
			t.Fatal(err)
		}
		lengths[len(s.GetCiphertext())] = true
	}
	if len(lengths) != 1 {
		t.Errorf("passwords of 1 to 100 letters are sealed in %d lengths", len(lengths))
	}
}

func TestAReplyOpensForItsMethodAndCaller(t *testing.T) {
	private, public := keys(t)
	b, err := sealed.Reply(public, "/m", "otpauth://totp/x")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sealed.OpenReply(private, "/m", b); err != nil || got != "otpauth://totp/x" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := sealed.OpenReply(private, "/n", b); !errors.Is(err, sealed.ErrSealed) {
		t.Errorf("for another method: %v", err)
	}
	if _, err := sealed.Reply(make([]byte, 31), "/m", "x"); err == nil {
		t.Error("a key of 31 bytes is taken")
	}
}
