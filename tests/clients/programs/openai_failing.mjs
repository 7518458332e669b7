// The OpenAI client for Node: a gateway that stops ends a stream with an error.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const OpenAI = require("openai").default;

const client = new OpenAI({
  baseURL: `${process.env.BASE_URL}/v1`,
  apiKey: "x",
  maxRetries: 0,
});
const asked = { model: "sim", prompt: "a", max_tokens: 20000, stream: true };
const stream = await client.completions.create(asked);
let text = "";
await assert.rejects(
  async () => {
    for await (const chunk of stream) {
      if (!text) process.kill(Number(process.env.GATEWAY_PID), "SIGTERM");
      text += chunk.choices[0].text;
    }
  },
  (error) => error instanceof OpenAI.APIError && error.code === "unavailable",
);
assert(text.startsWith(" 0"));
console.log("passed");
