# Shared by the scripts; sourced, not run.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"

# Exit status of a script that may not install what is missing.
EXIT_MISSING=3

say() { printf '[%s] %s\n' "${SCRIPT_NAME:-genie}" "$*" >&2; }

# step WHAT COMMAND...: says what is done, does it, says how long it took.
step() {
    local what="$1" start=$SECONDS status=0
    shift
    say "$what ..."
    "$@" || status=$?
    if ((status == 0)); then
        say "$what: done in $((SECONDS - start)) s"
    else
        say "$what: FAILED after $((SECONDS - start)) s (exit status $status)"
    fi
    return "$status"
}

# rustup puts cargo here; a shell that is older than the installation does not know yet.
if ! command -v cargo >/dev/null && [[ -x "$HOME/.cargo/bin/cargo" ]]; then
    PATH="$HOME/.cargo/bin:$PATH"
fi

# The extension, where Python looks for it. Renamed into place: a running Python has the old one
# mapped.
extension() {
    local built=target/release/lib_native.so
    local placed=py-frontend/python/genie/_native.abi3.so
    cmp -s "$built" "$placed" && return
    cp "$built" "$placed.new"
    mv "$placed.new" "$placed"
    say "Python extension: updated"
}
