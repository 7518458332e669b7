// The OpenAI client for Node: chat, completions, streams, errors, cancelling.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const OpenAI = require("openai").default;

const chat = process.env.CHAT_MODEL;
const client = new OpenAI({
  baseURL: `${process.env.BASE_URL}/v1`,
  apiKey: "sk-none",
  maxRetries: 0,
});
const messages = [{ role: "user", content: "hi" }];
const numbers = (count) => [...Array(count).keys()].map((token) => ` ${token}`).join("");

const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert(names.includes("sim") && names.includes(chat));

const whole = await client.chat.completions.create({ model: "sim", messages, max_tokens: 5 });
assert.equal(whole.choices[0].message.content, numbers(5));
assert.equal(whole.usage.completion_tokens, 5);
assert.ok(whole._request_id);

const real = await client.chat.completions.create({
  model: chat,
  messages,
  max_completion_tokens: 8,
  temperature: 0,
});
assert.equal(real.choices[0].message.role, "assistant");

const stream = await client.chat.completions.create({
  model: "sim",
  messages,
  max_tokens: 4,
  n: 2,
  stream: true,
  stream_options: { include_usage: true },
});
const texts = ["", ""];
let usage = null;
for await (const chunk of stream) {
  for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.deepEqual(texts, [numbers(4), numbers(4)]);
assert.equal(usage.completion_tokens, 8);

const helper = client.chat.completions.stream({ model: "sim", messages, max_tokens: 6 });
assert.equal(await helper.finalContent(), numbers(6));

const completion = await client.completions.create({ model: "sim", prompt: "a", max_tokens: 3 });
assert.equal(completion.choices[0].text, numbers(3));

await assert.rejects(
  client.chat.completions.create({ model: "none", messages }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);
await assert.rejects(
  client.chat.completions.create({ model: "sim", messages, temperature: 3, stream: true }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
);

const named = { headers: { "x-request-id": "node-left" } };
const long = { model: "sim", prompt: "a", max_tokens: 20000, stream: true };
const left = await client.completions.create(long, named);
for await (const chunk of left) {
  assert.equal(chunk.choices[0].index, 0);
  break; // This aborts the request.
}
const deadline = Date.now() + 5000;
for (;;) {
  try {
    await client.completions.create({ model: "sim", prompt: "a", max_tokens: 1 }, named);
    break;
  } catch (error) {
    assert.equal(error.status, 409);
    assert(Date.now() < deadline, "leaving did not end the request");
  }
}
console.log("passed");
