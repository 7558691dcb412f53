#!/bin/sh
# One Debian package for this release and architecture, into dist/: our code and its Python libraries below /usr/lib/dmarc-milter, for the
# release's own /usr/bin/python3. The libraries are installed once and kept in build/ until pyproject.toml changes.
set -eu
umask 022
cd "$(dirname "$0")/.."
python=${DEB_PYTHON:-/usr/bin/python3}
pip=${VENV:-.venv}/bin/python
out=${1:-dist}
build=${BUILD:-build/deb}

say() { printf '%s\n' "deb: $*"; }
die() { printf '%s\n' "deb: $*" >&2; exit 1; }

command -v dpkg-deb >/dev/null 2>&1 || die "dpkg-deb is missing: this builds on Debian and its derivatives"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null || die "$python is not Python 3.11 or later"
# pymilter is compiled here; from 3.14 on it cannot serve, and is left out.
pymilter=$("$python" -c 'import sys; print("pymilter" if sys.version_info[:2] < (3, 14) else "")')
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -z "$pymilter" ] || { [ -e "$header" ] && [ -e /usr/include/libmilter/mfapi.h ]; } || die "please install: python3-dev libmilter-dev gcc"

# Libraries: those that pyproject.toml names, with the extras for PostgreSQL, libmilter and the documents. Prints one requirement a line.
requirements() {
    "$python" - <<'PY'
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *extras["postgresql"], *extras["pymilter"], *extras["documents"]]))
PY
}

into() { "$pip" -m pip --python "$python" install --quiet --disable-pip-version-check --no-compile --root-user-action ignore "$@"; }

# .pyc files that no clock can make stale, as nobody but root may write there. Arguments: the folder, and what of it.
compile() { "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$1" -p /usr/lib/dmarc-milter "$1/${2:-}"; }

"$python" tools/owner.py say
mkdir -p "$build"
key=$({ requirements; "$python" -VV; dpkg --print-architecture; } | sha256sum | cut -c 1-16)
libraries=$build/libraries-$key
if [ ! -e "$libraries/.complete" ]; then
    say "installing the libraries for $("$python" -V)"
    rm -rf "$build"/libraries-*
    requirements > "$build/requirements"
    into --target "$libraries" --requirement "$build/requirements" || die "pip could not install the libraries named in pyproject.toml"
    rm -rf "$libraries/bin" "$libraries/greenlet/tests"
    find "$libraries" -name '*.so*' -type f -exec chmod 644 {} +
    compile "$libraries" || die "compileall failed"
    touch "$libraries/.complete"
fi

root=$build/root
say "putting the package together"
rm -rf "$root"
mkdir -p "$root/usr/lib" "$root/usr/bin" "$root/etc/dmarc-milter" "$root/usr/share/doc/dmarc-milter/examples" "$root/DEBIAN"
mkdir -p "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
cp -a "$libraries" "$root/usr/lib/dmarc-milter"
rm "$root/usr/lib/dmarc-milter/.complete"
into --no-deps --target "$root/usr/lib/dmarc-milter" . || die "pip could not install dmarc-milter itself"
rm -rf "$root/usr/lib/dmarc-milter/bin"
compile "$root/usr/lib/dmarc-milter" dmarc_milter || die "compileall failed"

