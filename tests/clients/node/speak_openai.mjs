// openai-node: chat completions, Responses and embeddings, at the library's defaults.
import OpenAI from "openai";

import { CHAT_TOOL, RESPONSES_TOOL, used, weather } from "./weather.mjs";

const connect = ({ v1, secret }) => new OpenAI({ baseURL: v1, apiKey: secret });
const withUsage = { stream_options: { include_usage: true } };

function chatFields(call) {
  return { model: call.model, messages: [{ role: "user", content: call.prompt }], ...call.limited("max_tokens") };
}

async function chatPlain(call) {
  const answer = await connect(call).chat.completions.create(chatFields(call));
  return { text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason, ...used(answer.usage) };
}

async function chatStreamed(call) {
  const texts = [];
  let usage, finish;
  for await (const chunk of await connect(call).chat.completions.create({
    ...chatFields(call), ...withUsage, stream: true,
  })) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      texts.push(choice.delta.content ?? "");
      finish = choice.finish_reason ?? finish;
    }
  }
  return { text: texts.join(""), pieces: texts.length, finish, ...used(usage) };
}

// Usage not asked for, and `choices[0]` of every chunk.
async function chatNaive(call) {
  let text = "";
  for await (const chunk of await connect(call).chat.completions.create({ ...chatFields(call), stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  return { text };
}

async function chatTools(call, streamed) {
  const client = connect(call);
  const fields = { ...chatFields(call), tools: [CHAT_TOOL] };
  const calls = [];
  const usages = [];
  let message;
  for (let turn = 0; turn < 2; turn += 1) {
    const answer = streamed
      ? await client.chat.completions.stream({ ...fields, ...withUsage }).finalChatCompletion()
      : await client.chat.completions.create(fields);
    usages.push(answer.usage);
    message = answer.choices[0].message;
    fields.messages = [...fields.messages, message];
    for (const { id, function: made } of message.tool_calls ?? []) {
      calls.push(JSON.parse(made.arguments));
      fields.messages.push({ role: "tool", tool_call_id: id, content: weather(JSON.parse(made.arguments)) });
    }
  }
  return { text: message.content, calls, ...used(...usages) };
}

function responsesFields(call) {
  return { model: call.model, input: call.prompt, ...call.limited("max_output_tokens") };
}

async function responsesPlain(call) {
  const answer = await connect(call).responses.create(responsesFields(call));
  return { text: answer.output_text, finish: answer.status, ...used(answer.usage) };
}

async function responsesStreamed(call) {
  const texts = [];
  let last;
  for await (const event of await connect(call).responses.create({ ...responsesFields(call), stream: true })) {
    if (event.type === "response.output_text.delta") texts.push(event.delta);
    last = event;
  }
  const { usage, error } = last.response;
  return {
    text: texts.join(""), pieces: texts.length, finish: last.type, failure: error, ...(usage ? used(usage) : {}),
  };
}

async function responsesTools(call, streamed) {
  const client = connect(call);
  const fields = { ...responsesFields(call), tools: [RESPONSES_TOOL] };
  fields.input = [{ role: "user", content: call.prompt }];
  const calls = [];
  const usages = [];
  let answer;
  for (let turn = 0; turn < 2; turn += 1) {
    answer = streamed
      ? await client.responses.stream(fields).finalResponse()
      : await client.responses.create(fields);
    usages.push(answer.usage);
    fields.input = [...fields.input, ...answer.output.map(({ parsed_arguments, ...item }) => item)];
    for (const item of answer.output.filter(({ type }) => type === "function_call")) {
      calls.push(JSON.parse(item.arguments));
      const output = weather(JSON.parse(item.arguments));
      fields.input.push({ type: "function_call_output", call_id: item.call_id, output });
    }
  }
  return { text: answer.output_text, calls, ...used(...usages) };
}

async function embeddingsPlain(call) {
  const answer = await connect(call).embeddings.create({ model: call.model, input: [call.prompt, "and another"] });
  const sizes = [...new Set(answer.data.map(({ embedding }) => embedding.length))];
  return { vectors: answer.data.length, sizes, input_tokens: answer.usage.prompt_tokens };
}

export const CASES = {
  chat: {
    plain: chatPlain,
    streamed: chatStreamed,
    tools: (call) => chatTools(call, false),
    tools_streamed: (call) => chatTools(call, true),
    naive: chatNaive,
  },
  responses: {
    plain: responsesPlain,
    streamed: responsesStreamed,
    tools: (call) => responsesTools(call, false),
    tools_streamed: (call) => responsesTools(call, true),
  },
  embeddings: { plain: embeddingsPlain },
};
