// Requests to the REST API. A problem (RFC 9457) is thrown as a `Problem` with the server's detail.

const ROOT = "/api/v1";

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The path of a run in the API or, with another root, on this page; an id may be any text. */
export const runPath = (id, root = `${ROOT}/runs`) => `${root}/${encodeURIComponent(id)}`;

/** GET. Values of `query` may be lists; null is omitted. Throws `Problem`. */
export async function get(path, query = {}, { signal } = {}) {
  const response = await request(path, query, { signal });
  return parse(await response.text());
}

/** DELETE; returns the response's JSON, or null if it has none. Throws `Problem`. */
export async function remove(path, query = {}) {
  const response = await request(path, query, { method: "DELETE" });
  const text = await response.text();
  return text ? parse(text) : null;
}

/** `query`: an object, or an iterable of pairs. */
export function withQuery(path, query) {
  const pairs = (Symbol.iterator in query ? [...query] : Object.entries(query)).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((each) => each !== null && each !== undefined && each !== "")
      .map((each) => [name, String(each)]));
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** Parse JSON; integers beyond JavaScript's become BigInt where the browser supports it. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? BigInt(context.source) : value);
}

/** Format as JSON, with integers of any size. */
export const stringify = (value, indent) => JSON.stringify(value, (_, each) => (typeof each === "bigint" ? JSON.rawJSON(each) : each), indent);

async function request(path, query, options) {
  const response = await fetch(withQuery(path.startsWith("/") ? path : `${ROOT}/${path}`, query), options).catch((error) => {
    throw error.name === "AbortError" ? error : new Problem(0, "The server does not respond. Is `runfold api` running?");
  });
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({ detail: `${response.status} ${response.statusText}` }));
  throw new Problem(response.status, detail);
}
