/**
 * Copies a text and says whether that worked.
 *
 * `navigator.clipboard` exists only on HTTPS and on localhost; on a plain LAN address the old command is what is left.
 */
export async function copyText(text: string): Promise<boolean> {
  const clipboard = (navigator as Partial<Navigator>).clipboard;
  try {
    if (clipboard) {
      await clipboard.writeText(text);
      return true;
    }
  } catch {
    // Refused by the browser's permissions: the old command may still be allowed.
  }
  return copyBySelection(text);
}

function copyBySelection(text: string): boolean {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  // Inside an open dialog, because everything outside of it is inert.
  const parent = focused?.closest("dialog") ?? document.body;
  field.value = text;
  field.className = "visually-hidden";
  parent.append(field);
  field.select();
  try {
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- the only way outside of secure contexts
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
  }
}
