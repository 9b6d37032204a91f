/** What the gateway tells a page about itself, in `<meta name="sentinel-state">`. */
export interface PageState {
  page:
    | "login"
    | "register"
    | "generate_token"
    | "waiting"
    | "account"
    | "message"
    | "join"
    | "trust"
    | "gallery"
    | "management";
  first_admin: boolean;
  setup_code_required: boolean;
  user: { username: string; admin: boolean } | null;
  next: string | null;
  message: { title: string; text: string } | null;
  invite: Invitation | null;
  certificate: Certificate | null;
  /** Whether there is a management app at `/sentinel/`. */
  management: boolean;
  version: string;
  /** What stands before every path of ours; see `addresses.ts`. */
  base: string;
}

/** What a guest with an invitation may know of it. */
export interface Invitation {
  valid: boolean;
  expires_at: string | null;
  role: "user" | "admin";
}

/** The certificate that other devices have to trust. */
export interface Certificate {
  sha256: string;
  names: string[];
  /** By Sentinel itself, so that no device trusts it yet. */
  made: boolean;
}

const absent: PageState = {
  page: "login",
  first_admin: false,
  setup_code_required: false,
  user: null,
  next: null,
  message: null,
  invite: null,
  certificate: null,
  management: false,
  version: "",
  base: "",
};

export function readPageState(): PageState {
  const content = document.querySelector<HTMLMetaElement>('meta[name="sentinel-state"]')?.content;
  try {
    return { ...absent, ...(JSON.parse(content ?? "{}") as Partial<PageState>) };
  } catch {
    return absent;
  }
}
