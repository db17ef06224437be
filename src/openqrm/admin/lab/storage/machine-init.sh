#!/bin/busybox sh
# shellcheck shell=dash
# First stage of the storage machine, in its initramfs: drivers, the root disk, this lab's files, and on.
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do busybox insmod "/modules/$module"; done </modules/order
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
    busybox sleep 0.1
    tries=$((tries + 1))
done
busybox mount -t ext4 -o noatime /dev/vda /root || exec busybox sh
# A plug-in, or whoever logs in, may change files of ours later: those stay changed. What starts the machine is ours.
if [ ! -e /root/etc/openqrm-lab/seeded ]; then
    busybox cp -a /seed/. /root/
    : >/root/etc/openqrm-lab/seeded
fi
busybox cp -a /seed/etc/openqrm-lab/. /root/etc/openqrm-lab/
busybox cp -a /seed/root/.ssh/. /root/root/.ssh/
busybox mount -t tmpfs -o mode=755 tmpfs /run
for point in proc sys dev run; do busybox mount --move "/$point" "/root/$point"; done
exec busybox switch_root /root /etc/openqrm-lab/machine.sh
