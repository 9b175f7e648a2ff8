#!/usr/bin/env python3
"""Runs the steps of the Dockerfile without a container engine, and tries what they make. As root, on Debian with debootstrap
and rustup:

    tests/dockerfile.py [sidecar|full] [WORK DIRECTORY]

Each stage is a directory: `rust:…` a fresh Debian (debootstrap) with the C compiler that the real image has and the machine's
toolchain in its place, `scratch` an empty one. RUN is a shell in a chroot of it, without anything else of the machine but its
package caches. In the end tests/image.sh runs the binary. It compiles in the release profile, which takes too long for
every run of the tests.
"""
import os, re, shlex, shutil, subprocess, sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TARGET = sys.argv[1] if len(sys.argv) > 1 else "sidecar"
WORK = Path(sys.argv[2] if len(sys.argv) > 2 else PROJECT / "target/dockerfile").resolve()
PATH = "/usr/local/toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*command, **more):
    print("+", shlex.join(map(str, command)), flush=True)
    subprocess.run(list(map(str, command)), check=True, **more)


def instructions(text):
    """Instruction and argument of each step; continued lines are joined, comments dropped."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in re.sub(r"\\\n", "", lines).splitlines():
        if line.strip():
            yield line.split(None, 1)


def debian(root):
    """The base of the build: as the official image, a slim Debian with gcc, and Rust of the machine's version."""
    run("debootstrap", "--variant=minbase", "--include=ca-certificates,gcc,libc6-dev", "bookworm", root)
    for place in ("usr/local/toolchain", "usr/local/cargo", "proc", "dev"):
        (root / place).mkdir(parents=True, exist_ok=True)


def shell(root, script, env, cwd):
    """A RUN step: the stage as root directory, in a mount namespace of its own."""
    toolchain = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    cargo = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
    mounts = f"mount --rbind {shlex.quote(toolchain)} usr/local/toolchain && mount --rbind {shlex.quote(cargo)} usr/local/cargo"
    # Where packages come from and whom to trust is the machine's business.
    mounts += " && mount --rbind /dev dev && mount -t proc proc proc && mount --bind /etc/ssl/certs etc/ssl/certs"
    mounts += " && touch etc/resolv.conf && mount --bind /etc/resolv.conf etc/resolv.conf"
    variables = {"PATH": PATH, "HOME": "/root", "CARGO_HOME": "/usr/local/cargo", **env}
    variables |= {name: value for name, value in os.environ.items() if re.match("(https?|no)_proxy$", name, re.I)}
    inside = shlex.join(["env", "-i", *(f"{n}={v}" for n, v in variables.items()), "sh", "-ec", f"cd {cwd}; {script}"])
    run("unshare", "--mount", "bash", "-ec", f"cd {shlex.quote(str(root))}; {mounts}; exec chroot . {inside}")


def copy(stages, root, cwd, words):
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    *sources, to = [word for word in words if not word.startswith("--")]
    to = root / (to if to.startswith("/") else f"{cwd}/{to}").lstrip("/")
    origin = stages[flags["from"]] if "from" in flags else CONTEXT
    for source in sources:
        source = origin / source.lstrip("/")
        place = to if source.is_dir() else to / source.name
        place.mkdir(parents=True, exist_ok=True) if source.is_dir() else place.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-rT", "--preserve=mode", source, place)
        run("chown", "-R", flags.get("chown", "0:0"), place)


def context():
    """What .dockerignore lets through. It names what is wanted, and nothing else."""
    ignored, *wanted = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert ignored == "*" and all(line.startswith("!") for line in wanted)
    place = WORK / "context"
    place.mkdir()
    for line in wanted:
        run("cp", "-r", PROJECT / line[1:], place)
    return place


shutil.rmtree(WORK, ignore_errors=True)
WORK.mkdir(parents=True)
CONTEXT = context()
steps = list(instructions((PROJECT / "Dockerfile").read_text()))
# Only what the target is made from, as BuildKit does it.
needs, name = {}, None
for word, argument in steps:
    if word == "FROM":
        origin, name = re.fullmatch(r"(\S+) AS (\S+)", argument).groups()
        needs[name] = {origin}
    elif name and (other := re.search(r"--from=(\S+)", argument)):
        needs[name].add(other[1])
wanted, ahead = set(), [TARGET]
while ahead:
    wanted |= {stage := ahead.pop()}
    ahead += needs.get(stage, ())
stages, settings = {}, {}
skip = True
for word, argument in steps:
    if word == "FROM":
        origin, name = re.fullmatch(r"(\S+) AS (\S+)", argument).groups()
        skip = name not in wanted
        if skip:
            continue
        root = stages[name] = WORK / name
        print(f"== {name}", flush=True)
        settings[name] = {"env": {}, "cwd": "/", **settings.get(origin, {})}
        if origin.startswith("rust:"):
            debian(root)
        elif origin == "scratch":
            root.mkdir()
        else:
            run("cp", "-a", stages[origin], root)
        here = settings[name] = {**settings[name], "env": dict(settings[name]["env"])}
    elif skip:
        assert word in ("ARG", "ENV", "RUN", "COPY", "LABEL", "EXPOSE", "CMD", "WORKDIR"), word
    elif word == "ENV":
        here["env"] |= dict(pair.split("=", 1) for pair in shlex.split(argument))
    elif word == "WORKDIR":
        here["cwd"] = argument
        (root / argument.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "COPY":
        copy(stages, root, here["cwd"], argument.split())
    elif word == "RUN":
        shell(root, argument, here["env"], here["cwd"])
    else:
        # What a container engine does with them is tried by tests/image.sh.
        assert word in ("ARG", "LABEL", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD", "EXPOSE"), word
image = stages[TARGET]
found = sorted(str(path.relative_to(image)) for path in image.rglob("*"))
assert found == ["LICENSE", "NOTICE", "session-sidecar", "sessions"], found
assert (image / "sessions").stat().st_uid == 65532
run("tests/image.sh", image / "session-sidecar", cwd=PROJECT)
