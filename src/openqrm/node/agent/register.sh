# shellcheck shell=sh
# Register

register() { # until the controller takes us; sets RESOURCE_ID TOKEN NAME HEARTBEAT_SECONDS
	delay=1 refusals=0
	[ -f "$RUN/authorization" ] || use_token "${TOKEN:-none}"
	while :; do
		# shellcheck source=/dev/null
		[ -f "$RUN/registration.env" ] && . "$RUN/registration.env"
		[ "$refusals" -gt 0 ] || inventory >"$RUN/register.json"
		status=$(api -m 60 -H 'Content-Type: application/json' --data-binary "@$RUN/register.json" \
			-o "$RUN/answer" -w '%{http_code}' "$API/node/v1/register") 2>"$RUN/register.err"
		case $status in
		200)
			box mv "$RUN/answer" "$RUN/registration.env"
			# shellcheck source=/dev/null
			. "$RUN/registration.env"
			use_token "$TOKEN"
			# shellcheck disable=SC2153 # NAME comes with the answer
			log "registered as $NAME (resource $RESOURCE_ID)"
			return 0
			;;
		409)
			refusals=$((refusals + 1))
			refused
			continue
			;;
		*)
			first_line "$RUN/register.err"
			log "register: HTTP status ${status:-none}: $LINE"
			;;
		esac
		box sleep "$delay"
		delay=$((delay * 2 > 30 ? 30 : delay * 2))
	done
}

refused() { # waits before this machine asks again, with nothing from an image whose root may be gone
	first_line "$RUN/answer"
	log "refused, this machine stops here: $LINE"
	if [ "$STAGE" != image ]; then
		box sleep 60
	elif [ "$refusals" -ge 3 ]; then
		log "restarting at once: the storage of this image no longer serves it"
		restart_at_once
	else
		box sleep 15
	fi
}

restart_at_once() { # a clean shutdown would hang on a root that is gone
	echo b >/proc/sysrq-trigger
	box sleep 15 # not allowed here: ask again
}
