# shellcheck shell=sh
# Transfers: one file tree is made equal to another, contents, owners, modes, times, links, holes, ACLs and extended
# attributes. A target that is half done carries a marker; such an image never runs, and a repetition completes it.

FROM_MNT=/from-mnt
TO_MNT=/to-mnt
MARKER=.openqrm-transfer

transfer() { # ID
	begin_order "$1"
	(perform_transfer) </dev/null 2>&1 4<&- | tee /run/openqrm/deploy.log
	end_order FROM_ "$FROM_MNT" TO_ "$TO_MNT"
}

begin_order() { # ID: something is copied with nothing booted
	ID=$1
	ASSIGNMENTS=/run/openqrm/transfer.env
	rm -f /run/openqrm/deploy.error "$RUN/order.result"
	say "progress $ID 1 fetching the transfer"
}

fetch_order() { # transfer|disks, in a subshell, so that refuse and a hook's own exit end it and not the machine
	FETCH_SECONDS=300
	if ! fetch "$API/node/v1/$1/$ID" "$ASSIGNMENTS"; then
		answered "$ASSIGNMENTS"
		refuse "nothing to be had for this order: $ANSWER"
	fi
	# shellcheck source=/dev/null
	. "$ASSIGNMENTS"
	[ -z "${STORAGE_NIC:-}" ] || bring_up_storage_nic "$STORAGE_NIC"
}

end_order() { # PREFIX DIR …: unmounts these sets, and reports
	undone=1
	while [ "$#" -gt 0 ]; do
		leave_set "$1" "$2" || undone=0
		shift 2
	done
	rm -f "$ASSIGNMENTS" "$RUN/root-mount"
	ASSIGNMENTS=/run/openqrm/deployment.env
	result=1
	first_line /run/openqrm/deploy.error
	[ -n "$LINE" ] || LINE=$(tail -n 1 /run/openqrm/deploy.log)
	if [ -f "$RUN/order.result" ]; then
		result=0
		first_line "$RUN/order.result"
	fi
	[ "$undone" = 1 ] || restart_unclean "$LINE"
	finish "$ID" "$result" "$LINE"
}

perform_transfer() {
	fetch_order transfer
	has_set FROM_ || refuse "the transfer has no source"
	has_set TO_ || refuse "the transfer has no target"
	mount_set FROM_ "$FROM_MNT" read || exit 1
	mount_set TO_ "$TO_MNT" fill || exit 1
	copy_tree "$FROM_MNT" "$TO_MNT" 5 95
	unmount_below "$TO_MNT" || refuse "the target is still in use, so it may not be whole"
	echo "$COPIED" >"$RUN/order.result"
}

fill_root() { # ROOT: what the deployment is filled from, before anything else is done to the root
	mount_set FROM_ "$FROM_MNT" read || exit 1
	copy_tree "$FROM_MNT" "$1" 20 60
	leave_set FROM_ "$FROM_MNT" || refuse "the source is still in use"
}

copy_root_out() { # ROOT: to where the deployment is transferred, before this machine changes it
	mount_set TO_ "$TO_MNT" fill || exit 1
	copy_tree "$1" "$TO_MNT" 20 60
	leave_set TO_ "$TO_MNT" || refuse "the target is still in use, so it may not be whole"
}

refuse_half_done() { # ROOT: an image that a transfer was not finished into
	[ ! -e "$1/$MARKER" ] || refuse "the image is the half-done target of a transfer: repeat the transfer to complete it"
}

copy_tree() { # SOURCE TARGET PERCENT_AT_START PERCENT_AT_END: sets COPIED to a text
	refuse_half_done "$1"
	[ -n "$(ls -A "$1")" ] || refuse "the source is empty"
	need_programs rsync
	begin_copy "$1" "$2"
	SOURCE_KEEPS=1 TARGET_KEEPS=1
	keeps_attributes "$1" || SOURCE_KEEPS=0
	keeps_attributes "$2" || TARGET_KEEPS=0
	log "copying ${HOW:-by size and time}, attributes $SOURCE_KEEPS to $TARGET_KEEPS"
	for copy_try in 1 2 3; do
		run_rsync "$@"
		[ "$STATUS" = 24 ] || break # files vanished meanwhile: somebody writes to the source; perhaps it was a last word
		log "the source changed meanwhile ($copy_try)"
	done
	[ "$STATUS" = 0 ] || refuse "copying failed (rsync $STATUS): $(sed -n '/./{p;q;}' "$RUN/rsync.errors")"
	copy_attributes "$1" "$2"
	sync
	rm -f "${2:?}/$MARKER"
	touch -r "$1" "$2" # the marker has changed the root's own time
	sync
	now
	COPIED="copied ${BYTES_COPIED:-0} bytes in $((NOW - BEGAN)) s"
	log "$COPIED"
}

