import { hashOf, parseRoute, type Route } from "./route";

/** The page that is shown, and the guard in front of leaving it with changes that are not saved. */
export class Router {
  #route = $state.raw<Route>(parseRoute(""));
  #hash = "";
  #hasChanges: (() => boolean) | null = null;
  /** Where the person wants to go while there are unsaved changes. */
  pending = $state<string | null>(null);

  constructor(hash = "") {
    this.#hash = hash;
    this.#route = parseRoute(hash);
  }

  get route(): Route {
    return this.#route;
  }

  /** A page says how to find out whether it has unsaved changes; gives the way to end that. */
  guard(hasChanges: () => boolean): () => void {
    this.#hasChanges = hasChanges;
    return () => {
      if (this.#hasChanges === hasChanges) this.#hasChanges = null;
    };
  }

  get hasChanges(): boolean {
    return this.#hasChanges?.() ?? false;
  }

  /** Follows the address, unless unsaved changes stand in the way; says whether it did. */
  follow(hash: string): boolean {
    if (hash === this.#hash) return true;
    if (this.hasChanges && parseRoute(hash).page !== this.#route.page) {
      this.pending = hash;
      return false;
    }
    this.#hash = hash;
    this.#route = parseRoute(hash);
    return true;
  }

  /** Goes where the person wanted, and gives the changes up. */
  leave(): string | null {
    const hash = this.pending;
    this.pending = null;
    this.#hasChanges = null;
    if (hash !== null) this.follow(hash);
    return hash;
  }

  stay(): void {
    this.pending = null;
  }

  get hash(): string {
    return this.#hash;
  }
}

export function goTo(page: Route["page"], detail?: string): void {
  location.hash = hashOf(page, detail);
}
