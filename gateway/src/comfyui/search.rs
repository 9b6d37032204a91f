//! Looks for ComfyUI where people and installers put it. A fixed list of places, no walk over
//! disks, so it takes milliseconds.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::installation::{Installation, InstallationKind};
use super::python::python_in;

/// Packages of one Stability Matrix looked at.
const PACKAGES: usize = 64;
/// Names people give to a clone.
const CLONE_NAMES: &[&str] = &["ComfyUI", "comfyui", "comfy/ComfyUI", "Comfy/ComfyUI"];
/// Names of the unpacked portable package.
const PORTABLE_NAMES: &[&str] = &[
    "ComfyUI_windows_portable",
    "ComfyUI_windows_portable_nvidia",
];
/// Directories of Stability Matrix that hold `Packages`.
const STABILITY_MATRIX_NAMES: &[&str] = &["StabilityMatrix", "StabilityMatrix/Data", "Data"];

/// Where to look. All lists may be empty; missing places do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPlaces {
    /// Named by somebody: looked at first, and directly.
    pub named: Vec<PathBuf>,
    /// Directories a ComfyUI may lie in: home, its documents, downloads and desktop, the current
    /// directory, `/opt`, roots of Windows drives …
    pub parents: Vec<PathBuf>,
    /// Directories ComfyUI's desktop application keeps its program in, and where its user's
    /// files are.
    pub desktop: Vec<(PathBuf, PathBuf)>,
}

impl SearchPlaces {
    /// The usual places of this machine and its user.
    pub fn of_this_machine() -> Self {
        let home = env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" })
            .map(PathBuf::from)
            .filter(|home| home.is_absolute());
        let named = ["COMFYUI_PATH", "COMFYUI_HOME"];
        let named = named.into_iter().filter_map(env::var_os).map(PathBuf::from);
        let mut places = Self {
            named: named.collect(),
            ..Self::default()
        };
        if let Ok(current) = env::current_dir() {
            // Started from within ComfyUI's directory, or beside it.
            places.named.push(current.clone());
            places.parents.push(current);
        }
        if let Some(home) = &home {
            places.add_home(home);
        }
        places.add_system();
        places
    }

    fn add_home(&mut self, home: &Path) {
        self.parents.push(home.to_owned());
        let below = [
            "Documents",
            "Downloads",
            "Desktop",
            "src",
            "git",
            "code",
            "projects",
            "AI",
            "ai",
            ".local/share",
            "AppData/Roaming",
            "AppData/Local",
            "OneDrive/Documents",
        ];
        self.parents.extend(below.map(|name| home.join(name)));
        let data = home.join("Documents/ComfyUI");
        let programs: &[&str] = if cfg!(windows) {
            &[
                "AppData/Local/Programs/@comfyorgcomfyui-electron/resources/ComfyUI",
                "AppData/Local/Programs/ComfyUI/resources/ComfyUI",
            ]
        } else if cfg!(target_os = "macos") {
            &["Applications/ComfyUI.app/Contents/Resources/ComfyUI"]
        } else {
            &[]
        };
        self.desktop
            .extend(programs.iter().map(|name| (home.join(name), data.clone())));
        if cfg!(target_os = "macos") {
            let program = PathBuf::from("/Applications/ComfyUI.app/Contents/Resources/ComfyUI");
            self.desktop.push((program, data));
        }
    }

    fn add_system(&mut self) {
        if cfg!(windows) {
            for drive in ["C:\\", "D:\\", "E:\\", "F:\\", "G:\\"].map(PathBuf::from) {
                self.parents
                    .extend(["AI", "ai"].map(|name| drive.join(name)));
                self.parents.push(drive);
            }
        } else {
            self.parents
                .extend(["/opt", "/srv", "/usr/local", "/workspace"].map(PathBuf::from));
        }
    }
}

/// Every ComfyUI found, each once, the most likely first. Blocks for some file system look-ups.
pub fn find_installations(search: &SearchPlaces) -> Vec<Installation> {
    let mut found = Vec::new();
    for directory in &search.named {
        found.extend(Installation::open(directory).ok());
    }
    for parent in &search.parents {
        for name in CLONE_NAMES {
            found.extend(Installation::at(&parent.join(name), InstallationKind::Git));
        }
        for name in PORTABLE_NAMES {
            found.extend(portable(&parent.join(name)));
        }
        for name in STABILITY_MATRIX_NAMES {
            found.extend(stability_matrix(&parent.join(name).join("Packages")));
        }
    }
    for (program, data) in &search.desktop {
        found.extend(desktop(program, data));
    }
    without_repetitions(found)
}