begin_copy() { # SOURCE TARGET: marks the target; sets HOW to --checksum where equal size and time prove nothing
	now && BEGAN=$NOW
	HOW=
	source_id=$(sed -n 's/^FROM_\(ROOT_[A-Z]*\|DEVICE\)=/\1=/p' "$ASSIGNMENTS" | sha256sum)
	if [ -e "$2/$MARKER" ]; then
		read -r marked_by marked_source marked_how <"$2/$MARKER"
		log "the target was half done by transfer ${marked_by:-of long ago}: going on with it"
		# What was copied from this very source is known by size and time; what was there before is not.
		[ "${marked_source:-} ${marked_how:-}" = "${source_id%% *} new" ] || HOW=--checksum
	else
		for entry in "$2"/* "$2"/.[!.]*; do
			case ${entry##*/} in '*' | '.[!.]*' | lost+found) ;; *) HOW=--checksum ;; esac
		done
	fi
	how=new
	[ -z "$HOW" ] || how=over
	rm -f "$2/$MARKER.new" # a link would be written through
	echo "$ID ${source_id%% *} $how" >"$2/$MARKER.new" || refuse "the target cannot be written to"
	sync
	mv "$2/$MARKER.new" "$2/$MARKER" || refuse "the target cannot be marked"
	sync
}

run_rsync() { # SOURCE TARGET PERCENT_AT_START PERCENT_AT_END: sets STATUS
	rm -f "$RUN/rsync.status" "$RUN/rsync.bytes"
	rsync_tree "$1/" "$2/" </dev/null 2>"$RUN/rsync.errors" | tr '\r' '\n' | report_progress "$3" "$4"
	first_line "$RUN/rsync.status"
	STATUS=${LINE:-1}
	first_line "$RUN/rsync.bytes"
	BYTES_COPIED=$LINE
}

rsync_tree() { # SOURCE TARGET
	if [ "$TARGET_KEEPS" = 1 ]; then
		set -- -AX "$@"
		# tmpfs keeps no attributes of users (before Linux 6.6). With one such rule all have to be told.
		[ "$TYPE" != tmpfs ] || set -- '--filter=-x user.*' '--filter=-x system.*' "$@"
	fi
	for place in proc sys dev run tmp; do set -- "--filter=H /$place/*" "$@"; done
	for place in "$MARKER" "$ATTRIBUTES" lost+found; do set -- "--filter=H /$place" "--filter=P /$place" "$@"; done
	[ -z "$HOW" ] || set -- "$HOW" "$@"
	# Not in place: an interrupted file must not look like a whole one, and links must not write into each other.
	rt rsync -aHS --numeric-ids --delete --delete-excluded --one-file-system --info=progress2 "$@"
	echo $? >"$RUN/rsync.status"
}

report_progress() { # FROM_PERCENT TO_PERCENT: rsync's lines (bytes, percent, rate, time left, files) for the controller
	told=-1
	now && told_at=$NOW
	while read -r bytes percent rate left rest; do
		case $percent in [0-9]*%) ;; *) continue ;; esac
		echo "$bytes" >"$RUN/rsync.bytes"
		percent=${percent%\%}
		# While rsync still looks for files its percentage is of those it has found.
		case $rest in *ir-chk*) percent=$((percent / 2)) ;; esac
		now
		[ "$percent" -gt "$told" ] || [ "$((NOW - told_at))" -ge 10 ] || continue
		[ "$percent" -lt "$told" ] || told=$percent
		told_at=$NOW
		say "progress $ID $(($1 + told * ($2 - $1) / 100)) copied $bytes bytes, $rate, $left left"
	done
}
