# shellcheck shell=sh
# Extended attributes of an image on storage that cannot keep them (NFS): they lie in a file there.

ATTRIBUTES=.openqrm-attributes

keeps_attributes() { # DIR: whether its file system keeps extended attributes; NFS passes on none that matter
	TYPE=
	while read -r _ place type _; do
		if [ "$place" = "$1" ]; then TYPE=$type; fi
	done </proc/mounts
	case $TYPE in nfs*) return 1 ;; esac
}

copy_attributes() { # SOURCE TARGET: what rsync could not: attributes that one side cannot keep lie in a file there
	listed=$2/$ATTRIBUTES
	rm -f "$listed.new"
	case $SOURCE_KEEPS$TARGET_KEEPS in
	11) ;;
	10) list_attributes "$1" >"$listed.new" || refuse "the attributes could not be read: $(head -n 1 "$RUN/attributes.errors")" ;;
	01) ! has_list "$1" || restore_attributes "$1/$ATTRIBUTES" "$2" ;;
	00) ! has_list "$1" || cp -p "$1/$ATTRIBUTES" "$listed.new" || refuse "the list of attributes could not be kept" ;;
	esac
	rm -f "$listed"
	if [ -s "$listed.new" ]; then mv "$listed.new" "$listed"; else rm -f "$listed.new"; fi
}

list_attributes() { # DIR
	need_programs getfattr
	(cd "$1" && rt getfattr -R -P -h -d -e hex -m '^(user|trusted|security|system\.posix_acl)' .) 2>"$RUN/attributes.errors"
}

has_list() { # DIR: a link there would show what is no part of the image
	[ -f "$1/$ATTRIBUTES" ] && [ ! -L "$1/$ATTRIBUTES" ]
}

restore_attributes() { # FILE DIR
	need_programs setfattr
	: >"$RUN/attributes.refused"
	(cd "$2" && own_attributes "$1" | rt setfattr -h --restore=-) 2>"$RUN/attributes.errors" && restored=1 || restored=0
	if [ -s "$RUN/attributes.refused" ]; then
		log "attributes: $(grep -c . "$RUN/attributes.refused") lines are refused, first $(head -n 1 "$RUN/attributes.refused")"
	fi
	[ "$restored" = 0 ] || return 0
	# A root that ran from NFS meanwhile may have lost files that the list still names; tmpfs has no user attributes.
	log "attributes: $(grep -c . "$RUN/attributes.errors") could not be set, first $(head -n 1 "$RUN/attributes.errors")"
}

# Whoever made the image wrote its list: what it says of a path that leads out of the tree (`..`, absolute, over a link)
# is left out. getfattr writes backslash, newline and carriage return in octal, and nothing else.
own_attributes() { # FILE, in the tree: prints what is taken of it, the rest goes to attributes.refused
	find . -xdev -type l -print0 | tr '\n\000\134' '\001\n\002' | awk -v refused="$RUN/attributes.refused" '
		function refuse(text) {
			print text >refused
			taken = 0
		}
		function inside(path, parts, count, place, above) { # newline is 001, backslash 002, as in the list of links
			if (path == ".") return 1
			if (path ~ /[\001\002\r]/) return 0
			gsub(/\\012/, "\001", path)
			gsub(/\\015/, "\r", path)
			gsub(/\\134/, "\002", path)
			if (path == "" || index(path, "\\")) return 0
			count = split(path, parts, "/")
			above = "."
			for (place = 1; place <= count; place++) {
				if (parts[place] == "" || parts[place] == "." || parts[place] == "..") return 0
				if (above in links) return 0
				above = above "/" parts[place]
			}
			return 1
		}
		listing == 0 { links[$0] = 1; next }
		$0 == "" { within = 0; next }
		! within {
			within = 1
			taken = 1
			if (substr($0, 1, 8) != "# file: " || ! inside(substr($0, 9))) refuse($0)
			else print "\n" $0
			next
		}
		! taken { next }
		/^(user|trusted|security|system\.posix_acl)[^=]*=0x[0-9a-fA-F]*$/ { print; next }
		{ print >refused }
	' listing=0 - listing=1 "$1"
}
