package sim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"
	"time"

	"github.com/google/uuid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/hypervisortest"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

func newFleet(t *testing.T, options sim.Options) *sim.Fleet {
	t.Helper()
	fleet, err := sim.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return fleet
}

func simHost(query string) *apiv1.Host {
	return &apiv1.Host{Id: uuid.NewString(), Name: "sim-1", Endpoint: "sim://?" + query}
}

// bits is a disk image as far as a simulated host looks at it.
func bits() []byte {
	image := make([]byte, 512)
	binary.BigEndian.PutUint32(image, 0x514649fb)
	binary.BigEndian.PutUint32(image[4:], 3)
	binary.BigEndian.PutUint32(image[20:], 16)
	return image
}

func image() hypervisor.Image {
	sum := sha256.Sum256(bits())
	return hypervisor.Image{SHA256: hex.EncodeToString(sum[:])}
}

func openBits() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(bits())), nil }

func machine() hypervisor.Machine {
	id := uuid.Must(uuid.NewV7()).String()
	return hypervisor.Machine{
		VM: &apiv1.VM{
			Id: id, Name: "web-1", ImageSha256: image().SHA256,
			Size: &apiv1.Resources{Cores: 2, MemoryMib: 1024, DiskGib: 10},
		},
		MAC: hypervisor.MACOf(id),
	}
}

func TestConformance(t *testing.T) {
	inMemory := func(*testing.T) sim.Options { return sim.Options{} }
	for name, kind := range map[string]struct {
		options func(*testing.T) sim.Options
		query   string
	}{
		"in memory":         {inMemory, ""},
		"in a state folder": {func(t *testing.T) sim.Options { return sim.Options{StateDir: t.TempDir()} }, ""},
		"resized live":      {inMemory, "&live=true"},
	} {
		t.Run(name, func(t *testing.T) {
			hypervisortest.Run(t, func(t *testing.T) hypervisortest.Bench {
				fleet := newFleet(t, kind.options(t))
				host := simHost("boot=30ms&shutdown=20ms" + kind.query)
				return hypervisortest.Bench{
					Driver: fleet, Host: host, Image: image(), ImageBits: bits(),
					Machine:   func(*testing.T) hypervisor.Machine { return machine() },
					LoseReply: func(*testing.T, string) { fleet.Knobs(host.Id).LoseNext(1) },
					Write: func(_ *testing.T, m hypervisor.Machine, word string) {
						fleet.Knobs(host.Id).Write(m.VM.GetId(), word)
					},
					Read:     func(_ *testing.T, m hypervisor.Machine) string { return fleet.Knobs(host.Id).Read(m.VM.GetId()) },
					Patience: 5 * time.Second,
				}
			})
		})
	}
}
