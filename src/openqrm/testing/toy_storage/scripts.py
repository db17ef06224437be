"""What the toy storage runs on its host. Mutants are made by replacing text in these."""

from __future__ import annotations

POOL = r"""
set -eu
umask 022
fail() { echo "$*" >&2; exit 1; }
pool=$1 name=$2 id=$3
path=$pool/$name state=$pool/.toy
made=$state/made/$name new=$state/new/$name
[ -d "$pool" ] || fail "$pool is not there"
mkdir -p "$state/made" "$state/new"
note() { printf '%s\n' "$1" >"$made.tmp"; mv "$made.tmp" "$made"; }
noted() { cat "$made" 2>/dev/null || true; }
ours() { [ ! -e "$path" ] || case $(noted) in "$id "*) ;; *) fail "$path is not of volume $id" ;; esac; }
"""
SCRIPTS = {
    "create": """
ours
size=$4
[ -e "$path" ] || { note "$id $size"; mkdir "$path"; }
""",
    "clone": """
ours
[ ! -e "$path" ] || exit 0
rm -rf "$new"
note "$id $(cut -d' ' -f2 "$state/made/$(basename "$5")")"
cp -a --reflink=auto "$5" "$new"
sync "$new"
mv -T "$new" "$path"
""",
    "fill": """
ours
[ -z "$(ls -A "$path")" ] || exit 0
rm -rf "$new"
mkdir "$new"
tar -xf "$5" -C "$new" --numeric-owner --same-owner -p --xattrs --xattrs-include='*'
mv -T "$new" "$path"
""",
    "resize": """
ours
note "$id $4"
""",
    "remove": """
rm -rf "$new"
rm -rf "$path"
rm -f "$made"
rm -f "$made.tmp"
""",
    "undo": """
[ -e "$made" ] || rm -f "$made.tmp"
case $(noted) in "$id "*) ;; *) exit 0 ;; esac
rm -rf "$new"
rm -rf "$path"
rm -f "$made"
rm -f "$made.tmp"
""",
}
FACTS = r"""
cd "$1" || exit 3
echo "free $(df -mP . | awk 'NR == 2 { print $4 }')"
echo "type $(stat -f -c %T .)"
for name in *; do [ ! -d "$name" ] || echo "volume $name $(cut -d' ' -f2 ".toy/made/$name" 2>/dev/null)"; done
for name in .toy/new/*; do [ ! -e "$name" ] || echo "leftover $name"; done
for name in .toy/made/*; do [ -e "$name" ] && [ ! -e "${name##*/}" ] && echo "leftover $name"; done
exit 0
"""
EXPORT = """
import json, os, socket, sys
port, directory, verb, volume, path, client, generation = sys.argv[1:8]
mine = f"{directory}/ours-{volume}.json"
lent = f"{directory}/lent-{volume}-{client}.json"
key = f"{directory}/.key-{volume}-{client}"
secret = open(key).read() if os.path.exists(key) else ""
os.umask(0o077)
def ask(word):
    with socket.create_connection(("127.0.0.1", int(port))) as link:
        link.sendall(json.dumps({"control": word}).encode() + b"\\n")
        return json.loads(link.makefile().readline())["live"]
def put(file, writes):
    grant = {"volume": volume, "path": path, "client": client, "generation": int(generation), "secret": secret}
    with open(file + ".new", "w") as handle:
        json.dump(grant | {"writes": writes}, handle)
    os.replace(file + ".new", file)
def drop(file):
    if os.path.exists(file):
        os.unlink(file)
def known():
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json"):
            yield f"{directory}/{name}", json.load(open(f"{directory}/{name}"))
"""
EXPORTS = {
    "authorize": """
put(mine, True)
ask("reload")
""",
    "revoke": """
drop(mine)
drop(key)
live = ask("reload")
assert os.path.basename(mine) not in live
""",
    "lend": """
put(lent, False)
ask("reload")
""",
    "reclaim": """
drop(lent)
ask("reload")
""",
    "withdraw": """
for file, grant in known():
    if not os.path.basename(file).startswith(("ours-", "lent-")) and (grant["path"], grant["client"]) == (path, client):
        drop(file)
ask("reload")
""",
    "list": """
for name, grant in (dict((os.path.basename(f), g) for f, g in known()) | ask("list")).items():
    grant.pop("secret")
    print(json.dumps({"ours": name.startswith(("ours-", "lent-"))} | grant))
""",
}
