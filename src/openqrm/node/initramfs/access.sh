# shellcheck shell=sh
# Who gets in: the installation's SSH key. What lets the machine itself in: a boot ticket, if one was put beside us.

start_ssh_server() {
	mkdir -p /root/.ssh
	cp /run/openqrm/authorized_keys /root/.ssh/authorized_keys
	if [ ! -f /run/openqrm/ssh/host_key ]; then
		rt dropbearkey -t ed25519 -f /run/openqrm/ssh/host_key >/run/openqrm/ssh/made 2>/dev/null
		grep '^ssh-ed25519 ' /run/openqrm/ssh/made >/run/openqrm/ssh/host_key.pub
	fi
	: >/run/openqrm/ssh/serving
	(umask 022 && rt dropbear -s -r /run/openqrm/ssh/host_key -P /run/openqrm/ssh/pid 2>/dev/null)
}

take_ticket() { # read once, then gone
	TICKET=
	[ -f /etc/openqrm/ticket ] || return 0
	read -r TICKET </etc/openqrm/ticket
	rm -f /etc/openqrm/ticket
}
