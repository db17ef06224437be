# shellcheck shell=sh
# Inventory: /proc and /sys read with the shell's own means, since starting programs is what costs time

quoted() { # sets QUOTED to $1 as a JSON string
	case $1 in
	*[\"\\]* | *[[:cntrl:]]*) QUOTED='' rest=$1 ;;
	*)
		QUOTED=\"$1\"
		return 0
		;;
	esac
	while [ -n "$rest" ]; do
		tail=${rest#?}
		character=${rest%"$tail"}
		case $character in
		\" | \\) QUOTED=$QUOTED\\$character ;;
		[[:cntrl:]]) ;;
		*) QUOTED=$QUOTED$character ;;
		esac
		rest=$tail
	done
	QUOTED=\"$QUOTED\"
}

first_line() { # FILE: sets LINE, empty when it cannot be read
	LINE=
	[ -r "$1" ] && { read -r LINE <"$1"; } 2>/dev/null
	return 0
}

memory() { # sets MEM_TOTAL MEM_AVAILABLE SWAP_TOTAL SWAP_FREE in KiB
	while read -r key value _; do
		case $key in
		MemTotal:) MEM_TOTAL=$value ;;
		MemAvailable:) MEM_AVAILABLE=$value ;;
		SwapTotal:) SWAP_TOTAL=$value ;;
		SwapFree:) SWAP_FREE=$value && break ;;
		esac
	done </proc/meminfo
}

processors() { # sets CPUS and CPU_MODEL
	CPUS=0 CPU_MODEL=
	while IFS=: read -r key value; do
		case $key in
		processor*) CPUS=$((CPUS + 1)) ;;
		model\ name*) CPU_MODEL=${value# } ;;
		esac
	done </proc/cpuinfo
}

nics_json() { # sets NICS_JSON and NICS
	NICS_JSON='' NICS=0
	for device in /sys/class/net/*; do
		[ -e "$device/device" ] || continue
		NICS=$((NICS + 1))
		driver=$(box readlink "$device/device/driver")
		first_line "$device/address" && mac=$LINE
		first_line "$device/speed" && speed=$LINE
		case $speed in '' | *[!0-9]*) speed=0 ;; esac
		first_line "$device/carrier"
		link=false
		[ "$LINE" = 1 ] && link=true
		NICS_JSON="$NICS_JSON${NICS_JSON:+,}{\"name\":\"${device##*/}\",\"mac\":\"$mac\",\"driver\":\"${driver##*/}\","
		NICS_JSON="$NICS_JSON\"speed_mbit\":$speed,\"link\":$link}"
	done
}

disks_json() { # sets DISKS_JSON
	DISKS_JSON=
	for device in /sys/block/*; do
		[ -e "$device/device" ] || continue
		case ${device##*/} in sr* | fd*) continue ;; esac
		first_line "$device/size" && size=$((LINE / 2048))
		first_line "$device/queue/rotational" && rotational=false
		[ "$LINE" = 1 ] && rotational=true
		first_line "$device/device/model" && quoted "$LINE"
		DISKS_JSON="$DISKS_JSON${DISKS_JSON:+,}{\"name\":\"${device##*/}\",\"size_mb\":$size,\"model\":$QUOTED,"
		DISKS_JSON="$DISKS_JSON\"rotational\":$rotational}"
	done
}

dmi_json() { # sets DMI_JSON
	DMI_JSON=
	for pair in vendor=sys_vendor product=product_name serial=product_serial uuid=product_uuid; do
		first_line "/sys/class/dmi/id/${pair#*=}"
		quoted "$LINE"
		DMI_JSON="$DMI_JSON${DMI_JSON:+,}\"${pair%=*}\":$QUOTED"
	done
}

host_keys_json() { # sets KEYS_JSON to the public keys of the SSH server that answers here
	KEYS_JSON=
	for file in "$RUN"/ssh/*.pub /etc/ssh/ssh_host_*_key.pub; do
		case $file in
		/etc/*) [ -e "$RUN/ssh/serving" ] && continue ;;
		*) [ -e "$RUN/ssh/serving" ] || continue ;;
		esac
		first_line "$file"
		[ -n "$LINE" ] || continue
		quoted "$LINE"
		KEYS_JSON="$KEYS_JSON${KEYS_JSON:+,}$QUOTED"
	done
}

inventory() { # prints the register request
	memory && processors && nics_json && disks_json && dmi_json && host_keys_json
	first_line /proc/sys/kernel/random/boot_id && boot_id=$LINE
	first_line /proc/sys/kernel/osrelease && release=$LINE
	first_line /proc/sys/kernel/hostname && host=$LINE
	quoted "$CPU_MODEL" && model=$QUOTED
	quoted "${TICKET:-}" && ticket=$QUOTED
	quoted "${TOKEN:-}" && token=$QUOTED
	firmware=bios
	[ -d /sys/firmware/efi ] && firmware=uefi
	box cat <<-JSON
		{"mac":"$MAC","boot_id":"$boot_id","stage":"$STAGE","ticket":$ticket,"generation":${GENERATION:-0},"token":$token,
		"arch":"$(box uname -m)","kernel":"$release","firmware":"$firmware","hostname":"$host",
		"memory_mb":$((MEM_TOTAL / 1024)),"cpus":$CPUS,"cpu_model":$model,"swap_mb":$((SWAP_TOTAL / 1024)),
		"nics":[$NICS_JSON],"disks":[$DISKS_JSON],"dmi":{$DMI_JSON},"ssh_host_keys":[$KEYS_JSON]}
	JSON
}
