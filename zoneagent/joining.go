package zoneagent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/zoneagent/internal/identity"
)

// openIdentity opens an agent's key folder.
func openIdentity(c *Config, log *slog.Logger) (*identity.Identity, error) {
	dns, ips := c.names()
	return identity.Open(identity.Options{Dir: c.keys(), Agent: c.Name, EdgeNames: dns, EdgeIPs: ips, Log: log.With("part", "identity")})
}

// Fingerprint returns that of the agent's link key, for the administrator who is to accept it.
func Fingerprint(c *Config, log *slog.Logger) (string, error) {
	i, err := openIdentity(c, log)
	if err != nil {
		return "", err
	}
	return i.Link.Fingerprint(), nil
}

// Join asks to be let into the zone that the token is for, and waits until an administrator has accepted the agent, which
// tell is told of. It returns the zone's name.
func Join(ctx context.Context, c *Config, log *slog.Logger, token string, tell func(fingerprint string)) (zone string, err error) {
	t, err := pki.ParseJoinToken(token)
	if err != nil {
		return "", err
	}
	i, err := openIdentity(c, log)
	if err != nil {
		return "", err
	}
	if i.Joined() {
		return "", fmt.Errorf("%s has joined already, as %s; to join anew, choose another data folder", c.Data, i.Link.Peer().ID)
	}
	d, err := dial.New(dial.Config{Addresses: c.Brokers, Holder: i.Link, Logger: log.With("part", "dial")})
	if err != nil {
		return "", err
	}
	if zone, err = d.Join(ctx, t, c.Name, func() { tell(i.Link.Fingerprint()) }); err != nil {
		return "", err
	}
	if len(c.Peers) == 0 {
		// The first agent makes what the zone keeps to itself.
		err = i.Found()
	}
	return zone, err
}

// CA returns the certificates of the zone's authorities that are believed (PEM), which clients of the edge need, and the pin of
// the one that issues now, which further agents need.
func CA(c *Config, log *slog.Logger) (certificate []byte, pin string, err error) {
	i, err := zoneIdentity(c, log)
	if err != nil {
		return nil, "", err
	}
	return i.RootPEM(), pki.Pin(i.Root()), nil
}

// ReplaceCA gives the zone its next authority, which issues after a while; those before are believed for some time more. The
// zone's agents learn of it within minutes.
func ReplaceCA(c *Config, log *slog.Logger, issuesIn, oldTrustedFor time.Duration) error {
	i, err := zoneIdentity(c, log)
	if err != nil {
		return err
	}
	return i.Replace(issuesIn, oldTrustedFor)
}

// DefaultOldTrust is how long former authorities are believed after the next one has begun to issue: until the last host's
// certificate that they issued has ended.
const DefaultOldTrust = identity.HostCertificateLife + 24*time.Hour

// Issue writes a certificate for a host's libvirt into a folder, as libvirt names the files.
func Issue(c *Config, log *slog.Logger, host, address, dir string) error {
	i, err := zoneIdentity(c, log)
	if err != nil {
		return err
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return fmt.Errorf("address %q is not an IP address", address)
	}
	return i.IssueLibvirt(host, ip, dir)
}

func zoneIdentity(c *Config, log *slog.Logger) (*identity.Identity, error) {
	i, err := openIdentity(c, log)
	if err != nil {
		return nil, err
	}
	if !i.InZone() {
		return nil, fmt.Errorf("%s: the agent is not in its zone yet; join first, and with peers run it once", c.Data)
	}
	return i, nil
}

// ReadToken reads a join token from a file.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
