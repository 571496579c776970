// Test the fake server at a URL with the official JavaScript client. Run by scripts/ollama-clients.
import assert from 'node:assert/strict'
import { Ollama } from 'ollama'

const url = process.argv[2]
const client = new Ollama({ host: url })
const user = [{ role: 'user', content: 'hello' }]
const hello = 'Hello, wörld! 😀'
const checks = []
const check = (name, run) => checks.push([name, run])

async function control(method, path, body) {
  const answer = await fetch(`${url}/__fake/${path}`, { method, body: body && JSON.stringify(body) })
  assert.equal(answer.status, 200)
  return answer.json()
}
const script = (...replies) => control('POST', 'replies', replies)

async function collect(stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}

/** Returns the error that a call throws; fails if there is none. */
async function refusal(call) {
  try {
    const answer = await call()
    if (answer?.[Symbol.asyncIterator]) await collect(answer)
  } catch (problem) {
    return problem
  }
  throw new Error('no error was raised')
}

check('models are listed', async () => {
  const { models } = await client.list()
  assert.deepEqual(models.map((model) => model.name), ['plain:7b', 'thinker:8b', 'tooler:latest'])
})

check('the version is returned', async () => {
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/)
})

check('a model is shown with capabilities and context', async () => {
  const shown = await client.show({ model: 'thinker:8b' })
  assert.deepEqual(shown.capabilities, ['completion', 'thinking'])
  assert.equal(shown.model_info['qwen3.context_length'], 131072)
})

check('an unknown model returns 404', async () => {
  assert.equal((await refusal(() => client.show({ model: 'nope' }))).status_code, 404)
  assert.equal((await refusal(() => client.chat({ model: 'nope', messages: user, stream: true }))).status_code, 404)
})

check('a chat without streaming', async () => {
  await script(hello)
  const answer = await client.chat({ model: 'plain:7b', messages: user })
  assert.equal(answer.message.content, hello)
  assert.equal(answer.done_reason, 'stop')
  assert.ok(answer.prompt_eval_count > 0 && answer.eval_count > 0)
})

check('a streamed chat split inside its lines', async () => {
  // The text is ASCII, so that no character is split: this client decodes each chunk separately.
  await script({ steps: [{ text: 'Hello, world!' }], split_bytes: 1 })
  const parts = await collect(await client.chat({ model: 'plain:7b', messages: user, stream: true }))
  assert.equal(parts.map((part) => part.message.content).join(''), 'Hello, world!')
  assert.equal(parts.at(-1).done, true)
})

check('thinking arrives in its own field', async () => {
  const reply = { steps: [{ thinking: 'let me see' }, { text: 'yes' }] }
  await script(reply, reply)
  const { message } = await client.chat({ model: 'thinker:8b', messages: user, think: true })
  assert.deepEqual([message.thinking, message.content], ['let me see', 'yes'])
  const parts = await collect(await client.chat({ model: 'thinker:8b', messages: user, think: 'low', stream: true }))
  assert.equal(parts.map((part) => part.message.thinking ?? '').join(''), 'let me see')
})

check('thinking is refused by a model without it', async () => {
  const problem = await refusal(() => client.chat({ model: 'plain:7b', messages: user, think: true }))
  assert.equal(problem.status_code, 400)
  assert.match(problem.message, /does not support thinking/)
})

const parameters = { type: 'object', properties: { path: { type: 'string' } }, required: ['path'] }
const tools = [{ type: 'function', function: { name: 'read_file', description: 'Reads a file.', parameters } }]
const call = { tool_call: { name: 'read_file', arguments: { path: 'src/main.rs' } } }

check('a tool is called and its result sent back', async () => {
  await script({ steps: [call] }, 'Done.')
  const { message } = await client.chat({ model: 'tooler', messages: user, tools })
  assert.deepEqual(message.tool_calls[0].function.arguments, { path: 'src/main.rs' })
  const result = { role: 'tool', content: 'fn main() {}', tool_name: 'read_file' }
  const answer = await client.chat({ model: 'tooler', messages: [...user, message, result], tools })
  assert.equal(answer.message.content, 'Done.')
})

check('each tool call arrives in one piece', async () => {
  await script({ steps: [call, call], calls_in_final_chunk: true })
  const parts = await collect(await client.chat({ model: 'tooler', messages: user, tools, stream: true }))
  assert.deepEqual(parts.map((part) => part.message.tool_calls?.length ?? 0), [2])
})

check('tools are refused by a model without them', async () => {
  const problem = await refusal(() => client.chat({ model: 'thinker:8b', messages: user, tools }))
  assert.match(problem.message, /does not support tools/)
})

check('generate works with and without streaming', async () => {
  await script(hello, hello)
  assert.equal((await client.generate({ model: 'plain:7b', prompt: 'hello' })).response, hello)
  const parts = await collect(await client.generate({ model: 'plain:7b', prompt: 'hello', stream: true }))
  assert.equal(parts.map((part) => part.response).join(''), hello)
})

check('a loaded model is listed with its context and can be unloaded', async () => {
  await client.chat({ model: 'tooler', messages: [], options: { num_ctx: 8192 } })
  const loaded = (await client.ps()).models.find((model) => model.name === 'tooler:latest')
  assert.equal(loaded.context_length, 8192)
  const unloaded = await client.chat({ model: 'tooler', messages: [], keep_alive: 0 })
  assert.equal(unloaded.done_reason, 'unload')
})

check('an error in the middle of a stream is raised', async () => {
  await script({ steps: [{ text: 'half' }, { error_line: 'the runner stopped' }] })
  const problem = await refusal(() => client.chat({ model: 'plain:7b', messages: user, stream: true }))
  assert.match(problem.message, /the runner stopped/)
})

check('a stream that ends without done is an error', async () => {
  await script({ steps: [{ text: 'half' }], end: 'eof' })
  const problem = await refusal(() => client.chat({ model: 'plain:7b', messages: user, stream: true }))
  assert.match(problem.message, /done/i)
})

check('an aborted stream closes the connection', async () => {
  await script({ steps: [{ text: 'one' }, { gate: 'javascript' }, { text: 'never' }] })
  const index = (await control('GET', 'requests')).length
  const stream = await client.chat({ model: 'plain:7b', messages: user, stream: true })
  await control('GET', 'reached/javascript')
  stream.abort()
  await assert.rejects(collect(stream))
  const ended = await control('GET', `ended/${index}`)
  assert.deepEqual([ended.outcome, ended.generated_tokens], ['client_closed', 1])
})

check('pulling a model reports progress', async () => {
  const parts = await collect(await client.pull({ model: 'new:1b', stream: true }))
  assert.equal(parts[0].status, 'pulling manifest')
  assert.equal(parts.at(-1).status, 'success')
  assert.ok(parts.some((part) => part.completed > 0 && part.completed <= part.total))
  assert.equal((await client.pull({ model: 'new:1b' })).status, 'success')
})

check('pulling an unknown model fails inside the stream', async () => {
  const problem = await refusal(() => client.pull({ model: 'nowhere', stream: true }))
  assert.match(problem.message, /does not exist/)
})

check('a model can be deleted only once', async () => {
  assert.equal((await client.delete({ model: 'new:1b' })).status, 'success')
  assert.equal((await refusal(() => client.delete({ model: 'new:1b' }))).status_code, 404)
})

for (const [name, run] of checks) {
  try {
    await run()
    console.log('ok', name)
  } catch (problem) {
    process.exitCode = 1
    console.log('FAILED', name)
    console.error(problem)
  }
}
