#!/usr/bin/env bash
# Build the container image, or run a command in it.
#
#   scripts/image.sh build                build $IMAGE
#   scripts/image.sh run COMMAND…         run `COMMAND…` in a new container on the host's network until it ends
#   scripts/image.sh health               exit 0 when the image's health check passes against the host's network
#   scripts/image.sh setup                install buildah and debootstrap where no engine answers (Debian, as root)
#   scripts/image.sh engine               print docker, podman or buildah: what the others use
#
# Docker or podman does it when its engine answers. Where none runs, buildah does without one (as root, isolation chroot,
# storage driver overlay where the kernel lets it, else vfs), on a base that debootstrap makes and that is tagged as the
# FROM image.
# Environment: IMAGE (default costream:dev), IMAGE_CACHE (default .cache/image), IMAGE_ENGINE and IMAGE_DRIVER (default:
# what works), DEBIAN_MIRROR (default: that of debootstrap).
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=${IMAGE:-costream:dev}
IMAGE_CACHE=$(realpath --canonicalize-missing "${IMAGE_CACHE:-.cache/image}")
DEBIAN_MIRROR=${DEBIAN_MIRROR:-}
BASE=$(awk '$1 == "FROM" { print $2; exit }' Dockerfile)
SUITE=${BASE#*:}
SUITE=${SUITE%-slim}

fail() {
    echo "image: $*" >&2
    exit 1
}

engine() {
    if [ -n "${IMAGE_ENGINE:-}" ]; then
        echo "$IMAGE_ENGINE"
        return
    fi
    local name
    for name in docker podman; do
        if command -v "$name" >/dev/null && timeout 10 "$name" info >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    command -v buildah >/dev/null || fail "no engine answers and buildah is missing: start docker, or apt-get install buildah debootstrap"
    [ "$(id -u)" = 0 ] || fail "no engine answers; buildah without one needs root (isolation chroot)"
    echo buildah
}

# buildah with its storage under $IMAGE_CACHE, so that nothing else on the machine is touched.
b() {
    BUILDAH_ISOLATION=chroot buildah --storage-driver "$IMAGE_DRIVER" \
        --root "$IMAGE_CACHE/$IMAGE_DRIVER" --runroot "$IMAGE_CACHE/$IMAGE_DRIVER-run" "$@"
}

# Begin anew in a mount namespace, and a build in a process namespace, too: however it ends, by a kill as well, the kernel
# takes the mounts away and ends the processes. Builds are one at a time, so that the second finds what the first has made.
go_apart() {
    local namespaces=(--mount)
    mkdir -p "$IMAGE_CACHE"
    if [ "$command" = build ]; then
        namespaces+=(--pid --mount-proc --fork --kill-child)
        exec 9>"$IMAGE_CACHE/lock"
        flock 9
    fi
    IMAGE_APART=yes IMAGE_ENGINE=buildah exec unshare "${namespaces[@]}" "$PWD/scripts/image.sh" "$command" "$@"
}

# vfs copies the whole tree for each layer; overlay needs a kernel and a file system that allow it.
choose_driver() {
    if [ -z "${IMAGE_DRIVER:-}" ]; then
        IMAGE_DRIVER=overlay
        b info >/dev/null 2>&1 || IMAGE_DRIVER=vfs
    fi
}

remove_container() {
    b rm "$CONTAINER" >/dev/null
}

make_base() {
    if b inspect --type image "docker.io/library/$BASE" >/dev/null 2>&1; then
        return
    fi
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    local root="$IMAGE_CACHE/rootfs" container
    rm -rf "$root"
    echo "image: making $BASE with debootstrap"
    debootstrap --variant=minbase "$SUITE" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$IMAGE_CACHE/debootstrap.log" 2>&1 ||
        fail "debootstrap failed, see $IMAGE_CACHE/debootstrap.log"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    container=$(b from scratch)
    b add --quiet "$container" "$root" /
    b config --cmd bash "$container"
    b commit --quiet --rm "$container" "docker.io/library/$BASE" >/dev/null
    rm -rf "$root"
}

# The containers of a build that was interrupted. Those of `run` and `health` have names of their own.
remove_leftovers() {
    local name
    b containers --format '{{.ContainerName}}' | while read -r name; do
        case $name in *-working-container*) b rm "$name" >/dev/null ;; esac
    done
}

