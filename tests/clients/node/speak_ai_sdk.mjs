// The Vercel AI SDK: generateText, streamText and embedMany over its three providers, at their defaults.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";

import { SCHEMA, weather } from "./weather.mjs";

const tools = {
  weather: tool({
    description: "Tells the weather of a city.",
    inputSchema: jsonSchema(SCHEMA),
    execute: async (input) => weather(input),
  }),
};

const openai = ({ v1, secret }) => createOpenAI({ baseURL: v1, apiKey: secret });
const anthropic = ({ v1, secret }) => createAnthropic({ baseURL: v1, apiKey: secret });
const compatible = ({ v1, secret }, includeUsage = true) =>
  createOpenAICompatible({ name: "faregate", baseURL: v1, apiKey: secret, includeUsage });

function fieldsOf(call, model, withTools) {
  const more = withTools ? { tools, stopWhen: isStepCount(2) } : {};
  return { model, prompt: call.prompt, ...call.limited("maxOutputTokens"), ...more };
}

function told(text, pieces, steps, usage) {
  return {
    text,
    pieces,
    finish: steps.at(-1).finishReason,
    calls: steps.flatMap(({ toolCalls }) => toolCalls.map(({ input }) => input)),
    input_tokens: usage.inputTokens,
    output_tokens: usage.outputTokens,
  };
}

async function generated(call, model, withTools) {
  const result = await generateText(fieldsOf(call, model, withTools));
  return told(result.text, 1, result.steps, result.totalUsage ?? result.usage);
}

async function streamed(call, model, withTools) {
  let failure;
  const onError = ({ error }) => { failure ??= error; };
  const result = streamText({ ...fieldsOf(call, model, withTools), onError });
  const texts = [];
  for await (const text of result.textStream) texts.push(text);
  if (failure !== undefined) throw failure;
  return told(await result.text, texts.length, await result.steps, await (result.totalUsage ?? result.usage));
}

async function embedded(call, model) {
  const { embeddings, usage } = await embedMany({ model, values: [call.prompt, "and another"] });
  const sizes = [...new Set(embeddings.map(({ length }) => length))];
  return { vectors: embeddings.length, sizes, input_tokens: usage.tokens };
}

const casesOf = (modelOf) => ({
  plain: (call) => generated(call, modelOf(call), false),
  streamed: (call) => streamed(call, modelOf(call), false),
  tools: (call) => generated(call, modelOf(call), true),
  tools_streamed: (call) => streamed(call, modelOf(call), true),
});

export const OPENAI_CASES = {
  responses: casesOf((call) => openai(call)(call.model)),
  chat: casesOf((call) => openai(call).chat(call.model)),
  embeddings: { plain: (call) => embedded(call, openai(call).embeddingModel(call.model)) },
};
export const COMPATIBLE_CASES = {
  chat: {
    ...casesOf((call) => compatible(call)(call.model)),
    naive: (call) => streamed(call, compatible(call, false)(call.model), false),
  },
  embeddings: { plain: (call) => embedded(call, compatible(call).embeddingModel(call.model)) },
};
export const ANTHROPIC_CASES = { messages: casesOf((call) => anthropic(call)(call.model)) };
