#!/bin/sh
# The core and session tests with the other Pythons of this machine, without pymilter and so without a compiler: our own code speaks the
# milter protocol there. Each gets an environment below build/pythons; what is not there is left out and named.
# Arguments: versions (default: 3.12 3.13).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 3.12 3.13
place=${PYTHONS:-build/pythons}
tests="tests/core tests/session tests/daemon/test_library.py"

say() { printf '%s\n' "pythons: $*"; }

# The newest of that version: on the path, or among those that pyenv keeps.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1"; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# What the tests import, without mypy, ruff, browsers and mail servers' clients. One requirement a line.
requirements() {
    "$1" - <<'PY'
import tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
wanted = ("pytest", "hypothesis", "authres", "pyyaml", "psycopg")
print("\n".join(each for each in extras["test"] if each.startswith(wanted)))
PY
}

status=0
for version in "$@"; do
    python=$(find_python "$version") || { say "no Python $version here: left out"; continue; }
    venv=$place/$version
    if [ ! -e "$venv/.ready" ] || [ pyproject.toml -nt "$venv/.ready" ]; then
        say "preparing $("$python" -V)"
        "$python" -m venv --clear "$venv"
        requirements "$python" > "$venv/requirements"
        CC=/bin/false "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$venv/requirements" --editable . || exit 1
        touch "$venv/.ready"
    fi
    say "$("$venv/bin/python" -V): $tests"
    # shellcheck disable=SC2086  # word splitting is meant
    DMARC_MILTER_TEST_LIBRARY=native "$venv/bin/python" -m pytest -q -n auto --maxprocesses=4 --dist loadfile -m "not (alone or live)" $tests || status=1
done
exit $status
