# shellcheck shell=sh
# Block devices as roots: what is on them, whether it may be mounted, and the file system of an empty one.

DEVICE_SECONDS=30

mount_block() { # DEVICE (or UUID=, LABEL=, PARTUUID=, PARTLABEL=) DIR: mounts what file system is there, read-only with ROOT_READ_ONLY=1; ROOT_FS if it must be one
	await_device "$1" || refuse "this machine has no device $1"
	set -- "$DEVICE_NODE" "$2"
	file_system "$1"
	if [ -z "$FOUND" ] && [ "${FILLING:-0}" = 1 ]; then
		make_file_system "$1"
		FOUND=ext4
	fi
	[ -n "$FOUND" ] || refuse "there is no file system on $1, and nothing to fill it with"
	[ "${ROOT_FS:-$FOUND}" = "$FOUND" ] || refuse "the file system of $1 is $FOUND, not $ROOT_FS"
	grep -qw "$FOUND" /proc/filesystems || need_modules "$FOUND" || log "this kernel has no module $FOUND"
	access=rw
	[ "${ROOT_READ_ONLY:-0}" = 1 ] && access=ro
	[ "$FOUND" = ext4 ] && check_ext4 "$1"
	mount -t "$FOUND" -o "$access" "$1" "$2" || refuse "$1 ($FOUND) cannot be mounted"
}

is_device() { # PATH
	[ -b "$1" ]
}

await_device() { # DEVICE: sets DEVICE_NODE; it comes when the driver has seen it
	case $1 in /*) ;; *) need_programs blkid ;; esac
	tries=0
	while :; do
		DEVICE_NODE=$1
		# busybox' findfs knows no partition by what the table says of it.
		case $1 in /*) ;; *) DEVICE_NODE=$(rt blkid -c /dev/null -l -o device -t "$1") ;; esac
		is_device "$DEVICE_NODE" && return 0
		[ "$tries" -lt "$((DEVICE_SECONDS * 5))" ] || return 1
		tries=$((tries + 1))
		sleep 0.2
	done
}

bytes_at() { # FILE OFFSET COUNT: sets BYTES to them in hexadecimal
	BYTES=$(dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null | hexdump -v -e '1/1 "%02x"')
}

file_system() { # DEVICE: sets FOUND to its type, empty when nothing is there at all; refuses what is no file system
	FOUND=
	bytes_at "$1" 1080 2
	[ "$BYTES" = 53ef ] && FOUND=ext4 && return 0 # its driver mounts ext2 and ext3 too
	bytes_at "$1" 0 4
	[ "$BYTES" = 58465342 ] && FOUND=xfs && return 0
	bytes_at "$1" 65600 8
	[ "$BYTES" = 5f42485266535f4d ] && FOUND=btrfs && return 0
	[ -n "$BYTES" ] || bytes_at "$1" 0 1
	[ -n "$BYTES" ] || refuse "$1 cannot be read"
	# Whatever else may lie there (partitions, a volume group, a RAID, swap) is somebody's.
	need_programs blkid
	probed=$(rt blkid -p -o export "$1" 2>/dev/null)
	case $? in
	0 | 2) ;; # of a partition that is empty it tells what the partition table says of it, and nothing else
	*) refuse "$1 cannot be probed, or holds more than one thing" ;;
	esac
	probed=$(printf '%s\n' "$probed" | sed -n 's/^\(PT\)\?TYPE=//p' | tr '\n' ' ')
	[ -z "$probed" ] ||
		refuse "$1 holds no file system that we know, but something else (${probed% }); if it is not needed, zero its first 4096 bytes and wipe it (wipefs -a)"
	# What no program knows may still be somebody's; whoever makes an empty volume zeroes its start.
	first=$(dd if="$1" bs=4096 count=1 2>/dev/null | tr -d '\000' | wc -c)
	[ "$first" -eq 0 ] || refuse "$1 holds data of a kind that we do not know; if it is not needed, zero its first 4096 bytes"
}

make_file_system() { # DEVICE: only after file_system has found nothing
	need_programs mke2fs
	log "$1 is empty: making an ext4 file system"
	rt mke2fs -q -F -t ext4 -m 1 -E lazy_itable_init=1,lazy_journal_init=1 "$1" </dev/null ||
		refuse "no file system could be made on $1"
}

check_ext4() { # DEVICE: when it was left with errors, or in use without a journal; a journal is replayed by mounting it
	bytes_at "$1" 1082 1
	case $BYTES in *1 | *5 | *9 | *d) return 0 ;; esac # valid, and no errors
	need_programs e2fsck
	log "checking the file system of $1"
	rt e2fsck -p "$1" >"$RUN/e2fsck.log" 2>&1 </dev/null
	[ $? -lt 4 ] && return 0
	refuse "the file system of $1 needs a repair by hand (e2fsck): $(tail -n 1 "$RUN/e2fsck.log")"
}
