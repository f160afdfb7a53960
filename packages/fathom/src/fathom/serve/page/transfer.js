/* Conversations as JSON, for storage and for files. What comes in is checked field by field. */
import { readTokens } from "./tokens.js";

const FORMAT = 1;
export const LARGEST_FILE = 50 << 20; // bytes
const MOST_MESSAGES = 10_000;
const MOST_CHARACTERS = 5_000_000; // of one text
const STATS = ["tokens_per_second", "drafted", "accepted", "cache_bytes", "plain_cache_bytes", "prompt_tokens",
  "completion_tokens"];

/** Plain JSON of a conversation; `tokens` false leaves the tokens out, which are most of it. */
export function writeConversation(conversation, tokens = true) {
  const messages = conversation.messages.map((message) => (message.role === "user" ? message : {
    ...message,
    answers: message.answers.map((answer) => ({
      ...answer, tokens: tokens ? answer.tokens.map((t) => [t.id, t.text, t.accepted ? 1 : 0, ...t.rejected]) : [],
    })),
  }));
  return { ...conversation, messages };
}

/** A conversation from JSON. Throws where it is none. @returns {import("./store.js").Conversation} */
export function readConversation(given) {
  if (!Array.isArray(given?.messages)) throw new TypeError("no conversation");
  if (given.messages.length > MOST_MESSAGES) throw new RangeError("too many messages");
  const messages = given.messages.map(readMessage);
  messages.forEach((message, i) => {
    const turn = i % 2 ? "assistant" : "user";
    if (message.role !== turn) throw new TypeError("questions and answers do not take turns");
  });
  return {
    id: String(given.id ?? ""), title: text(given.title ?? "").slice(0, 200), named: given.named === true,
    updated: Number.isFinite(given.updated) ? given.updated : Date.now(), system: text(given.system ?? ""), messages,
  };
}

function readMessage(given) {
  if (given?.role === "user") return { role: "user", content: text(given.content) };
  if (given?.role !== "assistant") throw new TypeError("a message of nobody");
  const plain = typeof given.content === "string" ? [{ content: given.content }] : [];
  const answers = (Array.isArray(given.answers) ? given.answers : plain).map(readAnswer);
  if (!answers.length) throw new TypeError("an answer without a text");
  const shown = Number.isInteger(given.shown) && given.shown in answers ? given.shown : answers.length - 1;
  return { role: "assistant", answers, shown };
}

function readAnswer(given) {
  const packed = Array.isArray(given?.tokens) ? given.tokens : [];
  const tokens = readTokens(packed.map((one) => (Array.isArray(one)
    ? { id: one[0], text: one[1], accepted: one[2] === 1, rejected: one.slice(3) } : one)));
  return {
    content: text(given?.content), tokens, stats: readStats(given?.stats), finish: text(given?.finish ?? "stop"),
    problem: text(given?.problem ?? ""), made: readMade(given?.made),
  };
}

/** The system prompt and the answers before it that an answer was written after; null where that is not known. */
function readMade(given) {
  if (typeof given?.system !== "string" || !Array.isArray(given.shown)) return null;
  return { system: text(given.system), shown: given.shown.slice(0, MOST_MESSAGES).map(Number) };
}

/** Numbers of the last chunk of an answer, or null. */
export function readStats(given) {
  if (typeof given !== "object" || given === null) return null;
  return Object.fromEntries(STATS.map((name) => [name, Number.isFinite(given[name]) ? Math.max(given[name], 0) : 0]));
}

function text(given) {
  if (typeof given !== "string" || given.length > MOST_CHARACTERS) throw new TypeError("no text");
  return given;
}

/** Offer a file with these conversations. */
export function download(conversations, name) {
  const body = { fathom_chat: FORMAT, conversations: conversations.map((one) => writeConversation(one)) };
  const address = URL.createObjectURL(new Blob([JSON.stringify(body, null, 1)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  const plain = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
  link.download = `${plain || "conversation"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** The conversations in a file. Throws a sentence. */
export async function upload(file) {
  if (file.size > LARGEST_FILE) throw new Error(`${file.name} is larger than 50 MB. Export fewer at once.`);
  let found;
  try {
    found = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is not JSON. Choose a file that this page exported.`);
  }
  const given = Array.isArray(found) ? found : found?.conversations ?? [found];
  try {
    if (!Array.isArray(given)) throw new TypeError("no list");
    return given.map(readConversation);
  } catch (error) {
    throw new Error(`${file.name} holds no conversations of this page (${error.message}). Nothing was imported.`);
  }
}
