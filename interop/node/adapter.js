// KafkaJS behind the protocol of interop/README.md.
'use strict'

const readline = require('readline')
const { Kafka, CompressionTypes, CompressionCodecs, AssignerProtocol, ConfigResourceTypes, logLevel } = require('kafkajs')
const lz4 = require('lz4js')
const snappy = require('kafkajs-snappy')
const { ZstdCodec } = require('zstd-codec')

const LIMIT_MS = 30000
const CONSUME_LIMIT_MS = 20000

// KafkaJS brings gzip; the others are plugged in, as its users do.
const zstd = new Promise(resolve => ZstdCodec.run(codec => resolve(new codec.Simple())))
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async buffer => Buffer.from((await zstd).decompress(buffer)),
})

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

const unhex = text => (text === null ? null : Buffer.from(text, 'hex'))
const hex = bytes => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('hex'))

const kafka = request =>
  new Kafka({
    brokers: [request.bootstrap],
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 10 },
  })

async function withClient(client, use) {
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.disconnect()
  }
}

const withAdmin = use => request => withClient(kafka(request).admin(), admin => use(admin, request))

/** Repeated names become one entry with a list, which is how KafkaJS writes them. */
function headersOf(pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    const bytes = unhex(value)
    if (!(name in headers)) headers[name] = bytes
    else headers[name] = [].concat(headers[name], [bytes])
  }
  return headers
}

function describe(partition, message) {
  const headers = Object.entries(message.headers || {}).flatMap(([name, value]) =>
    Array.isArray(value) ? value.map(each => [name, hex(each)]) : [[name, hex(value)]]
  )
  return {
    partition,
    offset: Number(message.offset),
    timestamp: Number(message.timestamp),
    key: hex(message.key),
    value: hex(message.value),
    headers,
  }
}

async function produce(request) {
  const producer = kafka(request).producer({
    idempotent: request.idempotence,
    maxInFlightRequests: 1,
    allowAutoTopicCreation: false,
  })
  const messages = request.records.map(record => ({
    partition: record.partition,
    timestamp: String(record.timestamp),
    key: unhex(record.key),
    value: unhex(record.value),
    headers: headersOf(record.headers),
  }))
  const sent = await withClient(producer, client =>
    client.send({
      topic: request.topic,
      acks: request.acks === 'all' ? -1 : Number(request.acks),
      compression: CODECS[request.codec],
      messages,
    })
  )
  // What goes to a partition goes in one batch, in order.
  const next = new Map()
  for (const { partition, baseOffset } of sent || []) {
    if (baseOffset !== undefined) next.set(partition, Number(baseOffset))
  }
  const offsets = request.records.map(({ partition }) => {
    if (request.acks === '0' || !next.has(partition)) return -1
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return offset
  })
  return { offsets }
}

/** KafkaJS has no consumer without a group: one with a group of its own, sent to the offset. */
async function consume(request) {
  const group = `reads-${process.pid}-${Math.random()}`
  const records = []
  const consumer = kafka(request).consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 1000, maxWaitTimeInMs: 50 })
  await withClient(consumer, async client => {
    await client.subscribe({ topic: request.topic, fromBeginning: true })
    let done
    const enough = new Promise(resolve => { done = resolve })
    await client.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        const record = describe(partition, message)
        if (partition !== request.partition || record.offset < request.from) return
        if (records.length < request.count) records.push(record)
        if (records.length >= request.count) done()
      },
    })
    client.seek({ topic: request.topic, partition: request.partition, offset: String(request.from) })
    if (request.count === 0) done()
    const timer = setTimeout(done, CONSUME_LIMIT_MS)
    await enough
    clearTimeout(timer)
  })
  return { records }
}

const watermarks = withAdmin(async (admin, request) => {
  const found = (await admin.fetchTopicOffsets(request.topic)).find(at => at.partition === request.partition)
  return { low: Number(found.low), high: Number(found.high) }
})

const offsets = withAdmin(async (admin, request) => {
  const found = []
  for (const time of request.times) {
    const all = await admin.fetchTopicOffsetsByTimestamp(request.topic, time)
    found.push(Number(all.find(at => at.partition === request.partition).offset))
  }
  return { offsets: found }
})

const create = withAdmin(async (admin, request) => {
  const configEntries = Object.entries(request.configs).map(([name, value]) => ({ name, value }))
  const topic = { topic: request.topic, numPartitions: request.partitions, replicationFactor: 1, configEntries }
  const created = await admin.createTopics({ topics: [topic], waitForLeaders: true })
  if (!created) throw new Error('the topic exists')
})

const remove = withAdmin((admin, request) => admin.deleteTopics({ topics: [request.topic] }))

const topics = withAdmin(async admin => ({ topics: await admin.listTopics() }))

