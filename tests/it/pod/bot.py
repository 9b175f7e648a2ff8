"""A bot that keeps a session as Baileys does, and tells a diary beside it what it has fsynced.

bot.py TREE DIARY LOCK: nobody who holds LOCK interrupts a write.
"""
import base64, fcntl, hashlib, json, os, signal, sys, time

tree, diary, lock = sys.argv[1:4]
ended = False


def on_signal(*_):
    global ended
    ended = True


signal.signal(signal.SIGTERM, on_signal)
lock = os.open(lock, os.O_CREAT | os.O_RDWR)
diary = os.open(diary, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def tell(*words):
    os.write(diary, (" ".join(words) + "\n").encode())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def put(name, value):
    data = json.dumps(value).encode()
    file = os.open(os.path.join(tree, name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.write(file, data)
    os.fsync(file)
    os.close(file)
    tell("put", name, sha256(data))


def remove(name):
    os.remove(os.path.join(tree, name))
    tell("remove", name)


def key():
    return {"type": "Buffer", "data": base64.b64encode(os.urandom(32)).decode()}


def pair():
    return {"private": key(), "public": key()}


def new_identity():
    return {
        "noiseKey": pair(), "pairingEphemeralKeyPair": pair(), "signedIdentityKey": pair(),
        "registrationId": 44, "advSecretKey": base64.b64encode(os.urandom(32)).decode(),
        "nextPreKeyId": 1, "firstUnuploadedPreKeyId": 1,
        "me": {"id": "15550001111:1@s.whatsapp.net", "name": "Bot"},
        "account": {"details": key(), "accountSignatureKey": key(), "accountSignature": key()},
        "rounds": 0,
    }


def play(creds):
    creds["rounds"] += 1
    number = creds["rounds"]
    put(f"session-{number % 9}.0.json", {"_sessions": {"n": number}})
    put(f"sender-key-{number % 5}.json", {"n": number})
    if number % 8 == 0:
        # A top-up: the key, then the word that it is there. An older one was used meanwhile.
        next_id = creds["nextPreKeyId"]
        if next_id > 4:
            remove(f"pre-key-{next_id - 4}.json")
        put(f"pre-key-{next_id}.json", {"public": key(), "private": key()})
        creds["nextPreKeyId"] = creds["firstUnuploadedPreKeyId"] = next_id + 1
        put("creds.json", creds)


tell("start")
os.makedirs(tree, exist_ok=True)
names = sorted(name for name in os.listdir(tree) if name.endswith(".json"))
for name in names:
    with open(os.path.join(tree, name), "rb") as file:
        tell("has", name, sha256(file.read()))
tell("new" if "creds.json" not in names else "known")
if "creds.json" in names:
    with open(os.path.join(tree, "creds.json")) as file:
        creds = json.load(file)
else:
    creds = new_identity()
    put("creds.json", creds)
# What was counted since creds.json was written last.
creds["rounds"] += 8
tell("up")
while not ended:
    fcntl.flock(lock, fcntl.LOCK_EX)
    play(creds)
    fcntl.flock(lock, fcntl.LOCK_UN)
    time.sleep(0.1)
# What a bot still writes when it is told to end.
for _ in range(8):
    play(creds)
    time.sleep(0.02)
tell("end")
