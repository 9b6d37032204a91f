//! ComfyUI on this machine: where it is, which Python runs it, what its command line takes.

mod ask;
mod command_line;
pub(crate) mod event;
mod flags;
mod installation;
mod manager;
mod places;
mod python;
mod search;

pub(crate) use ask::{AskError, ask};
pub use command_line::{
    ArgumentError, EngineDirectories, check_user_arguments, command_line, launch_plan,
    set_upload_size, sets_upload_size,
};
pub use flags::{FlagSet, ProbeError};
pub use installation::{Installation, InstallationError, InstallationKind};
pub use manager::leave_out_manager;
pub use places::PythonPlaces;
pub(crate) use python::python_in;
pub use python::{PythonError, find_python, imports_torch};
pub use search::{SearchPlaces, find_installations};
