# shellcheck shell=sh
# Waiting for orders. The stream runs beside the first process; what only the first process can do is handed to it.

perform() { # ID VERB
	case $2 in
	deploy | reboot | poweroff) echo "$2 $1" >/run/openqrm/first ;;
	idle) finish "$1" 0 "idle already" ;;
	inventory) register && finish "$1" 0 "inventory sent" ;;
	*) finish "$1" 1 "the initramfs does not know the order $2" ;;
	esac
}

wait_for_orders() {
	open_stream
	mkfifo -m 600 /run/openqrm/first
	exec 4<>/run/openqrm/first
	serve 4<&- &
	log "idle"
	while read -r verb id <&4; do
		case $verb in
		deploy) deploy "$id" ;;
		reboot | poweroff)
			finish "$id" 0 "$verb now"
			close_stream
			sync
			"$verb" -f
			;;
		esac
	done
}
