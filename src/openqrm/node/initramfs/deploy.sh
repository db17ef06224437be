# shellcheck shell=sh
# Deploying without a reboot: mount the appliance's root, prepare it, become its init. Whatever fails on the way is
# undone, reported, and leaves the machine idle as before.

ROOT_MNT=/root-mnt

refuse() { # TEXT: ends the deployment with this as its result
	echo "$*" >/run/openqrm/deploy.error
	exit 1
}

deploy() { # ID
	ID=$1
	say "progress $ID 5 fetching the deployment"
	rm -f /run/openqrm/deploy.error
	# A subshell, so that refuse and a hook's own exit end it and not the machine.
	(prepare_deployment) </dev/null 2>&1 4<&- | tee /run/openqrm/deploy.log
	if [ -f /run/openqrm/deploy.ready ]; then
		rm -f /run/openqrm/deploy.ready
		become_image
	fi
	undone=1
	undo_deployment || undone=0
	first_line /run/openqrm/deploy.error
	[ -n "$LINE" ] || LINE=$(tail -n 1 /run/openqrm/deploy.log)
	if [ "$undone" = 1 ]; then
		finish "$ID" 1 "$LINE"
		return 0
	fi
	restart_unclean "$LINE"
}

restart_unclean() { # TEXT: this machine cannot be idle before its next boot
	finish "$ID" 2 "$1; its mounts are in use, so the machine restarts"
	close_stream
	timeout 5 sync
	reboot -f -n
}

prepare_deployment() {
	FETCH_SECONDS=300 # a controller that restarts in the middle goes on with the deployment when it is back
	if ! fetch "$API/node/v1/deployment" /run/openqrm/deployment.env; then
		answered /run/openqrm/deployment.env
		refuse "no deployment to be had: $ANSWER"
	fi
	# shellcheck source=/dev/null
	. /run/openqrm/deployment.env
	log "deployment of $APPLIANCE ($DEPLOYMENT, $METHOD)"
	case $METHOD in
	switch) prepare_root ;;
	kexec) load_other_kernel ;;
	disk) write_disks ;;
	reboot) ;;
	*) refuse "unknown method $METHOD" ;;
	esac
	: >/run/openqrm/deploy.ready
}

prepare_root() {
	[ -z "${STORAGE_NIC:-}" ] || bring_up_storage_nic "$STORAGE_NIC"
	fetch_hook ''
	# shellcheck source=/dev/null
	. "$RUN/root-mount"
	say "progress $ID 10 mounting the root"
	FILLING=0
	! has_set FROM_ || FILLING=1
	mount_root "$ROOT_MNT" || refuse "the root could not be mounted ($DEPLOYMENT)"
	log "root mounted"
	! has_set FROM_ || fill_root "$ROOT_MNT"
	refuse_half_done "$ROOT_MNT"
	! has_set TO_ || copy_root_out "$ROOT_MNT"
	say "progress $ID 60 preparing the root"
	prepare_image "$ROOT_MNT"
	mount -o remount,ro "$ROOT_MNT" || log "the root stays writable: remounting read-only failed"
	log "root prepared"
}

load_other_kernel() {
	fetch "$VMLINUZ_URL" /run/openqrm/vmlinuz || refuse "the kernel could not be fetched"
	checked /run/openqrm/vmlinuz "$VMLINUZ_SHA256" || refuse "the kernel has another checksum than ordered"
	fetch "$INITRAMFS_URL" /run/openqrm/initrd || refuse "the initramfs could not be fetched"
	checked /run/openqrm/initrd "$INITRAMFS_SHA256" || refuse "the initramfs has another checksum than ordered"
	fetch "$API/node/v1/ticket" /run/openqrm/ticket || refuse "no boot ticket for the other kernel"
	cat /run/openqrm/ticket >>/run/openqrm/initrd
	arguments="openqrm.api=$API openqrm.boot=$BOOT openqrm.mac=$MAC openqrm.kernel=$KERNEL $KERNEL_ARGS"
	if ! kexec_load /run/openqrm/vmlinuz /run/openqrm/initrd "$arguments"; then
		log "the kernel cannot be loaded by kexec; rebooting into it"
		echo "METHOD='reboot'" >>/run/openqrm/deployment.env
		return 0
	fi
	rm -f /run/openqrm/vmlinuz /run/openqrm/initrd /run/openqrm/ticket
	log "kernel $KERNEL_VERSION loaded"
}

become_image() { # never returns if it works
	# shellcheck source=/dev/null
	. /run/openqrm/deployment.env
	case $METHOD in
	kexec)
		say "progress $ID 80 entering kernel $KERNEL_VERSION"
		close_stream
		sync
		rt kexec -e
		log "kexec did not start the kernel; rebooting instead"
		reboot -f
		;;
	reboot)
		say "progress $ID 80 rebooting"
		close_stream
		sync
		reboot -f
		;;
	disk) # said before the restart: from here on the boot script is that of its own disks
		finish "$ID" 0 "the disks are written; restarting from them"
		sleep 2
		close_stream
		sync
		reboot -f
		;;
	switch) switch_to_image ;;
	esac
}

switch_to_image() {
	# The agent inside the image reports this order done, by its number.
	echo "0 running $IMAGE" >"/run/openqrm/orders/$ID/result"
	printf "TOKEN='%s'\nGENERATION='%s'\nRETURN='%s'\nDEPLOY_ORDER='%s'\n" \
		"$TOKEN" "$GENERATION" "$RETURN" "$ID" >/run/openqrm/identity.env
	rm -f /run/openqrm/deployment.env /run/openqrm/registration.env /run/openqrm/register.json
	rm -f /run/openqrm/authorization
	rm -f /run/openqrm/ssh/serving /run/openqrm/connected
	log "switching root to $IMAGE"
	if [ -s "$KEPT" ]; then end_other_processes; else kill -9 -1; fi
	echo "$NAME" >/proc/sys/kernel/hostname
	for place in run dev proc sys; do mount --move "/$place" "$ROOT_MNT/$place"; done
	umask 022
	exec env -i TERM=linux HOME=/ PATH=/sbin:/usr/sbin:/bin:/usr/bin \
		/bin/switch_root -c /dev/console "$ROOT_MNT" "${INIT:-/sbin/init}"
}

undo_deployment() { # false when something stays mounted
	leave_local_swap
	undo=0
	leave_set FROM_ "$FROM_MNT" || undo=1
	leave_set TO_ "$TO_MNT" || undo=1
	leave_set STORE_ "$STORE_MNT" || undo=1
	leave_set '' "$ROOT_MNT" || undo=1
	rm -f /run/openqrm/deployment.env /run/openqrm/vmlinuz /run/openqrm/initrd
	return $undo
}
