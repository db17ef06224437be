# shellcheck shell=sh
# Register

register() { # until the controller takes us; sets RESOURCE_ID TOKEN NAME HEARTBEAT_SECONDS
	delay=1
	[ -f "$RUN/authorization" ] || use_token "${TOKEN:-none}"
	while :; do
		# shellcheck source=/dev/null
		[ -f "$RUN/registration.env" ] && . "$RUN/registration.env"
		inventory >"$RUN/register.json"
		status=$(api -m 60 -H 'Content-Type: application/json' --data-binary "@$RUN/register.json" \
			-o "$RUN/answer" -w '%{http_code}' "$API/node/v1/register") 2>"$RUN/register.err"
		case $status in
		200)
			mv "$RUN/answer" "$RUN/registration.env"
			# shellcheck source=/dev/null
			. "$RUN/registration.env"
			use_token "$TOKEN"
			# shellcheck disable=SC2153 # NAME comes with the answer
			log "registered as $NAME (resource $RESOURCE_ID)"
			return 0
			;;
		409)
			log "refused, this machine stops here: $(cat "$RUN/answer")"
			while :; do sleep 3600; done
			;;
		*) log "register: HTTP status ${status:-none}: $(cat "$RUN/register.err")" ;;
		esac
		sleep "$delay"
		delay=$((delay * 2 > 30 ? 30 : delay * 2))
	done
}
