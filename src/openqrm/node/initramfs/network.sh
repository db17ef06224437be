# shellcheck shell=sh
# The boot NIC, its address, the machine's own name, and the clock.

nic_with_mac() { # MAC: sets NIC, false if there is none
	for NIC in /sys/class/net/*; do
		read -r found <"$NIC/address"
		NIC=${NIC##*/}
		[ "$found" = "$1" ] && return 0
	done
	return 1
}

has_link() { # NIC: with its interface up, for as long as a switch may take to see it
	ip link set dev "$1" up
	tries=0
	while [ "$tries" -lt "${2:-50}" ]; do
		first_line "/sys/class/net/$1/carrier"
		[ "$LINE" = 1 ] && return 0
		sleep 0.1
		tries=$((tries + 1))
	done
	return 1
}

first_nic_with_link() { # sets NIC
	for candidate in /sys/class/net/*; do
		[ -e "$candidate/device" ] && ip link set dev "${candidate##*/}" up
	done
	for candidate in /sys/class/net/*; do
		NIC=${candidate##*/}
		[ -e "$candidate/device" ] && has_link "$NIC" 20 && return 0
	done
	return 1
}

set_unique_name() { # NFSv4 takes two clients of one name for one client, so the name comes before any mount
	digits=$MAC
	name=node-
	while [ -n "$digits" ]; do
		name=$name${digits%%:*}
		case $digits in *:*) digits=${digits#*:} ;; *) digits= ;; esac
	done
	echo "$name" >/proc/sys/kernel/hostname
}

lease() { # NIC ROLE: an address by DHCP, for as long as it takes $3 attempts (default: five)
	# shellcheck source=/dev/null
	ROLE=$2 udhcpc -i "$1" -f -q -n -t "${3:-5}" -T 1 -s /lib/openqrm/dhcp >/dev/null 2>&1 &&
		[ -s "/run/openqrm/net/$1" ] && . "/run/openqrm/net/$1"
}

bring_up_boot_nic() { # sets BOOT_NIC LENT LENT_PREFIX MAC; tries until there is a network
	ip link set dev lo up
	while :; do
		if [ -n "$MAC" ]; then nic_with_mac "$MAC"; else first_nic_with_link; fi && {
			read -r MAC <"/sys/class/net/$NIC/address"
			set_unique_name
			has_link "$NIC" && lease "$NIC" boot && break
		}
		log "no network on ${MAC:-any NIC} yet"
		sleep 1
		load_hardware
	done
	BOOT_NIC=$NIC LENT=$ADDRESS LENT_PREFIX=${PREFIX:-24}
	printf "API='%s'\nBOOT='%s'\nMAC='%s'\nKERNEL='%s'\nBOOT_NIC='%s'\n" \
		"$API" "$BOOT" "$MAC" "$KERNEL" "$BOOT_NIC" >/run/openqrm/boot.env
	set_clock
}

carry_address() { # the address that the controller gave us, in place of the one that DHCP lent: storages know us by it
	[ -n "${ADDRESS:-}" ] && [ "$ADDRESS" != "$LENT" ] || return 0
	# Without this the kernel drops every other address of the network together with the first one.
	echo 1 >"/proc/sys/net/ipv4/conf/$BOOT_NIC/promote_secondaries"
	ip addr add "$ADDRESS/${PREFIX:-24}" broadcast + dev "$BOOT_NIC" || return 0
	ip addr del "$LENT/$LENT_PREFIX" dev "$BOOT_NIC"
	sed -i "s|^ADDRESS=.*|ADDRESS='$ADDRESS'|" "/run/openqrm/net/$BOOT_NIC"
	log "address $ADDRESS in place of $LENT"
	LENT=$ADDRESS LENT_PREFIX=${PREFIX:-24}
}

bring_up_storage_nic() { # MAC
	nic_with_mac "$1" || refuse "this machine has no storage NIC $1 (or no driver for it)"
	has_link "$NIC" || refuse "the storage NIC $1 has no link"
	lease "$NIC" storage || refuse "the storage NIC $1 got no address"
	log "storage network: $NIC $ADDRESS"
}

set_clock() { # from the boot listener's Date header, since a certificate is not valid in 1970
	date_line=$(timeout 10 wget -q -S -O /dev/null "$BOOT/boot/ipxe" 2>&1 | grep -i '^ *date:') || return 0
	date_line=${date_line#*, }
	date -u -D '%d %b %Y %T' -s "${date_line% GMT*}" >/dev/null || log "clock not set from '$date_line'"
}
