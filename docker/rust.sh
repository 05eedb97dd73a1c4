#!/bin/sh
# Makes the image rust:1.95-slim-bookworm from this machine's own toolchain, for engines that reach
# no registry.
#
#   docker/rust.sh        rustc 1.95, tar and docker, with the image of docker/base.sh
#
# It trusts whom this machine trusts, so that cargo reaches crates.io through whatever this machine does.
set -eu

image=rust:1.95-slim-bookworm

if docker image inspect "$image" > /dev/null 2>&1; then
    echo "$image is there already"
    exit 0
fi
case $(rustc --version) in
    'rustc 1.95.'*) ;;
    *) echo "rust.sh: this is not Rust 1.95: $(rustc --version)" >&2; exit 1 ;;
esac
toolchain=$(rustc --print sysroot)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp -L /etc/ssl/certs/ca-certificates.crt "$context"
cat > "$context/Dockerfile" << 'END'
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY ca-certificates.crt /etc/ssl/certs/
COPY bin /usr/local/bin/
COPY lib /usr/local/lib/
END
tar -c -C "$context" Dockerfile ca-certificates.crt \
    -C "$toolchain" --exclude lib/rustlib/src bin/cargo bin/rustc lib \
    | docker build --quiet --network host --tag "$image" -
