package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Zones countersign as C2SP tlog-cosignature has it (cosignature/v1): an Ed25519 signature of the checkpoint with the time before
// it. note knows signatures without a time only.
const (
	algCosignature = 4
	stampSize      = 8
)

// SeedSize is that of the seed of a key with which a zone countersigns.
const SeedSize = ed25519.SeedSize

// WitnessName is the name of the key with which a zone countersigns.
func WitnessName(federation, zone string) string { return federation + "/zone/" + zone }

// ZoneOf is the name of the zone that countersigns with the key of a name; empty where it is no such key.
func ZoneOf(name string) string {
	_, zone, _ := strings.Cut(name, "/zone/")
	if strings.Contains(zone, "/") {
		return "" // that of a log of its own
	}
	return zone
}

// WitnessKey returns the public key of a seed, as signed notes have it.
func WitnessKey(name string, seed []byte) string {
	k := coKeyOf(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	return fmt.Sprintf("%s+%08x+%s", name, k.hash, base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, k.public...)))
}

// coKey is a public key that signs with the time: a note.Verifier.
type coKey struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

func coKeyOf(name string, public ed25519.PublicKey) coKey {
	sum := sha256.Sum256(append([]byte(name+"\n"+string(rune(algCosignature))), public...))
	return coKey{name, binary.BigEndian.Uint32(sum[:]), public}
}

func (k coKey) Name() string    { return k.name }
func (k coKey) KeyHash() uint32 { return k.hash }

func (k coKey) Verify(text, signature []byte) bool {
	if len(signature) != stampSize+ed25519.SignatureSize {
		return false
	}
	stamp := binary.BigEndian.Uint64(signature)
	return stamp <= math.MaxInt64 && ed25519.Verify(k.public, cosigned(text, stamp), signature[stampSize:])
}

// cosigned is what is signed: the time, and the checkpoint.
func cosigned(text []byte, stamp uint64) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(stamp, 10)+"\n"), text...)
}

// cosigner signs with the time: a note.Signer.
type cosigner struct {
	coKey
	private ed25519.PrivateKey
	at      time.Time
}

func (s cosigner) Sign(text []byte) ([]byte, error) {
	stamp := uint64(s.at.Unix())
	return append(binary.BigEndian.AppendUint64(nil, stamp), ed25519.Sign(s.private, cosigned(text, stamp))...), nil
}

// Countersign returns the line with which the key of a name and seed signs what a note says, at a time.
func Countersign(signed, name string, seed []byte, at time.Time) (line string, err error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	if !ok {
		return "", errForm
	}
	if len(seed) != SeedSize || at.Unix() < 0 {
		return "", errors.New("nobody can sign with such a key, or at such a time")
	}
	private := ed25519.NewKeyFromSeed(seed)
	s := cosigner{coKeyOf(name, private.Public().(ed25519.PublicKey)), private, at}
	b, err := note.Sign(&note.Note{Text: text + "\n"}, s)
	if err != nil {
		return "", err
	}
	return string(b[len(text)+2:]), nil
}

// Countersigned reads a note that one of the log's keys has signed, and nobody else, and that a zone's key (public) signs with a
// line.
func Countersigned(signed, line, key string, keys []string) (Checkpoint, error) {
	c, _, err := Open(signed, keys)
	if err != nil {
		return c, err
	}
	if !strings.HasSuffix(line, "\n") || strings.Count(line, "\n") != 1 {
		return c, errors.New("the countersignature is not one line")
	}
	_, signers, err := Open(signed+line, append([]string{key}, keys...))
	if err == nil && len(signers) != 2 {
		err = errors.New("the countersignature is not one")
	}
	return c, err
}

// CheckKey says what is wrong with a public key, of a log or of who countersigns; nil for nothing.
func CheckKey(key string) error {
	_, err := newVerifier(key)
	return err
}

// newVerifier reads a public key: of a log, or of who countersigns.
func newVerifier(key string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(key, "+")
	hash, text, _ := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != algCosignature {
		return note.NewVerifier(key)
	}
	k := coKeyOf(name, ed25519.PublicKey(b[1:]))
	if name == "" || strings.ContainsAny(name, " \t\r\n") || hash != fmt.Sprintf("%08x", k.hash) {
		return nil, errors.New("its parts do not fit together")
	}
	return k, nil
}
