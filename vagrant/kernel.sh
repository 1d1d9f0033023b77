#!/bin/bash
# Installs the kernel this machine is to run, with its headers. Usage: kernel.sh stock|backports (a reboot follows the latter)
set -euo pipefail
wanted=${1:?stock or backports}
[ "$(id -u)" = 0 ] || { echo "kernel: must be root" >&2; exit 1; }
architecture=$(dpkg --print-architecture)
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
export DEBIAN_FRONTEND=noninteractive

# Where this machine already gets Debian from: backports are beside it.
archive() {
    # shellcheck disable=SC2016 # the variables are apt's
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' "Codename: $codename" | head -n 1
}

case $wanted in
    stock)
        apt-get -qq update
        ;;
    backports)
        apt-get -qq update
        from=$(archive)
        [ -n "$from" ] || { echo "kernel: apt has no source of $codename; add one to /etc/apt/sources.list" >&2; exit 1; }
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from $codename-backports main" \
            > /etc/apt/sources.list.d/backports.list
        apt-get -qq update
        apt-get -qq install -y -t "$codename-backports" "linux-image-$architecture" "linux-headers-$architecture" > /dev/null
        ;;
    *)
        echo "kernel: $wanted is neither stock nor backports" >&2
        exit 2
        ;;
esac
