// The OpenAI client for Node: embeddings, one and many, as floats and as base64.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const OpenAI = require("openai").default;
const client = new OpenAI({
  baseURL: `${process.env.BASE_URL}/v1`,
  apiKey: "sk-none",
  maxRetries: 0,
});

const one = await client.embeddings.create({ model: "bag", input: "abba" });
assert.deepEqual(one.data[0].embedding, [2, 2, 0, 0]);

const input = [...Array(100).keys()].map((n) => "a".repeat(n));
const many = await client.embeddings.create({ model: "bag", input, encoding_format: "float" });
assert.deepEqual(many.data.map((entry) => entry.embedding[0]), [...Array(100).keys()]);

await assert.rejects(
  client.embeddings.create({ model: "bag", input: "a", dimensions: 9 }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "dimensions",
);
await assert.rejects(
  client.embeddings.create({ model: "none", input: "a" }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);
console.log("passed");
