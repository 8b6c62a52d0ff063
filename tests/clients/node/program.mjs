// What users of JavaScript client libraries write. The protocol is that of ../programs/program.py: a call on each line
// of stdin, `{"id", "client", "endpoint", "case", "url", "secret", "model", "prompt", "limit"}`, and for each a line
// `{"id", "result"}` or `{"id", "error"}`.
import { createInterface } from "node:readline";

import * as aiSdk from "./speak_ai_sdk.mjs";
import * as anthropic from "./speak_anthropic.mjs";
import * as openai from "./speak_openai.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const CLIENTS = {
  "openai-node": openai.CASES,
  "anthropic-typescript": anthropic.CASES,
  "ai-sdk-openai": aiSdk.OPENAI_CASES,
  "ai-sdk-openai-compatible": aiSdk.COMPATIBLE_CASES,
  "ai-sdk-anthropic": aiSdk.ANTHROPIC_CASES,
};

// An error by what user code can ask of it. `kinds` are the classes that an `instanceof` may name.
function told(error) {
  if (!(error instanceof Error)) return { type: typeof error, kinds: [], message: JSON.stringify(error), body: error };
  const kinds = [];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) kinds.push(kind.name);
  const data = error.error ?? error.data ?? null;
  return {
    type: error.constructor.name,
    kinds,
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? data?.error?.code ?? null,
    message: error.message,
    body: data,
    last: error.lastError ? told(error.lastError) : null,
  };
}

async function answer({ id, client, endpoint, case: name, ...call }) {
  try {
    const limited = (field) => (call.limit == null ? {} : { [field]: call.limit });
    return { id, result: await CLIENTS[client][endpoint][name]({ ...call, v1: `${call.url}/v1`, limited }) };
  } catch (error) {
    return { id, error: told(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  answer(JSON.parse(line)).then((said) => process.stdout.write(`${JSON.stringify(said)}\n`));
}
