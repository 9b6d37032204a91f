//! What single lines of output tell about the end of ComfyUI.

use super::{Explanation, passing, permanent};

/// A rule looks at one line and may know the cause.
pub(super) type Rule = fn(&str) -> Option<Explanation>;

/// In order of weight: the first rule that knows a line wins.
pub(super) const RULES: &[Rule] = &[
    port_in_use,
    database,
    arguments,
    main_py_missing,
    missing_module,
    torch_without_cuda,
    no_driver,
    old_driver,
    unsupported_card,
    out_of_video_memory,
    out_of_memory,
    disk_full,
    cuda_error,
    python_too_old,
    import_error,
    not_allowed,
    other_exception,
];

fn port_in_use(line: &str) -> Option<Explanation> {
    let lower = line.to_ascii_lowercase();
    let known = [
        "address already in use",
        "only one usage of each socket address",
        "error while attempting to bind on address",
        // `Port 8188 is already in use on address 127.0.0.1.`, 0.21 and newer
        "is already in use on address",
    ];
    known.iter().any(|text| lower.contains(text)).then(|| {
        passing("Another program took its network port in that moment; the next try uses another.")
    })
}

/// `ASSETS_STARTUP_FAILED: KIND` of versions that keep assets by default, and what 0.33 says with
/// `--enable-assets`.
fn database(line: &str) -> Option<Explanation> {
    const IN_USE: &str = "Its database is used by another ComfyUI. Stop that one, or name another \
                          file with --database-url in ComfyUI's arguments.";
    if let Some((_, kind)) = line.split_once("ASSETS_STARTUP_FAILED: ") {
        let kind = kind.split([' ', ',', '.', ':']).next().unwrap_or_default();
        return Some(match kind {
            // Whoever holds it may let go.
            "in_use" | "locked" => passing(IN_USE),
            "newer_revision" => permanent(
                "Its database was made by a newer ComfyUI. Update ComfyUI again, or add \
                 --disable-assets to its arguments.",
            ),
            "missing_packages" => permanent(
                "Packages for its database are missing. Run \"pip install -r requirements.txt\" with \
                 the Python that runs ComfyUI, or add --disable-assets to its arguments.",
            ),
            "not_writable" => permanent(
                "Its database cannot be written: the disk may be full, or the folder closed. Free \
                 some space, or add --disable-assets to ComfyUI's arguments.",
            ),
            "path_blocked" => permanent(
                "The place of its database is taken by something else, or closed. Look at the \
                 folder of comfyui.db, or name another file with --database-url.",
            ),
            "corrupt" => permanent(
                "Its database is damaged. Move comfyui.db away (ComfyUI makes a new one), or put \
                 back comfyui.db.daily-backup beside it.",
            ),
            "unsupported_url" => permanent(
                "It cannot use the database named by --database-url in its arguments; only \
                 sqlite:/// is supported.",
            ),
            other => permanent(format!(
                "Its database cannot be opened ({}). Add --disable-assets to ComfyUI's arguments to \
                 do without.",
                shortened(other)
            )),
        });
    }
    let is_held = ["Could not acquire lock on database", "Database is locked."];
    if is_held.iter().any(|text| line.contains(text)) {
        return Some(passing(IN_USE));
    }
    let (_, error) = line.split_once("Failed to initialize database: ")?;
    Some(permanent(format!(
        "Its database cannot be opened: {}. Run \"pip install -r requirements.txt\" with the Python \
         that runs ComfyUI, or take --enable-assets out of its arguments.",
        shortened(error.trim_end_matches('.'))
    )))
}

fn arguments(line: &str) -> Option<Explanation> {
    if let Some((_, unknown)) = line.split_once("error: unrecognized arguments: ") {
        return Some(permanent(format!(
            "This version of ComfyUI does not know the arguments \"{unknown}\"; take them out \
             of the configured arguments."
        )));
    }
    let (_, complaint) = line.split_once("main.py: error: ")?;
    Some(permanent(format!(
        "It refused its arguments: {complaint}. Correct the configured arguments."
    )))
}

fn main_py_missing(line: &str) -> Option<Explanation> {
    line.contains("can't open file").then(|| {
        permanent("Its main.py cannot be read; the ComfyUI directory is wrong or damaged.")
    })
}

fn missing_module(line: &str) -> Option<Explanation> {
    let (_, rest) = line.split_once("ModuleNotFoundError: No module named ")?;
    let module = rest.trim_matches(|character: char| matches!(character, '\'' | '"' | ' ' | '.'));
    let package = module.split('.').next().unwrap_or(module);
    Some(permanent(format!(
        "The Python package \"{package}\" is missing. Run \"pip install -r requirements.txt\" \
         with the Python that runs ComfyUI, or choose another Python."
    )))
}

fn torch_without_cuda(line: &str) -> Option<Explanation> {
    line.contains("Torch not compiled with CUDA enabled")
        .then(|| {
            permanent(
                "Its PyTorch is built without CUDA. Install PyTorch with CUDA, or add --cpu to \
             ComfyUI's arguments.",
            )
        })
}

fn no_driver(line: &str) -> Option<Explanation> {
    let known = [
        "Found no NVIDIA driver",
        "No CUDA GPUs are available",
        "no CUDA-capable device",
    ];
    known.iter().any(|text| line.contains(text)).then(|| {
        permanent(
            "No NVIDIA graphics card or driver was found. Install the driver, or add --cpu to \
             ComfyUI's arguments.",
        )
    })
}

