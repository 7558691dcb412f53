#!/bin/sh
# Everything that `make run` needs: a Python of the right age, four Debian packages, and a private set of libraries in .venv.
# With "test" as first argument also the libraries of the tests. Safe to run again; changes nothing that is already right.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-}
venv=${VENV:-.venv}

say() { printf '%s\n' "dmarc-milter set-up: $*"; }
die() { printf '%s\n' "dmarc-milter set-up: $*" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null; }

# pymilter is compiled here; from 3.14 on it cannot serve, and our own code speaks with the MTA.
takes_pymilter() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] > (3, 13))' 2>/dev/null; }

# The distribution's Python first: it gets its security updates, the package runs on it, and it is built with optimisations that
# one compiled by hand mostly lacks (a tenth of the processor time of a message).
find_python() {
    for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

# The Debian packages whose files are missing, one line. Arguments: the interpreter.
missing_packages() {
    minor=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$1" -c 'import ensurepip, venv' 2>/dev/null || printf 'python%s-venv ' "$minor"
    takes_pymilter "$1" || return 0
    [ -e /usr/include/libmilter/mfapi.h ] || printf 'libmilter-dev '
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || printf 'gcc '
    [ -e /usr/include/stdlib.h ] || printf 'libc6-dev '
    header=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -e "$header" ] || printf 'python%s-dev ' "$minor"
}

install_packages() {
    command -v apt-get >/dev/null 2>&1 || die "please install: $1"
    if [ "$(id -u)" = 0 ]; then as_root=
    elif sudo -n true 2>/dev/null; then as_root='sudo -n'
    else die "please run as root: apt-get install --no-install-recommends $1"
    fi
    say "installing Debian packages: $1"
    # shellcheck disable=SC2086  # word splitting is meant
    { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $1 >/dev/null; } ||
        die "apt-get could not install: $1"
}

python=$(find_python) || {
    candidate=$(apt-cache policy python3 2>/dev/null | sed -n 's/^ *Candidate: //p')
    case "$candidate" in
        3.1[1-9].*) install_packages 'python3 ' ; python=$(find_python) || die "no Python 3.11 or later found" ;;
        *) die "no Python 3.11 or later found; install one, or name it: make PYTHON=/path/to/python3.12" ;;
    esac
}
packages=$(missing_packages "$python"); packages=${packages% }
[ -z "$packages" ] || install_packages "$packages"

if ! fits "$venv/bin/python"; then
    say "creating $venv with $python"
    "$python" -m venv --clear "$venv" || die "$python could not create $venv"
fi
extras=$extra
takes_pymilter "$venv/bin/python" && extras=pymilter${extra:+,$extra}
wanted="-e .${extras:+[$extras]}"
say "installing the Python libraries into $venv"
# shellcheck disable=SC2086
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 $wanted || die "pip could not install the libraries named in pyproject.toml (is the package index reachable?)"
# As every installed package is: where PYTHONDONTWRITEBYTECODE is set each command would compile its hundred modules again.
"$venv/bin/python" -m compileall -q milter || true
touch "$venv/.ready" ${extra:+"$venv/.ready-$extra"}
