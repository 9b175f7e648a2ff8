// A bot that answers "ping": the smallest one that keeps its session well. It knows nothing of the sidecar around it but
// the directory, and that a logout has to be told.
import { spawnSync } from 'node:child_process'
import { readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import makeWASocket, { DisconnectReason, useMultiFileAuthState } from 'baileys'
import pino from 'pino'
import qrcode from 'qrcode-terminal'

const directory = process.env.SIDECAR_ROOT ?? './sessions'
const logger = pino({ level: process.env.LOG_LEVEL ?? 'warn' })

const { state, saveCreds } = await useMultiFileAuthState(directory)

// What is being written. A process that ends in the middle of a write leaves an empty file behind.
const writes = new Set()
const tracked = (write) => {
  writes.add(write)
  return write.finally(() => writes.delete(write))
}
const keys = { get: state.keys.get, set: (data) => tracked(state.keys.set(data)) }

let socket
let stopping = false
const stop = async (code, last = saveCreds) => {
  if (stopping) return
  stopping = true
  socket?.end(undefined)
  while (writes.size) await Promise.allSettled(writes)
  await last()
  process.exit(code)
}
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop(0))

const connect = () => {
  console.log('connecting')
  // WHATSAPP_URL is for tests.
  const elsewhere = process.env.WHATSAPP_URL ? { waWebSocketUrl: process.env.WHATSAPP_URL } : {}
  socket = makeWASocket({ auth: { creds: state.creds, keys }, logger, ...elsewhere })
  socket.ev.on('creds.update', () => tracked(saveCreds()))
  socket.ev.on('connection.update', ({ connection, lastDisconnect, qr }) => {
    if (qr) qrcode.generate(qr, { small: true })
    if (connection === 'open') console.log('connected')
    if (connection === 'close') closed(lastDisconnect?.error?.output?.statusCode)
  })
  socket.ev.on('messages.upsert', async ({ messages, type }) => {
    for (const { key, message } of type === 'notify' ? messages : []) {
      const text = message?.conversation ?? message?.extendedTextMessage?.text
      if (text?.trim().toLowerCase() !== 'ping' || key.fromMe) continue
      await socket.sendMessage(key.remoteJid, { text: 'pong' }).catch((error) => logger.error(error, 'not answered'))
    }
  })
}

// The phone unlinked this device. First the sidecar has to know, which pins the session as it was; then the files can go.
const forget = async () => {
  const session = process.env.SIDECAR_SESSION
  if (!session) return
  const told = spawnSync('session-sidecar', ['logout', session], { stdio: 'inherit' })
  if (told.status !== 0) return
  const names = await readdir(directory)
  await Promise.all(names.filter((name) => name.endsWith('.json')).map((name) => unlink(join(directory, name))))
}

let failures = 0
const closed = async (reason) => {
  if (stopping) return
  if (reason === DisconnectReason.loggedOut) {
    console.error('logged out: scan the next code')
    return stop(1, forget)
  }
  if (reason === DisconnectReason.connectionReplaced) {
    // Somebody else uses the same keys. To fight for them would end in a ban.
    console.error('replaced: another process uses this session; stop one of the two')
    return stop(0)
  }
  // 515 asks for a new connection at once: it follows every pairing.
  if (reason !== DisconnectReason.restartRequired) await pause(Math.min(1000 * 2 ** failures++, 60_000))
  else failures = 0
  if (!stopping) connect()
}

connect()
