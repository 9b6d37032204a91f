import type { en } from "./en";

export const de: Record<keyof typeof en, string> = {
  "gallery.title": "Meine Bilder",
  "gallery.total": "{amount} belegt",
  "gallery.drag_hint": "Ziehen Sie ein Bild auf ComfyUI, um seinen Workflow wieder zu öffnen.",
  "gallery.kind": "Was gezeigt wird",
  "gallery.kind.all": "Alle",
  "gallery.kind.image": "Bilder",
  "gallery.kind.video": "Videos",
  "gallery.kind.audio": "Töne",
  "gallery.select": "Auswählen",
  "gallery.selected": "Ausgewählt: {count}",
  "gallery.download": "Herunterladen",
  "gallery.delete": "Löschen",
  "gallery.delete_title": "Endgültig löschen? ({count})",
  "gallery.delete_text": "Gelöschtes lässt sich nicht zurückholen.",

  deleted: "Gelöscht: {count}",

  "gallery.shared_title": "Hier gibt es keine Galerie",
  "gallery.none": "Noch keine Bilder",
  "gallery.none_of_kind": "Nichts dieser Art",
  "gallery.none_text": "Was Sie mit ComfyUI erstellen, erscheint hier.",
  "gallery.previous": "Vorheriges",
  "gallery.next": "Nächstes",
  "gallery.no_preview": "Von dieser Datei gibt es keine Vorschau. Sie können sie herunterladen.",
};
