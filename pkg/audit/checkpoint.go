package audit

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is the state of the log at a size.
type Checkpoint struct {
	// Origin names the log.
	Origin string
	Size   uint64
	Root   tlog.Hash
	// Epoch is the control plane's: one that restored a backup says so in every checkpoint from then on. A zone's own log has none: 0.
	Epoch uint64
	Time  time.Time
}

// Origin is the name of the control plane's log, and of the keys that sign it.
func Origin(federation string) string { return federation + "/audit" }

// NewKey makes a key of a name: both parts as signed notes have them.
func NewKey(name string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, name)
}

// text is what is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\nepoch %d\ntime %s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Epoch,
		c.Time.UTC().Format(time.RFC3339))
}

var errForm = errors.New("it is no checkpoint of an audit log")

func parseText(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[5] != "" {
		return c, errForm
	}
	c.Origin = lines[0]
	size, sizeErr := strconv.ParseUint(lines[1], 10, 63)
	root, rootErr := tlog.ParseHash(lines[2])
	epoch, epochErr := strconv.ParseUint(strings.TrimPrefix(lines[3], "epoch "), 10, 63)
	at, timeErr := time.Parse(time.RFC3339, strings.TrimPrefix(lines[4], "time "))
	if err := errors.Join(sizeErr, rootErr, epochErr, timeErr); err != nil {
		return c, fmt.Errorf("%w: %w", errForm, err)
	}
	c.Size, c.Root, c.Epoch, c.Time = size, root, epoch, at
	if c.text() != text {
		return c, errForm // one form for one meaning
	}
	return c, nil
}

// Sign signs a checkpoint with a private key of NewKey, and returns the note.
func Sign(c Checkpoint, private string) (string, error) {
	signer, err := note.NewSigner(private)
	if err != nil {
		return "", err
	}
	b, err := note.Sign(&note.Note{Text: c.text()}, signer)
	return string(b), err
}

// Attach adds the line of a countersignature to a note, once its key (public) has verified it. Where the key has signed already, the
// note is left as it is.
func Attach(signed, line, public string) (string, error) {
	v, err := newVerifier(public)
	if err != nil {
		return "", err
	}
	text, _, ok := strings.Cut(signed, "\n\n")
	if !ok {
		return "", errForm
	}
	if _, err := note.Open([]byte(text+"\n\n"+line), note.VerifierList(v)); err != nil {
		return "", err
	}
	if _, err := note.Open([]byte(signed), note.VerifierList(v)); err == nil {
		return signed, nil
	}
	return signed + line, nil
}

// Read reads what a note says, whoever has signed it.
func Read(signed string) (Checkpoint, error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	if !ok {
		return Checkpoint{}, errForm
	}
	return parseText(text + "\n")
}

// Open reads a note that keys (public) have signed: each signature has to be of one of them and valid, and the log's own key has to
// be among them. signers are the names of those that signed.
func Open(signed string, keys []string) (c Checkpoint, signers []string, err error) {
	var verifiers []note.Verifier
	for _, k := range keys {
		v, err := newVerifier(k)
		if err != nil {
			return c, nil, fmt.Errorf("the key %q cannot be read: %w", k, err)
		}
		verifiers = append(verifiers, v)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if err != nil {
		return c, nil, err
	}
	if c, err = parseText(n.Text); err != nil {
		return c, nil, err
	}
	own := false
	for _, s := range n.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return c, nil, fmt.Errorf("the signature of %s is not in the one form that it has", s.Name) // spare bits are set
		}
		signers = append(signers, s.Name)
		own = own || s.Name == c.Origin
	}
	switch {
	case len(n.UnverifiedSigs) > 0:
		return c, signers, fmt.Errorf("%s has signed it with a key that is not known", n.UnverifiedSigs[0].Name)
	case !own:
		return c, signers, fmt.Errorf("who keeps the log (%s) has not signed it", c.Origin)
	}
	return c, signers, nil
}
