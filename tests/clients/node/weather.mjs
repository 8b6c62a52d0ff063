// The one tool of every test, and how each wire declares it.
const description = "Tells the weather of a city.";

export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const CHAT_TOOL = { type: "function", function: { name: "weather", description, parameters: SCHEMA } };
export const RESPONSES_TOOL = { type: "function", name: "weather", description, parameters: SCHEMA, strict: false };
export const MESSAGES_TOOL = { name: "weather", description, input_schema: SCHEMA };

export const weather = ({ city }) => `It rains in ${city}.`;

// The sums of both turns of a conversation.
export const used = (...usages) => ({
  input_tokens: usages.reduce((sum, usage) => sum + (usage.input_tokens ?? usage.prompt_tokens), 0),
  output_tokens: usages.reduce((sum, usage) => sum + (usage.output_tokens ?? usage.completion_tokens), 0),
});
