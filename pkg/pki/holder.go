package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrNoCertificate says that a holder has a key and waits for its first certificate.
var ErrNoCertificate = errors.New("no certificate yet")

// Holder keeps a private key and its current chain in a folder, as NAME.key and NAME.crt (PEM, mode 0600, replaced
// atomically). The key is made once and stays; so do the id and (see WithSuccession) the root of the first chain. Safe for
// concurrent use.
type Holder struct {
	dir  string
	name string
	key  crypto.Signer
	now  func() time.Time
	log  *slog.Logger
	csr  func() ([]byte, error)
	// succeeds tells whether a chain of another root may follow; nil: none may.
	succeeds func(root *x509.Certificate) bool

	mu      sync.RWMutex
	current *held // nil until there is a certificate
}

// held is a chain that was checked; it never changes.
type held struct {
	chain [][]byte
	root  *x509.Certificate
	peer  *Peer
	tls   *tls.Certificate
	short *tls.Certificate
	since time.Time // when it was taken up, with its monotonic reading
}

// HolderOption changes what LoadOrCreate takes for granted.
type HolderOption func(*Holder)

// WithClock replaces time.Now.
func WithClock(now func() time.Time) HolderOption { return func(h *Holder) { h.now = now } }

// WithLogger lets the holder tell of renewals; without it, it is silent.
func WithLogger(log *slog.Logger) HolderOption { return func(h *Holder) { h.log = log } }

// WithSuccession lets a chain follow that leads to another root than the one before, if trusted says that it is one of ours:
// a zone may replace its authority.
func WithSuccession(trusted func(root *x509.Certificate) bool) HolderOption {
	return func(h *Holder) { h.succeeds = trusted }
}

// LoadOrCreate opens the holder NAME in a folder, and makes the folder (mode 0700) and the key where they are missing.
func LoadOrCreate(dir, name string, options ...HolderOption) (*Holder, error) {
	h := &Holder{dir: dir, name: name, now: time.Now, log: slog.New(slog.DiscardHandler)}
	for _, option := range options {
		option(h)
	}
	h.csr = sync.OnceValues(func() ([]byte, error) {
		return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, h.key)
	})
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for keys: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder for keys: %w", err)
	}
	defer root.Close()
	if err := h.loadKey(root); err != nil {
		return nil, fmt.Errorf("key %s: %w", h.path(".key"), err)
	}
	if err := h.loadChain(root); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", h.path(".crt"), err)
	}
	return h, nil
}

func (h *Holder) path(suffix string) string { return filepath.Join(h.dir, h.name+suffix) }

func (h *Holder) loadKey(dir *os.Root) error {
	raw, err := readPrivate(dir, h.name+".key")
	if errors.Is(err, fs.ErrNotExist) {
		return h.makeKey(dir)
	}
	if err != nil {
		return err
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("the file holds no PEM block PRIVATE KEY, or more than one")
	}
	h.key, err = parseKey(block.Bytes)
	return err
}