build() {
    local name arguments=() bundle=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT http_proxy https_proxy no_proxy; do
        if [ -n "${!name:-}" ]; then
            arguments+=(--build-arg "$name=${!name}")
        fi
    done
    if [ -s "$bundle" ]; then
        arguments+=(--secret "id=ca_bundle,src=$bundle")
    fi
    if [ "$ENGINE" = buildah ]; then
        remove_leftovers
        make_base
        # The health check needs the docker format; OCI's has no field for it.
        b build --layers --format docker --pull-never "${arguments[@]}" --tag "$IMAGE" .
    else
        DOCKER_BUILDKIT=1 "$ENGINE" build "${arguments[@]}" --tag "$IMAGE" .
    fi
}

# Variables of the caller that the container gets: settings and nothing else.
settings() {
    local name
    for name in $(compgen -e COSTREAM_); do
        printf '%s\n' --env "$name=${!name}"
    done
}

run() {
    local environment code child signalled
    mapfile -t environment < <(settings)
    if [ "$ENGINE" != buildah ]; then
        exec "$ENGINE" run --rm --network host "${environment[@]}" "$IMAGE" "$@"
    fi
    CONTAINER=$(b from --pull-never --name "costream-run-$$" "$IMAGE")
    trap remove_container EXIT
    # buildah does not run the entry point by itself, nor does it hand on signals.
    b run --user costream --workingdir /var/lib/costream "${environment[@]}" "$CONTAINER" -- costream "$@" &
    child=$!
    trap 'signalled=yes; stop_container "$child"' TERM INT
    signalled=yes
    while [ -n "$signalled" ]; do # a signal ends `wait` before the child has a status
        signalled='' code=0
        wait "$child" || code=$?
    done
    return "$code"
}

# Send SIGTERM to the command inside, which is below buildah's own processes and above those that it started itself.
stop_container() {
    local process=$1
    while [ -n "$process" ] && [ "$(cat "/proc/$process/comm" 2>/dev/null)" != costream ]; do
        process=$(pgrep -P "$process" | head -n 1)
    done
    kill -TERM "${process:-$1}"
}

health() {
    local check='import urllib.request as r; r.urlopen("http://127.0.0.1:7080/healthz", timeout=2)'
    if [ "$ENGINE" != buildah ]; then
        exec "$ENGINE" run --rm --network host --entrypoint python3 "$IMAGE" -c "$check"
    fi
    CONTAINER=$(b from --pull-never --name "costream-run-$$" "$IMAGE")
    trap remove_container EXIT
    b run "$CONTAINER" -- python3 -c "$check"
}

# Never fails: the test of the image says what is missing.
setup() {
    local missing=() tool
    for tool in docker podman; do
        if command -v "$tool" >/dev/null && timeout 10 "$tool" info >/dev/null 2>&1; then
            return
        fi
    done
    for tool in buildah debootstrap; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "image: for its test start docker or podman, or as root on Debian: apt-get install ${missing[*]}" >&2
        return
    fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"; } \
        >/dev/null || echo "image: apt-get could not install ${missing[*]}; the test of the image will say so" >&2
}

command=${1:-build}
[ $# -gt 0 ] && shift
if [ "$command" = setup ]; then
    setup
    exit
fi
ENGINE=$(engine)
case $command in
build | run | health)
    if [ "$ENGINE" = buildah ]; then
        [ -n "${IMAGE_APART:-}" ] || go_apart "$@"
        choose_driver
    fi
    "$command" "$@"
    ;;
engine) echo "$ENGINE" ;;
*) fail "unknown command $command: build, run, health, setup or engine" ;;
esac
