#!/bin/bash
# Prepares this Debian host: packages, the worker's user, the virtual environment, the region tables; all but the compiled hot path,
# which is `tools/compile.py`. Safe to repeat; does only what is missing. Usage: tools/setup.sh [run|dev|clients]   (run: what the enforcer needs; dev: also what demo, tests and benchmarks
# need; clients: also the clients that `make test-clients` runs)
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-dev}
[ "$(id -u)" = 0 ] || { echo "setup: must be root; use sudo make setup" >&2; exit 1; }
[ -f /etc/debian_version ] || { echo "setup: needs Debian 12 or later, this is not Debian" >&2; exit 1; }

packages=(python3 python3-venv python3-dev gcc ca-certificates python3-bpfcc python3-seccomp "linux-headers-$(dpkg --print-architecture)" iproute2 util-linux)
if [ "$what" != run ]; then
    packages+=(bind9-dnsutils bpftool dnsmasq-base fcgiwrap git nghttp2 mariadb-client mariadb-server nginx-light postgresql curl haproxy iputils-ping redis-server wget wrk psmisc xz-utils)
fi
if [ "$what" = clients ]; then
    packages+=(gron ruby libpostgresql-jdbc-java libmariadb-java)
    # Others than Debian's serve as well, and may not stand beside them.
    command -v javac > /dev/null || packages+=(default-jdk-headless)
    command -v npm > /dev/null || packages+=(nodejs npm)
fi
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    # The servers are for the demo's namespaces: Debian must not start them on this host.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
fi

id enforcer > /dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin enforcer
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing

# Debian's bcc is bound to /usr/bin/python3; another python3 may come first in PATH.
version=$(sha256sum pyproject.toml)
have=$(cat .venv/.setup 2>/dev/null || true)
if [ "$have" != "clients $version" ] && [ "$have" != "$what $version" ] && [ "$what $have" != "run dev $version" ]; then
    echo "setup: making .venv"
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
    case $what in run) extra='[compile]' ;; dev) extra='[dev]' ;; clients) extra='[dev,clients]' ;; esac
    .venv/bin/pip install --quiet --disable-pip-version-check --editable ".$extra"
    echo "$what $version" > .venv/.setup
fi

# A second opinion on countries, where Debian's archive has it; the tables work without it.
if [ ! -f /var/cache/enforcer/geo/ipfire/geoip ]; then
    tools/fetch-ipfire.sh /var/cache/enforcer/geo/ipfire || echo "setup: no second country table; going on with the shipped one" >&2
fi
.venv/bin/python -P -m enforcer.geo.build
# Whoever may not write here, or does not keep what it compiles, would do that at each start.
.venv/bin/python -P -m compileall -q enforcer
