/** The few words of the overlay, on their own to keep its file small. */

export const en = {
  changed_origin:
    "Something in your browser, most likely an extension, changes where requests seem to come from, so ComfyUI cannot load. Open a private window, or switch such extensions off for this address.",
  button: "Sentinel: signed in as {name}",
  admin: "Administrator",
  user: "User",
  gallery: "My pictures",
  account: "My account and tokens",
  manage: "Manage Sentinel",
  log_out: "Log out",
  waiting_one: "1 job waiting",
  waiting_many: "{count} jobs waiting",
  place: "next is number {place} in line",
  about: "about {time}",
  soon: "less than a minute",
  soon_short: "<1 min",
  last: "The last one is number {place} and begins in about {time}",
  last_soon: "The last one is number {place} and begins in less than a minute",
  paused: "Paused by the owner",
  paused_until: "Paused by the owner until {time}",
  paused_idle: "Paused while the owner uses this computer",
  quiet_hours: "Quiet hours",
  quiet_hours_until: "Quiet hours until {time}",
  other_program: "Another program is using the graphics card",
  gpu_minutes: "Your GPU time of today is used up",
  gpu_minutes_until: "Your GPU time is used up until {time}",
  notify: "Tell me when it is done",
  notify_hint: "By a notification of the browser, while you look elsewhere.",
  notify_insecure: "Needs an encrypted address (https), which this page does not have.",
  notify_unsupported: "This browser has no notifications for this page.",
  notify_blocked: "Notifications of this page are blocked in the browser.",
  done_title: "ComfyUI is done",
  done_one: "Your job is finished.",
  done_many: "All {count} jobs are finished.",
  failed_one: "Your job has failed.",
  failed_many: "All {count} jobs have failed.",
  done_mixed: "Finished: {completed}. Failed: {failed}.",
};

export type OverlayTexts = Record<keyof typeof en, string>;

export const de: OverlayTexts = {
  changed_origin:
    "Etwas in Ihrem Browser, wahrscheinlich eine Erweiterung, verändert, woher Anfragen zu kommen scheinen; deshalb kann ComfyUI nicht laden. Öffnen Sie ein privates Fenster oder schalten Sie solche Erweiterungen für diese Adresse aus.",
  button: "Sentinel: angemeldet als {name}",
  admin: "Administrator",
  user: "Benutzer",
  gallery: "Meine Bilder",
  account: "Mein Konto und Token",
  manage: "Sentinel verwalten",
  log_out: "Abmelden",
  waiting_one: "1 Auftrag wartet",
  waiting_many: "{count} Aufträge warten",
  place: "der nächste ist Nummer {place} in der Reihe",
  about: "etwa {time}",
  soon: "weniger als eine Minute",
  soon_short: "<1 Min.",
  last: "Der letzte ist Nummer {place} und beginnt in etwa {time}",
  last_soon: "Der letzte ist Nummer {place} und beginnt in weniger als einer Minute",
  paused: "Vom Besitzer angehalten",
  paused_until: "Vom Besitzer angehalten bis {time}",
  paused_idle: "Angehalten, solange der Besitzer am Rechner ist",
  quiet_hours: "Ruhezeit",
  quiet_hours_until: "Ruhezeit bis {time}",
  other_program: "Ein anderes Programm benutzt die Grafikkarte",
  gpu_minutes: "Ihre GPU-Zeit für heute ist verbraucht",
  gpu_minutes_until: "Ihre GPU-Zeit ist verbraucht bis {time}",
  notify: "Sag mir, wenn es fertig ist",
  notify_hint: "Mit einer Nachricht des Browsers, während Sie woanders sind.",
  notify_insecure: "Braucht eine verschlüsselte Adresse (https), die diese Seite nicht hat.",
  notify_unsupported: "Dieser Browser hat für diese Seite keine Benachrichtigungen.",
  notify_blocked: "Benachrichtigungen dieser Seite sind im Browser gesperrt.",
  done_title: "ComfyUI ist fertig",
  done_one: "Ihr Auftrag ist fertig.",
  done_many: "Alle {count} Aufträge sind fertig.",
  failed_one: "Ihr Auftrag ist fehlgeschlagen.",
  failed_many: "Alle {count} Aufträge sind fehlgeschlagen.",
  done_mixed: "Fertig: {completed}. Fehlgeschlagen: {failed}.",
};

export const zh: OverlayTexts = {
  changed_origin:
    "浏览器中有程序（很可能是扩展）修改了请求的来源，因此 ComfyUI 无法加载。请打开隐私窗口，或对此地址停用这类扩展。",
  button: "Sentinel：已登录为 {name}",
  admin: "管理员",
  user: "用户",
  gallery: "我的图片",
  account: "我的账户与令牌",
  manage: "管理 Sentinel",
  log_out: "退出登录",
  waiting_one: "1 个任务等待中",
  waiting_many: "{count} 个任务等待中",
  place: "下一个排在第 {place} 位",
  about: "约 {time}",
  soon: "不到一分钟",
  soon_short: "<1分钟",
  last: "最后一个排在第 {place} 位，约 {time}后开始",
  last_soon: "最后一个排在第 {place} 位，不到一分钟后开始",
  paused: "已被机主暂停",
  paused_until: "已被机主暂停至 {time}",
  paused_idle: "机主使用电脑期间暂停",
  quiet_hours: "静默时段",
  quiet_hours_until: "静默时段至 {time}",
  other_program: "其他程序正在使用显卡",
  gpu_minutes: "您今天的 GPU 时间已用完",
  gpu_minutes_until: "您的 GPU 时间已用完，{time}恢复",
  notify: "完成时通知我",
  notify_hint: "当您不在此页面时，通过浏览器通知。",
  notify_insecure: "需要加密地址（https），当前页面不是。",
  notify_unsupported: "此浏览器无法为本页面显示通知。",
  notify_blocked: "浏览器已阻止本页面的通知。",
  done_title: "ComfyUI 已完成",
  done_one: "您的任务已完成。",
  done_many: "全部 {count} 个任务已完成。",
  failed_one: "您的任务失败了。",
  failed_many: "全部 {count} 个任务都失败了。",
  done_mixed: "完成：{completed}，失败：{failed}。",
};

const texts = new Map<string, OverlayTexts>(Object.entries({ en, de, zh }));

export function textsFor(languages: readonly string[]): OverlayTexts {
  return texts.get(languageFor(languages)) ?? en;
}

/** The first language that there are texts for. */
export function languageFor(languages: readonly string[]): string {
  for (const tag of languages) {
    const language = tag.toLowerCase().split("-")[0] ?? "";
    if (texts.has(language)) return language;
  }
  return "en";
}
