#!/bin/sh
# First stage of the lab's storage host. Runs as process 1 of new mount, pid, UTS and IPC namespaces, in the storage host's
# network namespace. Gives it a root of its own, made of this machine's /usr (read-only) and the lab's files, so that
# nothing that is done on the storage host touches this machine.
# Usage: enter.sh STATE_DIRECTORY POOL_TYPE   (btrfs, xfs or directory)
set -eu
state=$1 pool=$2
root=$state/root

mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root/usr" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/srv/openqrm" "$root/.old"
mount --rbind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
for dir in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$dir" ]; then
        [ -L "$root/$dir" ] || ln -s "$(readlink "/$dir")" "$root/$dir"
    elif [ -d "/$dir" ]; then
        mkdir -p "$root/$dir"
        mount --bind "/$dir" "$root/$dir"
        mount -o remount,bind,ro "$root/$dir"
    fi
done
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Before the NFS server starts: it exports only file systems that it saw then. The loop device goes with the mount.
[ "$pool" = directory ] || mount -o loop -t "$pool" "$state/pool.img" "$root/srv/openqrm"
hostname storage
cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old
exec /bin/sh /etc/openqrm-lab/init.sh
