#!/bin/sh
# Lets LLVM's fuzzer look for inputs that panic a reader of outside data. Works with the stable compiler.
#   scripts/fuzz.sh                  the names of the readers
#   scripts/fuzz.sh NAME [SECONDS]   one of them, for a minute or so long; what was found before is where it begins
#   scripts/fuzz.sh all [SECONDS]    each of them in turn
set -eu
cd "$(dirname "$0")/.."

corpus() {
    cargo run --quiet --locked -p pgherd-fuzz --example corpus -- "$@"
}

if [ $# -eq 0 ]; then
    corpus
    exit
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --locked cargo-fuzz
fi
names=$1
[ "$names" = all ] && names=$(corpus)
for name in $names; do
    inputs=target/fuzz-corpus/$name
    mkdir -p "$inputs"
    corpus "$name" "$inputs"
    echo "== $name"
    # The address sanitizer needs another compiler, and there is no unsafe code to look at.
    PGHERD_FUZZ=$name cargo fuzz run --sanitizer none --features libfuzzer reader "$inputs" -- \
        -max_total_time="${2:-60}" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
