// The lines of `logged` events, as a terminal would show them.

const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;

const CHUNKED = ["stdout", "stderr"];

/**
 * [{at, node, stream, level, text}] of events, in their order. A chunk may end within a line; the
 * next chunk of the same stream and node continues that line.
 */
export function linesOf(events) {
  const lines = [];
  const open = new Map();
  for (const event of events) {
    if (!event.text) continue;
    const stream = `${event.node ?? ""}\u0000${event.stream}`;
    const pieces = event.text.split("\n");
    const isLineOpen = pieces.at(-1) !== "" && CHUNKED.includes(event.stream);
    if (pieces.at(-1) === "") pieces.pop();
    if (open.has(stream)) open.get(stream).text += pieces.shift();
    for (const text of pieces) lines.push({ at: event.at, node: event.node ?? null, stream: event.stream ?? "log", level: event.level ?? null, text });
    if (!isLineOpen) open.delete(stream);
    else if (pieces.length) open.set(stream, lines.at(-1));
  }
  return lines;
}

/** The text without terminal escapes; of an overwritten line, its final text. */
export function readable(text) {
  const plain = text.replace(ESCAPES, "").replace(/\r+$/, "");
  return plain.slice(plain.lastIndexOf("\r") + 1);
}
