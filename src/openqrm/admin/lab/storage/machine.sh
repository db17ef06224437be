#!/bin/sh
# Process 1 of the storage machine: network, SSH, volume groups, mounts, exports, and it says so when all is up.
# Few programs are started: under emulation each costs. What plug-ins need beyond that after a restart of the host they
# leave in /etc/openqrm/boot.d, executable; it is run in the order of names once volumes are active and mounted.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
# There is no udev here: the device-mapper library makes the nodes below /dev by itself.
export DM_DISABLE_UDEV=1
exec </dev/null >/dev/console 2>&1

say() {
    read -r uptime _ </proc/uptime
    echo "storage [$uptime] $*"
}

mount_kernel_things() {
    busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
    mkdir -p /dev/pts /dev/shm /run/lock /run/sshd /run/rpc_pipefs /var/lib/nfs/nfsdcltrack
    busybox mount -t devpts devpts /dev/pts
    busybox mount -t tmpfs tmpfs /dev/shm
    for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
        [ -e "/dev/${link%%:*}" ] || ln -s "${link#*:}" "/dev/${link%%:*}"
    done
}

start_network() {
    read -r name </etc/hostname && echo "$name" >/proc/sys/kernel/hostname
    busybox ifconfig lo 127.0.0.1 up
    busybox ifconfig eth0 "$(cat /etc/openqrm-lab/address)" netmask 255.255.255.0 up
    busybox route add default gw "$(cat /etc/openqrm-lab/gateway)"
}

activate_volumes() {
    # Without udev nothing makes /dev/loop-control, by whose use the kernel would load `loop` itself.
    modprobe -a dm-mod configfs loop
    busybox mount -t configfs configfs /sys/kernel/config
    if [ -b /dev/vdb ] && [ ! -e /etc/openqrm-lab/group ]; then
        vgcreate --yes --quiet vg0 /dev/vdb && : >/etc/openqrm-lab/group && sync
    fi
    vgchange --activate y --sysinit --quiet
    say "volume groups are active"
}

run_boot_programs() {
    for program in /etc/openqrm/boot.d/*; do
        if [ -f "$program" ] && [ -x "$program" ]; then
            "$program" || say "$program ended with status $?"
        fi
    done
}

mount_kernel_things
start_network
/usr/sbin/sshd
activate_volumes
# What is mounted later or by somebody else is marked noauto; the rest must not keep the machine from coming up.
mount -a || say "not all of /etc/fstab is mounted"
run_boot_programs
nfs-server start || say "the NFS server does not run"
say "ready"
while :; do
    sleep 3600 &
    wait $! # every orphan that ends meanwhile is reaped here
done
