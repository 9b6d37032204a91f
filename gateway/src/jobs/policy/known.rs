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
    ("DiffusersLoader", "model_path"),
    ("GeminiInputFiles", "file"),
    ("Load3D", "image"),
    ("Load3D", "model_file"),
    ("Load3DAnimation", "image"),
    ("Load3DAnimation", "model_file"),
    ("LoadAudio", "audio"),
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
    ("LoadImageSetFromFolderNode", "folder"),
    ("LoadImageSetNode", "images"),
    ("LoadImageTextSetFromFolderNode", "folder"),
    ("LoadLatent", "latent"),
    ("LoadVideo", "file"),
    ("OpenAIInputFiles", "file"),
    ("RecordAudio", "audio"),
    ("WebcamCapture", "image"),
];