func (h *Holder) makeKey(dir *os.Root) error {
	if _, err := dir.Lstat(h.name + ".crt"); err == nil {
		return errors.New("the key is gone and its certificate is still there: bring the key back, or remove the certificate and join anew")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	h.key = key
	return writePrivate(dir, h.name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (h *Holder) loadChain(dir *os.Root) error {
	raw, err := readPrivate(dir, h.name+".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var chain [][]byte
	for len(bytes.TrimSpace(raw)) > 0 {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil || block.Type != "CERTIFICATE" {
			return errors.New("the file holds something that is no PEM block CERTIFICATE")
		}
		chain = append(chain, block.Bytes)
	}
	h.current, err = h.check(chain)
	return err
}

// Key is the private key.
func (h *Holder) Key() crypto.Signer { return h.key }

// Fingerprint is the key's, as people compare it.
func (h *Holder) Fingerprint() string { return Fingerprint(h.key.Public()) }

// CSR is a request for a certificate (PKCS #10, DER). It names nobody: who the holder is, the issuer knows.
// It is made once. Not to be changed.
func (h *Holder) CSR() ([]byte, error) { return h.csr() }

// Set takes a new chain (DER, leaf first, root last), writes it down, and hands it out from then on. Refused: a chain
// that is not of this key, or whose id or root is another than before. Its time is not judged: a holder's clock may be
// wrong, and the far side judges by its own.
func (h *Holder) Set(chain [][]byte) error {
	next, err := h.check(chain)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if was := h.current; was != nil {
		if was.peer.ID != next.peer.ID {
			return fmt.Errorf("the new certificate names %s and this holder is %s; to become another, remove %s", next.peer.ID, was.peer.ID, h.path(".crt"))
		}
		if !was.root.Equal(next.root) && (h.succeeds == nil || !h.succeeds(next.root)) {
			return fmt.Errorf("the new certificate is of the federation %s and this holder belongs to %s; to change, remove %s", Pin(next.root), Pin(was.root), h.path(".crt"))
		}
	}
	var file bytes.Buffer
	for _, der := range chain {
		if err := pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
	}
	dir, err := os.OpenRoot(h.dir)
	if err != nil {
		return fmt.Errorf("open folder for keys: %w", err)
	}
	defer dir.Close()
	if err := writePrivate(dir, h.name+".crt", file.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", h.path(".crt"), err)
	}
	h.current = next
	return nil
}

// check judges all of a chain but its time, and makes ready what is handed out.
func (h *Holder) check(chain [][]byte) (*held, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	if len(certs) < 2 {
		return nil, fmt.Errorf("%w: a holder's chain goes from its certificate to the root", ErrUntrusted)
	}
	root := certs[len(certs)-1]
	peer, err := verify(certs, root, certs[0].NotAfter, nil)
	if err != nil {
		return nil, err
	}
	if !sameKey(h.key.Public(), peer.Key) {
		return nil, fmt.Errorf("the certificate is of the key %s and %s is ours", Fingerprint(peer.Key), h.Fingerprint())
	}
	return &held{
		chain: chain,
		root:  root,
		peer:  peer,
		tls:   &tls.Certificate{Certificate: chain, PrivateKey: h.key, Leaf: certs[0]},
		short: &tls.Certificate{Certificate: chain[:len(chain)-1], PrivateKey: h.key, Leaf: certs[0]},
		since: time.Now(),
	}, nil
}

func (h *Holder) get() *held {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.current
}

// Chain is the current chain, DER, leaf first, root last; nil before the first. Not to be changed.
func (h *Holder) Chain() [][]byte {
	if c := h.get(); c != nil {
		return c.chain
	}
	return nil
}

// Root is the root of the current chain; nil before the first.
func (h *Holder) Root() *x509.Certificate {
	if c := h.get(); c != nil {
		return c.root
	}
	return nil
}

// Peer is who the current certificate says this holder is; nil before the first.
func (h *Holder) Peer() *Peer {
	c := h.get()
	if c == nil {
		return nil
	}
	peer := *c.peer
	peer.Expired = h.now().After(peer.NotAfter)
	return &peer
}

// TLSCertificate is what to show, root included, so that whoever knows only the root's pin can check it.
func (h *Holder) TLSCertificate() (*tls.Certificate, error) {
	if c := h.get(); c != nil {
		return c.tls, nil
	}
	return nil, ErrNoCertificate
}

// ShortTLSCertificate is the same without the root, for whoever has that: each certificate that is shown costs the other
// end kilobytes for as long as the connection lives.
func (h *Holder) ShortTLSCertificate() (*tls.Certificate, error) {
	if c := h.get(); c != nil {
		return c.short, nil
	}
	return nil, ErrNoCertificate
}

// SelfSigned is a certificate of the bare key. It proves nothing but the key, to somebody who was told its fingerprint.
func (h *Holder) SelfSigned() (*tls.Certificate, error) {
	now := h.now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: h.Fingerprint()},
		NotBefore:    now.Add(-day),
		NotAfter:     now.Add(year),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, h.key.Public(), h.key)
	if err != nil {
		return nil, fmt.Errorf("sign own key: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: h.key}, nil
}
