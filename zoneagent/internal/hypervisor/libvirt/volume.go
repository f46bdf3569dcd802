package libvirt

import (
	"context"
	"io"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// volume returns a volume of a pool, nil when there is none of that name.
func (h *host) volume(ctx context.Context, pool rpc.StoragePool, name string) (*rpc.StorageVol, error) {
	found, err := call(ctx, h, "storage_vol_lookup", func(l *rpc.Libvirt) (rpc.StorageVol, error) {
		return l.StorageVolLookupByName(pool, name)
	})
	if is(err, rpc.ErrNoStorageVol) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "looking for volume %s", name)
	}
	return &found, nil
}

// raw describes a plain file of so many bytes.
func raw(name string, bytes uint64) *libvirtxml.StorageVolume {
	return &libvirtxml.StorageVolume{
		Type:       "file",
		Name:       name,
		Capacity:   &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: bytes},
		Allocation: &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: 0},
		Target: &libvirtxml.StorageVolumeTarget{
			Format:      &libvirtxml.StorageVolumeTargetFormat{Type: "raw"},
			Permissions: &libvirtxml.StorageVolumeTargetPermissions{Mode: "0600"},
		},
	}
}

// create makes a volume; one that has come to be there meanwhile is as good.
func (h *host) create(ctx context.Context, pool rpc.StoragePool, described *libvirtxml.StorageVolume) (rpc.StorageVol, error) {
	xml, err := described.Marshal()
	if err != nil {
		return rpc.StorageVol{}, err
	}
	made, err := call(ctx, h, "storage_vol_create", func(l *rpc.Libvirt) (rpc.StorageVol, error) {
		return l.StorageVolCreateXML(pool, xml, 0)
	})
	if is(err, rpc.ErrStorageVolExist) {
		made, err = call(ctx, h, "storage_vol_lookup", func(l *rpc.Libvirt) (rpc.StorageVol, error) {
			return l.StorageVolLookupByName(pool, described.Name)
		})
	}
	return made, wrap(err, "making volume %s", described.Name)
}

// remove deletes a volume, if there is one of that name.
func (h *host) remove(ctx context.Context, pool rpc.StoragePool, name string) error {
	found, err := h.volume(ctx, pool, name)
	if err != nil || found == nil {
		return err
	}
	err = h.do(ctx, "storage_vol_delete", func(l *rpc.Libvirt) error { return l.StorageVolDelete(*found, 0) })
	if is(err, rpc.ErrNoStorageVol) {
		return nil
	}
	return wrap(err, "deleting volume %s", name)
}

// path returns where on the host a volume lies.
func (h *host) path(ctx context.Context, volume rpc.StorageVol) (string, error) {
	path, err := call(ctx, h, "storage_vol_get_path", func(l *rpc.Libvirt) (string, error) { return l.StorageVolGetPath(volume) })
	return path, wrap(err, "asking where volume %s lies", volume.Name)
}

// size returns the bytes of a volume's file, whatever it holds.
func (h *host) size(ctx context.Context, volume rpc.StorageVol) (uint64, error) {
	const physical = 1 // VIR_STORAGE_VOL_GET_PHYSICAL: the file's length takes the allocation's place
	bytes, err := call(ctx, h, "storage_vol_get_info", func(l *rpc.Libvirt) (uint64, error) {
		_, _, bytes, err := l.StorageVolGetInfoFlags(volume, physical)
		return bytes, err
	})
	return bytes, wrap(err, "asking for the size of volume %s", volume.Name)
}

// read returns up to length bytes of a volume from an offset; fewer at its end.
func (h *host) read(ctx context.Context, volume rpc.StorageVol, offset, length uint64) (content []byte, err error) {
	err = h.stream(ctx, "storage_vol_download", func(s *stream) error {
		content, err = s.download(ctx, volume, offset, length)
		return err
	})
	return content, wrap(err, "reading volume %s", volume.Name)
}

// write sends a source over a volume from its beginning.
func (h *host) write(ctx context.Context, volume rpc.StorageVol, source io.Reader) error {
	err := h.stream(ctx, "storage_vol_upload", func(s *stream) error { return s.upload(ctx, volume, source) })
	return wrap(err, "sending volume %s", volume.Name)
}
