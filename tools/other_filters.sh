#!/bin/sh
# SpamAssassin with its milter and Amavis for `make other-filters`, from Debian packages, unpacked into .test/filters, not installed.
# OpenDKIM, OpenDMARC and Rspamd come from tools/bench_peers.sh.
set -eu
umask 022
cd "$(dirname "$0")/.."

say() { printf '%s\n' "other filters: $*"; }
die() { printf '%s\n' "other filters: $*" >&2; exit 1; }

command -v apt-get >/dev/null 2>&1 || die "they are Debian packages, and there is no apt-get here"
[ -e .test/. ] || mkdir -p .test
wanted="amavisd-new spamassassin spamd spamass-milter spamc"

# What they need that this machine lacks, but for Perl itself, which is there.
packages=$({ printf '%s\n' $wanted
    apt-get -s --no-install-recommends install $wanted 2>/dev/null | sed -n 's/^Inst \([^ ]*\) .*/\1/p'
} | sort -u | grep -Ev '^(perl|perl-base)$')

rm -rf .test/filters.deb .test/filters.new
mkdir .test/filters.deb .test/filters.new
say "unpacking into .test/filters:" $packages
(cd .test/filters.deb && printf '%s\n' "$packages" | xargs apt-get -qq download 2>../filters.log) ||
    { cat .test/filters.log >&2; die "apt-get download failed"; }
for deb in .test/filters.deb/*.deb; do dpkg -x "$deb" .test/filters.new; done
rm -rf .test/filters .test/filters.deb
mv .test/filters.new .test/filters
