package pki_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/pki"
)

func newToken(t testing.TB) pki.JoinToken {
	t.Helper()
	return must(pki.NewJoinToken(pki.Pin(newFederation(t, "naru.test", noon).rootCert())))
}

func TestAJoinTokenSurvivesBeingCopied(t *testing.T) {
	token := newToken(t)
	for _, text := range []string{token.String(), "  " + token.String() + "\n"} {
		got, err := pki.ParseJoinToken(text)
		if err != nil || got.ID != token.ID || got.Pin != token.Pin || !bytes.Equal(got.Secret, token.Secret) {
			t.Errorf("%q came back as %+v, %v", text, got, err)
		}
	}
}

func TestADamagedJoinTokenIsRefusedInWordsThatKeepItsSecret(t *testing.T) {
	token := newToken(t)
	text := token.String()
	encode := func(s string) string { return "naru-join:" + base64.RawURLEncoding.EncodeToString([]byte(s)) }
	secret := base64.RawURLEncoding.EncodeToString(token.Secret)
	for name, bad := range map[string]string{
		"nothing":          "",
		"no prefix":        strings.TrimPrefix(text, "naru-join:"),
		"cut short":        text[:len(text)-8],
		"a letter more":    text + "A",
		"a strange letter": text[:20] + "!" + text[21:],
		"too long":         text + strings.Repeat("A", 600),
		"no id":            encode("." + secret + "." + token.Pin),
		"no pin":           encode(token.ID + "." + secret),
		"a part more":      encode(token.ID + "." + secret + "." + token.Pin + "."),
		"a short secret":   encode(token.ID + ".AAAA." + token.Pin),
		"another pin":      encode(token.ID + "." + secret + ".sha1:00"),
		"an id in braces":  encode("{" + token.ID + "}." + secret + "." + token.Pin),
	} {
		_, err := pki.ParseJoinToken(bad)
		if err == nil {
			t.Errorf("%s was taken", name)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), text[10:40]) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

func TestALogNeverShowsATokensSecret(t *testing.T) {
	token := newToken(t)
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("token", "token", token)
	if !strings.Contains(out.String(), token.ID) || strings.Contains(out.String(), token.String()) {
		t.Errorf("logged %q", out.String())
	}
}

func TestAMacIsBoundToWhereItsPartsEnd(t *testing.T) {
	secret := []byte("secret")
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 8), 1, 4).Draw(t, "parts")
		others := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 8), 1, 4).Draw(t, "others")
		same := fmt.Sprint(parts) == fmt.Sprint(others)
		if pki.CheckMAC(pki.MAC(secret, parts...), secret, others...) != same {
			t.Fatalf("%v and %v", parts, others)
		}
	})
	if pki.CheckMAC(pki.MAC(secret, []byte("ab"), []byte("c")), secret, []byte("a"), []byte("bc")) {
		t.Error("a letter moved from one part to the next")
	}
	if pki.CheckMAC(pki.MAC(secret, []byte("a")), []byte("other"), []byte("a")) {
		t.Error("another secret")
	}
}

func TestWhatIsSealedOpensOnlyWithItsKeyAndAsWhatItIs(t *testing.T) {
	key := pki.NewSealKey()
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed := must(pki.Seal(key, "links", plain))
		if got, err := pki.Open(key, "links", sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("came back as %v, %v", got, err)
		}
		if _, err := pki.Open(key, "servers", sealed); err == nil {
			t.Fatal("opened as something else")
		}
		if _, err := pki.Open(pki.NewSealKey(), "links", sealed); err == nil {
			t.Fatal("opened with another key")
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		damaged := bytes.Clone(sealed)
		damaged[at] ^= 1
		if _, err := pki.Open(key, "links", damaged); err == nil {
			t.Fatal("opened though damaged")
		}
		if _, err := pki.Open(key, "links", sealed[:at]); err == nil {
			t.Fatal("opened though cut short")
		}
	})
	if _, err := pki.Seal(key[:16], "links", nil); err == nil {
		t.Error("sealed with a short key")
	}
}
