# shellcheck shell=sh
# Local swap: found by its signature, used at once, and written to the image's fstab.

swap_devices() { # prints every local partition or disk with a swap signature
	while read -r _ _ blocks name; do
		case $name in '' | name | ram* | loop* | zram* | sr* | fd*) continue ;; esac
		[ "$blocks" -gt 4 ] || continue
		# mkswap(8) ends the first page with SWAPSPACE2
		page=$(dd if="/dev/$name" bs=4096 count=1 2>/dev/null | tail -c 10 | tr -d '\000')
		[ "$page" = SWAPSPACE2 ] && echo "/dev/$name"
	done </proc/partitions
}

use_local_swap() { # ROOT: adds lines to its fstab
	for device in $(swap_devices); do
		swapon "$device" 2>/dev/null || continue
		echo "$device none swap sw 0 0" >>"$1/etc/fstab"
		log "swap on $device"
	done
}

leave_local_swap() {
	for device in $(swap_devices); do swapoff "$device" 2>/dev/null; done
}
