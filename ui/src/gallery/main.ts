import { start } from "../start";
import GalleryPage from "./GalleryPage.svelte";

start(GalleryPage);
