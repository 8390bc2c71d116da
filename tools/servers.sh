#!/bin/sh
# Installs what `make test-servers` needs: Docker Engine and gVisor from Debian's packages, and below .tools Node 22 with
# the conformance suite of MCP and servers of others, in the versions and with the hashes that tools/npm locks. Tests start
# what they need on loopback and private sockets and stop it; the system's own engine is not touched, and not started.
set -eu
cd "$(dirname "$0")/.."

missing=''
command -v dockerd >/dev/null 2>&1 || missing="$missing docker.io"
command -v runsc >/dev/null 2>&1 || missing="$missing runsc"
command -v npm >/dev/null 2>&1 || missing="$missing npm"

install_packages() {
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
    DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends $missing
}

# Nothing of these packages runs while they are installed; what is there in the locked versions is kept.
install_node() {
    mkdir -p .tools
    if ! cmp -s tools/npm/package-lock.json .tools/package-lock.json || [ ! -e .tools/.installed ]; then
        rm -f .tools/.installed
        cp tools/npm/package.json tools/npm/package-lock.json .tools/
        npm ci --prefix .tools --ignore-scripts --no-audit --no-fund --fetch-retries=5 --loglevel=error
        touch .tools/.installed
    fi
    for node in .tools/node_modules/node-linux-*/bin/node; do
        [ ! -e "$node" ] || ln -sf "../${node#.tools/node_modules/}" .tools/node_modules/.bin/node
    done
    if [ ! -e .tools/node_modules/.bin/node ]; then
        ln -sf "$(command -v node)" .tools/node_modules/.bin/node # no package for this platform
    fi
    .tools/node_modules/.bin/node -e 'process.exit(parseInt(process.versions.node) < 22 ? 1 : 0)' || {
        echo "servers: the conformance suite needs Node 22, and here is $(.tools/node_modules/.bin/node --version)" >&2
        exit 1
    }
}

[ -z "$missing" ] || install_packages
install_node
echo "servers: $(dockerd --version), $(runsc --version | head -n 1), node $(.tools/node_modules/.bin/node --version)"
