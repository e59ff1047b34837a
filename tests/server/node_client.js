// Node's `ws` as a client: node node_client.js PATH_OF_WS ADDRESS; says as JSON what it saw.
const [, , library, address] = process.argv
const { WebSocket } = require(library)
const { createHash } = require('node:crypto')

const socket = new WebSocket(address, ['chat', 'echo'])
const saw = { offered: socket.protocol, messages: [], pongs: [] }
const sum = (data) => createHash('sha256').update(data).digest('hex')
const big = Buffer.alloc(1_000_000, 'grün')

socket.on('open', () => {
  saw.protocol = socket.protocol
  saw.extensions = socket.extensions
  socket.ping('are you there?')
  socket.send('grüße ✓')
  socket.send(Buffer.from([0, 255]))
  socket.send('in three ', { fin: false })
  socket.send('', { fin: false })
  socket.send('fragments')
  socket.send(big)
})
socket.on('pong', (data) => saw.pongs.push(data.toString()))
socket.on('message', (data, binary) => {
  saw.messages.push(data.length < 100 ? [binary, data.toString(binary ? 'hex' : 'utf8')] : sum(data) === sum(big))
  if (saw.messages.length === 4) socket.close(4001, 'had enough')
})
socket.on('error', (error) => { saw.error = String(error) })
socket.on('close', (code, reason) => {
  saw.closed = [code, reason.toString()]
  console.log(JSON.stringify(saw))
})
