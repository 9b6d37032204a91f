//! Nodes of ComfyUI and of much used packs that touch files, addresses or code.

/// Nodes that read or write wherever their inputs say, fetch any address, or run code.
pub(super) const FILE_ACCESS: &[&str] = &[
    "LoadImageDataSetFromFolder",
    "LoadImageTextDataSetFromFolder",
    "LoadTrainingDataset",
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "SaveTrainingDataset",
    "VHS_LoadVideoPath",
];

/// Node classes and their inputs that name a file in ComfyUI's own directories.
pub(super) const FILE_INPUTS: &[(&str, &str)] = &[
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
];
