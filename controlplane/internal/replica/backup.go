package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/naru-project/naru/controlplane/internal/replica/raftlog"
)

// BackUp writes the whole state, as it is on this server at one moment, to w. Call ReadIndex before it for a backup that
// holds all that has been acknowledged; without a majority it still holds what this server has.
func (r *Replica) BackUp(ctx context.Context, w io.Writer) error {
	s, err := r.c.Machine.Snapshot()
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer s.Release()
	if _, err := s.WriteTo(writerUntil{ctx, w}); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return nil
}

// writerUntil fails once its context has ended.
type writerUntil struct {
	ctx context.Context
	w   io.Writer
}

func (w writerUntil) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}

// Recover makes an empty data folder, and an empty Machine, into the only server of a federation whose state is the backup.
// The log goes on after the backup's last entry. Start the server with New and Run then, and propose BeginEpoch: to whatever
// the backup does not know, this is another federation.
//
// When it is interrupted the server refuses to start; empty the folder and begin anew.
func Recover(c Config, backup io.Reader) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if index, _, err := position(c.Machine); err != nil || index != 0 {
		return errors.Join(err, fmt.Errorf("a backup is restored into an empty server only, and the state here has entries up to %d; give it an empty data folder", index))
	}
	dir, err := openFolder(c.Dir, identity{Server: c.ServerID, Federation: c.Federation})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	snapshots, err := openSnapshots(c.Dir, logger{to: c.Logger}, func(string, error) {})
	if err != nil {
		return err
	}
	log, err := raftlog.Open(dir.log(), raftlog.Options{SegmentBytes: c.Tuning.SegmentBytes, Logger: logger{to: c.Logger}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	used, err := raft.HasExistingState(log, log, snapshots)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("a backup is restored into an empty data folder only, and %s has a log; give it another one", c.Dir)
	}

	if err := c.Machine.Restore(backup); err != nil {
		return fmt.Errorf("restore the backup: %w", err)
	}
	s, err := c.Machine.Snapshot()
	if err != nil {
		return err
	}
	defer s.Release()
	index, term := s.Applied()
	if index == 0 || term == 0 {
		return errors.New("the backup holds no state: nothing was ever applied to it")
	}
	// Terms go on too: Raft compares them to tell whose log is newer.
	if err := log.SetUint64([]byte("CurrentTerm"), term); err != nil {
		return err
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(c.ServerID), Address: raft.ServerAddress(c.Address)}}}
	_, addresses := raft.NewInmemTransport(raft.ServerAddress(c.Address))
	sink, err := snapshots.Create(raft.SnapshotVersionMax, index, term, alone, 1, addresses)
	if err != nil {
		return err
	}
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(fmt.Errorf("write the first snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}
