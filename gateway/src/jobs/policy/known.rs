//! Nodes of ComfyUI and of much used packs that touch files, addresses or code.

/// Nodes that read, write, list or delete wherever their inputs say, or fetch any address, by the
/// packs they are from. Found in the packs' sources by the inputs that name paths and addresses.
pub(super) const FILE_ACCESS: &[&str] = &[
    // ComfyUI's own data sets
    "LoadImageDataSetFromFolder",
    "LoadImageTextDataSetFromFolder",
    "LoadTrainingDataset",
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "SaveTrainingDataset",
    // VideoHelperSuite
    "VHS_LoadAudio",
    "VHS_LoadImagePath",
    "VHS_LoadImagesPath",
    "VHS_LoadVideoFFmpegPath",
    "VHS_LoadVideoPath",
    // AnimateDiff-Evolved, Advanced-ControlNet
    "ADE_LoadCameraPosesFromPath",
    "LoadImagesFromDirectory",
    // Comfyroll
    "CR Font File List",
    "CR Load Flow Frames",
    "CR Load GIF As List",
    "CR Load Image List",
    "CR Load Image List Plus",
    "CR Load Schedule From File",
    "CR Load Text List",
    "CR Output Flow Frames",
    "CR Output Schedule To File",
    "CR Save Text To File",
    "CR XY Save Grid Image",
    // WAS Node Suite
    "Cache Node",
    "Create Grid Image",
    "Create Morph Image",
    "Create Morph Image from Path",
    "Create Video from Path",
    "Export API",
    "Image Load",
    "Image Send HTTP",
    "Load Cache",
    "Load Image Batch",
    "Load Text File",
    "Save Text File",
    "Text Load Line From File",
    "Video Dump Frames",
    "Write to GIF",
    "Write to Video",
    // Image Saver
    "Random Artist Picker (Image Saver)",
    "Random Character Picker (Image Saver)",
    "Random Tag Picker (Image Saver)",
    // LayerStyle
    "LayerUtility: ImageTaggerSave",
    "LayerUtility: ImageTaggerSaveV2",
    "LayerUtility: LoadImagesFromPath",
    "LayerUtility: LoadPSD",
    "LayerUtility: SaveImagePlus",
    "LayerUtility: SaveImagePlusV2",
    // KJNodes
    "CameraPoseVisualizer",
    "CreateAudioMask",
    "DiTBlockLoraLoader",
    "EndRecordCUDAMemoryHistory",
    "LTX2LoraLoaderAdvanced",
    "LoadImagesFromFolderKJ",
    "LoadVideosFromFolder",
    "SaveStringKJ",
    "VisualizeCUDAMemoryHistory",
    // Inspire Pack
    "LoadImageListFromDir //Inspire",
    "LoadImagesFromDir //Inspire",
    // Custom-Scripts
    "LoadText|pysssss",
    "SaveText|pysssss",
    // art-venture
    "LoadImageAsMaskFromUrl",
    "LoadImageFromUrl",
    "LoadJsonFromUrl",
    // Easy-Use
    "easy imagesCountInDirectory",
    "easy isFileExist",
    "easy loadImagesForLoop",
    "easy removeLocalImage",
    "easy saveText",
    // tinyterraNodes
    "ttN imageOutput",
    "ttN textOutput",
    // mtb
    "Load Image From Url (mtb)",
    "Load Image Sequence (mtb)",
];

/// Node classes and their inputs that name a file or folder in ComfyUI's own directories. Nodes of
/// packs are here that stay in these directories as long as the name does.
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
    ("VHS_LoadAudioUpload", "audio"),
    ("VHS_LoadImages", "directory"),
    ("VHS_LoadVideo", "video"),
    ("VHS_LoadVideoFFmpeg", "video"),
    ("Image Save", "output_path"),
    ("Image Saver", "path"),
    ("Image Saver Simple", "path"),
    ("SaveImageKJ", "output_folder"),
    ("LoadPromptsFromDir //Inspire", "prompt_dir"),
    ("LoadPromptsFromFile //Inspire", "prompt_file"),
];
