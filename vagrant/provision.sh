#!/bin/bash
# Prepares the machine as the README tells a newcomer to: the project's own set-up, and nothing beside it but make.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "provision: must be root" >&2; exit 1; }
source=${1:-/vagrant-src}
command -v make > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get -qq install -y make > /dev/null
cd "$source"
make setup
uname -r
