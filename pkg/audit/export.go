package audit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// magic begins an export.
	magic = "naru audit export 1\n"
	// maxPiece bounds what a reader takes into memory at once.
	maxPiece = 4 << 20
)

// canonical is the one form of a message as bytes.
func canonical(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Writer writes an export.
type Writer struct {
	w     io.Writer
	begun bool
}

// NewWriter returns one that has written nothing.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write adds a piece.
func (w *Writer) Write(piece *apiv1.ExportAuditResponse) error {
	b, err := canonical(piece)
	if err != nil {
		return err
	}
	var out []byte
	if !w.begun {
		out, w.begun = append(out, magic...), true
	}
	out = append(binary.AppendUvarint(out, uint64(len(b))), b...)
	_, err = w.w.Write(out)
	return err
}

// errCut says that an export ends before it should.
var errCut = errors.New("the export is cut off")

// pieces reads the pieces of an export one after the other.
type pieces struct{ r *bufio.Reader }

func readPieces(r io.Reader) (*pieces, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(b, first); err != nil || string(first) != magic {
		return nil, ErrNoExport
	}
	return &pieces{b}, nil
}

// next returns io.EOF behind the last.
func (p *pieces) next() (*apiv1.ExportAuditResponse, error) {
	if _, err := p.r.Peek(1); err == io.EOF {
		return nil, io.EOF
	}
	size, err := binary.ReadUvarint(p.r)
	switch {
	case err != nil:
		return nil, errCut
	case size > maxPiece:
		return nil, fmt.Errorf("a piece of %d bytes is larger than any", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return nil, errCut
	}
	m := &apiv1.ExportAuditResponse{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, errors.New("a piece cannot be read")
	}
	again, err := canonical(m)
	if err != nil || string(again) != string(b) || len(m.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("a piece is not in the one form that it has")
	}
	return m, nil
}
