package pki

import "testing"

func TestAHandoverOpensForItsKeyPurposeAndRequestOnly(t *testing.T) {
	h, err := NewHandover()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealTo(h.PublicKey(), "sealing key", []byte("request"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := h.Open("sealing key", []byte("request"), sealed); err != nil || string(plain) != "secret" {
		t.Fatalf("got %q, %v", plain, err)
	}
	other, err := NewHandover()
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return other.Open("sealing key", []byte("request"), sealed) },
		"another purpose": func() ([]byte, error) { return h.Open("gossip key", []byte("request"), sealed) },
		"another request": func() ([]byte, error) { return h.Open("sealing key", []byte("other"), sealed) },
		"a flipped bit": func() ([]byte, error) {
			bad := append([]byte(nil), sealed...)
			bad[len(bad)-1] ^= 1
			return h.Open("sealing key", []byte("request"), bad)
		},
		"nothing": func() ([]byte, error) { return h.Open("sealing key", []byte("request"), nil) },
	} {
		if plain, err := open(); err == nil {
			t.Errorf("%s opened it: %q", name, plain)
		}
	}
}

func TestSealToRefusesWhatIsNoKey(t *testing.T) {
	if _, err := SealTo([]byte("short"), "x", nil, []byte("secret")); err == nil {
		t.Fatal("it was accepted")
	}
}
