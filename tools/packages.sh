#!/bin/sh
# Install the Debian packages named in apt-packages.txt that are missing; says what to do where it may not.
set -eu
here=$(dirname "$0")
missing=
for package in $(grep -v '^#' "$here/../apt-packages.txt"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages; as root: apt-get install -y --no-install-recommends$missing" >&2
    exit 2
fi
echo "installing:$missing"
# A freshly installed daemon must not start: the lab and the tests run their own, in namespaces.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -q
# shellcheck disable=SC2086  # a list of package names
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
