// The editor: drives `agent acp` with the official TypeScript library, which validates each message
// that it receives. Prints one line for each check.
//
//     node editor.mjs AGENT REPOSITORY REGISTRY_ENTRY
import { spawn } from "node:child_process";
import { readFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import * as acp from "@agentclientprotocol/sdk";

const [agent, repository, entry] = process.argv.slice(2);
const { agent: methods, client: ours } = acp.methods;

let failed = 0;
function check(name, passed, seen) {
  if (!passed) failed += 1;
  console.log(passed ? `ok ${name}` : `FAILED ${name}: ${JSON.stringify(seen)}`);
}

/// Starts the agent and runs `work` with a context for requests, the updates and permission
/// requests so far, and a function that waits for an update. Answers each permission request with
/// the next kind of option in `permissions`. Returns the agent's exit code.
async function edit(permissions, work) {
  const args = ["acp", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
  const child = spawn(agent, args, { stdio: ["pipe", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  const stream = acp.ndJsonStream(Writable.toWeb(child.stdin), Readable.toWeb(child.stdout));
  const updates = [];
  const asked = [];
  const waiting = [];
  await acp
    .client({ name: "test" })
    .onNotification(ours.session.update, ({ params }) => {
      updates.push(params.update);
      for (const wait of waiting) wait(params.update);
    })
    .onRequest(ours.session.requestPermission, ({ params }) => {
      asked.push(params);
      const kind = permissions.shift();
      const option = params.options.find((option) => option.kind === kind);
      return { outcome: { outcome: "selected", optionId: option.optionId } };
    })
    .connectWith(stream, async (context) => {
      const until = (fits) => new Promise((resolve) => waiting.push((update) => fits(update) && resolve()));
      await work(context, { updates, asked, until });
    });
  child.stdin.end();
  return exited;
}

const text = (updates, kind) =>
  updates.filter((update) => update.sessionUpdate === kind).map((update) => update.content.text).join("");
const prompt = (context, sessionId, text) =>
  context.request(methods.session.prompt, { sessionId, prompt: [{ type: "text", text }] });

let sessionId;
const code = await edit(["reject_once", "allow_once"], async (context, { updates, asked, until }) => {
  const hello = await context.request(methods.initialize, { protocolVersion: 1, clientCapabilities: {} });
  check("the agent speaks version 1 and can load sessions",
    hello.protocolVersion === 1 && hello.agentCapabilities.loadSession === true, hello);
  const types = hello.authMethods.map((method) => method.type ?? "agent");
  check("a method of authentication is of a type that the registry accepts",
    types.some((type) => ["agent", "terminal"].includes(type)), hello.authMethods);
  const created = await context.request(methods.session.new, { cwd: repository, mcpServers: [] });
  sessionId = created.sessionId;
  check("a session offers modes and a choice of models",
    created.modes.currentModeId === "run" && created.configOptions.some((option) => option.category === "model"), created);
  const first = await prompt(context, sessionId, "Make the tests pass.");
  check("a prompt ends its turn", first.stopReason === "end_turn", first);
  check("text is streamed without the JSON of calls",
    text(updates, "agent_message_chunk").startsWith("I will read it.") && !text(updates, "agent_message_chunk").includes('"tool"'),
    text(updates, "agent_message_chunk"));
  const diffs = updates.flatMap((update) => update.content ?? []).filter((content) => content.type === "diff");
  check("an edit has a diff", diffs.length === 1 && diffs[0].newText.includes("$1 + $2"), diffs);
  check("the repository is fixed", readFileSync(join(repository, "add.sh"), "utf8").includes("$1 + $2"));
  check("the summary says that it is verified", text(updates, "agent_message_chunk").includes("**verified:** add adds"));

  const thinking = until((update) => update.content?.text?.includes("think"));
  const stopped = prompt(context, sessionId, "What else?");
  await thinking;
  await context.notify(methods.session.cancel, { sessionId });
  const reason = await stopped;
  check("a cancelled prompt ends as cancelled", reason.stopReason === "cancelled", reason);

  await context.request(methods.session.setMode, { sessionId, modeId: "ask" });
  await prompt(context, sessionId, "Write a note.");
  check("the user is asked about each edit", asked.length === 2 && asked.every((request) => request.toolCall.kind === "edit"), asked);
  check("a rejected edit is not made, and an allowed one is",
    existsSync(join(repository, "note.txt")) && readFileSync(join(repository, "note.txt"), "utf8") === "allowed\n");
  let error;
  await prompt(context, "nope", "Hello?").catch((caught) => (error = caught));
  check("a prompt for an unknown session is refused", error?.code === -32002, error);
});
check("the agent exits normally when the editor closes the connection", code === 0, code);

await edit([], async (context, { updates }) => {
  await context.request(methods.initialize, { protocolVersion: 1, clientCapabilities: {} });
  await context.request(methods.session.load, { sessionId, cwd: repository, mcpServers: [] });
  const messages = text(updates, "user_message_chunk");
  check("another process loads the session with its history",
    messages.startsWith("Make the tests pass.") && messages.includes("Write a note."), messages);
  const done = await prompt(context, sessionId, "Is that all?");
  check("a loaded session goes on", done.stopReason === "end_turn", done);
});

const { id, name, version, description, distribution } = JSON.parse(readFileSync(entry, "utf8"));
check("the registry entry has the required fields",
  /^[a-z][a-z0-9-]*$/.test(id) && /^\d+\.\d+\.\d+/.test(version) && name && description &&
    Object.values(distribution.binary).every(({ archive, cmd }) => URL.canParse(archive) && cmd), entry);
process.exit(failed ? 1 : 0);
