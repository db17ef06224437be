#!/bin/sh
# The openQRM agent. It runs on every machine that the controller looks after, in any image: it registers, keeps one
# full-duplex stream (heartbeats up, orders down) and carries out orders. See docs/explanation/node-protocol.md.
#
# The initramfs sources this file as its library (OPENQRM_LIBRARY set) and brings its own `perform`.
# What it knows lies in $RUN: boot.env (API, BOOT, MAC, KERNEL), identity.env (TOKEN, GENERATION, RETURN), ca.pem, and
# the runtime `rt` with curl, openssl, dropbear and kexec; without a runtime the system's own programs are used.

RUN=${OPENQRM_RUN:-/run/openqrm}
RT=$RUN/rt
STAGE=${STAGE:-image}
CR=$(printf '\r')
SILENCE_S=150 # the controller says something every 60 s; after this long the connection is taken for dead
export LC_ALL=C

now() { # sets NOW to whole seconds since boot
	read -r NOW _ </proc/uptime
	UPTIME=$NOW
	NOW=${NOW%.*}
}

log() {
	now
	echo "openqrm [$UPTIME] $*" >&2
}

rt() { # PROGRAM ARGS…: from the runtime if this machine has one; the image's own libraries are never mixed in
	program=$1
	shift
	if [ -x "$RT/libexec/$program" ]; then
		OPENSSL_CONF=/dev/null "$RT/lib/ld.so" --library-path "$RT/lib" "$RT/libexec/$program" "$@"
	elif [ -x "$RT/programs/$program/lib/ld.so" ]; then
		"$RT/programs/$program/lib/ld.so" --library-path "$RT/programs/$program/lib" "$RT/programs/$program/$program" "$@"
	elif [ -x "$RT/programs/$program/$program" ]; then
		"$RT/programs/$program/$program" "$@"
	else
		"$program" "$@"
	fi
}

box() { # APPLET ARGS…: busybox's own, or the system's program of that name
	if [ -x "$RT/bin/busybox" ]; then "$RT/bin/busybox" "$@"; else "$@"; fi
}

api() { # curl on the node API, with our CA and this machine's token, which no command line shows
	rt curl -sS --connect-timeout 10 --cacert "$RUN/ca.pem" -H "@$RUN/authorization" "$@"
}

use_token() { # TOKEN: from now on, also in the processes that run already
	(umask 077 && echo "Authorization: Bearer $1" >"$RUN/authorization.new")
	box mv "$RUN/authorization.new" "$RUN/authorization"
}

fetch() { # URL FILE: whole or not at all; after a refusal by the API, FILE.part holds what it said
	waited=0
	until fetch_once "$1" "$2"; do
		# A controller that is away or busy is waited for as long as FETCH_SECONDS says; a refusal is an answer.
		[ "$waited" -lt "${FETCH_SECONDS:-0}" ] || return 1
		grep -qs '"status": *4' "$2.part" && return 1
		grep -qs 'HTTP/1[.][01] 4' "$2.said" && return 1
		box sleep 2
		waited=$((waited + 2))
	done
}

checked() { # FILE SHA256: false, and the file is gone, when it is another one than the controller told us over TLS
	sum=$(box sha256sum "$1")
	[ -n "$2" ] && [ "${sum%% *}" = "$2" ] && return 0
	log "${1##*/} has another checksum than the controller says"
	rm -f "$1"
	return 1
}

fetch_ticket() { # FILE: for the boot that we make ourselves; empty when the controller awaits none
	fetch "$API/node/v1/ticket" "$1" && return 0
	grep -qs '"status": *404' "$1.part" && : >"$1"
}

fetch_once() { # URL FILE; FILE.said holds what a plain download said
	rm -f "$2.part" "$2.said"
	case $1 in
	"${API:-none}"/*) api --fail-with-body -o "$2.part" "$1" ;;
	http://*) box timeout 300 wget -q -O "$2.part" "$1" 2>"$2.said" ;;
	*) rt curl -sSf --cacert "$RUN/ca.pem" -o "$2.part" "$1" ;;
	esac && mv "$2.part" "$2" && rm -f "$2.said"
}
