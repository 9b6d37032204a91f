import type { en } from "./en";

export const de: Record<keyof typeof en, string> = {
  "join.title": "Sie sind eingeladen",
  "join.lead": "Wählen Sie Namen und Passwort und erstellen Sie Bilder mit ComfyUI.",
  "join.lead_admin": "Wählen Sie Namen und Passwort. Sie werden Administrator von Sentinel.",
  "join.username": "Ihr Benutzername",
  "join.password": "Ihr Passwort",
  "join.action": "Mitmachen",
  "join.expires": "Die Einladung läuft {time} ab.",
  "join.invalid_title": "Diese Einladung gilt nicht",
  "join.invalid_text": "Bitten Sie um eine neue.",

  "trust.title": "Dieser Verbindung vertrauen",
  "trust.lead":
    "Sentinel hat sein Zertifikat selbst erstellt. Sobald dieses Gerät ihm vertraut, verschwindet die Warnung.",
  "trust.none": "Die Verschlüsselung ist ausgeschaltet, es gibt also kein Zertifikat.",
  "trust.own": "Es wird ein eigenes Zertifikat verwendet. Hier ist nichts zu tun.",
  "trust.download": "Zertifikat herunterladen",
  "trust.device": "Ihr Gerät",
  "trust.guide.iphone": "iPhone",
  "trust.guide.android": "Android",
  "trust.guide.windows": "Windows",
  "trust.guide.macos": "Mac",
  "trust.guide.linux": "Linux",
  "trust.iphone.1": "Öffnen Sie diese Seite in Safari, laden Sie das Zertifikat und erlauben Sie es.",
  "trust.iphone.2": "Einstellungen → Allgemein → VPN & Geräteverwaltung: Profil wählen und installieren.",
  "trust.iphone.3": "Einstellungen → Allgemein → Info → Zertifikatsvertrauenseinstellungen: einschalten.",
  "trust.android.1": "Laden Sie das Zertifikat herunter.",
  "trust.android.2":
    "Einstellungen → Sicherheit → Verschlüsselung & Anmeldedaten → Zertifikat installieren → CA-Zertifikat.",
  "trust.android.3":
    "Wählen Sie die geladene Datei und bestätigen Sie. Je nach Hersteller heißen die Menüs anders.",
  "trust.windows.1": "Laden Sie das Zertifikat herunter und öffnen Sie es.",
  "trust.windows.2":
    "Zertifikat installieren → Aktueller Benutzer → Alle Zertifikate in folgendem Speicher → Vertrauenswürdige Stammzertifizierungsstellen.",
  "trust.windows.3":
    "Bestätigen Sie, schließen Sie den Browser und öffnen Sie ihn neu. Firefox: siehe Linux.",
  "trust.macos.1":
    "Laden Sie das Zertifikat herunter und öffnen Sie es; es kommt in die Schlüsselbundverwaltung.",
  "trust.macos.2": "Doppelklicken Sie es in der Schlüsselbundverwaltung unter „Zertifikate“.",
  "trust.macos.3": "Öffnen Sie „Vertrauen“ und wählen Sie bei SSL „Immer vertrauen“.",
  "trust.linux.1": "Laden Sie das Zertifikat herunter.",
  "trust.linux.2":
    "Firefox: Einstellungen → Datenschutz & Sicherheit → Zertifikate → Zertifikate anzeigen → Zertifizierungsstellen → Importieren.",
  "trust.linux.3":
    "Chrome: Einstellungen → Datenschutz und Sicherheit → Sicherheit → Zertifikate verwalten → Zertifizierungsstellen → Importieren. Kreuzen Sie an, dass es Websites identifizieren darf.",
  "trust.fingerprint": "Fingerabdruck (SHA-256)",
  "trust.compare":
    "Ihr Gerät zeigt diese Zahl, bevor es vertraut. Weicht sie ab, brechen Sie ab und fragen Sie den Besitzer.",
  "trust.names": "Für: {names}",
};
