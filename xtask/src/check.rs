//! `cargo xtask check`: everything about the sources that can be judged without running them.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::packages::Purpose;
use crate::process::Program;
use crate::progress::{Outcome, Steps};
use crate::tools::{self, CARGO_DENY};
use crate::workspace::Workspace;
use crate::{pages, progress};

/// The checks of the pages: what is checked, and the script in `package.json` that does it.
const PAGE_SCRIPTS: [(&str, &str); 3] = [
    ("types (svelte-check, tsc)", "check"),
    ("lint (eslint)", "lint"),
    ("format (prettier)", "format:check"),
];

/// How long a connection to the advisory database may take.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Runs every check, also after one failed, and lists the failures at the end.
pub(crate) fn check(workspace: &Workspace) -> Result<ExitCode> {
    let browser_tests = workspace.browser_tests();
    let browser_scripts = browser_tests
        .as_deref()
        .map(scripts)
        .transpose()?
        .unwrap_or_default();
    let browser_checks: Vec<_> = PAGE_SCRIPTS
        .into_iter()
        .filter(|(_, script)| browser_scripts.iter().any(|name| name == script))
        .collect();
    let mut steps = Steps::new(8 + PAGE_SCRIPTS.len() + browser_checks.len());

    steps.check("Checking tools", || {
        done(tools::prepare(&[Purpose::Build, Purpose::Desktop]))
    });
    steps.check("Rust: format (cargo fmt)", || {
        done(workspace.cargo("fmt").args(["--all", "--check"]).run())
    });
    steps.check("Pages: packages and build", || {
        pages::install_packages(&workspace.pages())?;
        // The gateway carries the pages, so it does not compile without them.
        done(pages::build(workspace))
    });
    steps.check("Rust: lint (cargo clippy)", || {
        done(
            workspace
                .cargo("clippy")
                .args(["--workspace", "--all-targets", "--", "-D", "warnings"])
                .run(),
        )
    });
    steps.check("Rust: documentation (cargo doc)", || {
        let arguments = [
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--quiet",
        ];
        done(
            workspace
                .cargo("doc")
                .args(arguments)
                .env("RUSTDOCFLAGS", "-D warnings")
                .run(),
        )
    });
    steps.check("Dependencies: cargo-deny", || {
        done(CARGO_DENY.get(workspace))
    });
    steps.check("Dependencies: bans, licences, sources", || {
        done(
            deny(workspace)?
                .args([
                    "check",
                    "--hide-inclusion-graph",
                    "bans",
                    "licenses",
                    "sources",
                ])
                .run(),
        )
    });
    steps.check("Dependencies: security advisories", || {
        advisories(workspace)
    });
    for (title, script) in PAGE_SCRIPTS {
        steps.check(&format!("Pages: {title}"), || {
            done(run_script(&workspace.pages(), script))
        });
    }
    for (title, script) in browser_checks {
        steps.check(&format!("Browser tests: {title}"), || {
            let folder = browser_tests
                .as_deref()
                .context("the browser tests are gone")?;
            pages::install_packages(folder)?;
            done(run_script(folder, script))
        });
    }
    Ok(if steps.summary() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The advisories live outside the registry; where they cannot be reached that is said, and no failure.
fn advisories(workspace: &Workspace) -> Result<Outcome> {
    let fetch = deny(workspace)?
        .args(["fetch", "db"])
        .env("GIT_TERMINAL_PROMPT", "0");
    if let Err(error) = fetch.run_within(FETCH_LIMIT) {
        progress::notice(&format!("{error:#}"));
        return Ok(Outcome::Skipped(
            "the advisory database cannot be reached from here".to_owned(),
        ));
    }
    done(
        deny(workspace)?
            .args(["check", "--hide-inclusion-graph", "advisories"])
            .run(),
    )
}

fn deny(workspace: &Workspace) -> Result<Program> {
    Ok(Program::new(CARGO_DENY.get(workspace)?).directory(workspace.root()))
}

fn run_script(folder: &Path, script: &str) -> Result<()> {
    Program::npm(folder).args(["run", "--silent", script]).run()
}

/// The names of the scripts in a folder's `package.json`.
pub(crate) fn scripts(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("package.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let package: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let scripts = package.get("scripts").and_then(Value::as_object);
    Ok(scripts
        .map(|scripts| scripts.keys().cloned().collect())
        .unwrap_or_default())
}

fn done<T>(result: Result<T>) -> Result<Outcome> {
    result.map(|_| Outcome::Done)
}
