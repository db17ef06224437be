#!/bin/sh
# Second stage: process 1 of the storage host. Starts its services, starts one again when it ends, reaps orphans.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /run/sshd /run/dbus /run/ganesha /run/lock
exec </dev/null

supervise() {
    while :; do
        "$@"
        echo "$1 ended with status $?; starting it again" >&2
        sleep 1
    done
}

# tgtd keeps no state: tgt-admin reads its configuration into it, before anybody is let in.
serve_tgt() {
    mkdir -p /run/tgtd
    tgtd -f &
    echo $! >/run/tgtd/pid
    until tgtadm --mode sys --op update --name State --value offline 2>/dev/null; do
        kill -0 "$(cat /run/tgtd/pid)" || return 1
        sleep 0.05
    done
    tgt-admin -e
    tgtadm --mode sys --op update --name State --value ready
    cp /run/tgtd/pid /run/tgtd/serving
    wait "$(cat /run/tgtd/pid)"
}

# As on any host, before the servers start: pools keep their mounts there.
[ ! -e /etc/fstab ] || mount -a

# The bus by its usual address: busctl, gdbus and dbus-send find it without being told.
supervise dbus-daemon --config-file=/etc/dbus-1/system.conf --nofork --nopidfile --nosyslog &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
supervise ganesha.nfsd -F -C -L STDERR -f /etc/ganesha/ganesha.conf -p /run/ganesha/ganesha.pid &
if command -v tgtd >/dev/null; then supervise serve_tgt & fi
# As on any host without systemd: services that plug-ins put there.
for script in /etc/init.d/openqrm-*; do [ ! -x "$script" ] || "$script" start; done
supervise /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config &
while :; do wait; sleep 1; done
