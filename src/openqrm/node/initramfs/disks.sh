# shellcheck shell=sh
# Whole disks: an image that is written to the machine's own disks, or taken from them. The hook of such a deployment type
# defines deploy_disks and grab_disks, for the directory in which the image lies (the set STORE_).

STORE_MNT=/store-mnt

use_disks() { # FUNCTION of the hook, read|use
	mount_set STORE_ "$STORE_MNT" "$2" || exit 1
	fetch_hook ''
	# shellcheck source=/dev/null
	. "$RUN/root-mount"
	"$1" "$STORE_MNT" || refuse "$1 failed ($DEPLOYMENT)"
	sync
	leave_set STORE_ "$STORE_MNT" || refuse "the image is still in use, so it may not be whole"
}

write_disks() { # of a deployment: the machine restarts from them
	[ -z "${STORAGE_NIC:-}" ] || bring_up_storage_nic "$STORAGE_NIC"
	use_disks deploy_disks read
}

grab() { # ID
	begin_order "$1"
	(perform_grab) </dev/null 2>&1 4<&- | tee /run/openqrm/deploy.log
	end_order STORE_ "$STORE_MNT"
}

perform_grab() {
	fetch_order disks
	use_disks grab_disks use
	echo "the disks are in the image" >"$RUN/order.result"
}
