#!/bin/sh
# Every check of the project: formatting, lints, and all tests on real servers. `make test` installs what they need.
set -eu
cd "$(dirname "$0")/.."

for component in fmt clippy; do
    if ! cargo "$component" --version >/dev/null 2>&1; then
        package=$component
        [ "$component" = fmt ] && package=rustfmt
        if ! command -v rustup >/dev/null; then
            echo "cargo $component is missing; install the Rust component $package" >&2
            exit 1
        fi
        rustup component add "$package"
    fi
done
if [ -x scripts/test-venv.sh ]; then
    scripts/test-venv.sh
fi

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# The integration tests start this binary.
cargo build --locked --quiet -p pgherd
# And these run it in containers.
scripts/test-images.sh

# What tests that pass have to say: skips with their reason, and figures. Shown at the end, however that comes.
notes=$(mktemp)
show_notes() {
    if [ -s "$notes" ]; then
        echo "Notes of the tests:"
        sed 's/^/  /' "$notes"
    fi
    rm -f "$notes"
}
trap show_notes EXIT
trap 'exit 1' HUP INT TERM
export PGHERD_TEST_NOTES="$notes"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
else
    cargo test --workspace --locked --no-fail-fast
fi

# Simulated clusters on seeds that nobody has seen yet. One that fails is named, and replays.
cargo run --locked --quiet -p pgherd-sim --example soak -- --seconds "${PGHERD_SOAK_SECONDS:-30}"
