# shellcheck shell=sh
# The stream

say() { # LINE: to the controller, if it listens just now; file descriptor 3 is the pipe to it
	[ -e "$RUN/connected" ] && echo "$*" >&3
	return 0
}

heartbeat() {
	memory
	now
	read -r load _ </proc/loadavg
	say "hb u=$NOW l=$load mt=$MEM_TOTAL ma=$MEM_AVAILABLE st=$SWAP_TOTAL sf=$SWAP_FREE c=$CPUS n=$NICS"
}

heartbeats() { # SECONDS: for as long as one connection lives; ends a connection on which nothing was heard
	while :; do
		heartbeat
		box sleep "$1"
		now
		first_line "$RUN/connected"
		if [ "$((NOW - ${LINE:-0}))" -gt "$SILENCE_S" ]; then
			first_line "$RUN/chunks.pid" && kill "$LINE"
		fi
	done
}

chunks() { # lines to an HTTP/1.1 request with a chunked body
	# shellcheck disable=SC3003,SC1003
	first_line "$RUN/authorization"
	printf 'POST /node/v1/stream HTTP/1.1\r\nHost: %s\r\n%s\r\n' "$1" "$LINE"
	printf 'Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n'
	while read -r line; do
		printf '%x\r\n%s\n\r\n' "$((${#line} + 1))" "$line"
	done
}

connection() { # HOST:PORT: standard input and output over TLS, both ways at once
	# Not curl: `curl -T .` spins on an idle input (100 % of a CPU, measured with 7.88), and -T - is not duplex.
	address=${1%:*}
	address=${address#[}
	address=${address%]}
	case $API in
	http://*) box nc "$address" "${1##*:}" ;;
	*)
		case $address in
		*:* | *[0-9].[0-9]*) set -- "$1" -verify_ip "$address" ;;
		*) set -- "$1" -verify_hostname "$address" -servername "$address" ;;
		esac
		rt openssl s_client -quiet -no_ign_eof -verify_quiet -verify_return_error -CAfile "$RUN/ca.pem" -connect "$@"
		;;
	esac
}

consume() { # the answer: headers and chunk framing are skipped by form, messages start with a word we know
	beats=
	read -r line || return 1
	case $line in
	*' 200 '*) ;;
	*' 401 '* | *' 403 '*) : >"$RUN/unauthorized" ;;
	*) log "stream: $line" ;;
	esac
	while read -r line; do
		line=${line%"$CR"}
		case $line in
		hello\ *)
			now && echo "$NOW" >"$RUN/connected"
			[ -n "$beats" ] && kill "$beats"
			heartbeats "${line#hello }" &
			beats=$!
			;;
		order\ *)
			now && echo "$NOW" >"$RUN/connected"
			line=${line#order }
			order "${line%% *}" "${line#* }"
			;;
		ping*)
			now && echo "$NOW" >"$RUN/connected"
			heartbeat
			;;
		esac
	done
	[ -n "$beats" ] && kill "$beats"
}

stream() { # one connection, until it ends
	box rm -f "$RUN/tx" "$RUN/connected" "$RUN/unauthorized"
	box mkfifo "$RUN/tx"
	authority=${API#*://}
	chunks "$authority" <&3 >"$RUN/tx" &
	writer=$!
	echo "$writer" >"$RUN/chunks.pid"
	connection "$authority" <"$RUN/tx" 2>"$RUN/stream.err" | consume
	box rm -f "$RUN/connected"
	kill "$writer" 2>/dev/null
	wait "$writer" 2>/dev/null
}

serve() { # keeps a stream open for ever; a controller that is away changes nothing here
	delay=1
	while [ ! -e "$RUN/leaving" ]; do
		now && began=$NOW
		stream
		now
		reason=$(box tail -n 1 "$RUN/stream.err" 2>/dev/null)
		log "stream ended after $((NOW - began)) s: $reason"
		[ "$((NOW - began))" -gt 30 ] && delay=1
		if [ -e "$RUN/unauthorized" ]; then register; fi
		box sleep "$delay"
		delay=$((delay * 2 > 30 ? 30 : delay * 2))
	done
}

open_stream() { # makes the pipe that everything said to the controller goes through
	rm -f "$RUN/up" "$RUN/connected"
	mkfifo -m 600 "$RUN/up"
	exec 3<>"$RUN/up"
}

close_stream() { # properly, before this system ends: a half-open one would look like a second machine of this MAC
	box sleep 0.2 2>/dev/null || box sleep 1 # what was said last goes first
	: >"$RUN/leaving"
	first_line "$RUN/chunks.pid"
	[ -n "$LINE" ] && kill "$LINE" 2>/dev/null
	box sleep 0.2 2>/dev/null || box sleep 1
}
