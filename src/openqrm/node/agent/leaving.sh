# shellcheck shell=sh
# Leaving this system

kexec_load() { # VMLINUZ INITRAMFS COMMAND_LINE: the newer system call first, it is the one that a locked-down kernel takes
	rt kexec -s -l "$1" --initrd="$2" --command-line="$3" || rt kexec -c -l "$1" --initrd="$2" --command-line="$3"
}

boot_script() { # what the firmware would be told now: sets SCRIPT_KERNEL SCRIPT_ARGS SCRIPT_INITRDS; false for other boots
	SCRIPT_KERNEL='' SCRIPT_ARGS='' SCRIPT_INITRDS=''
	fetch "$BOOT/boot/script/$MAC?platform=pcbios" "$RUN/boot.ipxe" || return 1
	while read -r verb rest; do
		rest=${rest%"$CR"}
		case $verb in
		kernel)
			while case $rest in --*) true ;; *) false ;; esac do rest=${rest#* * }; done
			SCRIPT_KERNEL=${rest%% *}
			SCRIPT_ARGS=
			for word in ${rest#"$SCRIPT_KERNEL"}; do
				case $word in initrd=*) ;; *) SCRIPT_ARGS="$SCRIPT_ARGS${SCRIPT_ARGS:+ }$word" ;; esac
			done
			;;
		initrd)
			while case $rest in --*) true ;; *) false ;; esac do rest=${rest#* * }; done
			SCRIPT_INITRDS="$SCRIPT_INITRDS ${rest%% *}"
			;;
		esac
	done <"$RUN/boot.ipxe"
	# shellcheck disable=SC2016 # a variable of iPXE's, which only iPXE can fill in
	case "$SCRIPT_KERNEL$SCRIPT_INITRDS$SCRIPT_ARGS" in '' | *'${'*) return 1 ;; esac
}

load_from_script() { # load what the boot script says, so that leaving needs no firmware
	boot_script || return 1
	mkdir -p "$RUN/kexec"
	fetch "$SCRIPT_KERNEL" "$RUN/kexec/vmlinuz" || return 1
	: >"$RUN/kexec/initrd"
	for url in $SCRIPT_INITRDS; do
		if ! fetch "$url" "$RUN/kexec/one"; then
			# The boot is awaited no longer; without a ticket the machine is merely idle.
			case $url in */boot/ticket/*) continue ;; *) return 1 ;; esac
		fi
		cat "$RUN/kexec/one" >>"$RUN/kexec/initrd"
	done
	kexec_load "$RUN/kexec/vmlinuz" "$RUN/kexec/initrd" "$SCRIPT_ARGS"
	loaded=$?
	rm -rf "$RUN/kexec"
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
	if [ "$mode" = kexec ] && ! load_from_script; then
		log "kexec is not possible here: back to idle by a reboot"
		mode=reboot
	fi
	finish "$1" 0 "going idle by $mode"
	close_stream
	leave "$mode"
}
