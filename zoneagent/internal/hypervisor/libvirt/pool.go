package libvirt

import (
	"context"
	"path"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// The two pools of a host.
const (
	disksPool  = "naru"
	serialPool = "naru-serial"
)

// pool returns a pool, ready for use: defined, running, and running again after the host's next start. It is made at its
// first use in a connection's life, by steps that can be repeated.
func (h *host) pool(ctx context.Context, name string) (rpc.StoragePool, error) {
	s, err := h.calls.get(ctx)
	if err != nil {
		return rpc.StoragePool{}, err
	}
	s.mu.Lock()
	pool, known := s.pools[name]
	s.mu.Unlock()
	if known {
		return pool, nil
	}
	pool, err = h.makePool(ctx, name)
	if err != nil {
		return rpc.StoragePool{}, wrap(err, "storage pool %s", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools[name] = pool
	return pool, nil
}

func (h *host) makePool(ctx context.Context, name string) (rpc.StoragePool, error) {
	pool, err := call(ctx, h, "storage_pool_lookup", func(l *rpc.Libvirt) (rpc.StoragePool, error) {
		return l.StoragePoolLookupByName(name)
	})
	if is(err, rpc.ErrNoStoragePool) {
		pool, err = h.definePool(ctx, name)
	}
	if err != nil {
		return rpc.StoragePool{}, err
	}
	active, err := call(ctx, h, "storage_pool_is_active", func(l *rpc.Libvirt) (int32, error) { return l.StoragePoolIsActive(pool) })
	if err != nil {
		return rpc.StoragePool{}, err
	}
	if active == 0 {
		if err := h.do(ctx, "storage_pool_create", func(l *rpc.Libvirt) error {
			return l.StoragePoolCreate(pool, rpc.StoragePoolCreateWithBuild)
		}); err != nil && !is(err, rpc.ErrOperationInvalid) { // another call has started it
			return rpc.StoragePool{}, err
		}
	}
	return pool, h.do(ctx, "storage_pool_set_autostart", func(l *rpc.Libvirt) error { return l.StoragePoolSetAutostart(pool, 1) })
}

// reread makes libvirt list what lies in a pool, once in a connection's life. libvirt lists what it made itself, and a
// volume that lies there unlisted, after a crash or a restored backup, it would make anew over what is there.
func (h *host) reread(ctx context.Context, pool rpc.StoragePool) error {
	s, err := h.calls.get(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	done := s.reread[pool.Name]
	s.mu.Unlock()
	if done {
		return nil
	}
	// Refused while another transfer into the pool is under way: temporary, as all that is unknown.
	if err := h.do(ctx, "storage_pool_refresh", func(l *rpc.Libvirt) error { return l.StoragePoolRefresh(pool, 0) }); err != nil {
		return wrap(err, "reading pool %s anew", pool.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reread[pool.Name] = true
	return nil
}

func (h *host) definePool(ctx context.Context, name string) (rpc.StoragePool, error) {
	folder := map[string]string{disksPool: "disks", serialPool: "serial"}[name]
	xml, err := (&libvirtxml.StoragePool{
		Type: "dir",
		Name: name,
		Target: &libvirtxml.StoragePoolTarget{
			Path:        path.Join(h.options.Folder, folder),
			Permissions: &libvirtxml.StoragePoolTargetPermissions{Mode: "0711"},
		},
	}).Marshal()
	if err != nil {
		return rpc.StoragePool{}, err
	}
	return call(ctx, h, "storage_pool_define", func(l *rpc.Libvirt) (rpc.StoragePool, error) { return l.StoragePoolDefineXML(xml, 0) })
}
