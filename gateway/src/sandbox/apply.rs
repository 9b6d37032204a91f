//! Puts a plan into force for the running process.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    RestrictSelf, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::filter::Filter;
use super::{SandboxPlan, SandboxReport, SandboxState};

/// Newest version whose rights are used; later ones are not tested.
const NEWEST: ABI = ABI::V7;
/// Without this one files could be emptied that must not even be read.
const OLDEST: u32 = 3;

/// What each later version adds, and the Linux that has it.
const ADDITIONS: &[(u32, &str)] = &[
    (4, "TCP ports (Linux 6.7)"),
    (5, "commands to devices (6.10)"),
    (6, "signals to other programs (6.12)"),
];

/// What no kernel can hold for an engine of the same account.
const LEFT_OPEN: &str = "Left open: it may send UDP, slow down other programs of this account, change the times of files that it may read, and learn whether a path exists.";

/// What this system can do, tried without confining anything.
pub fn support() -> SandboxReport {
    // Builds nothing and restricts nothing: it asks the kernel for its version.
    match RestrictSelf::default().no_new_privs(false).apply() {
        Ok(status) => report(&status.landlock, &SandboxPlan::default(), true),
        Err(error) => SandboxReport::unavailable(&error.to_string()),
    }
}

/// Confines the calling thread and what it becomes or starts, for good.
///
/// # Errors
/// When the plan requires confinement and the system cannot, or when it fails half way.
pub fn apply(plan: &SandboxPlan) -> io::Result<SandboxReport> {
    limit(plan)?;
    give_up_capabilities()?;
    let status = landlock(plan).map_err(io::Error::other)?;
    let filter = Filter::build(plan).and_then(|filter| filter.apply());
    if let Err(error) = &filter
        && plan.required
    {
        return Err(refusal(&format!(
            "system calls cannot be filtered: {error}"
        )));
    }
    let report = report(&status, plan, filter.is_ok());
    if plan.required && !report.holds_files() {
        return Err(refusal(&report.detail));
    }
    Ok(report)
}

/// An error that no further try can mend.
fn refusal(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("sandbox is \"require\", but ComfyUI cannot be confined: {reason}"),
    )
}

fn report(status: &LandlockStatus, plan: &SandboxPlan, is_filtered: bool) -> SandboxReport {
    let abi = match status {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.map_or(*effective_abi as u32, i32::unsigned_abs),
        LandlockStatus::NotEnabled => {
            return SandboxReport::unavailable(
                "Landlock is switched off in this kernel (boot parameter lsm=)",
            );
        }
        LandlockStatus::NotImplemented => {
            return SandboxReport::unavailable("this kernel has no Landlock, which came with 5.13");
        }
    };
    if abi < OLDEST {
        return SandboxReport {
            abi,
            ..SandboxReport::unavailable("it needs Linux 6.2 or newer")
        };
    }
    let missing: Vec<&str> = ADDITIONS
        .iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, what)| *what)
        .collect();
    let mut detail = format!("Landlock {abi} confines ComfyUI to its files");
    if missing.is_empty() {
        detail.push_str(", ports and processes.");
    } else {
        detail.push_str(". Not confined by this kernel: ");
        detail.push_str(&missing.join(", "));
        detail.push('.');
    }
    if !is_filtered {
        detail.push_str(
            " Sockets, limits, shared memory and keys of other programs are open to it, as system calls cannot be filtered.",
        );
    }
    detail.push(' ');
    detail.push_str(LEFT_OPEN);
    for note in &plan.notes {
        detail.push(' ');
        detail.push_str(note);
    }
    let is_whole = missing.is_empty() && is_filtered && !plan.is_weakened;
    SandboxReport {
        state: if is_whole {
            SandboxState::Confined
        } else {
            SandboxState::Partly
        },
        abi,
        detail,
    }
}

fn limit(plan: &SandboxPlan) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let open_files = plan.max_open_files.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, open_files, open_files)?;
    if let Some(bytes) = plan.max_file_bytes {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
        setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), bytes.min(hard))?;
    }
    Ok(())
}

/// What is left to an engine of the administrator account, as in many containers: to work with
/// files of other accounts, within its bounds. Any more would lead around these, for instance to
/// the environment of other processes.
fn give_up_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
    let now = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

fn landlock(plan: &SandboxPlan) -> Result<LandlockStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::IoctlDev;
    let never: BitFlags<AccessFs> = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = all & !never & !BitFlags::from(AccessFs::Execute);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let ruleset = allow(ruleset, &plan.read_execute, read | AccessFs::Execute)?;
    let ruleset = allow(ruleset, &plan.read, read)?;
    let ruleset = allow(ruleset, &plan.write, write)?;
    let ruleset = allow(ruleset, &plan.devices, device)?;
    // Names there are random, so not being able to list them keeps users apart.
    let unlisted = write & !BitFlags::from(AccessFs::ReadDir);
    let mut ruleset = allow(ruleset, &plan.shared_memory, unlisted)?;
    for port in &plan.connect_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    for port in &plan.bind_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(ruleset.restrict_self()?.landlock)
}

/// What is not there needs no permission.
fn allow(
    ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    ruleset.add_rules(path_beneath_rules(paths, access))
}
