// A bot's side of a session, on Baileys' own store, its own pre-keys and its own transactions: it writes what messages and
// top-ups write, as fast as it can, and says on stdout what it found at its start, tried to write, and had at its end.
//
//   node writer.mjs MODULES     in the directory of the session; MODULES: where baileys is installed
import { createHash, randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { setTimeout as pause } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'

let stopping = false
process.on('SIGTERM', () => (stopping = true))

const baileys = createRequire(pathToFileURL(`${process.argv[2]}/`)).resolve('baileys')
const { addTransactionCapability, BufferJSON, getNextPreKeys, useMultiFileAuthState } = await import(pathToFileURL(baileys))

const say = (line) => console.log(JSON.stringify(line))
const text = (value) => JSON.stringify(value, BufferJSON.replacer)
const hash = (value) => createHash('sha256').update(text(value)).digest('hex')
const silent = new Proxy({}, { get: () => () => silent })

const { state, saveCreds } = await useMultiFileAuthState(process.cwd())
const { creds } = state

// What lies here, as the store reads it: hashes by file name. A file that it cannot read is null.
const types = ['pre-key', 'session', 'sender-key', 'identity-key']
const files = {}
for (const name of await readdir(process.cwd())) {
  const type = types.find((type) => name.startsWith(`${type}-`))
  if (type) {
    const id = name.slice(type.length + 1, -'.json'.length)
    const value = (await state.keys.get(type, [id]))[id]
    files[name] = value && hash(value)
  } else if (name === 'creds.json') {
    files[name] = hash(creds)
  }
}
say({ up: process.pid, next: creds.nextPreKeyId, files })

// Between the transactions and the store: what is written is said before it is, and remembered after it was.
const written = async (change, write) => {
  say({ try: change })
  await write()
  for (const [name, value] of Object.entries(change)) {
    if (value) files[name] = value
    else delete files[name]
  }
  say({ done: Object.keys(change) })
}
const store = {
  get: state.keys.get,
  set: (data) => {
    const change = {}
    for (const [type, values] of Object.entries(data)) {
      for (const [id, value] of Object.entries(values)) {
        change[`${type}-${id.replaceAll('/', '__').replaceAll(':', '-')}.json`] = value ? hash(value) : null
      }
    }
    return written(change, () => state.keys.set(data))
  },
}
const save = () => written({ 'creds.json': hash(creds) }, saveCreds)
const keys = addTransactionCapability(store, silent, { maxCommitRetries: 1, delayBetweenTriesMs: 10 })

// A top-up of pre-keys: the credentials are on their way to the disk before the keys are, as in the library's socket.
const topUp = async (count) => {
  let saving
  await keys.transaction(async () => {
    const { update } = await getNextPreKeys({ creds, keys }, count)
    Object.assign(creds, update)
    saving = save()
  }, 'top-up')
  await saving
}

if (!creds.me) {
  creds.me = { id: '5511900000001:7@s.whatsapp.net', lid: '104337748256512:7@lid' }
  creds.account = { details: randomBytes(32), accountSignatureKey: randomBytes(32), deviceSignature: randomBytes(64) }
  await save()
  await topUp(40)
}

const group = (n) => `12036343317475801${n}@g.us::166222475017421_1::0`
const chain = (n) => Buffer.from(JSON.stringify([{ senderKeyId: 1, senderChainKey: { iteration: n, seed: [...randomBytes(32)] } }]))
let used = Math.min(...Object.keys(files).flatMap((name) => name.match(/^pre-key-(\d+)/)?.[1] ?? []))
for (let turn = 1; !stopping; turn++) {
  await keys.set({ 'sender-key': { [group(turn % 3)]: chain(turn) } })
  if (turn % 4 === 1) {
    // The first message of a contact uses a pre-key up.
    const contact = `10433774825${used % 50}_1.0`
    await keys.transaction(async () => {
      await keys.set({ 'identity-key': { [contact]: randomBytes(33) }, session: { [contact]: { version: 'v1', turn } } })
      await keys.set({ 'pre-key': { [used++]: null } })
    }, contact)
  }
  if (turn % 16 === 0) await topUp(5)
  // Traffic comes in bursts.
  await pause(turn % 8 === 0 ? 150 : 2)
}

await save()
say({ end: files })
process.exit(0)
