#!/bin/sh
# OpenDMARC's own configuration files, from Debian's package, into .test/opendmarc: what `dmarc-milter import` is tested with.
set -eu
umask 022
cd "$(dirname "$0")/.."
folder=.test/opendmarc
rm -rf "$folder"
mkdir -p "$folder"
(cd "$folder" && apt-get -qq download opendmarc 2>download.log) || { cat "$folder/download.log" >&2; exit 1; }
dpkg -x "$folder"/opendmarc_*.deb "$folder/root"
cp "$folder/root/etc/opendmarc.conf" "$folder/debian.conf"
gzip -dc "$folder"/root/usr/share/doc/opendmarc/opendmarc.conf.sample.gz > "$folder/sample.conf"
rm -rf "$folder/root" "$folder"/*.deb
touch "$folder/.ready"
