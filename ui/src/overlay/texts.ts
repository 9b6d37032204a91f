/** The few words of the overlay, on their own to keep its file small. */

export const en = {
  button: "Sentinel: signed in as {name}",
  admin: "Administrator",
  user: "User",
  gallery: "My pictures",
  account: "My account and tokens",
  manage: "Manage Sentinel",
  log_out: "Log out",
};

export type OverlayTexts = Record<keyof typeof en, string>;

export const de: OverlayTexts = {
  button: "Sentinel: angemeldet als {name}",
  admin: "Administrator",
  user: "Benutzer",
  gallery: "Meine Bilder",
  account: "Mein Konto und Token",
  manage: "Sentinel verwalten",
  log_out: "Abmelden",
};

export const zh: OverlayTexts = {
  button: "Sentinel：已登录为 {name}",
  admin: "管理员",
  user: "用户",
  gallery: "我的图片",
  account: "我的账户与令牌",
  manage: "管理 Sentinel",
  log_out: "退出登录",
};

const texts = new Map<string, OverlayTexts>(Object.entries({ en, de, zh }));

export function textsFor(languages: readonly string[]): OverlayTexts {
  for (const tag of languages) {
    const found = texts.get(tag.toLowerCase().split("-")[0] ?? "");
    if (found) return found;
  }
  return en;
}