sed "s/@PYTHON@/$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/" packaging/debian/launcher > "$root/usr/bin/dmarc-milter"
chmod 755 "$root/usr/bin/dmarc-milter"
install -m 644 conf/dmarc-milter.toml "$root/etc/dmarc-milter/"
install -m 644 systemd/*.service systemd/*.socket systemd/*.timer "$root/usr/lib/systemd/system/"
tools/instance_units.sh "$root/usr/lib/systemd/system"
install -m 644 systemd/sysusers.conf "$root/usr/lib/sysusers.d/dmarc-milter.conf"
install -m 644 systemd/tmpfiles.conf "$root/usr/lib/tmpfiles.d/dmarc-milter.conf"
install -m 644 packaging/debian/copyright "$root/usr/share/doc/dmarc-milter/"
say "making the documents and manual pages"
PYTHONPATH=$libraries "$python" tools/documents.py "$root/usr/share/doc/dmarc-milter" || die "the documents could not be made"
gzip -9n < CHANGELOG.md > "$root/usr/share/doc/dmarc-milter/changelog.gz"
install -D -m 644 packaging/debian/lintian-overrides "$root/usr/share/lintian/overrides/dmarc-milter"
find conf -type f ! -name dmarc-milter.toml -exec install -m 644 {} "$root/usr/share/doc/dmarc-milter/examples/" \;
for place in bash-completion/completions/dmarc-milter zsh/vendor-completions/_dmarc-milter fish/vendor_completions.d/dmarc-milter.fish; do
    install -D -m 644 "packaging/completion/$(basename "$place")" "$root/usr/share/$place"
done
for page in docs/man/*.[1-8]; do
    [ -e "$page" ] || continue
    mkdir -p "$root/usr/share/man/man${page##*.}"
    gzip -9n < "$page" > "$root/usr/share/man/man${page##*.}/$(basename "$page").gz"
done

# The Debian packages whose shared libraries ours need, one a line.
shared() {
    find "$root/usr/lib/dmarc-milter" -name '*.so*' -type f -exec ldd {} + 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | grep -v "$PWD" | sort -u |
        while IFS= read -r file; do
            real=$(readlink -f "$file")
            { dpkg-query -S "$real" || dpkg-query -S "${real#/usr}"; } 2>/dev/null | sed 's/:.*//' | head -n 1
        done | sort -u
}

minor=$("$python" -c 'import sys; print(sys.version_info[1])')
depends="python3 (>= 3.$minor~), python3 (<< 3.$((minor + 1))~)"
depends="$depends, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles"
packages=$(shared)
[ -z "$pymilter" ] || printf '%s\n' "$packages" | grep -q '^libmilter' || die "no package found that holds libmilter"
for package in $packages; do
    case "$package" in
        libc6) depends="$depends, libc6 (>= $(dpkg-query -W -f '${Version}' libc6 | sed 's/[-+].*//'))" ;;
        *) depends="$depends, $package" ;;
    esac
done

. /etc/os-release
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' milter/dmarc_milter/__init__.py | sed 's/\.\{0,1\}\(dev\|a\|b\|rc\)\([0-9]*\)$/~\1\2/')-1~${ID}${VERSION_ID:-}
architecture=$(dpkg --print-architecture)
maintainer=$("$python" tools/owner.py get maintainer)
home=$("$python" tools/owner.py get home)
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s|@MAINTAINER@|${maintainer:-dmarc-milter <root@localhost>}|; s|^Homepage: @HOME@$|${home:+Homepage: $home}|; /^$/d" \
    -e "s/@DEPENDS@/$depends/; s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f 1)/" packaging/debian/control.in > "$root/DEBIAN/control"
at=$(git log -1 --format=%ct 2>/dev/null || date +%s)
printf 'dmarc-milter (%s) unstable; urgency=medium\n\n  * What changed: changelog.gz, and CHANGELOG.md beside it.\n\n -- %s  %s\n' \
    "$version" "${maintainer:-dmarc-milter <root@localhost>}" "$(LC_ALL=C date -R -u -d "@$at")" | gzip -9n > "$root/usr/share/doc/dmarc-milter/changelog.Debian.gz"
cp packaging/debian/conffiles packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$root/DEBIAN/"
(cd "$root" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)

say "packing, for some seconds"
mkdir -p "$out"
file=$out/dmarc-milter_${version}_$architecture.deb
SOURCE_DATE_EPOCH=$at
export SOURCE_DATE_EPOCH
dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$root" "$file" >/dev/null
say "$file ($(du -h "$file" | cut -f 1))"
