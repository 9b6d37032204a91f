export interface Answer {
  status: number;
  body: unknown;
  contentType?: string;
}

export interface World {
  answer(method: string, path: string, body?: object): Answer;
}

export function makeWorld(options?: {
  people?: number;
  finished?: boolean;
  separate?: boolean;
  state?: string;
  gallery?: number;
  waiting?: number;
  hold?: object | null;
  limited?: boolean;
}): World;
