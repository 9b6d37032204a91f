//! ComfyUI-Manager installs code; it is left out of engines whose user must not.

use super::flags::FlagSet;
use super::installation::Installation;
use std::fs;
use std::path::Path;

const DISABLE_ALL: &str = "--disable-all-custom-nodes";
const EXCEPT: &str = "--whitelist-custom-nodes";

/// Changes `arguments` so that ComfyUI starts without its Manager: the package's switch is taken
/// away, and where the Manager lies among the custom nodes, all others are named instead.
///
/// A ComfyUI too old for that starts with the Manager; its routes are refused all the same.
pub fn leave_out_manager(
    installation: &Installation,
    flags: &FlagSet,
    arguments: &mut Vec<String>,
) {
    arguments.retain(|argument| !argument.starts_with("--enable-manager"));
    let says_already = arguments.iter().any(|argument| argument == DISABLE_ALL);
    if says_already || !flags.contains(DISABLE_ALL) || !flags.contains(EXCEPT) {
        return;
    }
    let base = installation
        .base_directory
        .as_ref()
        .unwrap_or(&installation.directory);
    let mut nodes = names(&base.join("custom_nodes"));
    if base != &installation.directory {
        nodes.extend(names(&installation.directory.join("custom_nodes")));
    }
    nodes.sort();
    nodes.dedup();
    let before = nodes.len();
    nodes.retain(|name| !is_manager(name));
    if nodes.len() == before {
        return;
    }
    arguments.push(DISABLE_ALL.to_owned());
    if !nodes.is_empty() {
        arguments.push(EXCEPT.to_owned());
        arguments.extend(nodes);
    }
}

fn is_manager(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("comfyui-manager")
}

/// What ComfyUI would load from a directory of custom nodes.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_module = entry.path().is_dir() || name.ends_with(".py");
            let is_node = is_module
                && !name.ends_with(".disabled")
                && !name.starts_with(['.', '-'])
                && name != "__pycache__";
            is_node.then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(directory: &Path) -> Installation {
        Installation {
            directory: directory.to_owned(),
            ..Installation::demo("/x/engine".into())
        }
    }

    #[test]
    fn the_manager_is_left_out_and_all_else_stays() {
        let place = tempfile::tempdir().unwrap();
        let nodes = place.path().join("custom_nodes");
        for name in ["ComfyUI-Manager", "pack", "old.disabled", "__pycache__"] {
            fs::create_dir_all(nodes.join(name)).unwrap();
        }
        fs::write(nodes.join("single.py"), "").unwrap();
        fs::write(nodes.join("example.py.example"), "").unwrap();
        let flags: FlagSet = [DISABLE_ALL, EXCEPT].into_iter().collect();
        let mut arguments = vec!["--cpu".to_owned(), "--enable-manager".to_owned()];
        leave_out_manager(&installation(place.path()), &flags, &mut arguments);
        assert_eq!(
            arguments,
            ["--cpu", DISABLE_ALL, EXCEPT, "pack", "single.py"]
        );
        let mut without = vec!["--cpu".to_owned()];
        fs::remove_dir(nodes.join("ComfyUI-Manager")).unwrap();
        leave_out_manager(&installation(place.path()), &flags, &mut without);
        assert_eq!(without, ["--cpu"]);
    }
}
