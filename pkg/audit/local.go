package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// A zone that is cut off keeps a log of its own, one in each life of its store, and signs each state of it: a checkpoint of epoch 0, by
// the key with which it countersigns the control plane's, as a note without a time. What is signed begins with the log's origin, and
// what is countersigned with "cosignature/v1", so that neither can be taken for the other.

// LocalOrigin names the log that a zone keeps itself in one life of its store, and the key that signs it.
func LocalOrigin(federation, zone, incarnation string) string {
	return WitnessName(federation, zone) + "/log/" + incarnation
}

// ParseLocalOrigin returns of whom a log is, and of which life; nothing where it is no zone's.
func ParseLocalOrigin(origin string) (zone, incarnation string) {
	_, rest, _ := strings.Cut(origin, "/zone/")
	zone, incarnation, ok := strings.Cut(rest, "/log/")
	if !ok || zone == "" || strings.Contains(zone, "/") {
		return "", ""
	}
	return zone, incarnation
}

// SignLocal signs a checkpoint of a zone's own log with the seed of the key with which the zone countersigns, and returns the note.
func SignLocal(c Checkpoint, seed []byte) (string, error) {
	if zone, _ := ParseLocalOrigin(c.Origin); zone == "" || c.Epoch != 0 || len(seed) != SeedSize {
		return "", errors.New("it is no checkpoint of a zone's own log, or no seed")
	}
	public, err := localKey(c.Origin, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		return "", err
	}
	hash, key, _ := strings.Cut(strings.TrimPrefix(public, c.Origin+"+"), "+")
	b, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", err
	}
	return Sign(c, fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", c.Origin, hash, base64.StdEncoding.EncodeToString(append(b[:1:1], seed...))))
}

// LocalKey returns the public key that checks a zone's own log, as signed notes have it, of the key with which the zone countersigns.
func LocalKey(origin, witnessKey string) (string, error) {
	v, err := newVerifier(witnessKey)
	k, ok := v.(coKey)
	if err != nil || !ok || ZoneOf(k.name) == "" {
		return "", errors.New("no zone countersigns with such a key")
	}
	if _, incarnation := ParseLocalOrigin(origin); origin != k.name+"/log/"+incarnation {
		return "", fmt.Errorf("the log %s is not of who signs as %s", origin, k.name)
	}
	return localKey(origin, k.public)
}

// OpenLocal reads a note that a zone has signed of its own log, and nobody else, with the key with which it countersigns.
func OpenLocal(signed, witnessKey string) (Checkpoint, error) {
	c, err := Read(signed)
	if err != nil {
		return c, err
	}
	key, err := LocalKey(c.Origin, witnessKey)
	if err != nil {
		return c, err
	}
	if c, _, err = Open(signed, []string{key}); err != nil {
		return c, err
	}
	if _, lines, _ := strings.Cut(signed, "\n\n"); strings.Count(lines, "\n") != 1 || c.Epoch != 0 {
		return c, errForm
	}
	return c, nil
}

// localKey is a public key as signed notes have it, and as they can read it again.
func localKey(origin string, public ed25519.PublicKey) (string, error) {
	key, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return "", err
	}
	_, err = note.NewVerifier(key) // a name has to be one that notes can have
	return key, err
}

// Growing is of a log as much as growing it takes. The zero value has no entries.
type Growing struct {
	Size uint64
	// Hashes of the whole trees that it is made of, the largest first.
	Hashes [][]byte
}

// Append adds a leaf. What Hashes held before is left as it was.
func (g *Growing) Append(leaf []byte) error {
	if err := g.check(); err != nil {
		return err
	}
	h, rest := tlog.RecordHash(leaf), len(g.Hashes)
	for level := g.Size; level&1 == 1; level >>= 1 {
		rest--
		h = tlog.NodeHash(tlog.Hash(g.Hashes[rest]), h)
	}
	g.Size, g.Hashes = g.Size+1, append(slices.Clone(g.Hashes[:rest]), h[:])
	return nil
}

// Root is the root of the log's tree.
func (g *Growing) Root() (tlog.Hash, error) {
	if err := g.check(); err != nil || g.Size == 0 {
		empty, emptyErr := tlog.TreeHash(0, nil)
		return empty, errors.Join(err, emptyErr)
	}
	last := len(g.Hashes) - 1
	root := tlog.Hash(g.Hashes[last])
	for _, h := range slices.Backward(g.Hashes[:last]) {
		root = tlog.NodeHash(tlog.Hash(h), root)
	}
	return root, nil
}

func (g *Growing) check() error {
	bad := slices.ContainsFunc(g.Hashes, func(h []byte) bool { return len(h) != tlog.HashSize })
	if bad || bits.OnesCount64(g.Size) != len(g.Hashes) {
		return fmt.Errorf("%d hashes are not those of a log with %d entries", len(g.Hashes), g.Size)
	}
	return nil
}

// Leaf is the one form of an entry as bytes.
func Leaf(e *apiv1.AuditEntry) ([]byte, error) { return canonical(e) }

// ReadLeaf reads an entry, which has to be in its one form.
func ReadLeaf(leaf []byte) (*apiv1.AuditEntry, error) {
	e := &apiv1.AuditEntry{}
	if err := proto.Unmarshal(leaf, e); err != nil {
		return nil, errors.New("it is no entry")
	}
	if b, err := canonical(e); err != nil || string(b) != string(leaf) || len(e.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("it is not in the one form that it has")
	}
	return e, nil
}
