// Stream a generation with @grpc/grpc-js.
//
//   npm install
//   node generate.mjs 127.0.0.1:50051 "Once upon a time"

import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const root = fileURLToPath(new URL("../..", import.meta.url));
const [target, prompt, maxTokens = "64"] = process.argv.slice(2);
if (!target || !prompt) {
  console.error("usage: node generate.mjs HOST:PORT PROMPT [MAX_TOKENS]");
  process.exit(2);
}

const definition = protoLoader.loadSync("millstream/v1/inference.proto", {
  includeDirs: [root],
  keepCase: true,
});
const { millstream } = grpc.loadPackageDefinition(definition);
const client = new millstream.v1.Inference(target, grpc.credentials.createInsecure());

const call = client.Generate(
  { prompt, sampling: { max_tokens: Number(maxTokens) } },
  { deadline: Date.now() + 60_000 },
);
call.on("data", ({ delta, finished }) => {
  if (delta) process.stdout.write(delta.text);
  if (finished) process.stdout.write(`\n[${finished.usage.completion_tokens} tokens]\n`);
});
call.on("error", ({ code, details }) => {
  console.error(`${grpc.status[code]}: ${details}`);
  process.exitCode = 1;
  client.close();
});
call.on("end", () => client.close());
