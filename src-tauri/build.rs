//! Makes what Tauri needs at build time, with our commands under its access control.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The one list of commands; `commands.rs` has them, `capabilities/main.json` allows them.
    let commands = tauri_build::AppManifest::new().commands(&[
        "api",
        "autostart_get",
        "autostart_set",
        "choose_file",
        "choose_folder",
        "copy_text",
        "desktop_settings_get",
        "desktop_settings_set",
        "language_set",
        "open_comfyui",
        "open_folder",
        "window_state",
    ]);
    tauri_build::try_build(tauri_build::Attributes::new().app_manifest(commands))?;
    Ok(())
}
