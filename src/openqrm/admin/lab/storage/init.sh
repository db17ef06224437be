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

# As on any host, before the servers start: pools keep their mounts there.
[ ! -e /etc/fstab ] || mount -a

# The bus by its usual address: busctl, gdbus and dbus-send find it without being told.
supervise dbus-daemon --config-file=/etc/dbus-1/system.conf --nofork --nopidfile --nosyslog &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
supervise ganesha.nfsd -F -C -L STDERR -f /etc/ganesha/ganesha.conf -p /run/ganesha/ganesha.pid &
supervise /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config &
while :; do wait; sleep 1; done
