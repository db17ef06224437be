# shellcheck shell=sh
# Leaving this system

kexec_load() { # VMLINUZ INITRAMFS COMMAND_LINE: the newer system call first, it is the one that a locked-down kernel takes
	rt kexec -s -l "$1" --initrd="$2" --command-line="$3" || rt kexec -c -l "$1" --initrd="$2" --command-line="$3"
}

load_next_boot() { # what the controller has us boot now, told over TLS: leaving needs no firmware, and no trust in HTTP
	mkdir -p "$RUN/kexec"
	next=$RUN/kexec
	BOOT_KERNEL='' BOOT_KERNEL_SHA256='' BOOT_INITRD='' BOOT_INITRD_SHA256='' BOOT_ARGS=''
	fetch "$API/node/v1/boot" "$next/boot.env" || return 1
	# shellcheck source=/dev/null
	. "$next/boot.env"
	fetch "$BOOT_KERNEL" "$next/vmlinuz" && checked "$next/vmlinuz" "$BOOT_KERNEL_SHA256" || return 1
	fetch "$BOOT_INITRD" "$next/initrd" && checked "$next/initrd" "$BOOT_INITRD_SHA256" || return 1
	fetch_ticket "$next/ticket" || return 1
	cat "$next/ticket" >>"$next/initrd"
	kexec_load "$next/vmlinuz" "$next/initrd" "$BOOT_ARGS"
	loaded=$?
	rm -rf "$next"
	return $loaded
}

leave() { # kexec|reboot|poweroff, cleanly and through the image's own means
	mode=$1
	sync
	if [ -x /etc/openqrm/shutdown ]; then
		/etc/openqrm/shutdown "$mode"
	elif [ -d /run/systemd/system ]; then
		systemctl --no-block "$mode"
	elif [ "$mode" = kexec ] && [ ! -e /etc/init.d/kexec ]; then
		reboot
	elif [ "$mode" = kexec ]; then
		reboot # with kexec-tools' own scripts, a loaded kernel makes this a kexec
	else
		"$mode"
	fi
}

return_to_idle() { # ID
	mode=${RETURN:-kexec}
	if [ "$mode" = kexec ] && ! load_next_boot; then
		log "kexec is not possible here: back to idle by a reboot"
		mode=reboot
	fi
	finish "$1" 0 "going idle by $mode"
	close_stream
	leave "$mode"
}
