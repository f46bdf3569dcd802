package diskimage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/diskimage"
)

func header(version uint32) []byte {
	h := make([]byte, 512)
	binary.BigEndian.PutUint32(h, 0x514649fb)
	binary.BigEndian.PutUint32(h[4:], version)
	binary.BigEndian.PutUint32(h[20:], 16)
	binary.BigEndian.PutUint64(h[24:], 5<<30)
	return h
}

func imageOf(bits []byte, format apiv1.Image_Format) hypervisor.Image {
	sum := sha256.Sum256(bits)
	return hypervisor.Image{SHA256: hex.EncodeToString(sum[:]), Format: format}
}

func TestAPlainImageIsTakenAndMeasured(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		size, err := diskimage.CheckQCOW2(header(version))
		if err != nil || size != 5<<30 {
			t.Errorf("version %d: %d bytes, %v", version, size, err)
		}
	}
}

func TestEveryBitThatAHeaderMustNotHaveIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := header(3)
		// Bits of backing file offset and size, encryption, and of every incompatible feature but the known two.
		bit := rapid.OneOf(rapid.IntRange(8*8, 20*8-1), rapid.IntRange(32*8, 36*8-1), rapid.IntRange(72*8, 80*8-1)).
			Filter(func(bit int) bool { return bit != 79*8+4 && bit != 79*8+3 }).Draw(t, "bit")
		h[bit/8] |= 0x80 >> (bit % 8)
		if _, err := diskimage.CheckQCOW2(h); err == nil {
			t.Fatalf("bit %d of byte %d is not seen", bit%8, bit/8)
		}
	})
}

func TestWhatQEMUMakesWithABackingFileIsRefused(t *testing.T) {
	qemuImg, err := exec.LookPath("qemu-img")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("qemu-img is not installed")
	}
	folder := t.TempDir()
	create := func(arguments ...string) {
		t.Helper()
		if out, err := exec.Command(qemuImg, append([]string{"create", "-q", "-f", "qcow2"}, arguments...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	base, over, data := filepath.Join(folder, "base"), filepath.Join(folder, "over"), filepath.Join(folder, "data")
	create(base, "1G")
	create("-b", base, "-F", "qcow2", over)
	create("-o", "data_file="+filepath.Join(folder, "raw"), data, "1G")
	for file, refused := range map[string]bool{base: false, over: true, data: true} {
		bits, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := diskimage.CheckQCOW2(bits); (err != nil) != refused {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
}

func TestTheBitsComeThroughAndAreVerified(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := append(header(3), rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(t, "rest")...)
		reader, err := diskimage.NewReader(iotest.OneByteReader(bytes.NewReader(bits)), imageOf(bits, apiv1.Image_FORMAT_UNSPECIFIED))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reader)
		if err != nil || !bytes.Equal(got, bits) || reader.Size() != uint64(len(bits)) || reader.Verify() != nil {
			t.Fatalf("%d of %d bytes, %v, %v", len(got), len(bits), err, reader.Verify())
		}
	})
}

func TestAnythingButTheWholeImageIsNotVerified(t *testing.T) {
	bits := header(3)
	image := imageOf(bits, apiv1.Image_QCOW2)
	broken := errors.New("broken off")
	for name, test := range map[string]struct {
		source io.Reader
		want   error
	}{
		"cut short":  {bytes.NewReader(bits[:300]), diskimage.ErrDigest},
		"longer":     {io.MultiReader(bytes.NewReader(bits), bytes.NewReader(bits)), diskimage.ErrDigest},
		"broken off": {io.MultiReader(bytes.NewReader(bits[:300]), iotest.ErrReader(broken)), broken},
	} {
		reader, err := diskimage.NewReader(test.source, image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, reader); err != nil {
			t.Errorf("%s: an error in the middle: %v", name, err)
		}
		if err := reader.Verify(); !errors.Is(err, test.want) || hypervisor.IsFatal(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestARawImageIsNotLookedInto(t *testing.T) {
	bits := header(3)
	bits[15] = 1 // would be a backing file
	if _, err := diskimage.NewReader(bytes.NewReader(bits), imageOf(bits, apiv1.Image_RAW)); err != nil {
		t.Fatal(err)
	}
	if _, err := diskimage.NewReader(bytes.NewReader(bits), imageOf(bits, apiv1.Image_QCOW2)); !hypervisor.IsFatal(err) {
		t.Fatalf("got %v", err)
	}
}

func FuzzCheckQCOW2(f *testing.F) {
	f.Add(header(2))
	f.Add(header(3))
	f.Add(header(3)[:80])
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := diskimage.CheckQCOW2(data); err == nil && (binary.BigEndian.Uint64(data[8:]) != 0 || binary.BigEndian.Uint32(data[16:]) != 0) {
			t.Fatalf("a backing file went through: %x", data)
		}
	})
}
