/** Where the button sits: on the left or right edge, at a share of the window's height. */
export interface Place {
  side: "left" | "right";
  /** 0 is as far up, 1 as far down as the button may go. */
  height: number;
}

/**
 * In the empty part of ComfyUI's side bar, between its tabs above and its settings below: what ComfyUI opens, such as
 * the list of jobs at the right, opens beside the bar.
 */
export const defaultPlace: Place = { side: "left", height: 0.6 };

/** Kept free at the top and bottom: ComfyUI's bars are there. */
export const margin = 64;

export function placeAt(x: number, y: number, width: number, height: number): Place {
  const span = Math.max(1, height - 2 * margin);
  return { side: x < width / 2 ? "left" : "right", height: clamp((y - margin) / span) };
}

/** The distance of the button's middle from the top of the window. */
export function middleOf(place: Place, height: number): number {
  return margin + place.height * Math.max(1, height - 2 * margin);
}

export function parsePlace(stored: string | null): Place {
  try {
    const value: unknown = JSON.parse(stored ?? "null");
    if (typeof value !== "object" || value === null) return defaultPlace;
    const { side, height } = value as Partial<Record<string, unknown>>;
    if ((side !== "left" && side !== "right") || typeof height !== "number" || Number.isNaN(height)) {
      return defaultPlace;
    }
    return { side, height: clamp(height) };
  } catch {
    return defaultPlace;
  }
}

function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}
