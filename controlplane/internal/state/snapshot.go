package state

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
)

// Snapshot is a read transaction without time limit over all of the state. It has to be released.
type Snapshot struct {
	db      *DB
	meta    Meta
	stores  []store
	tx      *Tx
	release func()
}

// Snapshot opens a snapshot of what is committed now, on a connection of its own.
func (db *DB) Snapshot() (*Snapshot, error) {
	f, err := db.current()
	if err != nil {
		return nil, err
	}
	c, err := connect(db.path, sqlite.OpenReadWrite, "query_only=ON")
	if err != nil {
		f.leave()
		return nil, db.noted(err)
	}
	tx, end, err := f.snapshot(context.Background(), db, c)
	if err != nil {
		db.note(c.Close())
		f.leave()
		return nil, err
	}
	return &Snapshot{db: db, meta: tx.meta, stores: db.stores, tx: tx, release: sync.OnceFunc(func() {
		end()
		db.note(c.Close())
		f.leave()
	})}, nil
}

// Meta returns the state's numbers in the snapshot.
func (s *Snapshot) Meta() Meta { return s.meta }

// Release ends the snapshot. It may be called more than once.
func (s *Snapshot) Release() { s.release() }

// WriteTo writes the snapshot as a stream that Restore reads. The same content gives the same bytes on every server.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	out := &recordWriter{w: bufio.NewWriterSize(w, 64<<10)}
	err := out.write(header{s.meta}.append(nil, true))
	if err != nil {
		return out.bytes, err
	}
	sum := newContentHash(s.meta)
	if err := s.records(func(record []byte) error {
		sum.add(record)
		return out.write(record)
	}); err != nil {
		return out.bytes, err
	}
	end := binary.AppendUvarint([]byte{recordEnd}, out.records)
	if err := out.write(append(end, sum.Sum(nil)...)); err != nil {
		return out.bytes, err
	}
	return out.bytes, out.w.Flush()
}

// Hash returns the SHA-256 of the replicated content: what replicas at the same index must have in common. Where this
// server's log stands is not part of it.
func (s *Snapshot) Hash() ([sha256.Size]byte, error) {
	sum := newContentHash(s.meta)
	err := s.records(func(record []byte) error {
		sum.add(record)
		return nil
	})
	return [sha256.Size]byte(sum.Sum(nil)), err
}

// records calls emit with the records of all tables and rows. The slice is reused.
func (s *Snapshot) records(emit func([]byte) error) error {
	var b []byte
	for _, store := range s.stores {
		b = appendTable(b[:0], store.name(), store.dumped())
		if err := emit(b); err != nil {
			return err
		}
		err := store.dump(s.tx, func(row []field) error {
			b = appendRow(b[:0], row)
			return emit(b)
		})
		if err != nil {
			return s.db.noted(fmt.Errorf("snapshot of %s: %w", store.name(), err))
		}
	}
	return nil
}

// contentHash is SHA-256 over records, each with its length before it.
type contentHash struct {
	hash.Hash
	length []byte
}

func newContentHash(m Meta) *contentHash {
	h := &contentHash{Hash: sha256.New()}
	h.add(header{m}.append(nil, false))
	return h
}

func (h *contentHash) add(record []byte) {
	h.length = binary.AppendUvarint(h.length[:0], uint64(len(record)))
	h.Write(h.length)
	h.Write(record)
}

// header is a snapshot's first record. New numbers go to the end: an older reader ignores them, a newer one reads zero
// where they are missing.
type header struct{ Meta }

// append writes the header; without position, what is this server's own (index and term) is zero.
func (h header) append(b []byte, position bool) []byte {
	b = appendBytes(append(b, recordHeader), snapshotMagic)
	b = binary.AppendUvarint(b, snapshotFormat)
	b = appendBytes(b, h.Federation)
	b = binary.AppendUvarint(b, h.Epoch)
	b = appendBytes(b, h.EpochID)
	b = binary.AppendUvarint(b, h.EpochBegan)
	b = binary.AppendUvarint(b, h.Revision)
	b = binary.AppendUvarint(b, uint64(h.FeatureLevel))
	b = binary.AppendVarint(b, h.LastStamp.UnixMicro())
	if !position {
		h.AppliedIndex, h.AppliedTerm = 0, 0
	}
	b = binary.AppendUvarint(b, h.AppliedIndex)
	return binary.AppendUvarint(b, h.AppliedTerm)
}

// ReadHeader reads the numbers of a snapshot from its beginning. Errors: ErrForeign for one of a newer version.
func ReadHeader(r io.Reader) (Meta, error) {
	return (&recordReader{r: bufio.NewReader(r)}).header()
}

func (r *recordReader) header() (m Meta, err error) {
	b, err := r.next()
	if err != nil {
		return m, err
	}
	p := &parser{b: b}
	if p.byte() != recordHeader || string(p.bytes()) != snapshotMagic {
		return m, fmt.Errorf("%w: it does not begin as one", errSnapshot)
	}
	if format := p.uvarint(); format > snapshotFormat {
		return m, fmt.Errorf("%w: the snapshot has format %d and this version knows %d; run the newer version", ErrForeign, format, snapshotFormat)
	}
	m.Federation, m.Epoch, m.EpochID = string(p.bytes()), p.uvarint(), p.bytes()
	m.EpochBegan, m.Revision, m.FeatureLevel = p.uvarint(), p.uvarint(), uint32(p.uvarint())
	m.LastStamp = time.UnixMicro(p.varint()).UTC()
	m.AppliedIndex, m.AppliedTerm = p.uvarint(), p.uvarint()
	if p.bad {
		return m, fmt.Errorf("%w: its header cannot be read", errSnapshot)
	}
	return m, nil
}
