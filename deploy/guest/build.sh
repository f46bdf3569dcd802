#!/bin/sh
# build.sh OUT.qcow2: build the tiny guest, an ordinary bootable disk image for demonstrations and tests.
#
# FAT file system, syslinux, Debian's cloud kernel, and an initrd with busybox, dropbear and our init (see there for
# what the guest does). Made from Debian packages alone, without root and without mounting anything. The same packages
# give the same bytes. The packages are kept in $NARU_CACHE (default: ~/.cache/naru), so that only the first build needs
# an archive; a package version is fetched once.
#
# Needs: apt-get dpkg-deb syslinux mtools dosfstools qemu-utils cpio kmod.
set -eu
export LC_ALL=C SOURCE_DATE_EPOCH=1700000000 PATH="$PATH:/usr/sbin:/sbin"

out=${1:?usage: build.sh OUT.qcow2}
here=$(cd "$(dirname "$0")" && pwd)
debs=${NARU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/naru}/debs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for tool in apt-get apt-cache dpkg-deb syslinux mcopy mkfs.fat qemu-img cpio depmod modprobe; do
	command -v "$tool" >/dev/null || {
		echo "build.sh: $tool is missing; install: syslinux mtools dosfstools qemu-utils cpio kmod" >&2
		exit 1
	}
done

# fetch PACKAGE: its .deb in the cache, named by the version that apt would install; then unpacked into $work/PACKAGE.
fetch() {
	version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
	[ -n "$version" ] && [ "$version" != "(none)" ] || {
		echo "build.sh: apt knows no package $1; run apt-get update" >&2
		exit 1
	}
	deb=$debs/$1_$(echo "$version" | sed 's/:/%3a/').deb
	if [ ! -f "$deb" ]; then
		mkdir -p "$debs" "$work/download"
		(cd "$work/download" && apt-get -q download "$1" >/dev/null 2>"$work/apt.log") || {
			cat "$work/apt.log" >&2
			exit 1
		}
		mv "$work/download/$1"_*.deb "$deb.$$"
		mv "$deb.$$" "$deb"
	fi
	mkdir -p "$work/$1"
	dpkg-deb -x "$deb" "$work/$1"
}

kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^  Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$kernel" ] || {
	echo "build.sh: apt knows no linux-image-cloud-amd64; run apt-get update" >&2
	exit 1
}
abi=${kernel#linux-image-}
libraries="libc6 libcrypt1 libgmp10 libtomcrypt1 libtommath1 zlib1g"
for package in "$kernel" busybox-static dropbear-bin $libraries; do
	fetch "$package"
done

# The initial file system.
root=$work/root
mkdir -p "$root/bin" "$root/lib64" "$root/lib" "$root/dev" "$root/modules" "$root/etc/acpi/PWRF"
cp "$work/busybox-static/bin/busybox" "$root/bin/"
for applet in $("$root/bin/busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
for program in dropbear dropbearkey; do
	find "$work/dropbear-bin" -type f -name "$program" -exec cp {} "$root/bin/" \;
done
for library in ld-linux-x86-64.so.2 libc.so.6 libcrypt.so.1 libgmp.so.10 libtomcrypt.so.1 libtommath.so.1 libz.so.1; do
	for package in $libraries; do
		found=$(find "$work/$package" -name "$library" | head -n 1)
		[ -z "$found" ] || break
	done
	[ -n "$found" ] || {
		echo "build.sh: no package holds $library" >&2
		exit 1
	}
	cp -L "$found" "$root/lib/$library"
done
ln -s ../lib/ld-linux-x86-64.so.2 "$root/lib64/ld-linux-x86-64.so.2"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
printf 'root:x:0:\n' >"$root/etc/group"
printf '/bin/sh\n' >"$root/etc/shells"
cp "$here/init" "$root/init"
cp "$here/dhcp" "$root/etc/dhcp"
printf '#!/bin/sh\nexec poweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
chmod 755 "$root/init" "$root/etc/dhcp" "$root/etc/acpi/PWRF/00000080"

# Its kernel modules, in the order in which they can be loaded.
depmod -b "$work/$kernel" "$abi"
for module in virtio_pci virtio_blk virtio_net isofs virtio_balloon virtio-rng button evdev; do
	modprobe -d "$work/$kernel" -S "$abi" -D "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
	cp "$file" "$root/modules/"
	basename "$file"
done >"$work/order"
mv "$work/order" "$root/modules/order"

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$root" && find . | sort | cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -9n) >"$work/initrd.gz"
cp "$work/$kernel/boot/vmlinuz-$abi" "$work/vmlinuz"
cat >"$work/syslinux.cfg" <<'CONFIG'
DEFAULT naru
PROMPT 0
LABEL naru
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND console=ttyS0 quiet nokaslr mitigations=off panic=-1
CONFIG
touch -d "@$SOURCE_DATE_EPOCH" "$work/vmlinuz" "$work/initrd.gz" "$work/syslinux.cfg"

# One FAT file system without partitions; syslinux in its boot sector.
truncate -s 32M "$work/disk.raw"
mkfs.fat -F 16 -n NARU -i 4e415255 --invariant "$work/disk.raw" >/dev/null
mcopy -m -i "$work/disk.raw" "$work/vmlinuz" "$work/initrd.gz" "$work/syslinux.cfg" ::
MTOOLS_SKIP_CHECK=1 syslinux --install "$work/disk.raw"
qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$work/disk.qcow2"

mkdir -p "$(dirname "$out")"
cp "$work/disk.qcow2" "$out.$$"
mv "$out.$$" "$out"
sha256sum "$out"
