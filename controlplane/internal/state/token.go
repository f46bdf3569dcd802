package state

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/naru-project/naru/pkg/problem"
)

// token is what a page token is bound to: one noun, filter, order and scope. It carries the last row of its page and a
// digest over both. The digest is no secret: whoever forges one only begins his own list elsewhere, since the scope is
// asked anew with each page.
type token struct {
	noun, filter, order string
	scope               Scope
	bounds              *[]Bound
}

const tokenDigest = 12

// seal returns the token behind a row.
func (t token) seal(last value, id string) string {
	b := appendValue(nil, last)
	b = appendValue(b, textValue(id))
	return base64.RawURLEncoding.EncodeToString(append(t.digest(b), b...))
}

// open returns the row behind which a token stands. Errors: problem INVALID.
func (t token) open(s string) (last value, id string, err error) {
	invalid := problem.New(problem.Invalid, "the page token is not one of this list", "Begin again without a page token; filter, order and scope stay the same from page to page.").
		With("page_token", "does not belong to this list")
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < tokenDigest {
		return value{}, "", invalid
	}
	digest, b := b[:tokenDigest], b[tokenDigest:]
	if string(t.digest(b)) != string(digest) {
		return value{}, "", invalid
	}
	last, b, ok := cutTokenValue(b)
	key, b, ok2 := cutTokenValue(b)
	if !ok || !ok2 || len(b) > 0 || !key.isText {
		return value{}, "", invalid
	}
	return last, key.text, nil
}

func (t token) digest(row []byte) []byte {
	var b []byte
	for _, s := range []string{t.noun, t.filter, t.order} {
		b = appendValue(b, textValue(s))
	}
	for _, k := range slices.Sorted(maps.Keys(t.scope)) {
		b = appendValue(appendValue(b, textValue(k)), textValue(t.scope[k]))
	}
	if t.bounds != nil {
		b = appendBounds(b, *t.bounds)
	}
	sum := sha256.Sum256(append(b, row...))
	return sum[:tokenDigest]
}

func appendValue(b []byte, v value) []byte {
	if v.isText {
		b = binary.AppendUvarint(append(b, 't'), uint64(len(v.text)))
		return append(b, v.text...)
	}
	return binary.AppendVarint(append(b, 'n'), v.number)
}

func cutTokenValue(b []byte) (value, []byte, bool) {
	if len(b) == 0 {
		return value{}, nil, false
	}
	switch kind, b := b[0], b[1:]; kind {
	case 't':
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return value{}, nil, false
		}
		return textValue(string(b[w : w+int(n)])), b[w+int(n):], true
	case 'n':
		n, w := binary.Varint(b)
		if w <= 0 {
			return value{}, nil, false
		}
		return numberValue(n), b[w:], true
	}
	return value{}, nil, false
}
