#!/usr/bin/env bash
# The binary as an image holds it: static, alone in a read-only root file system, as nobody, without certificates or a
# server of names. It restores, commits and ends in order there.
#   tests/image.sh            builds one without the runner, in the profile of tests
#   tests/image.sh BINARY     takes one that is there, such as that of a release
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "tests/image.sh: $*" >&2
  exit 1
}

if (($#)); then
  binary=$1
else
  # As in the Dockerfile, but for the profile. Warnings count: nothing else compiles this set of features.
  flags=$(sed -n 's/^ENV RUSTFLAGS="\(.*\)"$/\1/p' Dockerfile)
  RUSTFLAGS="${flags//\\/} -D warnings" CARGO_BUILD_TARGET=host-tuple \
    cargo build --locked --no-default-features --bin session-sidecar
  binary=target/$(rustc -vV | sed -n 's/^host: //p')/debug/session-sidecar
fi
if readelf --program-headers --wide "$binary" | grep -q INTERP; then
  fail "$binary needs a loader: it is not static"
fi

as_root=()
if [[ $(id -u) != 0 ]]; then
  as_root=(sudo)
fi
work=$(mktemp -d)
pids=()
end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  "${as_root[@]}" rm -rf "$work"
}
trap end EXIT

# An embedded Supabase outside, by the binary that the tests have built; inside it has a name that only /etc/hosts knows.
cargo test -q --locked --no-run --test it
target/debug/session-sidecar dev --supabase-only --dir "$work/supabase" >"$work/variables" 2>"$work/supabase.log" &
pids+=($!)
for _ in {1..300}; do
  grep -q ^SUPABASE_SERVICE_ROLE_KEY= "$work/variables" && break
  kill -0 "${pids[0]}" || fail "no embedded Supabase: $(cat "$work/supabase.log")"
  sleep 0.1
done
port=$(sed -n 's/^SUPABASE_URL=.*:\([0-9]*\)$/\1/p' "$work/variables")
key=$(sed -n 's/^SUPABASE_SERVICE_ROLE_KEY=//p' "$work/variables")

# What a container runtime adds to an image that holds one file: /proc, /etc/hosts, a volume.
image=$work/image
mkdir -p "$image"/{proc,etc,sessions}
install -m 755 "$binary" "$image/session-sidecar"
echo "127.0.0.1 supabase.internal" >"$image/etc/hosts"

# contained VOLUME COMMAND…: as nobody in the image, with nothing of our environment.
contained() {
  local volume=$1
  shift
  "${as_root[@]}" mkdir -p "$volume"
  "${as_root[@]}" chown 65532:65532 "$volume"
  # The last process is the binary itself, so that a signal reaches it.
  exec "${as_root[@]}" unshare --mount bash -ec '
    image=$1 volume=$2; shift 2
    mount --bind "$image" "$image"
    mount -t proc proc "$image/proc"
    mount --bind "$volume" "$image/sessions"
    mount -o remount,bind,ro "$image"
    exec env -i "$@"
  ' contained "$image" "$volume" \
    SUPABASE_URL="http://supabase.internal:$port" SUPABASE_SERVICE_ROLE_KEY="$key" \
    SIDECAR_ROOT=/sessions SIDECAR_SESSION=u1/s1 SIDECAR_QUIET_WINDOW=50ms SIDECAR_PROBE_LISTEN=127.0.0.1:13081 \
    /usr/sbin/chroot --userspec=65532:65532 --groups=65532 "$image" /session-sidecar "$@"
}

(contained "$work/first" run --listen off) >"$work/run.log" 2>&1 &
run=$!
pids+=("$run")
for _ in {1..600}; do
  (contained "$work/first" probe readyz) >"$work/probe.log" 2>&1 && break
  kill -0 "$run" || fail "it does not run: $(cat "$work/run.log")"
  sleep 0.1
done
grep -qx ok "$work/probe.log" || fail "not ready: $(cat "$work/probe.log" "$work/run.log")"
echo '{"me":"there"}' | "${as_root[@]}" tee "$work/first/note.json" >/dev/null
"${as_root[@]}" chown 65532:65532 "$work/first/note.json"
# A session's file at its end: the flush of SIGTERM has it.
"${as_root[@]}" kill -TERM "$run"
wait "$run" || fail "it did not end in order: $(cat "$work/run.log")"
(contained "$work/second" restore) >"$work/restore.log" 2>&1 || fail "no restore: $(cat "$work/restore.log")"
"${as_root[@]}" diff -r -x .session-sidecar "$work/first" "$work/second" || fail "the restored tree is another one"
[[ $("${as_root[@]}" cat "$work/second/note.json") == '{"me":"there"}' ]] || fail "the file was not kept"
echo "tests/image.sh: $(du -h "$binary" | cut -f1) binary, alone in a read-only root: passed"
