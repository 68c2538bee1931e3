// A range of a run's events without gaps. It starts at either end of the events, grows in both
// directions and, once it reaches the newest event, follows the run.

import { get, runPath } from "../shared/api.js";

const NEWEST = 200;
const PAGES_BACK = 10;
const MAX_EVENTS = 20_000;

export class EventRange {
  #address;
  #query;
  #signal;
  events = []; // in the ledger's order
  hasEarlier = false;
  hasLater = false;
  #known = new Set();
  #earlier = null;
  #later = null;
  #turn = Promise.resolve();

  /** `query`: the API's parameters, with the size of a page as `limit`. */
  constructor(run, query, signal) {
    this.#address = `${runPath(run)}/events`;
    this.#query = query;
    this.#signal = signal;
  }

  /** Call `act(this)` after all earlier calls; then `done(problem)`, a text or null, unless aborted. */
  run(act, done) {
    this.#turn = this.#turn.then(() => act(this)).then(() => null, (error) => error.message).then((problem) => {
      if (!this.#signal.aborted) done(problem);
    });
    return this.#turn;
  }

  /** Start over with the first events. */
  async readStart() {
    const page = await this.#read({});
    this.#replace(page.events, page.prev_cursor, page.next_cursor);
  }

  /** Start over with the last events. */
  async readEnd() {
    let page = await this.#read({ tail: true });
    // The events of one node are searched for, and a page of the search may be empty.
    while (!page.events.length && page.prev_cursor !== null) page = await this.#read({ before: page.prev_cursor });
    this.#replace(page.events, page.prev_cursor, null);
  }

  async readEarlier() {
    if (!this.hasEarlier) return;
    const page = await this.#read({ before: this.#earlier });
    this.#replace([...page.events, ...this.events], page.prev_cursor, this.#later);
  }

  async readLater() {
    if (!this.hasLater) return;
    const page = await this.#read({ after: this.#later });
    this.#replace([...this.events, ...page.events], this.#earlier, page.next_cursor);
  }

  /** Add new events if the range reaches the end; start over from the end if there are too many. */
  async follow() {
    if (this.hasLater) return;
    let found = [];
    let page = await this.#read({ tail: true, limit: NEWEST });
    for (let pages = 0; pages < PAGES_BACK; pages += 1) {
      found = [...page.events, ...found];
      const reaches = page.prev_cursor === null || page.events.some((event) => this.#known.has(keyOf(event)));
      if (reaches && found.length + this.events.length <= MAX_EVENTS) {
        const more = found.filter((event) => !this.#known.has(keyOf(event)));
        // A late event belongs between earlier ones.
        this.#replace([...this.events, ...more].sort(byTime), this.#earlier, null);
        return;
      }
      if (reaches) break;
      page = await this.#read({ before: page.prev_cursor });
    }
    await this.readEnd();
  }

  #replace(events, earlier, later) {
    this.events = events;
    this.hasEarlier = earlier !== null;
    this.hasLater = later !== null;
    this.#known = new Set(events.map(keyOf));
    this.#earlier = earlier;
    this.#later = later;
  }

  #read(position) {
    return get(this.#address, { ...this.#query, ...position }, { signal: this.#signal });
  }
}

const keyOf = (event) => String(event.id);

function byTime(one, other) {
  if (one.at !== other.at) return one.at < other.at ? -1 : 1;
  return one.id < other.id ? -1 : 1;
}
