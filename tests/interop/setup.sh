#!/usr/bin/env bash
# Installs what the interop tests need beside the Python packages of the extra "test". Says in one sentence what it cannot
# install and goes on: the tests of a missing client then skip, or fail under CI=true. Does nothing the second time.
set -u
cd "$(dirname "$0")/../.."
VENV=.cache/interop

say() { echo "setup: $*" >&2; }

# Debian package -> what it must have brought: a command, or (with a /) a file.
declare -A WANTED=(
  [chromium]=chromium
  [firefox-esr]=firefox-esr
  [simple-whip-client]=whip-client
  [gstreamer1.0-tools]=gst-launch-1.0
  [gstreamer1.0-nice]=/usr/lib/*/gstreamer-1.0/libgstnice.so
  [gstreamer1.0-plugins-base]=/usr/lib/*/gstreamer-1.0/libgstopus.so
  [gstreamer1.0-plugins-good]=/usr/lib/*/gstreamer-1.0/libgstvpx.so
  [gstreamer1.0-plugins-bad]=/usr/lib/*/gstreamer-1.0/libgstwebrtc.so
  [gstreamer1.0-plugins-ugly]=/usr/lib/*/gstreamer-1.0/libgstx264.so
  [fonts-dejavu-core]=/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
  [iproute2]=ip
  [janus]=janus
  [libfaketime]=/usr/lib/*/faketime/libfaketimeMT.so.1
)

present() {
  case $1 in
    */*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

debian_packages() {
  local package missing=()
  for package in "${!WANTED[@]}"; do
    present "${WANTED[$package]}" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null; then
    say "this is no Debian; please install the counterparts of: ${missing[*]}."
  elif [ "$(id -u)" -ne 0 ]; then
    say "only root can install: apt-get install --no-install-recommends ${missing[*]}"
  else
    apt-get update -qq >/dev/null || say "apt-get update failed; the package lists may be old."
    local service= # that a package would start: benches start one of their own
    [[ " ${missing[*]} " == *" janus "* && -d /run/systemd/system ]] && service=janus
    [ -z "$service" ] || systemctl -q mask --runtime "$service"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
      for package in "${missing[@]}"; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
          say "apt-get could not install $package; its tests will be missing."
      done
    if [ -n "$service" ]; then
      systemctl -q unmask --runtime "$service"
      systemctl -q disable "$service" || say "the service $service could not be disabled."
    fi
  fi
}

# A Python that libdatachannel-py has a wheel for (3.12 or newer), newest first; pyenv's are found without its shims.
newer_python() {
  local python
  for python in python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[432]*/bin/python python3; do
    command -v "$python" >/dev/null &&
      "$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null &&
      echo "$python" && return
  done
}

libdatachannel() {
  local python
  "${PYTHON:-python3}" -c 'import libdatachannel' 2>/dev/null && return
  [ -f "$VENV/complete" ] && return
  python=$(newer_python)
  if [ -z "$python" ]; then
    say "libdatachannel-py needs Python 3.12, 3.13 or 3.14 with venv, and none was found; OBS's stand-in will be missing."
  elif ! { "$python" -m venv "$VENV" && "$VENV/bin/pip" install -q --disable-pip-version-check \
    libdatachannel-py==2026.1.0 'av>=18' 'numpy>=2' && touch "$VENV/complete"; }; then
    say "pip could not install libdatachannel-py with $python; OBS's stand-in will be missing."
  fi
}

# Debian 12's whip-client aborts: it links libsoup 2, libnice brings libsoup 3 through its UPnP library, and the two refuse
# to share a process. A UPnP library that finds no router, on whip-client's path only, keeps libsoup 3 out.
whip_client() {
  local stub=.cache/whip-client/libgupnp-igd-1.0.so.4 nice compiler
  command -v whip-client >/dev/null && [ ! -f "$stub" ] || return
  nice=$(compgen -G "/usr/lib/*/libnice.so.10") || return
  ldd "$(command -v whip-client)" | grep -q libsoup-2 && ldd "$nice" | grep -q libsoup-3 || return
  mkdir -p "${stub%/*}"
  if ! compiler=$(command -v cc || command -v gcc || command -v tcc) && [ "$(id -u)" -eq 0 ]; then
    apt-get install -y -qq --no-install-recommends tcc >/dev/null 2>&1 && compiler=tcc
  fi
  printf 'void *gupnp_simple_igd_%s(void) { return 0; }\n' thread_new get_type add_port remove_port_local |
    "${compiler:-cc}" -shared -fPIC -nostdlib -o "$stub" -x c - 2>/dev/null ||
    say "no C compiler was found; whip-client cannot be made to run on this Debian without one."
}

debian_packages
libdatachannel
whip_client
exit 0
