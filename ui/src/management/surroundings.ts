import { createContext } from "svelte";
import type { Failure } from "../api/failure";
import { describe } from "../api/failure";
import type { Api } from "./api";
import type { Backend } from "./backend/backend";
import type { Confirmation } from "./backend/confirmation.svelte";
import type { Notices } from "./notices.svelte";
import type { Router } from "./router.svelte";

/** What every page of the app has at hand. */
export interface Surroundings {
  backend: Backend;
  api: Api;
  router: Router;
  notices: Notices;
  confirmation: Confirmation;
}

export const [surroundings, setSurroundings] = createContext<Surroundings>();

/** Tells of a failure, unless the person called the act off himself. */
export function tell(notices: Notices, failure: Failure): void {
  if (failure.code !== "called_off") notices.say(describe(failure), "danger");
}
