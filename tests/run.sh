#!/usr/bin/env bash
# Runs all tests on a clean clone. Installs what they need from the system, and only what is missing.
#   tests/run.sh [--install-only] [ARGUMENT FOR cargo test …]
set -euo pipefail
cd "$(dirname "$0")/.."

# What is needed: a command, and the Debian package that has it. Tests unpack (and decrypt) commits with the standard tools, and
# start a PostgreSQL of their own (which does not run as root: setpriv); a browser looks at the page; a Python program makes
# requests of the API's document; the C compiler is for zstd and ring.
needed=(zstd:zstd tar:tar age:age diff:diffutils script:bsdutils cc:gcc make:make psql:postgresql-client setpriv:util-linux readelf:binutils
  chromium:chromium chromedriver:chromium-driver python3:python3)

missing=()
for entry in "${needed[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
# Debian keeps the server's programs out of the path.
if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
  missing+=(postgresql)
fi
# Debian keeps a part of Python apart.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
fi
# gcc alone comes without the headers of the C library.
if [[ ! -e /usr/include/stdlib.h ]] && command -v dpkg >/dev/null; then
  missing+=(libc6-dev)
fi
if ((${#missing[@]})); then
  if [[ $(id -u) == 0 ]]; then
    as_root=()
  elif command -v sudo >/dev/null; then
    as_root=(sudo)
  else
    echo "error: missing and not root: install ${missing[*]}" >&2
    exit 2
  fi
  if ! command -v apt-get >/dev/null; then
    echo "error: missing, and there is no apt-get: install ${missing[*]}" >&2
    exit 2
  fi
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# shellcheck source=tests/tools.sh
source tests/tools.sh
schemathesis
baileys
kubectl
kubernetes_validate

if ! command -v cargo >/dev/null; then
  echo "error: no cargo: install Rust from https://rustup.rs" >&2
  exit 2
fi
if [[ ${1:-} == --install-only ]]; then
  exit 0
fi

# A developer's own settings must not reach the tests; those for a real server must.
for name in $(compgen -e); do
  case $name in
    SIDECAR_TEST_*) ;;
    SIDECAR_* | SUPABASE_* | WHATSAPP_* | API_TOKEN* | PORT | RUST_LOG) unset "$name" ;;
  esac
done

# Tests wait more than they compute: for processes, leases and quiet windows.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

# The example is a test of its own: the whole life, with a real kill. So is the binary as an image holds it. Where tests are
# chosen, they are not among them.
play() {
  (($#)) || { tests/image.sh && cargo run --locked --example offline -- --self-test; }
}

if cargo test --locked "$@" && play "$@"; then
  echo "tests/run.sh: all tests passed"
else
  echo "tests/run.sh: SOME TESTS FAILED" >&2
  exit 1
fi
