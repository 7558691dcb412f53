#!/bin/sh
# What the live tests need: Postfix, Sendmail, PostgreSQL and pgbouncer from Debian packages, unpacked into .test/root. Nothing is
# installed, started or configured on this machine, except the accounts that Postfix insists on, where they are missing.
set -eu
umask 022
cd "$(dirname "$0")/.."

say() { printf '%s\n' "test set-up: $*"; }
die() { printf '%s\n' "test set-up: $*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

# Postfix's own accounts must be able to walk to its programs: below a 0700 home they cannot, so the folder moves.
place() {
    folder=$PWD
    while [ "$folder" != / ]; do
        case "$(stat -L -c %A "$folder")" in
            *[xt]) folder=$(dirname "$folder") ;;
            *) rm -rf .test; ln -sfn "$(mktemp -d /var/tmp/dmarc-milter-test.XXXXXX)" .test; chmod 755 .test/. ; return ;;
        esac
    done
    mkdir -p .test
}

# Names of the packages to unpack for "$@": those named, and whatever they depend on that this machine lacks.
closure() {
    printf '%s\n' "$@"
    apt-get -s --no-install-recommends install "$@" 2>/dev/null | sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

accounts() {
    getent passwd postfix >/dev/null && getent group postdrop >/dev/null && return
    say "creating the accounts postfix and postdrop, which Postfix insists on"
    getent group postdrop >/dev/null || as_root groupadd --system postdrop || die "please run as root: groupadd --system postdrop"
    getent passwd postfix >/dev/null || as_root useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin postfix ||
        die "please run as root: useradd --system --user-group --shell /usr/sbin/nologin postfix"
}

command -v apt-get >/dev/null 2>&1 || die "the live tests unpack Debian packages, and there is no apt-get here"
[ -L .test ] && [ -e .test/. ] || place
accounts

[ -n "$(apt-cache --quiet=2 policy postfix | grep -v '(none)' | grep Candidate)" ] || {
    say "reading Debian's package lists"
    as_root apt-get -qq update || die "please run as root: apt-get update"
}

# The browser is no server: it is simply installed, with its driver.
[ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ] || {
    say "installing chromium and chromium-driver"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver >/dev/null ||
        die "please run as root: apt-get install --no-install-recommends chromium chromium-driver"
}

packages=$(closure pgbouncer | grep -Ev '^(postgresql-common|postgresql-client-common|ssl-cert|debconf)$'; closure postfix; closure sendmail-bin sendmail-cf sendmail-base; closure zsh; closure fish; command -v m4 >/dev/null 2>&1 || closure m4)
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    server=$(apt-cache depends postgresql | sed -n 's/^ *Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    packages="$packages
$(closure "$server" | grep -Ev '^(libllvm.*|libz3.*|locales.*|tzdata|ssl-cert|postgresql-common|debconf)$')"
fi

rm -rf .test/deb .test/root.new
mkdir .test/deb .test/root.new
say "unpacking into .test/root:" $(printf '%s\n' "$packages" | sort -u)
(cd .test/deb && printf '%s\n' "$packages" | sort -u | xargs apt-get -qq download 2>../download.log) || { cat .test/download.log >&2; die "apt-get download failed"; }
for deb in .test/deb/*.deb; do dpkg -x "$deb" .test/root.new; done
chmod -R go+rX .test/root.new
chmod g-s .test/root.new/usr/libexec/sendmail/sendmail      # a set-gid program ignores LD_LIBRARY_PATH
rm -rf .test/root .test/deb
mv .test/root.new .test/root
touch .test/.ready
