#!/usr/bin/env bash
# Make .venv with the newest Python in range and install this tree into it with an extra: scripts/setup.sh demo|test
# PYTHON=/path/to/python takes that one instead.
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRA=${1:?"usage: scripts/setup.sh demo|test"}

fail() {
    echo >&2
    echo "setup: $*" >&2
    exit 1
}

# A name on the PATH can be a shim for a version that is switched off, so it has to run to count.
in_range() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if in_range "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 was found (${PYTHON:-python3 is $(python3 -V 2>&1 || echo missing)})." \
        "Install one (Debian: apt-get install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.12"
}

if ! in_range .venv/bin/python; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv >.venv.log 2>&1 || {
        cat .venv.log >&2
        rm -rf .venv .venv.log
        fail "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    }
    rm -f .venv.log
fi

unset MAKEFLAGS # of a make with -j: cargo would take its jobs for all that there are

echo "setup: installing costream[$EXTRA] (a minute or two the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$EXTRA]" || fail \
    "pip could not install costream[$EXTRA]; its reason stands above. Without a network, or behind a proxy or a" \
    "mirror, set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT and run make again."
