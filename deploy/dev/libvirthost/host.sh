#!/bin/sh
# Process 1 of a libvirt host (see libvirthost.go): puts the host's own folders in place, then keeps libvirtd running.
set -eu
# In a chroot / need not be a mount point; then what is mounted there is made private from above.
mount --make-rprivate / 2>/dev/null || nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys # shows the network cards of this namespace only
hostname "$HOST_NAME"

put() { # FOLDER PLACE
	mkdir -p "$2"
	mount --bind "$1" "$2"
}
put "$HOST_DIR/etc" /etc/libvirt
put "$HOST_DIR/var" /var/lib/libvirt
put "$HOST_DIR/run" /run/libvirt
put "$HOST_DIR/log" /var/log/libvirt
put "$HOST_DIR/cache" /var/cache/libvirt
put "$HOST_CAPABILITIES" /var/cache/libvirt/qemu
put "$HOST_DIR/pool" "$HOST_POOL"
if [ -z "$HOST_KVM" ] && [ -e /dev/kvm ]; then
	: >"$HOST_DIR/no-kvm"
	mount --bind "$HOST_DIR/no-kvm" /dev/kvm
	mount -o remount,bind,ro /dev/kvm
fi

ip link set lo up
if [ -n "$HOST_BRIDGE" ] && ! ip link show dev "$HOST_BRIDGE" >/dev/null 2>&1; then
	ip link add "$HOST_BRIDGE" type bridge forward_delay 0
fi
[ -z "$HOST_BRIDGE" ] || ip link set "$HOST_BRIDGE" up

# A daemon that was killed is started again; one that ends by itself cannot run here, and ends the host.
ending=
daemon=
trap 'ending=yes; kill -TERM "$daemon" 2>/dev/null || true' TERM INT
while [ -z "$ending" ]; do
	libvirtd $HOST_LISTEN -p /run/libvirt/libvirtd.pid &
	daemon=$!
	status=0
	while kill -0 "$daemon" 2>/dev/null; do wait "$daemon" && status=0 || status=$?; done
	[ "$status" -ge 128 ] || exit "$status"
done
