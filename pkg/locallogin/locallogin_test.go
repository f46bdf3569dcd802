package locallogin_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/naru-project/naru/pkg/locallogin"
)

func key(t *testing.T, root []byte, zone string) ed25519.PrivateKey {
	t.Helper()
	k, err := locallogin.Key(root, zone)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAPasswordMakesAnotherKeyForEachZoneAndSalt(t *testing.T) {
	salt := bytes.Repeat([]byte{1}, locallogin.SaltSize)
	root := locallogin.Root("ten letters", salt)
	if !bytes.Equal(root, locallogin.Root("ten letters", salt)) {
		t.Fatal("the same password makes another root")
	}
	is := key(t, root, "zone-1").Public().(ed25519.PublicKey)
	for name, other := range map[string]ed25519.PrivateKey{
		"another zone":     key(t, root, "zone-2"),
		"another password": key(t, locallogin.Root("ten lettres", salt), "zone-1"),
		"another salt":     key(t, locallogin.Root("ten letters", bytes.Repeat([]byte{2}, locallogin.SaltSize)), "zone-1"),
	} {
		if is.Equal(other.Public()) {
			t.Errorf("%s makes the same key", name)
		}
	}
}

func TestASignatureIsGoodForOneClaimAlone(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public := private.Public().(ed25519.PublicKey)
	c := locallogin.Claim{ZoneID: "z", User: "kim", Challenge: []byte("c"), Device: []byte("d"), SecretHash: []byte("h"), Client: "naru"}
	signature := c.Sign(private)
	if !c.SignedBy(public, signature) {
		t.Fatal("its own signature does not verify")
	}
	if c.SignedBy(nil, signature) {
		t.Error("no key verifies")
	}
	for name, change := range map[string]func(*locallogin.Claim){
		"zone":            func(c *locallogin.Claim) { c.ZoneID = "y" },
		"user":            func(c *locallogin.Claim) { c.User = "lee" },
		"challenge":       func(c *locallogin.Claim) { c.Challenge = []byte("e") },
		"device":          func(c *locallogin.Claim) { c.Device = nil },
		"secret":          func(c *locallogin.Claim) { c.SecretHash = []byte("i") },
		"client":          func(c *locallogin.Claim) { c.Client = "other" },
		"where parts end": func(c *locallogin.Claim) { c.ZoneID, c.User = "zk", "im" },
	} {
		other := c
		change(&other)
		if other.SignedBy(public, signature) {
			t.Errorf("with another %s it verifies", name)
		}
	}
}

func TestAMachineIsKnownInEachZoneByAnotherWord(t *testing.T) {
	kept := sha256.Sum256([]byte("device"))
	if bytes.Equal(locallogin.Device(kept[:], "a"), locallogin.Device(kept[:], "b")) {
		t.Error("one zone could show it in another")
	}
}
