// pg-boss, told by the comparison what to do: URL, verb, argument (see peer.py).
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { PgBoss } from 'pg-boss'

const [url, verb, argument] = process.argv.slice(2)
const CHUNK = 5000
// Its monitor looks every minute unless told otherwise; a heartbeat is 10 s at the least.
const EAGER = { superviseIntervalSeconds: 1, monitorIntervalSeconds: 1, queueCacheIntervalSeconds: 1 }
const WORKING = {
  single: { localConcurrency: 10, batchSize: 1, burstWhenReadyExceeds: 1, pollingIntervalSeconds: 0.5 },
  batch: { localConcurrency: 4, batchSize: 250, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
}

const boss = new PgBoss({ connectionString: url, max: 12, useListenNotify: verb === 'pickup', ...EAGER })
boss.on('error', error => console.error(error.message))
await boss.start()

const verbs = {
  async setup () {
    await boss.createQueue('nothing')
    await boss.createQueue('tell', { notify: true })
    await boss.createQueue('hold', { heartbeatSeconds: 10 })
  },
  async fill () {
    for (let left = Number(argument); left > 0; left -= CHUNK) {
      await boss.insert('nothing', Array.from({ length: Math.min(left, CHUNK) }, () => ({})))
    }
  },
  async work () {
    await boss.work('nothing', WORKING[argument], async () => {})
    await new Promise(() => {})
  },
  async pickup () {
    let told
    await boss.work('tell', async () => told(performance.now()))
    await pause(1000)
    for (let number = 0; number < Number(argument); number++) {
      await pause(30)
      const picked = new Promise(resolve => { told = resolve })
      const began = performance.now()
      await boss.send('tell')
      console.log('took', await picked - began)
    }
  },
  async send () {
    await boss.send('hold')
  },
  async hold () {
    const lines = createInterface({ input: process.stdin })
    await boss.work('hold', { heartbeatRefreshSeconds: 2, pollingIntervalSeconds: 0.5 }, async () => {
      console.log('began')
      await once(lines, 'line')
      console.log('ended')
    })
    await new Promise(() => {})
  }
}
await verbs[verb]()
await boss.stop({ graceful: false })
process.exit()
