package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// ErrDamaged marks a log that holds something else than what was written to it.
var ErrDamaged = errors.New("the log is damaged")

// codecID names this form of an entry. It stands in every segment's header; another form takes another number.
const codecID = 1<<16 + 1

// castagnoli is the polynomial of CRC32C, which processors compute themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// codec writes one entry as
//
//	CRC32C of the rest, 4 bytes | index, term, type, nanoseconds since 1970 when it was appended (0: unknown),
//	length of the extensions: varints | extensions | data
//
// so that an entry that reads back is the one that was written: raft-wal itself checks a sum only of the last batch, once,
// when it opens.
type codec struct{}

// ID implements wal.Codec.
func (codec) ID() uint64 { return codecID }

// Encode implements wal.Codec.
func (codec) Encode(l *raft.Log, w io.Writer) error {
	var nanos int64
	if !l.AppendedAt.IsZero() {
		nanos = l.AppendedAt.UnixNano()
	}
	b := make([]byte, 4, 4+5*binary.MaxVarintLen64+len(l.Extensions)+len(l.Data))
	b = binary.AppendUvarint(b, l.Index)
	b = binary.AppendUvarint(b, l.Term)
	b = binary.AppendUvarint(b, uint64(l.Type))
	b = binary.AppendVarint(b, nanos)
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	_, err := w.Write(b)
	return err
}

// Decode implements wal.Codec. On an error l is not to be used.
func (codec) Decode(b []byte, l *raft.Log) error {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return fmt.Errorf("%w: an entry's checksum does not match", ErrDamaged)
	}
	b = b[4:]
	var broken bool
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			broken = true
			return 0
		}
		b = b[n:]
		return v
	}
	*l = raft.Log{Index: next(), Term: next(), Type: raft.LogType(next())}
	nanos, n := binary.Varint(b)
	if broken || n <= 0 {
		return fmt.Errorf("%w: an entry is cut short", ErrDamaged)
	}
	b = b[n:]
	extensions := next()
	if broken || extensions > uint64(len(b)) {
		return fmt.Errorf("%w: an entry is cut short", ErrDamaged)
	}
	if nanos != 0 {
		l.AppendedAt = time.Unix(0, nanos)
	}
	// The buffer goes back to a pool, so nothing of it may be kept; one copy serves both.
	kept := append([]byte(nil), b...)
	if extensions > 0 {
		l.Extensions = kept[:extensions:extensions]
	}
	if uint64(len(kept)) > extensions {
		l.Data = kept[extensions:]
	}
	return nil
}
