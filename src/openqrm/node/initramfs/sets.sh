# shellcheck shell=sh
# Mount sets: what is mounted beside or in place of the root. Assignments whose names begin with a prefix (FROM_, TO_,
# STORE_) say how: a root-mount hook with its ROOT_* values, or a local DEVICE.

ASSIGNMENTS=/run/openqrm/deployment.env

of_set() { # PREFIX NAME: sets VALUE
	eval "VALUE=\${$1$2:-}"
}

has_set() { # PREFIX
	of_set "$1" DEVICE
	[ -n "$VALUE" ] || of_set "$1" DEPLOYMENT
	[ -n "$VALUE" ]
}

fetch_hook() { # PREFIX: as the controller told over TLS
	of_set "$1" HOOK_URL
	fetch "$VALUE" "$RUN/${1}root-mount" || refuse "the root-mount hook could not be fetched"
	of_set "$1" HOOK_SHA256
	checked "$RUN/${1}root-mount" "$VALUE" || refuse "the root-mount hook has another checksum than ordered"
}

enter_set() { # PREFIX, in a subshell: ROOT_* and the hook's functions become those of the set
	if [ -n "$1" ]; then
		# shellcheck disable=SC2013
		for name in $(sed -n 's/^\(ROOT_[A-Z0-9_]*\)=.*/\1/p' "$ASSIGNMENTS"); do unset "$name"; done
		# shellcheck disable=SC2013
		for name in $(sed -n "s/^$1\(ROOT_[A-Z0-9_]*\)=.*/\1/p" "$ASSIGNMENTS"); do eval "$name=\$$1$name"; done
		of_set "$1" DEVICE
		DEVICE=$VALUE
	fi
	unset -f mount_root unmount_root
	if [ -n "$1" ] && [ -n "${DEVICE:-}" ]; then
		mount_root() { mount_block "$DEVICE" "$1"; }
	else
		# shellcheck source=/dev/null
		. "$RUN/${1}root-mount"
	fi
}

mount_set() { # PREFIX DIR read|fill|use: the text of a refusal is left in deploy.error
	mkdir -p "$2"
	(
		# Only what serves the root outlives this system.
		# shellcheck disable=SC2030
		KEPT=$RUN/${1}kept START_SCRIPTS=$RUN/${1}start.d ROOT_READ_ONLY=0 FILLING=0
		case $3 in
		read) ROOT_READ_ONLY=1 ;;
		fill) FILLING=1 ;;
		esac
		of_set "$1" DEVICE
		[ -n "$VALUE" ] || fetch_hook "$1"
		enter_set "$1"
		of_set "$1" DEPLOYMENT
		mount_root "$2" || refuse "${DEVICE:-what lies beside the root, $1$VALUE,} could not be mounted"
	) || return 1
	[ "$3" != read ] || mount -o remount,ro "$2" || log "$2 could not be made read-only"
	log "${1%_} mounted"
}

leave_set() { # PREFIX DIR: unmount it and let its hook end what it has begun; false when it stays mounted
	unmount_below "$2" || return 1
	if [ -f "$RUN/${1}root-mount" ] && [ -f "$ASSIGNMENTS" ]; then
		(
			# shellcheck source=/dev/null
			. "$ASSIGNMENTS"
			enter_set "$1"
			! command -v unmount_root >/dev/null || unmount_root "$2"
		) </dev/null || log "unmount_root: failed"
	fi
	end_kept "$RUN/${1}kept"
	rm -rf "$RUN/${1}root-mount" "$RUN/${1}start.d"
}

unmount_below() { # DIR: false when something stays mounted; never lazily: what is only hidden is still written to
	for try in 1 2 3; do
		mounted_below "$1" | sort -r | while read -r place; do timeout 30 umount "$place" 2>/dev/null; done
		[ -z "$(mounted_below "$1")" ] && return 0
		log "$1 is still in use ($try)"
		sleep 1
	done
	return 1
}

mounted_below() { # DIR
	while read -r _ place _; do
		case $place in "$1" | "$1"/*) echo "$place" ;; esac
	done </proc/mounts
}
