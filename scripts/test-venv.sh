#!/bin/sh
# Prepares target/test-venv: the real patronictl, which the integration tests compare with (tests/it/ctl.rs).
# Quick when it is there already. Another installation can be named with PGHERD_TEST_PATRONICTL.
set -eu
cd "$(dirname "$0")/.."

# psycopg3: patronictl does not start without a PostgreSQL driver, whatever the command. jsonlogger: Patroni's log in JSON.
requirement='patroni[zookeeper,etcd3,psycopg3,jsonlogger]==4.1.5'
venv=target/test-venv

if [ -n "${PGHERD_TEST_PATRONICTL:-}" ]; then
    "$PGHERD_TEST_PATRONICTL" version >/dev/null || {
        echo "test-venv.sh: PGHERD_TEST_PATRONICTL=$PGHERD_TEST_PATRONICTL does not run" >&2
        exit 1
    }
    exit 0
fi
if [ "$(cat "$venv/installed" 2>/dev/null)" = "$requirement" ] && "$venv/bin/patronictl" version >/dev/null 2>&1; then
    exit 0
fi

echo "Installing $requirement into $venv"
rm -rf "$venv"
mkdir -p target
python3 -m venv "$venv" || {
    echo "test-venv.sh: python3 cannot make a virtual environment; install python3-venv" >&2
    exit 1
}
"$venv/bin/pip" install --quiet --disable-pip-version-check "$requirement" || {
    echo "test-venv.sh: pip could not install $requirement. Without access to PyPI, install it by other means and" >&2
    echo "name it: PGHERD_TEST_PATRONICTL=/path/to/patronictl make test" >&2
    exit 1
}
"$venv/bin/patronictl" version >/dev/null
# Last, so that an installation that was interrupted is made again.
echo "$requirement" >"$venv/installed"
