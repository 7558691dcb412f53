#!/bin/sh
# The programs that other people read DMARC reports with, into .test/report_readers: Debian packages, unpacked and not installed,
# and Python ones in a folder of their own. parsedmarc is among the tests' own libraries.
set -eu
umask 022
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
place=.test/report_readers

say() { printf '%s\n' "test set-up: $*"; }
die() { printf '%s\n' "test set-up: $*" >&2; exit 1; }

rm -rf "$place.new"
mkdir -p "$place.new/deb" "$place.new/root"
readers='libmail-dmarc-perl dmarcts-report-parser dmarc-cat'
# What they depend on and this machine lacks; the script needs no MySQL where it is told to use PostgreSQL.
missing=$(apt-get -s --no-install-recommends install $readers libdbd-pg-perl 2>/dev/null | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
    grep -Ev '^(perl|perl-base|perl-modules-.*|libperl5.*|mysql-common|mariadb-common|libmariadb3|libdbd-mysql-perl|libclass-dbi-mysql-perl)$' || true)
packages=$(printf '%s\n' $readers libdbd-pg-perl $missing | sort -u)
say "unpacking into $place:" $packages
# shellcheck disable=SC2086  # one word each
(cd "$place.new/deb" && apt-get -qq download $packages 2>../download.log) || { cat "$place.new/download.log" >&2; die "apt-get download failed"; }
for deb in "$place.new"/deb/*.deb; do
    dpkg -x "$deb" "$place.new/root"
    dpkg-deb -W "$deb"
done >"$place.new/versions"
rm -rf "$place.new/deb"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$place.new/python" \
    -r tests/readers/requirements.txt >"$place.new/pip.log" 2>&1 || { cat "$place.new/pip.log" >&2; die "pip could not install the readers"; }
rm -rf "$place"
mv "$place.new" "$place"
touch "$place/.ready"
