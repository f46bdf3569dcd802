package libvirt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	rpc "github.com/digitalocean/go-libvirt"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/diskimage"
)

func imageName(digest string) string { return digest + ".img" }
func markName(digest string) string  { return digest + ".ok" }

// image returns the volume of an image whose bits are verified, nil without one.
func (h *host) image(ctx context.Context, pool rpc.StoragePool, digest string) (*rpc.StorageVol, error) {
	mark, err := h.volume(ctx, pool, markName(digest))
	if err != nil || mark == nil {
		return nil, err
	}
	return h.volume(ctx, pool, imageName(digest))
}

// EnsureImage implements hypervisor.Host.
func (h *host) EnsureImage(ctx context.Context, image hypervisor.Image, open func() (io.ReadCloser, error)) error {
	if sum, err := hex.DecodeString(image.SHA256); err != nil || len(sum) != sha256.Size {
		return hypervisor.Fatal(fmt.Errorf("%q is not a sha256", image.SHA256))
	}
	release, err := h.images.take(ctx, image.SHA256)
	if err != nil {
		return err
	}
	defer release()
	pool, err := h.pool(ctx, disksPool)
	if err != nil {
		return err
	}
	if verified, err := h.image(ctx, pool, image.SHA256); err != nil || verified != nil {
		return err
	}
	// A mark without its image says nothing.
	if err := h.remove(ctx, pool, markName(image.SHA256)); err != nil {
		return err
	}
	source, err := open()
	if err != nil {
		return fmt.Errorf("opening image %s: %w", image.SHA256, err)
	}
	defer source.Close()
	if err := h.sendImage(ctx, pool, image, source); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err = h.create(ctx, pool, raw(markName(image.SHA256), 0))
	return err
}

// sendImage writes the bits over whatever lies there under the image's name, and removes them if they are wrong.
func (h *host) sendImage(ctx context.Context, pool rpc.StoragePool, image hypervisor.Image, source io.Reader) error {
	bits, err := diskimage.NewReader(source, image)
	if err != nil {
		return err
	}
	volume, err := h.create(ctx, pool, raw(imageName(image.SHA256), 0))
	if err != nil {
		return err
	}
	if err := h.write(ctx, volume, bits); err != nil {
		return err
	}
	err = bits.Verify()
	if err == nil {
		var size uint64
		if size, err = h.size(ctx, volume); err == nil && size != bits.Size() {
			err = fmt.Errorf("image %s: %d bytes lie on the host where %d were sent", image.SHA256, size, bits.Size())
		}
	}
	if err != nil {
		if removeErr := h.remove(ctx, pool, imageName(image.SHA256)); removeErr != nil {
			h.log.Warn("wrong bits of an image stay on the host, unmarked", "image", image.SHA256, "error", removeErr)
		}
	}
	return err
}

// virtualSize returns how large a disk an image is, in bytes.
func (h *host) virtualSize(ctx context.Context, volume rpc.StorageVol, format apiv1.Image_Format) (uint64, error) {
	if format == apiv1.Image_RAW {
		return h.size(ctx, volume)
	}
	header, err := h.read(ctx, volume, 0, diskimage.HeaderSize)
	if err != nil {
		return 0, err
	}
	size, err := diskimage.CheckQCOW2(header)
	if err != nil {
		return 0, hypervisor.Fatal(fmt.Errorf("image %s: %w", volume.Name, err))
	}
	return size, nil
}
