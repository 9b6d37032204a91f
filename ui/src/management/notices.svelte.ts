export interface Notice {
  id: number;
  text: string;
  tone: "success" | "danger";
}

/** Short words on what has just been done, at the edge of the page. */
export class Notices {
  list = $state<Notice[]>([]);
  #next = 1;

  say(text: string, tone: Notice["tone"] = "success"): void {
    const id = this.#next;
    this.#next += 1;
    this.list = [...this.list.slice(-2), { id, text, tone }];
    setTimeout(
      () => {
        this.dismiss(id);
      },
      tone === "danger" ? 12_000 : 5000,
    );
  }

  dismiss(id: number): void {
    this.list = this.list.filter((notice) => notice.id !== id);
  }
}
