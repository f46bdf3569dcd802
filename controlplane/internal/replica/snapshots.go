package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// snapshotsKept: the newest, and one more in case its bits rot.
	snapshotsKept = 2
	// sealName is the file beside a snapshot's metadata that says what was in it when it was made.
	sealName = "seal"
	// snapshotInterval is how often the log's growth is looked at.
	snapshotInterval = time.Second
	// snapshotRetry is how long to wait after a snapshot failed.
	snapshotRetry = 30 * time.Second
)

// snapshotStore keeps snapshots in files. The library's own store has a checksum of the content only; here the metadata
// (index, term, configuration) has one too, and a snapshot whose metadata does not match is none.
type snapshotStore struct {
	*raft.FileSnapshotStore
	dir string
	// damaged is told of a snapshot that does not read back as it was written. It must not block.
	damaged func(id string, err error)
	// kept is called when a snapshot is durable; tests end the process there.
	kept func()
}

// sealedSink is a snapshot that is being written.
type sealedSink struct {
	raft.SnapshotSink
	kept func()
}

// Close implements raft.SnapshotSink.
func (s sealedSink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.kept()
	}
	return err
}

func openSnapshots(dir string, log logger, damaged func(id string, err error)) (*snapshotStore, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	if err != nil {
		return nil, fmt.Errorf("open the snapshots: %w", err)
	}
	s := &snapshotStore{FileSnapshotStore: files, dir: filepath.Join(dir, "snapshots"), damaged: damaged, kept: func() {}}
	// What a crash left half written is of no use to anybody.
	left, err := filepath.Glob(filepath.Join(s.dir, "*.tmp"))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return s, err
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, c, at, t)
	if err != nil {
		return nil, err
	}
	meta := &raft.SnapshotMeta{Version: v, ID: sink.ID(), Index: index, Term: term, Configuration: c, ConfigurationIndex: at}
	if err := writeDurably(filepath.Join(s.dir, sink.ID()+".tmp", sealName), seal(meta)); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sealedSink{sink, s.kept}, nil
}

// List implements raft.SnapshotStore: newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.FileSnapshotStore.List()
	whole := all[:0]
	for _, meta := range all {
		if err := s.verify(meta); err != nil {
			s.damaged(meta.ID, err)
			continue
		}
		whole = append(whole, meta)
	}
	return whole, err
}

// Open implements raft.SnapshotStore. It reads the content once to check it.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.FileSnapshotStore.Open(id)
	if err == nil {
		if err = s.verify(meta); err != nil {
			err = errors.Join(err, content.Close())
		}
	}
	if err != nil {
		s.damaged(id, err)
		return nil, nil, err
	}
	return meta, content, nil
}

func (s *snapshotStore) verify(meta *raft.SnapshotMeta) error {
	raw, err := os.ReadFile(filepath.Join(s.dir, meta.ID, sealName))
	if err != nil {
		return err
	}
	if string(raw) != string(seal(meta)) {
		return fmt.Errorf("the metadata of snapshot %s is not what was written", meta.ID)
	}
	return nil
}

// seal returns a checksum over what identifies a snapshot.
func seal(meta *raft.SnapshotMeta) []byte {
	raw, err := json.Marshal([]any{meta.Version, meta.ID, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex})
	if err != nil {
		panic(err) // numbers and strings
	}
	return fmt.Appendf(nil, "%08x\n", crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
}

// takeSnapshots takes one whenever the log has grown by so many bytes, or the newest has been found damaged.
func (r *Replica) takeSnapshots(ctx context.Context) error {
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	// since counts like r.log.Written; what was in the log on start counts too.
	since := -int64(r.unsnapped)
	var rest time.Time
	force := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.snapshotDamaged:
			force = true
		case <-tick.C:
		}
		written := int64(r.log.Written())
		r.metrics.logBytes.Set(float64(written - since))
		if !force && written-since < int64(r.c.Tuning.SnapshotBytes) || time.Now().Before(rest) {
			continue
		}
		err := r.raft.Snapshot().Error()
		switch {
		case err == nil:
			since, force = written, false
		case errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown):
		default:
			rest = time.Now().Add(snapshotRetry)
			r.c.Logger.Warn("no snapshot could be taken; it is tried again", "after", snapshotRetry, "error", strings.TrimSpace(err.Error()))
		}
	}
}
