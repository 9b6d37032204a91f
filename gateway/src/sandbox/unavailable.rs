//! Systems on which nothing can be confined.

use std::io;

use super::{SandboxPlan, SandboxReport};

/// What the system can do.
pub fn support() -> SandboxReport {
    SandboxReport::unavailable("only Linux can, by Landlock")
}

/// Confines nothing and says so.
///
/// # Errors
/// When the plan requires confinement.
pub fn apply(plan: &SandboxPlan) -> io::Result<SandboxReport> {
    let report = support();
    if plan.required {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            report.detail,
        ));
    }
    Ok(report)
}
