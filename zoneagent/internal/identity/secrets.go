package identity

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/pki"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// saveZone writes the zone's authority and secrets down: the secrets first, so that a certificate without them is never
// found.
func (i *Identity) saveZone(certificate []byte, secrets *zonev1.Secrets) error {
	b, err := proto.Marshal(secrets)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(i.Dir, secretsFile), b, 0o600); err != nil {
		return err
	}
	return writeFile(i.AuthorityFile(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o644)
}

// loadZone reads what saveZone wrote; nothing before the agent is in the zone.
func (i *Identity) loadZone() error {
	text, err := os.ReadFile(i.AuthorityFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s holds no certificate; let the agent join anew in an empty folder", i.AuthorityFile())
	}
	b, err := os.ReadFile(filepath.Join(i.Dir, secretsFile))
	if err != nil {
		return err
	}
	secrets := &zonev1.Secrets{}
	if err := proto.Unmarshal(b, secrets); err != nil {
		return fmt.Errorf("%s is damaged; let the agent join anew in an empty folder: %w", filepath.Join(i.Dir, secretsFile), err)
	}
	a, err := pki.LoadAuthority(block.Bytes, secrets.GetCaKey(), nil)
	if err != nil {
		return fmt.Errorf("%s: %w", i.AuthorityFile(), err)
	}
	i.authority, i.gossip = a, secrets.GetGossipKey()
	return nil
}

// writeFile writes a file that appears whole, and is on disk when it does.
func writeFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
