package hypervisortest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

func imageOnce(t *testing.T, s *session) {
	opened := 0
	open := func() (io.ReadCloser, error) {
		opened++
		return s.bits()
	}
	ok(t, s.host.EnsureImage(s.ctx, s.Image, open))
	first := opened
	ok(t, s.host.EnsureImage(s.ctx, s.Image, open))
	s.reopen(t)
	ok(t, s.host.EnsureImage(s.ctx, s.Image, open))
	if opened != first || opened > 1 {
		t.Fatalf("opened %d times, then %d times", first, opened)
	}
}

// emptyQCOW2 returns a qcow2 header, version 3, of a 1 GiB disk, and an id that makes it unlike any other.
func emptyQCOW2() []byte {
	header := make([]byte, 512)
	binary.BigEndian.PutUint32(header, 0x514649fb)
	binary.BigEndian.PutUint32(header[4:], 3)
	binary.BigEndian.PutUint32(header[20:], 16)
	binary.BigEndian.PutUint64(header[24:], 1<<30)
	binary.BigEndian.PutUint32(header[100:], 104)
	id := uuid.New()
	copy(header[112:], id[:])
	return header
}

func imageOf(bits []byte) hypervisor.Image {
	sum := sha256.Sum256(bits)
	return hypervisor.Image{SHA256: hex.EncodeToString(sum[:]), Format: apiv1.Image_QCOW2}
}

func wrongDigest(t *testing.T, s *session) {
	right := emptyQCOW2()
	image := imageOf(right)
	wrong := append(bytes.Clone(right), "more"...)
	broken := errors.New("the source broke off")
	for name, open := range map[string]func() (io.ReadCloser, error){
		"longer":  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(wrong)), nil },
		"shorter": func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(right[:200])), nil },
		"cut off": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(right[:200]), failing{broken})), nil
		},
		"not opened": func() (io.ReadCloser, error) { return nil, broken },
	} {
		if err := s.host.EnsureImage(s.ctx, image, open); err == nil {
			t.Errorf("%s: accepted", name)
		} else if hypervisor.IsFatal(err) {
			t.Errorf("%s: %v is fatal, yet the source may be mended", name, err)
		}
		m := s.machine(t)
		m.VM = proto.CloneOf(m.VM)
		m.VM.ImageSha256, m.VM.ImageFormat = image.SHA256, image.Format
		if err := s.host.EnsureDisk(s.ctx, m); err == nil {
			t.Errorf("%s: a disk was based on the image", name)
		}
	}
	ok(t, s.host.EnsureImage(s.ctx, image, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(right)), nil }))
}

// failing is a reader that fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func backingFile(t *testing.T, s *session) {
	for name, spoil := range map[string]func(header []byte){
		"backing file":       func(h []byte) { binary.BigEndian.PutUint64(h[8:], 256); binary.BigEndian.PutUint32(h[16:], 11) },
		"external data file": func(h []byte) { h[79] = 1 << 2 },
		"not qcow2":          func(h []byte) { h[0] = 0 },
	} {
		bits := emptyQCOW2()
		spoil(bits)
		copy(bits[256:], "/etc/shadow")
		err := s.host.EnsureImage(s.ctx, imageOf(bits), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(bits)), nil })
		if !hypervisor.IsFatal(err) {
			t.Errorf("%s: got %v, want a fatal error", name, err)
		}
	}
}
