#!/bin/sh
# The container images as an engine would build and start them, where there is no engine: Debian's buildah builds the shipped files unchanged
# on a Debian root that bears the name in their FROM, and tests/live/container.py starts the result. Debian's docker-compose reads the compose
# files. Needs root. What is fetched is kept outside the sources, in ${CONTAINER:-~/.cache/dmarc-milter/container}.
set -eu
umask 022
cd "$(dirname "$0")/.."
python=$PWD/${VENV:-.venv}/bin/python
place=${CONTAINER:-${XDG_CACHE_HOME:-$HOME/.cache}/dmarc-milter/container}

say() { printf '%s\n' "container-check: $*"; }
die() { printf '%s\n' "container-check: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "please run as root: images are built and entered"
missing=
for program in buildah docker-compose mmdebstrap; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
# shellcheck disable=SC2086  # word splitting is meant
[ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >/dev/null || die "please install:$missing"

base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Containerfile | sort -u)
suite=${base#debian:}; suite=${suite%-slim}
mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1)
mkdir -p "$place"
if [ ! -e "$place/$suite.tar" ]; then
    say "building a Debian $suite root, in place of the image $base"
    # A mirror that is kept still (a snapshot) has lists that have expired.
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$place/$suite.new.tar" $mirror || die "mmdebstrap could not build the root"
    mv "$place/$suite.new.tar" "$place/$suite.tar"
fi

# Nothing of this machine's own images is touched, and no registry is asked.
work=$(mktemp -d /var/tmp/dmarc-milter-container.XXXXXX)
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$work" "$work" > "$work/storage.conf"
printf 'unqualified-search-registries = []\n' > "$work/registries.conf"
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' > "$work/policy.json"
export CONTAINERS_STORAGE_CONF="$work/storage.conf" CONTAINERS_REGISTRIES_CONF="$work/registries.conf"
finish() { buildah umount --all >/dev/null 2>&1 || true; buildah rm --all >/dev/null 2>&1 || true; rm -rf "$work"; }
trap finish EXIT
trap 'exit 1' HUP INT TERM

container=$(buildah --signature-policy "$work/policy.json" from scratch)
buildah add --quiet "$container" "$place/$suite.tar" / >/dev/null
buildah commit --quiet --signature-policy "$work/policy.json" "$container" "$base" >/dev/null
buildah rm "$container" >/dev/null

# The machine's own package index for pip, if it has one: where packages come from is no part of the image.
sed 's#^cert *=.*#cert = /mnt/certificates.crt#' /etc/pip.conf > "$work/pip.conf" 2>/dev/null || : > "$work/pip.conf"
volumes="--volume $work/pip.conf:/etc/pip.conf:ro"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || volumes="$volumes --volume /etc/ssl/certs/ca-certificates.crt:/mnt/certificates.crt:ro"
for folder in /etc/xdg/pip $(pip config list 2>/dev/null | grep -o "/[^ ']*" | sed 's#^//*#/#' | sort -u); do
    [ ! -d "$folder" ] || volumes="$volumes --volume $folder:$folder:ro"
done

# Arguments: the image's name, its Containerfile, the context.
build() {
    say "building $1 from $2"
    # shellcheck disable=SC2086  # word splitting is meant
    buildah build --quiet --signature-policy "$work/policy.json" --pull-never --isolation chroot --network host --format docker $volumes \
        --tag "$1" --file "$2" "$3" > "$work/$1.log" 2>&1 || { tail -n 30 "$work/$1.log" >&2; die "buildah could not build $2"; }
    buildah mount "$(buildah --signature-policy "$work/policy.json" from --pull-never --name "$1" "$1")" > "$work/$1.root"
    buildah inspect --type image "$1" | "$python" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]["config"]))' > "$work/$1.json"
}

for file in packaging/container/compose*.yaml; do
    docker-compose --file "$file" config --quiet || die "docker-compose does not take $file"
    say "docker-compose takes $file"
done
build dmarc-milter Containerfile .
build postfix packaging/container/postfix/Containerfile packaging/container/postfix
"$python" tests/live/namespace.py --host-name mx.test.example --address 203.0.113.66 -- env "PYTHONPATH=$PWD/milter:$PWD/tests" \
    "$python" -m live.container "$(cat "$work/dmarc-milter.root")" "$work/dmarc-milter.json" "$(cat "$work/postfix.root")" "$work/postfix.json" ||
    die "the image does not do what docs/how-to/container.md says"
say "done"
