/** What the gateway tells a page about itself, in `<meta name="sentinel-state">`. */
export interface PageState {
  page: "login" | "register" | "generate_token" | "waiting" | "account" | "message";
  first_admin: boolean;
  setup_code_required: boolean;
  user: { username: string; admin: boolean } | null;
  next: string | null;
  message: { title: string; text: string } | null;
  /** Whether there is a management app at `/sentinel/`. */
  management: boolean;
  version: string;
}

const absent: PageState = {
  page: "login",
  first_admin: false,
  setup_code_required: false,
  user: null,
  next: null,
  message: null,
  management: false,
  version: "",
};

export function readPageState(): PageState {
  const content = document.querySelector<HTMLMetaElement>('meta[name="sentinel-state"]')?.content;
  try {
    return { ...absent, ...(JSON.parse(content ?? "{}") as Partial<PageState>) };
  } catch {
    return absent;
  }
}
