# shellcheck shell=bash
# What every script shares: where the project is, which compilers, and how to say things. Source it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export ROOT
cd "$ROOT" || exit 1

# RocksDB is compiled from C++, which takes minutes; the cache makes the second time seconds. The compilers are part of
# what cargo remembers of a build, so every script must name the same ones.
use_compiler_cache() {
    if command -v ccache >/dev/null; then
        export CC="ccache gcc" CXX="ccache g++"
    fi
}
use_compiler_cache

# Where cargo puts what it builds.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
export TARGET

say() { printf '\n==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
skipped() { printf 'SKIPPED: %s\n' "$*" >&2; }

# Runs a command as root: directly, or by sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root, and there is no sudo: $*"
    fi
}

# timed NAME COMMAND…: runs the command and notes how long it took; `times` prints all of them. Call it as a statement
# of its own.
TIMES=()
timed() {
    local name=$1 start=$SECONDS status=0
    shift
    say "$name"
    # Behind `||` or `if` bash would ignore all but the last failure of a function.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    TIMES+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
    [ "$status" = 0 ] || { times; fail "$name failed"; }
}
times() {
    printf '\n' >&2
    [ ${#TIMES[@]} = 0 ] || printf '%s\n' "${TIMES[@]}" >&2
}
