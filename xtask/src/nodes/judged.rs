//! Inputs of nodes that look as if they reached files, addresses or code, and were read and found harmless.

/// Class, input, and why. `*` stands for all inputs of a class.
pub(super) const HARMLESS: &[(&str, &str, &str)] = &[
    (
        "ByteDance2ReferenceNode",
        "model",
        "the path is that of a video another node has loaded",
    ),
    (
        "ByteDance2ReferenceNodeV2",
        "model",
        "the path is that of a video another node has loaded",
    ),
    (
        "CLIPSave",
        "extra_pnginfo",
        "goes into the file, not into its name",
    ),
    (
        "ComfyMathExpression",
        "expression",
        "simpleeval with functions of its own: no attributes, no names but the inputs",
    ),
    (
        "LoraSave",
        "rank",
        "goes into what is saved, not into its name",
    ),
    (
        "PreviewAudio",
        "filename_prefix",
        "goes through get_save_image_path",
    ),
    (
        "Preview3DAdvanced",
        "model_3d",
        "a model that a loader has opened; text has no save_to",
    ),
    (
        "PreviewGaussianSplat",
        "model_3d",
        "a model that a loader has opened; text has no save_to",
    ),
    (
        "PreviewPointCloud",
        "model_3d",
        "a model that a loader has opened; text has no save_to",
    ),
    (
        "Rodin3D_Gen25_Image",
        "*",
        "opens texts among its pictures, which fail before as they have no shape; names come from the partner's server",
    ),
    (
        "Rodin3D_Gen25_Text",
        "*",
        "has no pictures; names come from the partner's server",
    ),
    (
        "Save3DAdvanced",
        "model_3d",
        "its format is the end of a name that a loader has opened",
    ),
    (
        "SaveAudio",
        "filename_prefix",
        "goes through get_save_image_path",
    ),
    (
        "SaveAudioMP3",
        "filename_prefix",
        "goes through get_save_image_path",
    ),
    (
        "SaveAudioOpus",
        "filename_prefix",
        "goes through get_save_image_path",
    ),
    (
        "SaveGaussianSplat",
        "model_3d",
        "its format is the end of a name that a loader has opened",
    ),
    (
        "SaveImageAdvanced",
        "format",
        "chooses inputs, so it cannot be a link; others than png and exr are refused",
    ),
    ("SaveLoRA", "lora", "what is saved, not where"),
    ("SaveLoRANode", "lora", "what is saved, not where"),
    (
        "SavePointCloud",
        "model_3d",
        "its format is the end of a name that a loader has opened",
    ),
    (
        "SaveText",
        "format",
        "looked up in a table; others are refused",
    ),
    (
        "SplatToFile3D",
        "format",
        "looked up in a table; others are refused",
    ),
];
