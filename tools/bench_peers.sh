#!/bin/sh
# What `make bench` compares with: rspamd, OpenDKIM and OpenDMARC from Debian packages, unpacked into .test/peers, not installed.
set -eu
umask 022
cd "$(dirname "$0")/.."

say() { printf '%s\n' "bench set-up: $*"; }
die() { printf '%s\n' "bench set-up: $*" >&2; exit 1; }

command -v apt-get >/dev/null 2>&1 || die "the peers are Debian packages, and there is no apt-get here"
[ -e .test/. ] || mkdir -p .test

# The three, and what they are linked with that this machine lacks; not what their maintainer scripts would configure.
packages=$({ echo opendkim; echo opendmarc; echo rspamd
    apt-get -s --no-install-recommends install opendkim opendmarc rspamd 2>/dev/null | sed -n 's/^Inst \([^ ]*\) .*/\1/p'
} | sort -u | grep -Ev '^(dbconfig-.*|default-mysql-.*|mariadb-.*|mysql-.*|libconfig-inifiles-perl|dns-root-data|fonts-.*|libjs-.*)$')

rm -rf .test/peers.deb .test/peers.new
mkdir .test/peers.deb .test/peers.new
say "unpacking into .test/peers:" $packages
(cd .test/peers.deb && printf '%s\n' "$packages" | xargs apt-get -qq download 2>../peers.log) || { cat .test/peers.log >&2; die "apt-get download failed"; }
for deb in .test/peers.deb/*.deb; do dpkg -x "$deb" .test/peers.new; done
rm -rf .test/peers .test/peers.deb
mv .test/peers.new .test/peers
