#!/usr/bin/env bash
# Makes the machine that is asked: Debian's own kernel, with a root file system in memory.
#
#   build.sh FOLDER    writes FOLDER/vmlinuz and FOLDER/initramfs.cpio
#
# Everything is of Debian packages: the kernel is downloaded and unpacked, not installed; programs are
# taken from this machine, which needs qemu-system-x86 busybox-static cpio kmod iproute2 nftables
# ipvsadm python3.
set -euo pipefail
# Debian's programs, whatever else this machine has.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

folder=$1
mkdir -p "$folder"
cd "$folder"
root=$PWD/root

# The newest kernel that the metapackage names.
package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || { echo "build.sh: apt knows no linux-image-amd64; run apt-get update" >&2; exit 1; }
if [ ! -d "kernel-$package" ]; then
  rm -rf ./kernel-* ./*.deb
  apt-get download -q "$package" >&2
  dpkg-deb -x "$package"_*.deb "kernel-$package.part"
  rm ./*.deb
  mv "kernel-$package.part" "kernel-$package"
fi
kernel=$PWD/kernel-$package
version=$(basename "$kernel"/lib/modules/*)

rm -rf "$root"
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,usr/lib,lib,lib64,etc,proc,sys,dev,tmp,run,host,root}

with_libraries() { # the shared libraries of a program or a library
  { ldd "$1" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
    [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
  done
}

cp "$(command -v busybox)" "$root/bin/busybox"
"$root/bin/busybox" --list | while read -r applet; do
  [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
for program in ipvsadm ip nft kmod python3; do
  path=$(readlink -f "$(command -v "$program")")
  rm -f "$root/bin/$program"
  cp -L "$path" "$root/usr/bin/$program"
  with_libraries "$path"
done
rm -f "$root"/bin/{modprobe,depmod}
ln -s ../usr/bin/kmod "$root/sbin/modprobe"

library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
mkdir -p "$root$library"
tar -C "$library" -cf - --exclude=test --exclude=idlelib --exclude=lib2to3 --exclude=ensurepip --exclude=tkinter \
  --exclude=unittest --exclude=pydoc_data --exclude='config-*' --exclude=dist-packages --exclude=site-packages . |
  tar -C "$root$library" -xf -
for extension in "$root$library"/lib-dynload/*.so; do with_libraries "$extension"; done
python3 -m compileall -q "$root$library" || true
mkdir -p "$root/lib64"
[ -e "$root/lib64/ld-linux-x86-64.so.2" ] || cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"

modules=lib/modules/$version
for part in net/netfilter net/ipv4 net/ipv6 net/9p net/sctp fs/9p fs/netfs fs/fscache lib crypto arch/x86/crypto \
  drivers/virtio drivers/net/veth.ko; do
  [ -e "$kernel/$modules/kernel/$part" ] || continue
  mkdir -p "$root/$modules/kernel/$(dirname "$part")"
  cp -r "$kernel/$modules/kernel/$part" "$root/$modules/kernel/$part"
done
cp "$kernel/$modules"/modules.{builtin,builtin.modinfo,order} "$root/$modules/"
depmod -b "$root" "$version"

cat > "$root/init" <<'INIT'
#!/bin/sh
# The host's folder is mounted at /host; /host/ask.py is run there, and the machine ends.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
for module in virtio_pci 9pnet_virtio 9p crc32c_generic; do modprobe "$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /host
for module in veth nf_tables ip_vs sctp ipip ip6_tunnel sit \
  ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sed ip_vs_nq ip_vs_sh ip_vs_dh ip_vs_lblc ip_vs_lblcr ip_vs_fo ip_vs_ovf ip_vs_mh; do
  modprobe "$module" || echo "no module $module"
done
ip link set lo up
cd /host && python3 ask.py cases answers > log 2>&1
echo $? > status
cd / && sync && umount /host
echo o > /proc/sysrq-trigger
sleep 5
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) > initramfs.cpio.part
cp "$kernel/boot/vmlinuz-$version" vmlinuz
mv initramfs.cpio.part initramfs.cpio
