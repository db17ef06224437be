# shellcheck shell=sh
# What is written into an image's root before it runs: modules, names, access, fstab, agent. Nothing secret.

prepare_image() { # ROOT
	umask 022
	for place in run dev proc sys tmp etc root; do [ -d "$1/$place" ] || mkdir -p "$1/$place"; done
	[ -e "$1${INIT:-/sbin/init}" ] || [ -L "$1${INIT:-/sbin/init}" ] || refuse "the image has no ${INIT:-/sbin/init}"
	IMAGE_MODULES=all
	# shellcheck source=/dev/null
	[ -f "$1/etc/openqrm/image.env" ] && . "$1/etc/openqrm/image.env"
	install_modules "$1"
	write_fstab "$1"
	use_local_swap "$1"
	set_root_password "$1"
	[ "${FIRST_BOOT:-0}" = 1 ] && reset_identity "$1"
	echo "$NAME" >"$1/etc/hostname"
	grep -q "[[:space:]]$NAME\$" "$1/etc/hosts" 2>/dev/null || echo "127.0.1.1 $NAME" >>"$1/etc/hosts"
	[ -s /etc/resolv.conf ] && [ ! -L "$1/etc/resolv.conf" ] && cat /etc/resolv.conf >"$1/etc/resolv.conf"
	authorize_key "$1"
	install_agent "$1"
}

install_modules() { # the whole tree, unless the image has it (the stamp says so) or wants only what runs here
	if [ "$IMAGE_MODULES" = loaded ]; then
		[ -d "$1$MODULES" ] && return 0
		mkdir -p "$1$MODULES" && cp -a "$MODULES/." "$1$MODULES/"
		return 0
	fi
	sum=$(sha256sum "$MODULES/modules.dep")
	first_line "$1$MODULES/openqrm-stamp"
	[ "$LINE" = "${sum%% *}" ] && return 0
	say "progress $ID 65 installing kernel modules"
	unpack_modules "$1/lib/modules/.openqrm" || {
		rm -rf "$1/lib/modules/.openqrm"
		refuse "the kernel modules could not be installed"
	}
	rm -rf "${1:?}$MODULES"
	mv "$1/lib/modules/.openqrm$MODULES" "$1$MODULES" || refuse "the kernel modules could not be put in place"
	rm -rf "$1/lib/modules/.openqrm"
	log "modules installed"
}

unpack_modules() { # DIRECTORY: beside the image's own until all of it has the checksum that was told over TLS
	rm -rf "$1" "$RUN/modules.pipe"
	mkdir -p "$1"
	mkfifo "$RUN/modules.pipe"
	box sha256sum <"$RUN/modules.pipe" >"$RUN/modules.sum" &
	summing=$!
	# What follows the archive's end is read too: it is part of the sum.
	box wget -q -O - "$MODULES_URL" | box tee "$RUN/modules.pipe" | { box tar -xzf - -C "$1" && : >"$1/.whole"; cat >/dev/null; }
	wait "$summing"
	first_line "$RUN/modules.sum"
	rm -f "$RUN/modules.pipe"
	[ -n "$MODULES_SHA256" ] && [ "${LINE%% *}" = "$MODULES_SHA256" ] && [ -f "$1/.whole" ] && return 0
	log "the modules have another checksum than ordered, or are not whole"
	return 1
}

write_fstab() {
	{
		printf '%s\n' "${FSTAB:-}"
		[ -f "$1/etc/fstab-static" ] && cat "$1/etc/fstab-static"
	} >"$1/etc/fstab"
}

set_root_password() {
	[ -n "${ROOT_PASSWORD_HASH:-}" ] && [ -f "$1/etc/shadow" ] || return 0
	while IFS= read -r line; do
		case $line in root:*) rest=${line#root:} && line="root:$ROOT_PASSWORD_HASH:${rest#*:}" ;; esac
		printf '%s\n' "$line"
	done <"$1/etc/shadow" >"$1/etc/shadow.openqrm"
	chmod 640 "$1/etc/shadow.openqrm"
	chown "$(stat -c %u:%g "$1/etc/shadow")" "$1/etc/shadow.openqrm"
	mv "$1/etc/shadow.openqrm" "$1/etc/shadow"
}

