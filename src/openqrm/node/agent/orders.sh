# shellcheck shell=sh
# Orders: sent until done, so each is remembered and acts once

order() { # ID VERB
	case $1 in '' | *[!A-Za-z0-9_-]*) return 0 ;; esac
	slot=$RUN/orders/$1
	if [ -f "$slot/result" ]; then
		first_line "$slot/result"
		say "done $1 $LINE"
		return 0
	fi
	say "ack $1"
	[ -d "$slot" ] && return 0
	mkdir -p "$slot"
	echo "$2" >"$slot/verb"
	log "order $1: $2"
	perform "$1" "$2" &
}

finish() { # ID STATUS TEXT
	echo "$2 $3" >"$RUN/orders/$1/result"
	log "order $1 done: $2 $3"
	say "done $1 $2 $3"
}
