# shellcheck shell=sh
# Waiting for orders. The stream runs beside the first process; what only the first process can do is handed to it.

perform() { # ID VERB
	case $2 in
	deploy | grab | idle | transfer) echo "$2 $1" >/run/openqrm/first ;;
	reboot | poweroff) # not by the first process: it may hang in a deployment whose storage is gone
		finish "$1" 0 "$2 now"
		close_stream
		timeout 5 sync
		"$2" -f -n
		;;
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
		# In order: idle after a deployment that is under way is an order to the image, which then gets it again.
		case $verb in
		deploy) deploy "$id" ;;
		transfer) transfer "$id" ;;
		grab) grab "$id" ;;
		idle) finish "$id" 0 "idle already" ;;
		esac
	done
}