const configs = withAdmin(async (admin, request) => {
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: request.topic }]
  const described = await admin.describeConfigs({ includeSynonyms: false, resources })
  const entries = described.resources[0].configEntries
  return { configs: Object.fromEntries(entries.map(entry => [entry.configName, entry.configValue])) }
})

const setConfigs = withAdmin(async (admin, request) => {
  const configEntries = Object.entries(request.configs).map(([name, value]) => ({ name, value }))
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: request.topic, configEntries }]
  await admin.alterConfigs({ validateOnly: false, resources })
})

const partitions = withAdmin(async (admin, request) => {
  const described = await admin.fetchTopicMetadata({ topics: [request.topic] })
  return { partitions: described.topics[0].partitions.length }
})

const addPartitions = withAdmin((admin, request) =>
  admin.createPartitions({ topicPartitions: [{ topic: request.topic, count: request.partitions }] })
)

const deleteRecords = withAdmin(async (admin, request) => {
  const partitions = [{ partition: request.partition, offset: String(request.before) }]
  // KafkaJS deletes only from topics that the client has met.
  await admin.fetchTopicOffsets(request.topic)
  await admin.deleteTopicRecords({ topic: request.topic, partitions })
  const found = (await admin.fetchTopicOffsets(request.topic)).find(at => at.partition === request.partition)
  return { low: Number(found.low) }
})

const groups = withAdmin(async admin => {
  const listed = await admin.listGroups()
  return { groups: listed.groups.map(group => group.groupId) }
})

const describeGroup = withAdmin(async (admin, request) => {
  const [group] = (await admin.describeGroups([request.group])).groups
  const members = group.members.map(({ memberAssignment }) => {
    if (memberAssignment.length === 0) return []
    const assigned = AssignerProtocol.MemberAssignment.decode(memberAssignment).assignment
    return Object.entries(assigned).flatMap(([topic, of]) => of.map(partition => `${topic}-${partition}`))
  })
  return { state: group.state, members }
})

const committed = withAdmin(async (admin, request) => {
  const [topic] = await admin.fetchOffsets({ groupId: request.group, topics: [request.topic] })
  const known = topic.partitions.filter(at => Number(at.offset) >= 0)
  return { offsets: Object.fromEntries(known.map(at => [at.partition, Number(at.offset)])) }
})

const commit = withAdmin((admin, request) => {
  const partitions = Object.entries(request.offsets).map(([partition, offset]) => ({
    partition: Number(partition),
    offset: String(offset),
  }))
  return admin.setOffsets({ groupId: request.group, topic: request.topic, partitions })
})

const deleteGroup = withAdmin((admin, request) => admin.deleteGroups([request.group]))

/** Group members, which poll in the background and commit whatever they are given. */
const members = new Map()

async function join(request) {
  const member = { assignment: [], consumed: [], note: null }
  const consumer = kafka(request).consumer({
    groupId: request.group,
    sessionTimeout: request.session,
    heartbeatInterval: 300,
    rebalanceTimeout: 10000,
    metadataMaxAge: 1000,
    maxWaitTimeInMs: 100,
    retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 1000 },
  })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    const assigned = Object.entries(payload.memberAssignment)
    member.assignment = assigned.flatMap(([topic, of]) => of.map(partition => `${topic}-${partition}`))
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => { member.note = String(payload.error) })
  member.leave = () => consumer.disconnect()
  members.set(request.member, member)
  const work = async () => {
    await consumer.connect()
    await consumer.subscribe({ topic: request.topic, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: true,
      eachBatch: async ({ batch }) => {
        if (batch.isEmpty()) return
        for (const message of batch.messages) member.consumed.push(describe(batch.partition, message))
        const offset = String(Number(batch.lastOffset()) + 1)
        await consumer.commitOffsets([{ topic: batch.topic, partition: batch.partition, offset }])
      },
    })
  }
  work().catch(error => { member.note = String(error) })
}

const VERBS = {
  produce,
  consume,
  watermarks,
  offsets,
  create,
  delete: remove,
  topics,
  configs,
  'set-configs': setConfigs,
  partitions,
  'add-partitions': addPartitions,
  'delete-records': deleteRecords,
  groups,
  'describe-group': describeGroup,
  committed,
  commit,
  'delete-group': deleteGroup,
  join,
  member: async request => {
    const { assignment, consumed, note } = members.get(request.member)
    return { assignment, count: consumed.length, note }
  },
  consumed: async request => ({ records: members.get(request.member).consumed }),
  leave: request => members.get(request.member).leave(),
}

function bounded(work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer in time')), 3 * LIMIT_MS)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const request = JSON.parse(line)
    let answer
    try {
      answer = (await bounded(VERBS[request.do](request))) || {}
    } catch (error) {
      const inner = (error.errors || []).map(each => each.message).join('; ')
      answer = { error: `${error.name}: ${error.message} ${inner}` }
    }
    process.stdout.write(JSON.stringify(typeof answer === 'object' ? answer : {}) + '\n')
  }
  process.exit(0)
}

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
main()
