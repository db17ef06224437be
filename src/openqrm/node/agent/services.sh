# shellcheck shell=sh
# Boot services of started plug-ins

stop_service() { # NAME
	[ -d "$RUN/services/$1" ] || return 0
	[ -x "$RUN/services/$1/stop" ] && "$RUN/services/$1/stop"
	rm -rf "${RUN:?}/services/$1"
}

start_service() { # NAME VERSION SHA256
	place=$RUN/services/$1
	first_line "$place/.version"
	[ "$LINE" = "$2" ] && return 0
	stop_service "$1"
	mkdir -p "$place"
	fetch "$API/node/v1/services/$1.tar.gz" "$RUN/service.tar.gz" || return 1
	sum=$(box sha256sum "$RUN/service.tar.gz")
	[ "${sum%% *}" = "$3" ] || { log "service $1: checksum differs" && return 1; }
	box tar -xzf "$RUN/service.tar.gz" -C "$place" && rm -f "$RUN/service.tar.gz"
	(umask 022 && exec "$place/start" </dev/null >"$place/log" 2>&1) || return 1
	echo "$2" >"$place/.version"
}

update_services() { # starts what the list names, stops what it names no longer; false when one failed
	fetch "$API/node/v1/services" "$RUN/services.list" || return 1
	failed=0 wanted=' '
	while read -r name version sum; do
		case $name in '' | *[!A-Za-z0-9_.-]* | .*) continue ;; esac
		wanted="$wanted$name "
		start_service "$name" "$version" "$sum" 3<&- || failed=1
	done <"$RUN/services.list"
	for place in "$RUN"/services/*/; do
		[ -d "$place" ] || continue
		place=${place%/} && name=${place##*/}
		case $wanted in *" $name "*) ;; *) stop_service "$name" ;; esac
	done
	return $failed
}
