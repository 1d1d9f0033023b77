#!/bin/bash
# Installs what only the benchmarks need: h2load, sysbench, pgbouncer, and mitmproxy in a virtual environment of its own. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
# The last version for Python 3.11.
version=11.0.2
[ "$(id -u)" = 0 ] || { echo "setup: must be root; use sudo make bench" >&2; exit 1; }
command -v h2load > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nghttp2-client > /dev/null
command -v sysbench > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends sysbench > /dev/null
if ! command -v pgbouncer > /dev/null; then
    # Debian must not start it on this host.
    [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends pgbouncer > /dev/null
fi
if ! build/mitmproxy/bin/mitmdump --version 2> /dev/null | grep -q "^Mitmproxy: $version"; then
    echo "setup: installing mitmproxy $version into build/mitmproxy"
    rm -rf build/mitmproxy
    /usr/bin/python3 -m venv build/mitmproxy
    build/mitmproxy/bin/pip install --quiet --disable-pip-version-check "mitmproxy==$version" ||
        { rm -rf build/mitmproxy; echo "setup: no mitmproxy; the benchmarks go on without it" >&2; }
fi
