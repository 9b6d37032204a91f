//! What single lines of output tell about the end of ComfyUI.

use super::{Explanation, passing, permanent};

/// A rule looks at one line and may know the cause.
pub(super) type Rule = fn(&str) -> Option<Explanation>;

/// In order of weight: the first rule that knows a line wins.
pub(super) const RULES: &[Rule] = &[
    port_in_use,
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
    ];
    known.iter().any(|text| lower.contains(text)).then(|| {
        passing("Another program took its network port in that moment; the next try uses another.")
    })
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
             --lowvram to ComfyUI's arguments.",
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
