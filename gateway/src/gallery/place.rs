//! Where a user's files lie, opened so that no name and no symbolic link leads out.

use crate::accounts::UserId;
use crate::app::App;
use crate::files::DataDirectory;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Where a user's ComfyUI puts what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputDirectory {
    /// His alone.
    Own(PathBuf),
    /// Everybody's: one ComfyUI for all.
    Shared(PathBuf),
    /// ComfyUI is run by somebody else, or was not started yet.
    Unknown,
}

impl App {
    /// Where the output of a user lies.
    pub(crate) fn output_directory(&self, user: &UserId) -> OutputDirectory {
        match self.engines.places_of(user) {
            Some(places) if self.engines.is_separate() => OutputDirectory::Own(places.output),
            Some(places) => OutputDirectory::Shared(places.output),
            None => OutputDirectory::Unknown,
        }
    }
}

/// Opens a directory. One below a user's own is opened from there, for his ComfyUI may write there
/// and could put a symbolic link in its place. `None`: there is none yet.
pub(super) fn open(data: &DataDirectory, user: &UserId, path: &Path) -> io::Result<Option<Dir>> {
    let own = data.users().join(user.as_str());
    let opened = match path.strip_prefix(&own) {
        Ok(below) => {
            Dir::open_ambient_dir(&own, ambient_authority()).and_then(|own| own.open_dir(below))
        }
        Err(_) => Dir::open_ambient_dir(path, ambient_authority()),
    };
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a plain file for reading; nothing else, so that a pipe does not hold us up.
pub(super) fn open_file(directory: &Dir, path: &str) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt as _;
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = directory.open_with(path, &options)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}
