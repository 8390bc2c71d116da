#!/bin/sh
# Installs what `make test-servers` needs: Docker Engine and gVisor, from Debian's packages. Tests start an engine of their
# own on a private socket and stop it; the system's own engine is not touched, and not started.
set -eu

missing=''
command -v dockerd >/dev/null 2>&1 || missing="$missing docker.io"
command -v runsc >/dev/null 2>&1 || missing="$missing runsc"
if [ -z "$missing" ]; then
    echo "servers: $(dockerd --version), $(runsc --version | head -n 1)"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "servers: missing:$missing; install them, or run this as root where there is apt-get" >&2
    exit 1
fi
# An engine that the package would start here has nothing to do with ours.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get -o Acquire::Retries=3 update -q
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -q -y --no-install-recommends $missing
echo "servers: $(dockerd --version), $(runsc --version | head -n 1)"
