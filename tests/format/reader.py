"""Rebuilds a session from its history. Written from docs/format.md alone, to prove that the page says enough.

    python3 reader.py BUCKET USER SESSION TO [ID]        BUCKET: a directory that holds the bucket's objects as files
"""
import hashlib, io, json, os, re, subprocess, sys, tarfile

ID = "[0-9]{8}-[0-9]{8}-[0-9a-f]{8}"
COMMIT = re.compile(rf"({ID})(\.base)?(?:\.from\.({ID}))?(?:\.p([0-9]{{3}})-of-([0-9]{{3}}))?\.tar\.zst")

def need(holds, what):
    if not holds:
        sys.exit(f"damaged: {what}")

def commits(names):
    """By id its complete sets of objects, one if all is well: (parent, kind, names of the parts)."""
    found = {}
    for id, base, parent, number, of, name in [(*m.groups(), m[0]) for m in map(COMMIT.fullmatch, names) if m]:
        if (parent < id if parent else base) and (not of or 1 <= int(number) <= int(of) >= 2):
            kind = "base" if base else "delta"
            found.setdefault(id, {}).setdefault((parent, kind, int(of or 1), bool(of)), []).append(name)
    sets = {id: [(*key[:2], sorted(parts)) for key, parts in of_id.items() if len(parts) == key[2]] for id, of_id in found.items()}
    return {id: whole for id, whole in sets.items() if whole}

def is_path(path):
    parts = path.split("/")
    good = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    return good and "\0" not in path and len(path.encode()) <= 4096 and parts[0] not in (".session-sidecar", "lost+found")

def unpacked(packed):
    tar = subprocess.run(["zstd", "-dcq", "--memory=8MB"], input=packed, capture_output=True)
    need(tar.returncode == 0, tar.stderr.decode())
    archive = tarfile.open(fileobj=io.BytesIO(tar.stdout), mode="r:")
    members = archive.getmembers()
    need(members and members[0].name == "commit.json" and all(member.isreg() for member in members), "not an archive of files")
    need(len({member.name for member in members}) == len(members), "an entry comes twice")
    content = {member.name: archive.extractfile(member).read() for member in members}
    return {"patch": [], "remove": [], "empty_dirs": []} | json.loads(content.pop("commit.json")), content

def apply(tree, commit, content):
    named = [entry["path"] for entry in commit["put"] + commit["patch"]] + commit["remove"]
    need(len(set(named)) == len(named) and all(map(is_path, named + commit["empty_dirs"])), "paths")
    for path in commit["remove"]:
        need(tree.pop(path, None), f"{path} is removed but not there")
    for entry in commit["patch"]:
        path, size, block = entry["path"], entry["size"], entry["block"]
        need(path in tree and tree[path][0]["sha256"] == entry["of"], "a patch of another version")
        blocks, new, end = io.BytesIO(content.pop(f"blocks/{path}")), bytearray(tree[path][1][:size]), 0
        for first, count in entry["runs"]:
            need(count > 0 and end <= first * block <= len(new), "a run out of place")
            end = min((first + count) * block, size)
            new[first * block:end] = blocks.read(end - first * block)
        need(not blocks.read() and len(new) == size, "a patch that does not fit")
        tree[path] = entry, bytes(new)
    tree.update({entry["path"]: (entry, content.pop(f"files/{entry['path']}")) for entry in commit["put"]})
    need(not content, "entries that are not announced")
    count = {"files": len(tree), "bytes": sum(entry["size"] for entry, _ in tree.values())}
    need(count.items() <= commit["tree"].items(), f"it leads to {count}")

def main(bucket, user, session, to, head=None):
    folder = os.path.join(bucket, ".history", user, session)
    history, chain = commits(os.listdir(folder)), []
    id = head = head or max(history)
    while not chain or chain[0][2] == "delta":
        need(len(history.get(id, [])) == 1, f"{id} is missing, or there twice")
        chain.insert(0, (id, *history[id][0]))
        id = chain[0][1]
    tree = {}
    for id, parent, kind, parts in chain:
        commit, content = unpacked(b"".join(open(os.path.join(folder, part), "rb").read() for part in parts))
        need(commit["format"] == 1, f"{id} has format {commit['format']}: a newer reader is needed")
        says = [commit[field] for field in ("user", "session", "id", "parent", "kind")]
        need(says == [user, session, id, parent, kind], f"{id} says that it is {says}")
        need(kind == "delta" or not commit["patch"] and not commit["remove"], "a base that changes what is not there")
        apply(tree, commit, content)
    digest = hashlib.sha256()
    for path, (entry, content) in sorted(tree.items(), key=lambda item: item[0].encode()):
        need(entry["mode"] <= 0o777 and len(content) == entry["size"], f"mode or size of {path}")
        need(hashlib.sha256(content).hexdigest() == entry["sha256"], f"the content of {path}")
        digest.update(f"{path}\0{entry['mode']}\0{entry['size']}\0{entry['sha256']}\n".encode())
    need(digest.hexdigest() == commit["tree"]["sha256"], "not the tree that its writer meant")
    os.mkdir(to, 0o700)
    for path in commit["empty_dirs"]:
        os.makedirs(os.path.join(to, path))
    for path, (entry, content) in tree.items():
        os.makedirs(os.path.dirname(os.path.join(to, path)), exist_ok=True)
        with open(os.path.join(to, path), "xb") as file:
            file.write(content)
        os.chmod(file.name, entry["mode"])
        os.utime(file.name, ns=(entry["mtime_ns"],) * 2)
    print(head)

main(*sys.argv[1:])
