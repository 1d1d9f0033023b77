#!/bin/bash
# Runs inside the emulated machine, as root: mounts what the enforcer needs, then runs DIRECTORY/command in the checkout. Output goes to
# DIRECTORY/output, the status to DIRECTORY/status, compiled programs to DIRECTORY/programs; of what is written here, the host sees
# nothing else.
# Usage: test_kernels_guest.sh DIRECTORY CHECKOUT
set -uo pipefail
directory=$1
exec >> "$directory/output" 2>&1
checkout=$2
programs=/var/cache/enforcer/programs
modules=$(realpath "/lib/modules/$(uname -r)")
touch "$directory/booted"

export PATH=$checkout/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONUNBUFFERED=1

# Mounts the host's directory $1 over itself: read through a cache, written into memory. There the files of archive $2 are already.
cover() {
    local memory=/run/covers/${1//\//-}
    mkdir -p "$memory/upper" "$memory/work" "$1" || return
    [ -z "${2:-}" ] || tar -C "$memory/upper" -xf "$2" || return
    mount -t overlay -o "lowerdir=/run/host$1,upperdir=$memory/upper,workdir=$memory/work" cover "$1"
}

prepare() {
    mkdir -p /run/host || return
    mount -t 9p -o ro,version=9p2000.L,trans=virtio,cache=loose,msize=512000 again /run/host || return
    cover /usr && cover /root || return
    mount -t tmpfs modules /usr/lib/modules || return
    ln -s "$modules" "/usr/lib/modules/$(uname -r)" || return
    cover "$checkout" "$directory/tree" || return
    # Region tables that the host has compiled are not compiled again.
    if [ -d /run/host/var/cache/enforcer ]; then
        cover /var/cache/enforcer || return
    fi
    # Kernel programs that such a machine has compiled, neither: it takes minutes. What this one compiles is the next one's at once.
    rm -rf $programs && mkdir -p $programs && mount --bind "$directory/programs" $programs && chmod 700 $programs || return
    mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf || return
    mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup || return
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing || return
    ulimit -Hn 524288 || return # as systemd leaves it to root's shells; the soft limit is 1024 there as here
    ip link set lo up || return
    # A host has an uplink, and disks; these lead nowhere.
    ip link add uplink type dummy && ip link set uplink up || return
    ip address add 192.0.2.1/24 dev uplink && ip route add default via 192.0.2.2 || return
    ip address add 2001:db8:2::1/64 dev uplink nodad && ip route add default via 2001:db8:2::2 || return
    modprobe -a loop tun || return # device nodes that udev would make
    export ENFORCER_TEST_EMULATED=1 # deadlines and numbers of the tests
    id enforcer > /dev/null
}

if prepare && cd "$checkout"; then
    bash "$directory/command"
    status=$?
else
    echo "test-kernels: the emulated machine could not be prepared" >&2
    status=1
fi
echo "$status" > "$directory/status"
