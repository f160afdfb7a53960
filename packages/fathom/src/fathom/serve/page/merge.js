/* Two versions of one conversation, from two tabs: what either of them has is kept. */

/**
 * `ours` with what `theirs` has beyond it; null where they went different ways, so that one of them needs
 * another place. `base` is what ours was made from: of a title that only one of them changed, the new one stands.
 * @typedef {import("./store.js").Conversation} Conversation
 * @param {Conversation|null} base @param {Conversation} ours @param {Conversation} theirs
 * @returns {Conversation|null}
 */
export function merged(base, ours, theirs) {
  const messages = [];
  for (let i = 0; i < Math.max(ours.messages.length, theirs.messages.length); i++) {
    const own = ours.messages[i], other = theirs.messages[i];
    if (own && other && own.role === "user" && own.content !== other.content) return null;
    const both = own && other && own.role === "assistant";
    messages.push(both ? { ...own, answers: union(own.answers, other.answers) } : own ?? other);
  }
  const later = (name) => (ours[name] === base?.[name] ? theirs[name] : ours[name]);
  const updated = Math.max(ours.updated, theirs.updated);
  return { ...ours, title: later("title"), named: later("named"), system: later("system"), updated, messages };
}

/** All answers to one question; of one that is still written in the other tab, what is longer. */
function union(ours, theirs) {
  const found = [...ours];
  for (const [i, other] of theirs.entries()) {
    const own = found[i];
    if (!own || !(own.content.startsWith(other.content) || other.content.startsWith(own.content))) {
      if (!found.some((one) => one.content === other.content)) found.push(other);
    } else if (other.content.length > own.content.length || (other.content === own.content && !own.finish)) {
      found[i] = other;
    }
  }
  return found;
}
