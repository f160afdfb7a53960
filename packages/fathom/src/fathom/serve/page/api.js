/* The server, as the page sees it. Addresses are relative, so that a proxy may put the page below a prefix. */
import { events } from "./sse.js";

const KEY = "fathom-chat-key"; // in sessionStorage: gone with the tab, never on disk beside conversations
const POLL_MS = 1000;

/**
 * Why a request did not succeed.
 * kind: "key" | "forbidden" | "request" | "long" | "busy" | "down" | "failed" | "unreachable" | "broken" |
 * "stopped"
 */
export class Failure extends Error {
  constructor(kind, message, { status = 0, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, retryAfter });
  }
}

const KINDS = { 401: "key", 403: "forbidden", 413: "long", 429: "busy", 502: "down", 503: "down", 504: "down" };

export const key = {
  get() {
    try { return sessionStorage.getItem(KEY) ?? key.held; } catch { return key.held; }
  },
  set(value) {
    key.held = value;
    try { sessionStorage.setItem(KEY, value); } catch { /* kept in memory only */ }
  },
  held: "",
};

/** A response with status 200, or a Failure. `body` makes it a POST. */
async function ask(path, body, signal) {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const method = body ? "POST" : "GET";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw new Failure("stopped", "");
    throw new Failure("unreachable", error.message);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let message = "";
  try { message = String((await response.json()).error.message); } catch { /* not this server's own words */ }
  const { status } = response, retryAfter = seconds(response.headers.get("Retry-After"));
  return new Failure(KINDS[status] ?? (status >= 500 ? "failed" : "request"), message, { status, retryAfter });
}

/** Retry-After in seconds: a number of them, or a date. */
function seconds(header) {
  if (!header) return 0;
  const n = Number(header), until = (Date.parse(header) - Date.now()) / 1000;
  const wait = Number.isFinite(n) ? n : until;
  return Number.isFinite(wait) ? Math.min(Math.max(Math.ceil(wait), 0), 3600) : 0;
}

export const info = async () => (await ask("fathom/info")).json();

/** Token ids of messages in the chat template. */
export async function tokenize(messages) {
  return (await (await ask("tokenize", { messages })).json()).tokens;
}

/** For each token the experts that each MoE layer chose: {layers, experts: [tokens][layers][k]}. */
export const experts = async (tokens) => (await ask("fathom/experts", { tokens })).json();

/**
 * An answer as it is written, one object a chunk: {text, tokens, finish, stats, usage}.
 * @param {object} request body of /v1/chat/completions
 * @param {AbortSignal} signal ends the request; the server then stops writing
 */
export async function* chat(request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await ask("v1/chat/completions", body, signal);
  let done = false; // then only the end of the body is read, so that the server sees nobody leave
  try {
    for await (const data of events(response.body)) {
      done ||= data === "[DONE]";
      if (!done) yield chunk(JSON.parse(data));
    }
  } catch (error) {
    if (done) return;
    if (signal.aborted) throw new Failure("stopped", "");
    if (error instanceof Failure) throw error;
    throw new Failure("broken", "");
  }
  if (done) return;
  if (signal.aborted) throw new Failure("stopped", "");
  throw new Failure("broken", ""); // the connection was closed before the answer had ended
}

function chunk(given) {
  if (given.error) throw new Failure("broken", String(given.error.message ?? ""));
  const choice = given.choices?.[0], inner = choice?.fathom ?? {}, outer = given.fathom ?? {};
  const stats = [outer, inner].find((one) => "tokens_per_second" in one) ?? null;
  return {
    text: choice?.delta?.content ?? "", tokens: inner.tokens ?? outer.tokens ?? [],
    finish: choice?.finish_reason ?? "", stats, usage: given.usage ?? null,
  };
}

/** Wait until the server is well; Failure "stopped" if the signal says so first. */
export async function wellAgain(signal) {
  for (;;) {
    await pause(POLL_MS, signal);
    try {
      if ((await fetch("health", { signal, cache: "no-store" })).ok) return;
    } catch { /* still down */ }
  }
}

/** Sleep; Failure "stopped" if the signal is given meanwhile. */
export function pause(ms, signal) {
  return new Promise((done, failed) => {
    const stop = () => { clearTimeout(timer); failed(new Failure("stopped", "")); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); done(); }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
