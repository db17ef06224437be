# shellcheck shell=sh
# What root-mount hooks may ask for beside kernel modules: programs of the server, processes that outlive this system,
# and scripts that the agent runs inside the image.

KEPT=/run/openqrm/kept
START_SCRIPTS=/run/openqrm/start.d

answered() { # FILE: sets ANSWER to what the controller said in place of that file, if it said something
	detail=$(sed -n 's/.*"detail": *"\([^"]*\)".*/\1/p' "$1.part" 2>/dev/null)
	remedy=$(sed -n 's/.*"remedy": *"\([^"]*\)".*/\1/p' "$1.part" 2>/dev/null)
	ANSWER=${detail:-the controller did not answer}${remedy:+; on the server: $remedy}
}

need_programs() { # NAMES: fetch them with their libraries, so that `rt NAME` works, here and inside the image
	for program in "$@"; do
		[ -x "$RT/libexec/$program" ] || [ -x "$RT/programs/$program/$program" ] || need_program "$program"
	done
}

need_program() { # NAME
	archive=$RUN/program.tar.gz
	if ! fetch "$API/node/v1/programs/$1.tar.gz" "$archive"; then
		answered "$archive"
		refuse "program $1: $ANSWER"
	fi
	rm -rf "$RT/.new"
	mkdir -p "$RT/.new" "$RT/programs"
	(umask 022 && tar -xzf "$archive" -C "$RT/.new") || refuse "program $1 could not be unpacked: is there memory left?"
	rm -f "$archive"
	# A library that is here already takes no memory twice. (busybox has no `cmp -s` that is quicker than this.)
	for library in "$RT/.new/programs/$1/lib"/*; do
		known=$RT/lib/${library##*/}
		if [ -f "$known" ] && cmp -s "$known" "$library"; then ln -f "$known" "$library"; fi
	done
	rm -rf "${RT:?}/programs/$1"
	mv "$RT/.new/bin/$1" "$RT/bin/$1"
	mv "$RT/.new/programs/$1" "$RT/programs/$1" || refuse "program $1 could not be put in place"
	rm -rf "$RT/.new"
	log "program $1"
}

rt_kept() { # PROGRAM ARGS…: start a daemon that serves the root and outlives this system; sets KEPT_PID
	kept_program=$RT/programs/$1
	kept_name=$1
	shift
	(
		exec </dev/null >"/run/openqrm/$kept_name.log" 2>&1 3<&- 4<&-
		cd /
		echo -1000 >/proc/self/oom_score_adj
		# systemd spares at shutdown what has an @ as the first letter of its command line.
		# shellcheck disable=SC3038
		exec -a "@$kept_name" "$kept_program/lib/ld.so" --library-path "$kept_program/lib" "$kept_program/$kept_name" "$@"
	) &
	KEPT_PID=$!
	keep_process "$KEPT_PID"
}

keep_process() { # PID: it is not ended when the machine becomes the image
	echo "$1" >>"$KEPT"
}

end_kept() { # FILE of process ids: what was to outlive this system, and has nothing left to serve
	[ -f "$1" ] || return 0
	while read -r pid; do
		kill "$pid" 2>/dev/null || continue
		for tries in 1 2 3 4 5; do
			[ -d "/proc/$pid" ] || break
			sleep 1
		done
	done <"$1"
	: "$tries"
	rm -f "$1"
}

at_start() { # NAME, the script on standard input: the agent runs it each time it starts inside the image
	mkdir -p "$START_SCRIPTS"
	(umask 022 && cat >"$START_SCRIPTS/$1.new" && mv "$START_SCRIPTS/$1.new" "$START_SCRIPTS/$1") || refuse "start script $1: no memory left"
}

end_other_processes() { # all but this one, the kernel's and those that are kept
	kept=' 1 '
	while read -r pid; do kept="$kept$pid "; done <"$KEPT"
	for round in 1 2 3; do # what is forked meanwhile goes in the next round
		for process in /proc/[0-9]*; do
			case $kept in *" ${process#/proc/} "*) ;; *) kill -9 "${process#/proc/}" ;; esac
		done
	done 2>/dev/null
	: "$round"
}
