# For setup.sh and kernel.sh, which define `say`: sh has no functions of other files but by `.`

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Install those of the Debian packages that are missing.
debian_packages() {
  missing=""
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing="$missing $package"
  done
  if [ -z "$missing" ]; then
    say "Debian packages: all there"
    return
  fi
  say "installing Debian packages:$missing"
  as_root apt-get update -qq >&2
  # shellcheck disable=SC2086 # a list of words
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
