import type { Engine } from "../api/types";
import { t } from "../i18n/language.svelte";

/** A state of ComfyUI in plain words. */
export interface EngineText {
  title: string;
  text: string;
  trouble: boolean;
}

export function describeEngine(engine: Engine | undefined): EngineText {
  switch (engine?.state) {
    case undefined:
    case "starting":
      return { title: t("waiting.starting.title"), text: t("waiting.starting.text"), trouble: false };
    case "ready":
      return { title: t("waiting.ready.title"), text: t("waiting.ready.text"), trouble: false };
    case "stopping":
      return { title: t("waiting.stopping.title"), text: t("waiting.stopping.text"), trouble: false };
    case "stopped":
      return { title: t("waiting.stopped.title"), text: t("waiting.stopped.text"), trouble: false };
    case "crashed": {
      const again = engine.retry_in !== null;
      return {
        title: t("waiting.crashed.title"),
        text: again ? t("waiting.crashed.text_retry") : t("waiting.crashed.text"),
        trouble: true,
      };
    }
    case "failed":
      return { title: t("waiting.failed.title"), text: t("waiting.failed.text"), trouble: true };
  }
}