fn old_driver(line: &str) -> Option<Explanation> {
    let known = [
        "driver on your system is too old",
        "driver version is insufficient",
    ];
    known
        .iter()
        .any(|text| line.contains(text))
        .then(|| permanent("The NVIDIA driver is too old for its PyTorch. Update the driver."))
}

fn unsupported_card(line: &str) -> Option<Explanation> {
    line.contains("no kernel image is available").then(|| {
        permanent("Its PyTorch does not support this graphics card. Install another build of it.")
    })
}

fn out_of_video_memory(line: &str) -> Option<Explanation> {
    let known = [
        "CUDA out of memory",
        "HIP out of memory",
        "MPS backend out of memory",
    ];
    let known = known.iter().any(|text| line.contains(text));
    (known || line.starts_with("torch.OutOfMemoryError")).then(|| {
        passing(
            "The graphics card ran out of memory. Use smaller models or pictures, or add \
             --reserve-vram 2 to ComfyUI's arguments (before 0.16: --lowvram).",
        )
    })
}

fn out_of_memory(line: &str) -> Option<Explanation> {
    let known = [
        "Cannot allocate memory",
        "not enough memory",
        "paging file is too small",
    ];
    let known = known.iter().any(|text| line.contains(text));
    (known || line.starts_with("MemoryError"))
        .then(|| passing("The computer ran out of memory. Close other programs."))
}

fn disk_full(line: &str) -> Option<Explanation> {
    let known = ["No space left on device", "not enough space on the disk"];
    known
        .iter()
        .any(|text| line.contains(text))
        .then(|| passing("The disk is full. Free some space."))
}

fn cuda_error(line: &str) -> Option<Explanation> {
    let (_, error) = line.split_once("CUDA error: ")?;
    Some(passing(format!(
        "The graphics card reported an error: {}.",
        shortened(error.trim_end_matches('.'))
    )))
}

fn python_too_old(line: &str) -> Option<Explanation> {
    let syntax = line.starts_with("SyntaxError: ") || line.starts_with("IndentationError: ");
    let typing = line.contains("unsupported operand type(s) for |");
    (syntax || typing).then(|| {
        permanent(format!(
            "This Python cannot read its code and may be too old (3.10 or newer is needed): {}",
            shortened(line)
        ))
    })
}

fn import_error(line: &str) -> Option<Explanation> {
    let (_, error) = line.split_once("ImportError: ")?;
    Some(permanent(format!(
        "A Python package could not be loaded: {}. Installing ComfyUI's requirements again may \
         help.",
        shortened(error.trim_end_matches('.'))
    )))
}

fn not_allowed(line: &str) -> Option<Explanation> {
    let (_, error) = line.split_once("PermissionError: ")?;
    Some(passing(format!(
        "It may not use a file or directory: {}.",
        shortened(error)
    )))
}

/// A list of model folders that ComfyUI cannot use, with the last words of its traceback.
pub(super) fn model_list(lines: &[&str]) -> Option<Explanation> {
    let is_it = |line: &&str| line.contains("in load_extra_path_config");
    lines.iter().find(|line| is_it(line))?;
    let place = lines.iter().rev().find_map(|line| yaml_place(line.trim()));
    let exception = || {
        let last = lines.iter().rev().find(|line| !line.trim().is_empty())?;
        Some(shortened(last.trim()))
    };
    let what = place.or_else(exception)?;
    Some(permanent(format!(
        "A list of model folders (extra_model_paths.yaml, or one named by \
         --extra-model-paths-config) cannot be read: {what}. Save it as UTF-8, indent with blanks, \
         and put each folder into a section, as extra_model_paths.yaml.example does."
    )))
}

/// `in "/a/extra_model_paths.yaml", line 3, column 1`, which says where the fault is.
fn yaml_place(line: &str) -> Option<String> {
    let (file, rest) = line.strip_prefix("in \"")?.split_once("\", line ")?;
    Some(format!("{file}, line {rest}"))
}

/// What Python itself was doing when it crashed: the innermost place that faulthandler tells.
pub(super) fn crash_place(lines: &[&str]) -> Option<String> {
    let start = lines
        .iter()
        .rposition(|line| line.contains("Fatal Python error: "))?;
    let place = lines[start..]
        .iter()
        .find_map(|line| line.trim().strip_prefix("File \""))?;
    let (file, rest) = place.split_once('"')?;
    let nodes = ["/custom_nodes/", "\\custom_nodes\\"];
    let pack = nodes
        .iter()
        .find_map(|folder| file.split_once(folder))
        .and_then(|(_, below)| below.split(['/', '\\']).next());
    let rest = rest.trim_start_matches(',').trim();
    Some(match pack {
        Some(pack) => format!(
            "It happened in the custom node \"{}\" ({}, {rest}).",
            shortened(pack),
            shortened(file)
        ),
        None => format!("It happened in {}, {rest}.", shortened(file)),
    })
}

/// The last line of a traceback: `package.SomeError: what happened`.
fn other_exception(line: &str) -> Option<Explanation> {
    let (name, _) = line.split_once(": ").unwrap_or((line, ""));
    let last = name.rsplit('.').next()?;
    let is_exception = ["Error", "Exception", "Interrupt", "Exit"]
        .iter()
        .any(|end| last.ends_with(end));
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    (is_exception && is_name && !line.is_empty())
        .then(|| passing(format!("Its last error was: {}", shortened(line))))
}

/// A quotation people can still read at a glance.
fn shortened(text: &str) -> String {
    const LIMIT: usize = 200;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(LIMIT).collect();
    short.push('…');
    short
}
