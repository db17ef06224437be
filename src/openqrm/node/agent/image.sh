# shellcheck shell=sh
# Inside an image

ssh_listens() { # is port 22 (0016) in state LISTEN (0A)?
	for table in /proc/net/tcp /proc/net/tcp6; do
		[ -r "$table" ] || continue
		while read -r _ local _ state _; do
			case "$local $state" in *:0016\ 0A) return 0 ;; esac
		done <"$table"
	done
	return 1
}

start_ssh() { # an SSH server where the image has none; keys in memory, those of the initramfs
	rm -f "$RUN/ssh/serving"
	ssh_listens && return 0
	[ -f "$RUN/ssh/host_key" ] || return 0
	if [ ! -e /dev/pts/ptmx ]; then
		mkdir -p /dev/pts
		box mount -t devpts devpts /dev/pts 2>/dev/null
	fi
	: >"$RUN/ssh/serving"
	(umask 022 && rt dropbear -s -r "$RUN/ssh/host_key" -P "$RUN/ssh/pid" 3<&-) # its sessions inherit the umask
}

keep_leases() { # servers must not give our addresses away; the addresses stay as they are, whatever DHCP says
	for file in "$RUN"/net/*; do
		[ -f "$file" ] || continue
		# shellcheck source=/dev/null
		. "$file"
		case ${LEASE:-} in '' | -* | 4294967295) continue ;; esac # for ever
		# shellcheck disable=SC2153 # ADDRESS comes from the lease
		box udhcpc -i "${file##*/}" -r "$ADDRESS" -s "$RT/bin/true" -b -t 5 >/dev/null 2>&1 3<&- &
	done
}

run_start_scripts() { # what root-mount hooks left to be done in the image; the network or the root may hang on it
	for start_script in "$RUN"/start.d/*; do
		case $start_script in *.new) continue ;; esac
		[ -f "$start_script" ] || continue
		(umask 022 && box timeout 60 "$RT/bin/busybox" sh "$start_script" </dev/null) 3<&- || log "${start_script##*/}: failed"
	done
}

forget_unfinished_orders() { # an agent that died in the middle of one gets it again
	for slot in "$RUN"/orders/*/; do
		if [ -d "$slot" ] && [ ! -f "${slot}result" ]; then rm -rf "$slot"; fi
	done
}

perform() { # ID VERB
	case $2 in
	idle) return_to_idle "$1" ;;
	reboot | poweroff)
		finish "$1" 0 "$2 now"
		close_stream
		leave "$2"
		;;
	inventory) register && finish "$1" 0 "inventory sent" ;;
	services)
		if update_services; then finish "$1" 0 "services are up to date"; else finish "$1" 1 "a service failed"; fi
		;;
	deploy) finish "$1" 1 "this machine runs an image already" ;;
	*) finish "$1" 1 "unknown order $2" ;;
	esac
}

main() {
	# shellcheck source=/dev/null
	. "$RUN/boot.env"
	# shellcheck source=/dev/null
	[ -f "$RUN/identity.env" ] && . "$RUN/identity.env"
	umask 077
	rm -f "$RUN/leaving"
	run_start_scripts
	keep_leases
	mkdir -p "$RUN/orders" "$RUN/services"
	forget_unfinished_orders
	open_stream
	start_ssh
	register
	{ update_services || log "boot services: not all started"; } &
	serve
}

[ -n "${OPENQRM_LIBRARY:-}" ] || main "$@"
