#!/bin/sh
# Puts the IPFire location table (CC BY-SA 4.0, https://location.ipfire.org/) in place as second opinion on countries.
# Debian packages it as tor-geoipdb, which depends on tor: the package is only downloaded and unpacked, never installed.
#
#   tools/fetch-ipfire.sh [DIRECTORY]      default /var/cache/enforcer/geo/ipfire
set -eu

target=${1:-/var/cache/enforcer/geo/ipfire}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "fetch-ipfire: $1" >&2
    exit 1
}

# apt drops privileges to _apt for the download; it must be able to write here.
chmod 0755 "$work"
if [ "$(id -u)" = 0 ] && id _apt >/dev/null 2>&1; then chown _apt "$work"; fi

cd "$work"
apt-get download -qq tor-geoipdb >apt.log 2>&1 || {
    cat apt.log >&2
    fail "apt-get cannot download tor-geoipdb; run 'apt-get update' and try again"
}
dpkg-deb -x tor-geoipdb_*.deb unpacked
dpkg-deb -e tor-geoipdb_*.deb control

for name in geoip geoip6; do
    [ -s "unpacked/usr/share/tor/$name" ] || fail "the package has no usr/share/tor/$name; its layout changed"
done
(cd unpacked && grep -E ' usr/share/tor/geoip6?$' ../control/md5sums | md5sum --check --quiet -) ||
    fail "the unpacked files do not match the package's checksums; try again"

mkdir -p "$target"
for name in geoip geoip6; do
    if cmp -s "unpacked/usr/share/tor/$name" "$target/$name"; then continue; fi
    install -m 0644 "unpacked/usr/share/tor/$name" "$target/.$name.new"
    mv "$target/.$name.new" "$target/$name"
done
echo "$target: $(grep -m1 -o 'Generated:.*' "$target/geoip")"
