# shellcheck shell=sh
# Hardware by modalias: the initramfs has network drivers only, the rest comes from the boot listener.

read_command_line() { # sets API BOOT MAC KERNEL and keeps them for the agent
	API='' BOOT='' MAC='' KERNEL=''
	read -r command_line </proc/cmdline
	for word in $command_line; do
		case $word in
		openqrm.api=*) API=${word#*=} ;;
		openqrm.boot=*) BOOT=${word#*=} ;;
		openqrm.mac=*) MAC=${word#*=} ;;
		openqrm.kernel=*) KERNEL=${word#*=} ;;
		esac
	done
	read -r RELEASE </proc/sys/kernel/osrelease
	MODULES=/lib/modules/$RELEASE
}

new_modaliases() { # sets NEW to the modaliases that were not seen before
	NEW=
	for file in /sys/bus/*/devices/*/modalias; do
		[ -r "$file" ] || continue
		read -r modalias <"$file" || continue
		# Power saving of CPUs is the image's affair, and every CPU would ask for several modules.
		case "$SEEN $modalias" in *" $modalias "* | *' 'cpu:* | *' acpi:ACPI0007:'* | *' acpi:LNXCPU:'*) continue ;; esac
		SEEN="$SEEN $modalias"
		NEW="$NEW $modalias"
	done
}

load_hardware() { # with the modules that are here; a bus driver brings new devices, so until nothing new appears
	SEEN='' NEW=''
	while :; do
		new_modaliases
		[ -n "$NEW" ] || break
		# shellcheck disable=SC2086
		modprobe -a -q $NEW 2>/dev/null
	done
}

fetch_module() { # PATH below /lib/modules/RELEASE
	[ -e "$MODULES/$1" ] && return 0
	mkdir -p "$MODULES/${1%/*}"
	fetch "$BOOT/boot/kernels/$KERNEL/modules/$1" "$MODULES/$1"
}

need_modules() { # NAMES or modaliases: load them, fetching what is not here; also for root-mount hooks
	modprobe -a -D "$@" 2>/dev/null | while read -r verb path _; do
		[ "$verb" = insmod ] || continue
		fetch_module "${path#"$MODULES/"}" || log "module $path could not be fetched"
	done
	modprobe -a -q "$@"
}

load_remaining_hardware() { # with the kernel's full tables
	for table in alias dep; do
		fetch "$BOOT/boot/kernels/$KERNEL/modules.$table" "$MODULES/modules.$table" && continue
		log "no module tables from the boot listener; going on with the drivers at hand"
		return 0
	done
	# What is loaded needs no second look; everything else is asked for by the full tables.
	while [ -n "$SEEN" ]; do
		# shellcheck disable=SC2086
		need_modules $SEEN 2>/dev/null
		new_modaliases
		SEEN=$NEW
	done
}
