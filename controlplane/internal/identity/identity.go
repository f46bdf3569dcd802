// Package identity is the federation's certificate authority at work in a server: it opens the sealed keyring of the
// replicated state with the sealing key in the server's key folder, and issues certificates to servers, brokers, agents
// and administrators. What is asked from outside is proved first: a join by the token's secret, a renewal by the old
// certificate's key.
package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// State is what the authority reads of the replicated state.
type State interface {
	// Keyring is empty before the federation is founded.
	Keyring(ctx context.Context) (*commandv1.Keyring, error)
	// JoinToken and Member return nil where there is none.
	JoinToken(ctx context.Context, id string) (*commandv1.JoinToken, error)
	Member(ctx context.Context, zoneID, agent string) (*commandv1.Member, error)
	// ZoneName returns the zone's name, and whether its certificates may be renewed.
	ZoneName(ctx context.Context, zoneID string) (name string, active bool, err error)
}

// Proposer carries commands through Raft.
type Proposer interface {
	Propose(ctx context.Context, c *commandv1.Command) (*commandv1.Result, error)
}

// Options say who this server is.
type Options struct {
	// Folder of the keys: sealing.key, server.key, server.crt.
	Dir string
	// DNS names and addresses for the sake of API clients.
	Names []string
	IPs   []net.IP
	// LinkLifetime is of the link certificates that are issued; zero: pki.LinkTTL.
	LinkLifetime time.Duration
	Log          *slog.Logger
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// Keeper is this server's identity and its hand on the federation's authority. Safe for concurrent use.
type Keeper struct {
	Options
	holder *pki.Holder

	mu      sync.Mutex
	sealing []byte
	state   State
	// loaded are the authorities of the keyring last opened, by role, older ones first; digest tells when it has changed.
	loaded map[string][]*pki.Authority
	digest []byte
}

const sealingFile = "sealing.key"

// Open opens the key folder. A server that has neither begun nor joined a federation has no certificate yet.
func Open(o Options) (*Keeper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	h, err := pki.LoadOrCreate(o.Dir, "server", pki.WithClock(o.Now), pki.WithLogger(o.Log))
	if err != nil {
		return nil, err
	}
	k := &Keeper{Options: o, holder: h}
	key, err := os.ReadFile(filepath.Join(o.Dir, sealingFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err == nil && len(key) != pki.SealKeySize {
		return nil, fmt.Errorf("%s is damaged: it holds %d bytes, not %d; restore it from where you keep it", filepath.Join(o.Dir, sealingFile), len(key), pki.SealKeySize)
	}
	k.sealing = key
	return k, nil
}

// Holder is this server's own certificate, for its peers, for brokers and for the API.
func (k *Keeper) Holder() *pki.Holder { return k.holder }

// Root is the federation's root; nil before the server belongs to one.
func (k *Keeper) Root() *x509.Certificate { return k.holder.Root() }

// Ready reports whether the server belongs to a federation and can open its keyring.
func (k *Keeper) Ready() bool { return k.holder.Peer() != nil && k.sealingKey() != nil }

// Attach gives the keeper the replicated state, once it is open.
func (k *Keeper) Attach(s State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
}

func (k *Keeper) sealingKey() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sealing
}

// setSealingKey writes the sealing key down and uses it from now on.
func (k *Keeper) setSealingKey(key []byte) error {
	path := filepath.Join(k.Dir, sealingFile)
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sealing = key
	return nil
}

// Seal encrypts a secret for the replicated state; Open is its reverse. role says what it is.
func (k *Keeper) Seal(role string, plain []byte) ([]byte, error) {
	return pki.Seal(k.sealingKey(), role, plain)
}

// Unseal is the reverse of Seal.
func (k *Keeper) Unseal(role string, sealed []byte) ([]byte, error) {
	return pki.Open(k.sealingKey(), role, sealed)
}

// authorities returns the federation's authorities by role, older ones first, with their keys opened. Not to be changed.
func (k *Keeper) authorities(ctx context.Context) (map[string][]*pki.Authority, error) {
	k.mu.Lock()
	state := k.state
	k.mu.Unlock()
	if state == nil {
		return nil, errors.New("the replicated state is not open yet")
	}
	ring, err := state.Keyring(ctx)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := digestOf(ring); !bytes.Equal(d, k.digest) {
		loaded, err := openKeyring(ring, k.sealing)
		if err != nil {
			return nil, err
		}
		k.loaded, k.digest = loaded, d
	}
	return k.loaded, nil
}

// authority returns the authority of a role that issues now.
func (k *Keeper) authority(ctx context.Context, role string) (*pki.Authority, error) {
	all, err := k.authorities(ctx)
	if err != nil {
		return nil, err
	}
	a := current(all[role], k.Now())
	if a == nil {
		return nil, fmt.Errorf("the keyring has no authority for %s whose time is now; the leader makes one, once there is a leader and its clock is right", role)
	}
	return a, nil
}

// Run renews this server's own certificate until ctx ends. It needs no quorum: the keyring is read from its own state.
func (k *Keeper) Run(ctx context.Context) error {
	return k.holder.Run(ctx, func(ctx context.Context, csr []byte) ([][]byte, error) {
		return k.issueServer(ctx, k.holder.Peer().ServerID, csr)
	})
}

// Reissue issues this server a certificate now, with the names it is configured with.
func (k *Keeper) Reissue(ctx context.Context) error {
	csr, err := k.holder.CSR()
	if err != nil {
		return err
	}
	chain, err := k.issueServer(ctx, k.holder.Peer().ServerID, csr)
	if err != nil {
		return err
	}
	return k.holder.Set(chain)
}

func (k *Keeper) issueServer(ctx context.Context, serverID string, csr []byte) ([][]byte, error) {
	key, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	a, err := k.serversAuthority(ctx)
	if err != nil {
		return nil, err
	}
	return k.issueServerFrom(a, serverID, key)
}

func (k *Keeper) issueServerFrom(a *pki.Authority, serverID string, key crypto.PublicKey) ([][]byte, error) {
	id, err := pki.ServerID(a.Federation, serverID)
	if err != nil {
		return nil, err
	}
	return a.Issue(key, id, pki.IssueOptions{DNS: k.Names, IPs: k.IPs, Now: k.Now()})
}
