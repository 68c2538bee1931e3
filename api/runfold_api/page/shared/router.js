// Navigation without page loads: clicks on internal links stay in the document, and going back
// restores the scroll position.

export class Router {
  #show;
  #arrivals = 0;

  /** `show({path, query})` is called for the first and each following location; it may be asynchronous. */
  constructor(show) {
    this.#show = show;
    history.scrollRestoration = "manual"; // the browser would scroll before the view is drawn
    addEventListener("popstate", (event) => this.#arrive(event.state?.scroll ?? 0));
    addEventListener("pagehide", remember);
    document.addEventListener("click", (event) => this.#click(event));
  }

  start() {
    this.#arrive(history.state?.scroll ?? 0);
  }

  /** Navigate, without scrolling within the same page; `replace` adds no history entry. */
  go(address, { replace = false } = {}) {
    if (address === location.pathname + location.search && !replace) return;
    const isSame = new URL(address, location).pathname === location.pathname;
    this.#leave(address, replace, isSame ? null : 0);
  }

  #leave(address, replace, scroll) {
    remember();
    history[replace ? "replaceState" : "pushState"](null, "", address);
    this.#arrive(scroll);
  }

  async #arrive(scroll) {
    this.#arrivals += 1;
    const arrival = this.#arrivals;
    await this.#show({ path: location.pathname, query: new URLSearchParams(location.search) });
    if (scroll !== null && arrival === this.#arrivals) scrollTo(0, scroll);
  }

  #click(event) {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/api/") || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    this.#leave(link.pathname + link.search, link.href === location.href, 0);
  }
}

function remember() {
  history.replaceState({ ...history.state, scroll: scrollY }, "");
}
