#!/bin/bash
# setup.sh: installs the Debian packages that running the site and the tests need. Without root or sudo it only says
# what is missing and what cannot be had without it.
set -euo pipefail

# package: a file or program that shows it is there
needs=(
  qemu-system-x86:/usr/bin/qemu-system-x86_64
  qemu-utils:/usr/bin/qemu-img
  libvirt-daemon-system:/usr/sbin/libvirtd
  libvirt-clients:/usr/bin/virsh
  iproute2:/usr/sbin/ip
  openssh-client:/usr/bin/ssh
  util-linux:/usr/bin/unshare
  procps:/usr/bin/pgrep
  syslinux:/usr/bin/syslinux
  mtools:/usr/bin/mcopy
  dosfstools:/usr/sbin/mkfs.fat
  cpio:/usr/bin/cpio
  kmod:/usr/sbin/modprobe
  uidmap:/usr/bin/newuidmap
  ca-certificates:/etc/ssl/certs/ca-certificates.crt
  slapd:/usr/sbin/slapd
  ldap-utils:/usr/bin/ldapmodify
  python3-aiosmtpd:/usr/lib/python3/dist-packages/aiosmtpd/smtp.py
)
# The checks of CI need more than running and testing do: npm brings buf, the race detector needs a C compiler.
if [ "${CI:-}" = true ]; then
  needs+=(npm:/usr/bin/npm gcc:/usr/bin/gcc libc6-dev:/usr/include/stdlib.h)
fi
missing=()
for n in "${needs[@]}"; do
  [ -e "${n#*:}" ] || missing+=("${n%%:*}")
done
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" = 0 ]; then as=(env)
elif sudo -n true 2>/dev/null; then as=(sudo env)
else
  echo "setup: these Debian packages are missing and need root: ${missing[*]}" >&2
  echo "setup: install them with: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  echo "setup: going on without: what needs them will say so." >&2
  exit 0
fi
echo "setup: installing ${missing[*]}" >&2
"${as[@]}" DEBIAN_FRONTEND=noninteractive apt-get update -qq
# No service is started by the packages: the site starts its own.
"${as[@]}" DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