fn portable(directory: &Path) -> Option<Installation> {
    Installation::at(&directory.join("ComfyUI"), InstallationKind::Portable)
}

fn stability_matrix(packages: &Path) -> Vec<Installation> {
    let Ok(entries) = fs::read_dir(packages) else {
        return Vec::new();
    };
    let mut directories: Vec<PathBuf> = entries
        .take(PACKAGES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    directories.sort();
    directories
        .iter()
        .filter_map(|directory| Installation::at(directory, InstallationKind::StabilityMatrix))
        .collect()
}

/// The desktop application keeps its program and its user's files, the Python environment among
/// them, in different places.
fn desktop(program: &Path, data: &Path) -> Option<Installation> {
    let found = Installation::at(program, InstallationKind::Desktop)?;
    let python = python_in(&data.join(".venv"));
    Some(Installation {
        python: Some(python)
            .filter(|python| python.is_file())
            .or(found.python),
        base_directory: Some(data.to_owned()).filter(|data| data.is_dir()),
        ..found
    })
}

/// Links and case-blind file systems show one directory under several names.
fn without_repetitions(found: Vec<Installation>) -> Vec<Installation> {
    let mut seen = Vec::new();
    found
        .into_iter()
        .filter(|installation| {
            let directory = &installation.directory;
            let real = fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
            let new = !seen.contains(&real);
            seen.push(real);
            new
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A directory that looks like ComfyUI.
    pub(in super::super) fn make_comfyui(directory: &Path, version: &str) {
        fs::create_dir_all(directory.join("comfy")).unwrap();
        fs::write(directory.join("main.py"), "").unwrap();
        fs::write(directory.join("comfy/cli_args.py"), "").unwrap();
        let text = format!("__version__ = \"{version}\"\n");
        fs::write(directory.join("comfyui_version.py"), text).unwrap();
    }

    #[test]
    fn the_usual_places_are_found_once_each() {
        let place = tempfile::tempdir().unwrap();
        let home = place.path().join("home");
        let drive = place.path().join("drive");
        let program = place.path().join("program/resources/ComfyUI");
        let data = home.join("Documents/ComfyUI");
        make_comfyui(&home.join("ComfyUI"), "0.1");
        make_comfyui(&home.join("comfy/ComfyUI"), "0.2");
        make_comfyui(&home.join("StabilityMatrix/Packages/ComfyUI"), "0.3");
        make_comfyui(&home.join("StabilityMatrix/Packages/Other"), "0.4");
        make_comfyui(&drive.join("ComfyUI_windows_portable/ComfyUI"), "0.5");
        make_comfyui(&program, "0.6");
        fs::create_dir_all(&data).unwrap();
        // Nothing there, or not ComfyUI.
        fs::create_dir_all(drive.join("ComfyUI")).unwrap();
        fs::write(drive.join("ComfyUI/main.py"), "").unwrap();

        let search = SearchPlaces {
            named: vec![home.join("comfy/ComfyUI"), place.path().join("missing")],
            parents: vec![home.clone(), drive, home.join("Documents")],
            desktop: vec![(program, data.clone())],
        };
        let found = find_installations(&search);
        let summary: Vec<(InstallationKind, &str)> = found
            .iter()
            .map(|found| (found.kind, found.version.as_deref().unwrap()))
            .collect();
        use InstallationKind::*;
        assert_eq!(
            summary,
            [
                (Configured, "0.2"),
                (Git, "0.1"),
                (StabilityMatrix, "0.3"),
                (StabilityMatrix, "0.4"),
                (Portable, "0.5"),
                (Desktop, "0.6"),
            ]
        );
        assert_eq!(found[5].base_directory.as_deref(), Some(data.as_path()));
    }

    #[test]
    fn this_machine_has_places() {
        let search = SearchPlaces::of_this_machine();
        assert!(!search.parents.is_empty());
        let _quick = find_installations(&search);
    }
}
