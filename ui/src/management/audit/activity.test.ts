import { expect, test } from "vitest";
import { kindOf, matches } from "./activity";

const entry = { id: 1, at: "", event: "banned", user: null, address: "10.0.0.9", detail: "25 failed" };

test("events belong to sign-ins, refusals or acts of administrators", () => {
  expect(kindOf("signed_in")).toBe("sign_in");
  expect(kindOf("locked_out")).toBe("refused");
  expect(kindOf("config_changed")).toBe("admin");
  expect(kindOf("something_new")).toBe("admin");
});

test("an entry is found by any of its words", () => {
  expect(matches(entry, "", "all")).toBe(true);
  expect(matches(entry, "10.0.0", "refused")).toBe(true);
  expect(matches(entry, "FAILED", "all")).toBe(true);
  expect(matches(entry, "mara", "all")).toBe(false);
  expect(matches(entry, "", "sign_in")).toBe(false);
});
