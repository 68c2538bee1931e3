// Which page an address means. Links are ordinary links; clicks on our own stay in the document.

/** @typedef {{path: string, query: URLSearchParams}} Place */

export class Router {
  #show;

  /** `show(place)` is called for the first place and for each that follows. */
  constructor(show) {
    this.#show = show;
    addEventListener("popstate", () => this.#arrive());
    document.addEventListener("click", (event) => this.#click(event));
  }

  start() {
    this.#arrive();
  }

  /** Go somewhere; `replace` leaves nothing for Back to return to. */
  go(address, { replace = false } = {}) {
    if (address === location.pathname + location.search && !replace) return;
    history[replace ? "replaceState" : "pushState"](null, "", address);
    this.#arrive();
  }

  #arrive() {
    this.#show({ path: location.pathname, query: new URLSearchParams(location.search) });
  }

  #click(event) {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/api/") || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}
