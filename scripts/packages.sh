#!/bin/sh
# Installs the Debian packages that are missing for the named purposes: build, demo, test, docker.
# Quick when nothing is missing: it looks for what is used, and asks apt only then.
set -eu

missing=""

# need PACKAGE CHECK...: the package is missing unless the check succeeds.
need() {
    package=$1
    shift
    if ! "$@" >/dev/null 2>&1; then
        missing="$missing $package"
    fi
}

has_postgres() {
    for program in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$program" ] && return 0
    done
    # libpq-dev brings a pg_config, too, and no server.
    [ -x "$(pg_config --bindir 2>/dev/null)/initdb" ]
}

for purpose in "$@"; do
    case $purpose in
    build)
        need build-essential command -v cc
        ;;
    demo)
        need postgresql has_postgres
        need default-jre-headless command -v java
        need libzookeeper-java test -f /usr/share/java/zookeeper.jar
        ;;
    test)
        need haproxy test -x /usr/sbin/haproxy
        need python3-venv python3 -c 'import ensurepip, venv'
        need iproute2 command -v ip
        need zookeeper test -d /etc/zookeeper
        need pgbackrest command -v pgbackrest
        need etcd-server command -v etcd
        need systemd command -v systemd-analyze
        ;;
    docker)
        need docker.io command -v docker
        need docker-compose command -v docker-compose
        ;;
    *)
        echo "packages.sh: unknown purpose: $purpose (expected build, demo, test or docker)" >&2
        exit 2
        ;;
    esac
done

if [ -z "$missing" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "Missing:$missing. This script installs Debian packages only; please install their like by hand." >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing:$missing. Run as root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi

echo "Installing:$missing"
# The postgresql package would create and start a server of its own on port 5432: not while we install it.
setting=/etc/postgresql-common/createcluster.d/pgherd.conf
case " $missing " in
*" postgresql "*)
    $as_root mkdir -p "$(dirname "$setting")"
    echo "create_main_cluster = false" | $as_root tee "$setting" >/dev/null
    trap '$as_root rm -f "$setting"' EXIT
    ;;
esac
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
