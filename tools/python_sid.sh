#!/bin/sh
# Python 3.14 as the next Debian has it: the wheel is installed without a compiler in a root of Debian sid, and the core and session tests
# and the whole daemon run there, with our own code for the milter protocol. Needs root. The root and the wheels are kept outside the
# sources, in ${SID:-~/.cache/dmarc-milter}; remove that folder to have them fetched again.
set -eu
umask 022
cd "$(dirname "$0")/.."
host=${VENV:-.venv}/bin/python
place=${SID:-${XDG_CACHE_HOME:-$HOME/.cache}/dmarc-milter}
root=$place/sid
tests="tests/core tests/session tests/daemon/test_library.py"

say() { printf '%s\n' "python-3.14: $*"; }
die() { printf '%s\n' "python-3.14: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "please run as root: a Debian root is built and entered"
command -v mmdebstrap >/dev/null 2>&1 || apt-get -qq -y --no-install-recommends install mmdebstrap >/dev/null || die "please install: mmdebstrap"
mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1)

mkdir -p "$place"
if [ ! -e "$root/.complete" ]; then
    say "building a Debian sid root in $root"
    rm -rf "$root"
    # A mirror that is kept still (a snapshot) has lists that have expired.
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' --include=python3.14,python3.14-venv sid "$root" $mirror ||
        die "mmdebstrap could not build the root"
    touch "$root/.complete"
fi
[ -z "$(chroot "$root" sh -c 'command -v cc gcc || true')" ] || die "there is a compiler in $root"

# The tests' libraries without mypy, ruff, browsers and mail servers' clients. One requirement a line.
requirements() {
    "$host" - <<'PY'
import tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
wanted = ("pytest", "hypothesis", "authres", "pyyaml", "psycopg")
print("\n".join(each for each in extras["test"] if each.startswith(wanted)))
PY
}

wheels=$place/wheels-$(sha256sum pyproject.toml | cut -c 1-16)
if [ ! -e "$wheels/.complete" ]; then
    say "fetching the libraries' wheels for Python 3.14"
    rm -rf "$place"/wheels-*
    mkdir -p "$wheels"
    requirements > "$wheels/requirements"
    # Those that are published as sources only are plain Python: one wheel for every version.
    "$host" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels" dkimpy pyspf authres || die "pip could not build dkimpy, pyspf and authres"
    "$host" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels/own" . || die "pip could not build the wheel"
    platforms=
    for tag in any "linux_$(uname -m)" "manylinux2014_$(uname -m)" "manylinux_2_24_$(uname -m)" "manylinux_2_26_$(uname -m)" "manylinux_2_28_$(uname -m)"; do
        platforms="$platforms --platform $tag"
    done
    # shellcheck disable=SC2086  # word splitting is meant
    "$host" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --find-links "$wheels" --dest "$wheels" \
        --python-version 3.14 --implementation cp --abi cp314 --abi abi3 --abi none $platforms \
        --requirement "$wheels/requirements" "$wheels"/own/*.whl || die "pip could not fetch the wheels for Python 3.14"
    touch "$wheels/.complete"
fi

say "installing the wheel of these sources, without a compiler"
rm -rf "$wheels/own" "$root/sources" "$root/wheels"
"$host" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels/own" . || die "pip could not build the wheel"
mkdir "$root/sources"
cp -a "$wheels" "$root/wheels"
cp -a pyproject.toml conf docs tests tools README.md SECURITY.md CHANGELOG.md CONTRIBUTING.md Makefile "$root/sources/"
mkdir -p "$root/sources/.test"
for suite in openspf opendmarc; do
    [ ! -d ".test/$suite" ] || cp -aL ".test/$suite" "$root/sources/.test/"
done
mkdir "$root/sources/milter"      # empty: the installed wheel is what is tested

status=0
inside() { unshare --mount --pid --fork --kill-child sh -c 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"' "$root" "$@"; }
inside sh -eu -c '
    cd /sources
    rm -rf /venv
    python3.14 -m venv /venv
    rm /wheels/dmarc_milter-*.whl 2>/dev/null || true
    /venv/bin/pip install --quiet --no-index --find-links /wheels --requirement /wheels/requirements /wheels/own/*.whl
    /venv/bin/python -V
    DMARC_MILTER_TEST_LIBRARY=native exec /venv/bin/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile -m "not (alone or live)" "$@"' sh $tests || status=1
[ "$status" = 0 ] || die "tests failed"
say "done"
