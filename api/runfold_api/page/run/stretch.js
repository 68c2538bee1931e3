// A stretch of a run's events without gaps: read from one end of them, it grows in both directions
// and, where it reaches the newest, with the run.

import { get, runPath } from "../shared/api.js";

const NEWEST = 200;
const PAGES_BACK = 10;
const MOST = 20_000;

export class Stretch {
  #address;
  #question;
  #signal;
  #events = [];
  #known = new Set();
  #earlier = null;
  #later = null;

  /** `question`: which events, as the API is asked, and how many at a time. */
  constructor(run, question, signal) {
    this.#address = `${runPath(run)}/events`;
    this.#question = question;
    this.#signal = signal;
  }

  /** In the order of the ledger. */
  get events() {
    return this.#events;
  }

  get hasEarlier() {
    return this.#earlier !== null;
  }

  get hasLater() {
    return this.#later !== null;
  }

  /** Begin anew, with the first events. */
  async readStart() {
    const page = await this.#ask({});
    this.#hold(page.events, page.prev_cursor, page.next_cursor);
  }

  /** Begin anew, with the last. */
  async readEnd() {
    let page = await this.#ask({ tail: true });
    // Those of one node are searched for, a while at a time.
    while (!page.events.length && page.prev_cursor !== null) page = await this.#ask({ before: page.prev_cursor });
    this.#hold(page.events, page.prev_cursor, null);
  }

  async readEarlier() {
    if (!this.hasEarlier) return;
    const page = await this.#ask({ before: this.#earlier });
    this.#hold([...page.events, ...this.#events], page.prev_cursor, this.#later);
  }

  async readLater() {
    if (!this.hasLater) return;
    const page = await this.#ask({ after: this.#later });
    this.#hold([...this.#events, ...page.events], this.#earlier, page.next_cursor);
  }

  /** What has come since, if this reaches the end; from the end anew if that is too much. */
  async follow() {
    if (this.hasLater) return;
    let found = [];
    let page = await this.#ask({ tail: true, limit: NEWEST });
    for (let pages = 0; pages < PAGES_BACK; pages += 1) {
      found = [...page.events, ...found];
      const reaches = page.prev_cursor === null || page.events.some((event) => this.#known.has(keyOf(event)));
      if (reaches && found.length + this.#events.length <= MOST) {
        const more = found.filter((event) => !this.#known.has(keyOf(event)));
        // One that comes late takes its place among the earlier ones.
        this.#hold([...this.#events, ...more].sort(byTime), this.#earlier, null);
        return;
      }
      if (reaches) break;
      page = await this.#ask({ before: page.prev_cursor });
    }
    await this.readEnd();
  }

  #hold(events, earlier, later) {
    this.#events = events;
    this.#known = new Set(events.map(keyOf));
    this.#earlier = earlier;
    this.#later = later;
  }

  #ask(place) {
    return get(this.#address, { ...this.#question, ...place }, { signal: this.#signal });
  }
}

const keyOf = (event) => String(event.id);

function byTime(one, other) {
  if (one.at !== other.at) return one.at < other.at ? -1 : 1;
  return one.id < other.id ? -1 : 1;
}
