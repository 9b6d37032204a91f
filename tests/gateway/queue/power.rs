//! A cut of the power: what the disk holds at that moment is all there is left.
//!
//! The data directory lies in an ext4 file system in a file. The power is "cut" by stopping every process and copying that
//! file: what was written but not yet brought to the disk is in the kernel's memory and not in the copy. A disk that loses
//! what it has confirmed is not played.

use super::{PATIENCE, count, get, queue, separate, slow_saved, started, state, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_tests::{Gateway, Options, eventually};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const ROUNDS: usize = 4;
/// Jobs handed in before each cut.
const JOBS: usize = 6;
/// The journal is not written by itself meanwhile.
const COMMIT: &str = "loop,commit=300";

/// A disk in a file, mounted; unmounted with this value.
struct Disk {
    image: PathBuf,
    place: Arc<TempDir>,
}

impl Disk {
    fn make(image: PathBuf) -> Result<Option<Self>> {
        fs::File::create(&image)?.set_len(96 << 20)?;
        let made = run("mkfs.ext4", &["-q", "-F"], &[&image]);
        if made.is_err() {
            return Ok(None);
        }
        Ok(Self::mount(image).ok())
    }

    fn mount(image: PathBuf) -> Result<Self> {
        let place = Arc::new(tempfile::tempdir()?);
        run("mount", &["-o", COMMIT], &[&image, place.path()])?;
        Ok(Self { image, place })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may not be gone yet.
        let _ = run("umount", &["--lazy"], &[self.place.path()]);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(options).args(paths).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {said}");
    Ok(())
}

/// Whether no thread of the process is in the kernel or runs.
fn stands_still(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    tasks.into_iter().flatten().flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state stands behind the name in brackets; a thread that is gone has none.
        let state = stat.rsplit(") ").next().unwrap_or_default();
        state.is_empty() || state.starts_with(['T', 't', 'Z'])
    })
}

/// What the disk holds now, as a disk of its own; nothing of the gateway goes on.
fn cut(gateway: Gateway, disk: Disk, image: PathBuf) -> Result<Disk> {
    let mut processes = gateway.descendants();
    processes.push(gateway.id());
    for process in &processes {
        // It may have ended.
        let _ = kill(Pid::from_raw((*process).try_into()?), Signal::SIGSTOP);
    }
    eventually(PATIENCE, || {
        Ok(processes.iter().all(|process| stands_still(*process)))
    })?;
    fs::copy(&disk.image, &image)?;
    for process in &processes {
        let _ = kill(Pid::from_raw((*process).try_into()?), Signal::SIGKILL);
    }
    drop(gateway);
    drop(disk);
    Disk::mount(image)
}

fn options(disk: &Disk) -> Options {
    separate().data(&disk.place).set("sharing.enabled=false")
}

#[test]
fn a_cut_of_the_power_loses_no_job_and_no_account_and_runs_nothing_twice() -> Result<()> {
    let images = tempfile::tempdir()?;
    let image = |number: usize| images.path().join(format!("{number}.img"));
    let Some(mut disk) = Disk::make(image(0))? else {
        eprintln!("SKIPPED: only root can mount a disk in a file");
        return Ok(());
    };
    let first = Gateway::start(options(&disk).without_engine())?;
    first.register_first("owner", sentinel_tests::PASSWORD)?;
    first.stop()?;
    let (mut gateway, alice, bob) = Gateway::with_two(options(&disk))?;
    // Sessions live in the database, and outlive the cut like the rest.
    let done = queue(&gateway, &alice, &slow_saved(0.05, "done"))?;
    until(&gateway, &alice, &done, "completed")?;
    let start_of_done = started(&gateway, &alice, &done)?;
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let user = format!("user{round}");
        gateway.add_user(&user)?;
        let running = queue(
            &gateway,
            &alice,
            &slow_saved(0.6, &format!("running {round}")),
        )?;
        let mut waiting = Vec::new();
        for number in 0..JOBS {
            waiting.push(queue(
                &gateway,
                &bob,
                &slow_saved(0.05, &format!("{round} {number}")),
            )?);
        }
        // Another moment of the jobs' lives in each round.
        let ended = round * JOBS / ROUNDS;
        let told = ended.checked_sub(1).and_then(|last| waiting.get(last));
        let told = match told {
            Some(id) => {
                until(&gateway, &bob, id, "completed")?;
                Some((id.clone(), started(&gateway, &bob, id)?))
            }
            None => None,
        };
        disk = cut(gateway, disk, image(round + 1))?;
        gateway = Gateway::start(options(&disk).without_owner())
            .with_context(|| format!("after cut {round}"))?;
        gateway
            .sign_in(&user)
            .context("an account made before the cut")?;
        let ran_once = |token: &str, id: &str, start: i64| -> Result<()> {
            let state = state(&gateway, token, id)?;
            ensure!(state == "completed", "round {round}: {state}");
            ensure!(
                started(&gateway, token, id)? == start,
                "round {round}: ran twice"
            );
            Ok(())
        };
        ran_once(&alice, &done, start_of_done)?;
        if let Some((id, start)) = told {
            ran_once(&bob, &id, start)?;
        }
        until(&gateway, &alice, &running, "completed")?;
        for id in &waiting {
            until(&gateway, &bob, id, "completed")?;
        }
        all.extend(waiting);
        let times: Vec<i64> = all
            .iter()
            .map(|id| started(&gateway, &bob, id))
            .collect::<Result<_>>()?;
        ensure!(times.is_sorted(), "in order: {times:?}");
        ensure!(
            count(&gateway, &bob, "")? == all.len() as u64,
            "none lost, none more"
        );
    }
    // One that a free engine took, with nothing written after it.
    let only = queue(&gateway, &alice, &slow_saved(5.0, "only"))?;
    ensure!(state(&gateway, &alice, &only)? == "in_progress");
    disk = cut(gateway, disk, image(ROUNDS + 1))?;
    gateway = Gateway::start(options(&disk).without_owner())?;
    until(&gateway, &alice, &only, "completed")?;
    ensure!(get(&gateway, &alice, "/queue")?.json()["queue_running"] == serde_json::json!([]));
    drop(gateway);
    drop(disk);
    Ok(())
}
