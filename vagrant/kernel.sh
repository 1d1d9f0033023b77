#!/bin/bash
# Installs the kernel this machine is to run, with its headers. Usage: kernel.sh stock|backports (a reboot follows the latter)
set -euo pipefail
wanted=${1:?stock or backports}
[ "$(id -u)" = 0 ] || { echo "kernel: must be root" >&2; exit 1; }
architecture=$(dpkg --print-architecture)
export DEBIAN_FRONTEND=noninteractive
case $wanted in
    stock)
        apt-get -qq update
        ;;
    backports)
        echo 'deb http://deb.debian.org/debian bookworm-backports main' > /etc/apt/sources.list.d/backports.list
        apt-get -qq update
        apt-get -qq install -y -t bookworm-backports "linux-image-$architecture" "linux-headers-$architecture" > /dev/null
        ;;
    *)
        echo "kernel: $wanted is neither stock nor backports" >&2
        exit 2
        ;;
esac
