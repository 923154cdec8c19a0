#!/bin/sh
# Provides the base image debian:SUITE-slim: the one that is there, else from the registry, else made here with debootstrap.
#   scripts/debian-image.sh bookworm|trixie
set -eu

suite=${1:?usage: debian-image.sh bookworm|trixie}
image=debian:$suite-slim

if ! docker info >/dev/null 2>&1; then
    echo "debian-image.sh: no Docker engine answers; install docker.io, and be root or a member of the group docker" >&2
    exit 1
fi
if docker image inspect "$image" >/dev/null 2>&1; then
    exit 0
fi
if [ -z "${PGHERD_NO_PULL:-}" ] && timeout 120 docker pull --quiet "$image" 2>/dev/null; then
    exit 0
fi

echo "$image cannot be pulled; making it with debootstrap"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo"
fi
if ! command -v debootstrap >/dev/null && ! [ -x /usr/sbin/debootstrap ]; then
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap
fi
root=$(mktemp -d)
trap '$as_root rm -rf "$root"' EXIT
$as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    echo "debian-image.sh: debootstrap of $suite failed; its whole log: $root.log" >&2
    exit 1
}
rm -f "$root.log"
# As in the official slim images: no package lists, no manuals; and no man page may be missed by a package's script.
$as_root rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/*
$as_root mkdir -p "$root/usr/share/man/man1" "$root/usr/share/man/man7"
$as_root sh -c 'cat >"$1/etc/dpkg/dpkg.cfg.d/slim"' sh "$root" <<END
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
END
$as_root tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
echo "made $image"
