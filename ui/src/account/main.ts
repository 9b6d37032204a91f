import { start } from "../start";
import AccountPage from "./AccountPage.svelte";

start(AccountPage);
