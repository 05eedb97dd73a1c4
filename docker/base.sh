#!/bin/sh
# Makes the image debian:bookworm-slim from Debian's packages, for engines that reach no registry.
#
#   docker/base.sh [MIRROR]        root; debootstrap, tar and docker (DOCKER_HOST says which engine)
#
# What Debian's own image leaves out is left out here: documentation, translations, lists of packages.
set -eu

mirror=${1:-http://deb.debian.org/debian}
image=debian:bookworm-slim

if docker image inspect "$image" > /dev/null 2>&1; then
    echo "$image is there already"
    exit 0
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase bookworm "$root" "$mirror"
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
    "$root"/usr/share/info/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
# No service is started while packages are installed.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$image"
