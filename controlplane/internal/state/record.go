package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"zombiezen.com/go/sqlite"
)

// A snapshot is a sequence of records. On the wire each is its length (uvarint), its bytes, and their CRC32C (4 bytes,
// little endian). The first byte says what it is:
//
//	H  header: magic, format, then the state's numbers (header.append)
//	T  a table begins: its name, the number of columns, their names
//	R  a row of it: one field a column
//	E  end: the number of records before it (uvarint), SHA-256 of the content
//
// Text and bytes have their length (uvarint) before them. A version reads the formats of the two releases before it.
const (
	recordHeader = 'H'
	recordTable  = 'T'
	recordRow    = 'R'
	recordEnd    = 'E'

	snapshotMagic  = "naru-state"
	snapshotFormat = 1
	// maxRecord bounds what a reader takes into memory for one record.
	maxRecord = 16 << 20
)

// field is one value of a row.
type field struct {
	kind   byte // i, t or b
	number int64
	bytes  []byte // of text and bytes
}

func fieldOf(s *sqlite.Stmt, i int) field {
	switch s.ColumnType(i) {
	case sqlite.TypeInteger:
		return field{kind: 'i', number: s.ColumnInt64(i)}
	case sqlite.TypeText:
		return field{kind: 't', bytes: columnBytes(s, i)}
	}
	return field{kind: 'b', bytes: columnBytes(s, i)}
}

func (f field) any() any {
	switch f.kind {
	case 'i':
		return f.number
	case 't':
		return string(f.bytes)
	}
	return f.bytes
}

func appendBytes[B ~string | ~[]byte](b []byte, v B) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendTable(b []byte, name string, columns []string) []byte {
	b = appendBytes(append(b, recordTable), name)
	b = binary.AppendUvarint(b, uint64(len(columns)))
	for _, c := range columns {
		b = appendBytes(b, c)
	}
	return b
}

func appendRow(b []byte, row []field) []byte {
	b = append(b, recordRow)
	for _, f := range row {
		b = append(b, f.kind)
		if f.kind == 'i' {
			b = binary.AppendVarint(b, f.number)
		} else {
			b = appendBytes(b, f.bytes)
		}
	}
	return b
}

// recordWriter writes records and counts them.
type recordWriter struct {
	w       *bufio.Writer
	records uint64
	bytes   int64
}

func (w *recordWriter) write(record []byte) error {
	b := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen32), uint64(len(record)))
	sum := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(record, castagnoli))
	for _, part := range [...][]byte{b, record, sum} {
		n, err := w.w.Write(part)
		w.bytes += int64(n)
		if err != nil {
			return err
		}
	}
	w.records++
	return nil
}

// errSnapshot says that a stream is no whole snapshot.
var errSnapshot = errors.New("the snapshot is damaged or cut off")

// recordReader reads records and counts them.
type recordReader struct {
	r       *bufio.Reader
	records uint64
	buf     []byte
}

// next returns the next record, valid until the one after. Errors: errSnapshot; those of the reader.
func (r *recordReader) next() ([]byte, error) {
	n, err := binary.ReadUvarint(r.r)
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return nil, fmt.Errorf("%w: it ends after %d records", errSnapshot, r.records)
	case err != nil:
		return nil, err
	case n == 0 || n > maxRecord:
		return nil, fmt.Errorf("%w: record %d has %d bytes", errSnapshot, r.records, n)
	}
	if uint64(cap(r.buf)) < n+4 {
		r.buf = make([]byte, n+4)
	}
	b := r.buf[:n+4]
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, fmt.Errorf("%w: it ends in record %d", errSnapshot, r.records)
		}
		return nil, err
	}
	record, sum := b[:n], binary.LittleEndian.Uint32(b[n:])
	if crc32.Checksum(record, castagnoli) != sum {
		return nil, fmt.Errorf("%w: record %d does not fit its checksum", errSnapshot, r.records)
	}
	r.records++
	return record, nil
}

// parser takes values off the front of a record. After a failure all it returns is zero.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

// bytes returns a copy.
func (p *parser) bytes() []byte {
	n := p.uvarint()
	if p.bad || n > uint64(len(p.b)) {
		p.b, p.bad = nil, true
		return nil
	}
	v := append([]byte(nil), p.b[:n]...)
	p.b = p.b[n:]
	return v
}

func (p *parser) byte() byte {
	if len(p.b) == 0 {
		p.bad = true
		return 0
	}
	v := p.b[0]
	p.b = p.b[1:]
	return v
}

// row reads n fields that fill the rest of the record.
func (p *parser) row(n int) []field {
	row := make([]field, n)
	for i := range row {
		row[i].kind = p.byte()
		switch row[i].kind {
		case 'i':
			row[i].number = p.varint()
		case 't', 'b':
			row[i].bytes = p.bytes()
		default:
			p.bad = true
		}
	}
	if len(p.b) > 0 {
		p.bad = true
	}
	return row
}
