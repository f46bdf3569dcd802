// Package diskimage checks the bits of a base image on their way to a hypervisor: that they are what their digest says,
// and that they refer to no other file.
//
// A qcow2 header can name a backing file or an external data file, which a hypervisor would open with its own rights:
// that is how a tenant reads a host's files (CVE-2015-5163, CVE-2024-32498). The format is the declared one, never found
// out from the bits, and a raw image is not looked into: whatever it begins with, it is only ever used as raw.
package diskimage

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// HeaderSize is how much of an image CheckQCOW2 looks at.
const HeaderSize = 104

// ErrDigest: the bits are not those of the image.
var ErrDigest = errors.New("the bits have another digest than the image")

// Fields of the header and its bits: docs/interop/qcow2.txt of QEMU.
const (
	magic           = 0x514649fb
	versionAt       = 4
	backingOffsetAt = 8
	backingSizeAt   = 16
	clusterBitsAt   = 20
	virtualSizeAt   = 24
	encryptionAt    = 32
	incompatibleAt  = 72

	knownIncompatible = 1<<3 | 1<<4 // compression type, extended L2 entries
	dirty             = 1 << 0
	corrupt           = 1 << 1
	externalData      = 1 << 2
)

// CheckQCOW2 reads the beginning of a qcow2 file and returns its virtual size in bytes. Refused are references to other
// files, encryption, a file that was not closed well, and features from after this was written.
func CheckQCOW2(header []byte) (virtualSize uint64, err error) {
	if len(header) < 72 || binary.BigEndian.Uint32(header) != magic {
		return 0, errors.New("not a qcow2 file")
	}
	version := binary.BigEndian.Uint32(header[versionAt:])
	if version != 2 && version != 3 {
		return 0, fmt.Errorf("qcow2 version %d is not known", version)
	}
	if binary.BigEndian.Uint64(header[backingOffsetAt:]) != 0 || binary.BigEndian.Uint32(header[backingSizeAt:]) != 0 {
		return 0, errors.New("it refers to a backing file")
	}
	if binary.BigEndian.Uint32(header[encryptionAt:]) != 0 {
		return 0, errors.New("it is encrypted")
	}
	if bits := binary.BigEndian.Uint32(header[clusterBitsAt:]); bits < 9 || bits > 21 {
		return 0, fmt.Errorf("its clusters of 2^%d bytes are not possible", bits)
	}
	if version == 3 {
		if len(header) < HeaderSize {
			return 0, errors.New("its header is cut short")
		}
		switch features := binary.BigEndian.Uint64(header[incompatibleAt:]); {
		case features&externalData != 0:
			return 0, errors.New("it refers to an external data file")
		case features&(dirty|corrupt) != 0:
			return 0, errors.New("it was not closed well; repair it with qemu-img check -r all")
		case features&^knownIncompatible != 0:
			return 0, fmt.Errorf("it needs features %#x that are not known", features&^knownIncompatible)
		}
	}
	return binary.BigEndian.Uint64(header[virtualSizeAt:]), nil
}

// Reader passes an image's bits on and checks them. Read never returns an error but io.EOF: a source that fails ends the
// stream too, and Verify tells. (A consumer that must not see errors in the middle can thus use it as it is.)
type Reader struct {
	source *bufio.Reader
	want   string
	sum    hash.Hash
	size   uint64
	err    error
}

// NewReader looks at the header; a file that must not be used is a Fatal error and nothing of it is passed on.
func NewReader(source io.Reader, image hypervisor.Image) (*Reader, error) {
	buffered := bufio.NewReaderSize(source, 1<<16)
	if image.Format != apiv1.Image_RAW {
		header, err := buffered.Peek(HeaderSize)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("reading image %s: %w", image.SHA256, err)
		}
		if _, err := CheckQCOW2(header); err != nil {
			return nil, hypervisor.Fatal(fmt.Errorf("image %s: %w", image.SHA256, err))
		}
	}
	return &Reader{source: buffered, want: image.SHA256, sum: sha256.New()}, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.sum.Write(p[:n])
	r.size += uint64(n)
	if err != nil && err != io.EOF {
		r.err = err
		err = io.EOF
	}
	return n, err
}

// Size returns the bytes passed on so far.
func (r *Reader) Size() uint64 { return r.size }

// Verify reports, after the end, whether all of the image and nothing else went through.
func (r *Reader) Verify() error {
	if r.err != nil {
		return fmt.Errorf("reading image %s: %w", r.want, r.err)
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
		return fmt.Errorf("image %s: %w (%s, %d bytes)", r.want, ErrDigest, got, r.size)
	}
	return nil
}
