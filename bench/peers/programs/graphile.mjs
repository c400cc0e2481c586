// graphile-worker, told by the comparison what to do: URL, verb, argument (see peer.py).
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { Logger, makeWorkerUtils, run } from 'graphile-worker'

const [url, verb, argument] = process.argv.slice(2)
const CHUNK = 5000
const quiet = new Logger(() => (level, message) => {
  if (level === 'error') console.error(message)
})
// What the page on performance of its manual was measured with.
const SINGLE = { concurrentJobs: 24, maxPoolSize: 25 }
const WORKING = {
  single: SINGLE,
  batch: { ...SINGLE, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
}
// Looks for old locks at once; that a lock is old after four hours cannot be set.
const EAGER = { minResetLockedInterval: 1000, maxResetLockedInterval: 1500 }

const work = (settings, taskList) => run({
  preset: { worker: { connectionString: url, logger: quiet, ...settings } }, taskList
})
const utils = await makeWorkerUtils({ connectionString: url, logger: quiet })

const verbs = {
  async setup () {
    await utils.migrate()
  },
  async fill () {
    for (let left = Number(argument); left > 0; left -= CHUNK) {
      const some = Array.from({ length: Math.min(left, CHUNK) }, () => ({ identifier: 'nothing' }))
      await utils.addJobs(some)
    }
  },
  async work () {
    await (await work(WORKING[argument], { nothing: async () => {} })).promise
  },
  async pickup () {
    let told
    await work(SINGLE, { tell: async () => told(performance.now()) })
    await pause(1000)
    for (let number = 0; number < Number(argument); number++) {
      await pause(30)
      const picked = new Promise(resolve => { told = resolve })
      const began = performance.now()
      await utils.addJob('tell')
      console.log('took', await picked - began)
    }
  },
  async send () {
    await utils.addJob('hold')
  },
  async hold () {
    const lines = createInterface({ input: process.stdin })
    const hold = async () => {
      console.log('began')
      await once(lines, 'line')
      console.log('ended')
    }
    await (await work(EAGER, { hold })).promise
  }
}
await verbs[verb]()
process.exit()