reset_identity() { # a clone is another machine: its own machine-id, its own SSH host keys
	read -r uuid </proc/sys/kernel/random/uuid
	echo "$uuid" | tr -d - >"$1/etc/machine-id"
	chmod 444 "$1/etc/machine-id"
	rm -f "$1/var/lib/dbus/machine-id" "$1"/etc/ssh/ssh_host_*_key*
	if [ -x "$1/usr/bin/ssh-keygen" ]; then
		mount --bind /dev "$1/dev" # it wants a /dev/null
		for kind in ed25519 ecdsa; do
			chroot "$1" /usr/bin/ssh-keygen -q -t "$kind" -N '' -C "$NAME" -f "/etc/ssh/ssh_host_${kind}_key" </dev/null
		done
		umount "$1/dev"
	fi
	for key in "$1"/etc/dropbear/dropbear_*_host_key; do
		[ -e "$key" ] || continue
		rm -f "$key"
		case $key in *ed25519*) rt dropbearkey -t ed25519 -f "$key" >/dev/null 2>&1 ;; esac
	done
}

authorize_key() {
	mkdir -p "$1/root/.ssh"
	chmod 700 "$1/root/.ssh"
	grep -qxF "$AUTHORIZED_KEY" "$1/root/.ssh/authorized_keys" 2>/dev/null ||
		echo "$AUTHORIZED_KEY" >>"$1/root/.ssh/authorized_keys"
	chmod 600 "$1/root/.ssh/authorized_keys"
}

install_agent() { # the agent, and whatever starts it in this kind of image
	mkdir -p "$1/usr/lib/openqrm"
	cp /run/openqrm/agent "$1/usr/lib/openqrm/agent"
	chmod 755 "$1/usr/lib/openqrm/agent"
	if [ -d "$1/etc/openqrm/boot.d" ]; then
		start_by_boot_directory "$1"
	elif [ -d "$1/etc/systemd/system" ]; then
		start_by_systemd "$1"
	else
		start_by_init_script "$1"
	fi
}

AGENT_COMMAND='/run/openqrm/rt/bin/busybox sh /usr/lib/openqrm/agent'

start_by_boot_directory() {
	printf '#!/bin/sh\n%s </dev/null >/dev/console 2>&1 &\n' "$AGENT_COMMAND" >"$1/etc/openqrm/boot.d/50-agent"
	chmod 755 "$1/etc/openqrm/boot.d/50-agent"
}

start_by_systemd() {
	mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
	cat >"$1/etc/systemd/system/openqrm-agent.service" <<-UNIT
		[Unit]
		Description=openQRM agent
		After=ssh.service sshd.service dropbear.service
		ConditionPathExists=/run/openqrm/boot.env

		[Service]
		ExecStart=$AGENT_COMMAND
		Restart=always
		RestartSec=2
		KillMode=process

		[Install]
		WantedBy=multi-user.target
	UNIT
	ln -sf ../openqrm-agent.service "$1/etc/systemd/system/multi-user.target.wants/openqrm-agent.service"
}

start_by_init_script() {
	mkdir -p "$1/etc/init.d"
	cat >"$1/etc/init.d/openqrm-agent" <<-SCRIPT
		#!/bin/sh
		### BEGIN INIT INFO
		# Provides: openqrm-agent
		# Required-Start: \$local_fs
		# Should-Start: sshd
		# Required-Stop:
		# Default-Start: 2 3 4 5
		# Default-Stop:
		# Short-Description: openQRM agent
		### END INIT INFO
		case \$1 in
		start) $AGENT_COMMAND </dev/null >/run/openqrm/agent.log 2>&1 & ;;
		esac
		exit 0
	SCRIPT
	chmod 755 "$1/etc/init.d/openqrm-agent"
	for level in 2 3 4 5; do
		[ -d "$1/etc/rc$level.d" ] && ln -sf ../init.d/openqrm-agent "$1/etc/rc$level.d/S99openqrm-agent"
	done
	[ -d "$1/etc/rc3.d" ] && return 0
	grep -q openqrm-agent "$1/etc/rc.local" 2>/dev/null && return 0
	[ -f "$1/etc/rc.local" ] || { echo '#!/bin/sh' >"$1/etc/rc.local" && chmod 755 "$1/etc/rc.local"; }
	sed -i '1a /etc/init.d/openqrm-agent start' "$1/etc/rc.local"
}
