// anthropic-typescript: messages, at the library's defaults. Its base URL has no /v1.
import Anthropic from "@anthropic-ai/sdk";

import { MESSAGES_TOOL, used, weather } from "./weather.mjs";

const connect = ({ url, secret }) => new Anthropic({ baseURL: url, apiKey: secret });

function fieldsOf(call) {
  return { model: call.model, messages: [{ role: "user", content: call.prompt }], max_tokens: call.limit ?? 64 };
}

const textOf = ({ content }) => content.filter(({ type }) => type === "text").map(({ text }) => text).join("");

async function plain(call) {
  const message = await connect(call).messages.create(fieldsOf(call));
  return { text: textOf(message), finish: message.stop_reason, ...used(message.usage) };
}

async function streamed(call) {
  const texts = [];
  const stream = connect(call).messages.stream(fieldsOf(call)).on("text", (text) => texts.push(text));
  const message = await stream.finalMessage();
  return { text: texts.join(""), pieces: texts.length, finish: message.stop_reason, ...used(message.usage) };
}

async function tools(call, asStream) {
  const client = connect(call);
  const fields = { ...fieldsOf(call), tools: [MESSAGES_TOOL] };
  const calls = [];
  const usages = [];
  let message;
  for (let turn = 0; turn < 2; turn += 1) {
    message = asStream ? await client.messages.stream(fields).finalMessage() : await client.messages.create(fields);
    usages.push(message.usage);
    const uses = message.content.filter(({ type }) => type === "tool_use");
    calls.push(...uses.map(({ input }) => input));
    const results = uses.map(({ id, input }) => ({ type: "tool_result", tool_use_id: id, content: weather(input) }));
    const { role, content } = message;
    fields.messages = [...fields.messages, { role, content }, { role: "user", content: results }];
  }
  return { text: textOf(message), calls, ...used(...usages) };
}

async function counted(call) {
  const { max_tokens: _, ...fields } = fieldsOf(call);
  return { input_tokens: (await connect(call).messages.countTokens(fields)).input_tokens };
}

// With the query that Claude Code sends.
async function beta(call) {
  const message = await connect(call).beta.messages.create(fieldsOf(call), { query: { beta: "true" } });
  return { text: textOf(message), finish: message.stop_reason, ...used(message.usage) };
}

export const CASES = {
  messages: {
    plain,
    streamed,
    tools: (call) => tools(call, false),
    tools_streamed: (call) => tools(call, true),
    counted,
    beta,
  },
};
