/* Failures as sentences that say what to do. */

const WORDS = {
  key: () => "The server wants a key. Send again to be asked for it.",
  forbidden: (f) => told("The server does not allow this", f, "Ask whoever runs it."),
  request: (f) => told("The server cannot do this", f, "Change the message or the settings and try again."),
  long: (f) => told("This is more than the server takes", f, "Shorten the message or start a new conversation."),
  failed: (f) => told("The server failed at this", f, "Try again; if it happens once more, tell whoever runs it."),
  busy: () => "Every place in the server's queue is taken. Try again in a moment.",
  down: () => "The model is not running at the moment. Try again in a moment.",
  unreachable: () => "The server cannot be reached. Check that it is running, and that you are connected to it.",
  broken: (f) => `The answer broke off${quoted(f)}. What had arrived is kept; try again for a whole one.`,
  stopped: () => "",
};

/** The server's own words, with its advice, or ours where it gives none. */
function told(what, failure, advice) {
  return `${what}${quoted(failure)}.${/\bFix: /.test(failure.message) ? "" : ` ${advice}`}`;
}

function quoted(failure) {
  const said = failure.message.trim().replace(/[.\s]+$/, "");
  return said ? `: ${said}` : "";
}

/** @param {import("./api.js").Failure} failure */
export function sentence(failure) {
  return WORDS[failure.kind]?.(failure) ?? "Something went wrong in this page. Reload it and try again.";
}

/** What is said while the page waits for its model. */
export function absent(failure) {
  if (failure.kind === "unreachable") return `${sentence(failure)} This page keeps trying.`;
  return "The model is not ready yet. This page waits for it.";
}

/** What is said while waiting, `seconds` before the next try; without seconds, until the server is well. */
export function waiting(kind, seconds) {
  if (kind === "busy") return `Every place in the server's queue is taken. Trying again in ${seconds} s.`;
  if (kind === "down") return "The model is starting or starting again. The message is sent when it is ready.";
  return "The server cannot be reached. The message is sent when it is back.";
}
