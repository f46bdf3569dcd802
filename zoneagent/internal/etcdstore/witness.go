package etcdstore

import (
	"context"
	"errors"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// Witness returns what the zone remembers of the control plane's audit log; a blank one where that is nothing.
func (s *Store) Witness(ctx context.Context) (*zonev1.Witness, error) {
	c, err := s.Get(ctx, Witness, "", "")
	if errors.Is(err, ErrNotFound) {
		return &zonev1.Witness{}, nil
	}
	if err != nil {
		return nil, err
	}
	return c.Message.(*zonev1.Witness), nil
}

// PutWitness writes what the zone remembers of the log, together with what it says of it. own is the uplink's.
func (s *Store) PutWitness(ctx context.Context, own *Ownership, w *zonev1.Witness, entries ...*linkv1.JournalEntry) error {
	t := s.Begin(own)
	t.put(t.keys().of(Witness), w)
	t.Journal(entries...)
	_, err := t.Commit(ctx)
	return err
}
