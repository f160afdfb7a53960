/* A small part of Markdown as elements: paragraphs, headings, lists, code, bold and italics.
   No links, pictures or HTML: nothing that a model writes can lead anywhere or run. */
import { copyButton, make } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4})(?=\S)/;
const HEADING = /^ {0,3}#{1,6} /;
const DEEPEST = 6; // lists in lists, and marks in marks

/**
 * @typedef {{kind: "paragraph"|"heading"|"code"|"list", source: string, text?: string, language?: string,
 *   ordered?: boolean, start?: number, items?: Block[][]}} Block
 * @param {string[]} lines
 * @returns {Block[]}
 */
export function blocks(lines, depth = 0) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) { at++; continue; }
    const take = opens(lines[at]) ? fence : ITEM.test(lines[at]) && depth < DEEPEST ? list
      : HEADING.test(lines[at]) ? heading : paragraph;
    const [block, end] = take(lines, at, depth);
    found.push({ ...block, source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return found;
}

/** Whether code begins at this line. Patterns look at its beginning only: none tries the rest in many ways. */
function opens(line) {
  const begun = FENCE.exec(line);
  return begun !== null && !line.includes("`", begun[0].length);
}

function fence(lines, at) {
  const [begun, mark] = FENCE.exec(lines[at]);
  const [language] = /^[\w+#.-]*/.exec(lines[at].slice(begun.length).trimStart());
  let end = at + 1;
  const closes = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
  while (end < lines.length && !closes(lines[end])) end++;
  return [{ kind: "code", language, text: lines.slice(at + 1, end).join("\n") }, Math.min(end + 1, lines.length)];
}

function heading(lines, at) {
  const text = lines[at].slice(HEADING.exec(lines[at])[0].length).trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return [{ kind: "heading", text: text.slice(0, end).trimEnd() }, at + 1];
}

function paragraph(lines, at) {
  let end = at + 1;
  const goesOn = (line) => line.trim() && !opens(line) && !ITEM.test(line) && !HEADING.test(line);
  while (end < lines.length && goesOn(lines[end])) end++;
  return [{ kind: "paragraph", text: lines.slice(at, end).join("\n") }, end];
}

/** Items of one kind; what is indented below an item belongs to it. */
function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]), ordered = /\d/.test(first[2]), items = [];
  let end = at;
  while (end < lines.length) {
    const mark = ITEM.exec(lines[end]);
    if (!mark || /\d/.test(mark[2]) !== ordered) break;
    const inner = [lines[end].slice(mark[0].length)], width = mark[1].length + 2;
    for (end++; end < lines.length; end++) {
      const line = lines[end], indent = line.length - line.trimStart().length;
      const more = !ITEM.test(line) && !opens(line) && inner.at(-1).trim(); // a paragraph runs on
      const below = line.trim() ? indent >= width || more : belongs(lines, end, width);
      if (!below) break;
      inner.push(line.slice(Math.min(indent, mark[0].length)));
    }
    items.push(blocks(inner, depth + 1));
    if (end < lines.length && !lines[end].trim() && ITEM.test(lines[end + 1] ?? "")) end++;
  }
  return [{ kind: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, items }, end];
}

/** Whether the line after an empty one is still part of the item. */
function belongs(lines, at, width) {
  const next = lines[at + 1] ?? "";
  return next.trim() !== "" && next.length - next.trimStart().length >= width;
}

/** @param {Block} block */
function render(block) {
  if (block.kind === "code") return code(block);
  if (block.kind === "heading") return make("p", { class: "heading" }, make("strong", {}, ...inline(block.text)));
  if (block.kind === "paragraph") return make("p", {}, ...inline(block.text));
  const start = block.ordered && block.start !== 1 ? block.start : null;
  const items = block.items.map((inner) => make("li", {}, ...inner.flatMap((one) => (
    inner.length === 1 && one.kind === "paragraph" ? inline(one.text) : [render(one)]))));
  return make(block.ordered ? "ol" : "ul", { start }, ...items);
}

function code({ language, text }) {
  const copy = copyButton("Copy this code", () => text);
  const head = make("div", { class: "code-head" }, make("span", {}, language), copy);
  const name = language ? `Code in ${language}` : "Code";
  return make("div", { class: "code" }, head,
    make("pre", { tabindex: 0, role: "region", "aria-label": name }, make("code", {}, text)));
}

/** Text with its marks, as nodes. */
export function inline(text, depth = 0) {
  const nodes = [], missing = new Set(); // delimiters that nothing further right closes
  let plain = 0, at = 0;
  const flush = (end) => { if (end > plain) nodes.push(document.createTextNode(text.slice(plain, end))); };
  while (at < text.length) {
    const mark = /[`*_]/.test(text[at]) ? delimiter(text, at) : "";
    const end = mark && depth < DEEPEST && !missing.has(mark) ? closing(text, at, mark, missing) : -1;
    if (end < 0) { at += mark.length || 1; continue; }
    flush(at);
    const inner = text.slice(at + mark.length, end);
    if (mark[0] === "`") nodes.push(make("code", {}, unpadded(inner)));
    else nodes.push(make(mark.length === 2 ? "strong" : "em", {}, ...inline(inner, depth + 1)));
    plain = at = end + mark.length;
  }
  flush(at);
  return nodes;
}

/** Code without the blank at each side that lets it begin or end with a backtick. */
function unpadded(text) {
  return text.startsWith(" ") && text.endsWith(" ") && text.trim() ? text.slice(1, -1) : text;
}

/** The run of marks that starts here: backticks all together, stars and underscores one or two. */
function delimiter(text, at) {
  let n = 1;
  while (text[at + n] === text[at] && (text[at] === "`" || n < 2)) n++;
  return text.slice(at, at + n);
}

function closing(text, at, mark, missing) {
  const from = at + mark.length, tick = mark[0] === "`", word = (c) => c !== undefined && /[\p{L}\p{N}_]/u.test(c);
  if (!tick && (from >= text.length || /\s/.test(text[from]))) return -1;
  if (mark[0] === "_" && word(text[at - 1])) return -1; // snake_case
  for (let end = text.indexOf(mark, from); end >= 0; end = text.indexOf(mark, end + 1)) {
    const alone = text[end - 1] !== mark[0] && text[end + mark.length] !== mark[0];
    const whole = tick ? alone : mark.length === 2 || alone;
    if (end > from && whole && (tick || !/\s/.test(text[end - 1]))
      && (mark[0] !== "_" || !word(text[end + mark.length]))) return end;
  }
  missing.add(mark);
  return -1;
}

/** Markdown that grows: blocks that stay the same keep their elements, and what is selected in them. */
export class Markdown {
  constructor() {
    this.element = make("div", { class: "markdown" });
    this.shown = [];
  }

  show(text) {
    const wanted = blocks(text.split(/\r\n|\n|\r/));
    let same = 0;
    while (same < wanted.length && same < this.shown.length && equal(wanted[same], this.shown[same])) same++;
    while (this.element.childElementCount > same) this.element.lastElementChild.remove();
    this.element.append(...wanted.slice(same).map(render));
    this.shown = wanted;
  }
}

const equal = (a, b) => a.kind === b.kind && a.source === b.source;
