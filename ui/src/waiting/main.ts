import { start } from "../start";
import WaitingPage from "./WaitingPage.svelte";

start(WaitingPage);
