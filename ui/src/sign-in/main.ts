import { start } from "../start";
import SignInApp from "./SignInApp.svelte";

start(SignInApp);
