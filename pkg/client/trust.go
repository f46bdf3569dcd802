package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// ErrNotVouched says that a key to which secrets were to be sealed is not shown to be the control plane's.
var ErrNotVouched = errors.New("nothing was sent: the key to seal to is not shown to be the control plane's")

// Trusting returns the services with the pin of the federation's root, without which nothing is sealed.
func (s *Services) Trusting(pin string) *Services {
	own := *s
	own.pin = pin
	return &own
}

// vouched returns the key to seal to, where a server of the federation whose root is pinned has signed it, and its time is not
// over. Whoever ends the connection, a zone's edge, is not believed in this: it could give a key of its own.
func (s *Services) vouched(o *apiv1.GetLoginOptionsResponse, now time.Time) (*sealed.Key, error) {
	server, err := s.server(o.GetSealingChain(), now)
	if err != nil {
		return nil, fmt.Errorf("%w%w", ErrNotVouched, err)
	}
	key := &sealed.Key{ID: o.GetSealingKeyId(), Public: o.GetSealingKey(), Until: o.GetSealingKeyUntil().AsTime()}
	switch {
	case !key.VouchedBy(server.Key, o.GetSealingSignature()):
		return nil, fmt.Errorf("%w: %s has not signed it", ErrNotVouched, server.ID)
	case !now.Before(key.Until):
		return nil, fmt.Errorf("%w any more: its time was over at %s; look at the clocks, here and there", ErrNotVouched, key.Until.Format(time.RFC3339))
	}
	return key, nil
}

// server returns which server of the federation a chain is of. Its errors go on a sentence.
func (s *Services) server(chain [][]byte, now time.Time) (*pki.Peer, error) {
	if s.pin == "" {
		return nil, errors.New(", since the federation's root is not known here: trust_pin is not set")
	}
	root, err := pki.RootByPin(chain, s.pin)
	if err != nil {
		return nil, fmt.Errorf(": %w", err)
	}
	server, err := pki.Verify(chain, root, now, pki.RoleServer)
	if err != nil {
		return nil, fmt.Errorf(": %w", err)
	}
	return server, nil
}
