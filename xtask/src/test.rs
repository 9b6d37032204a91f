//! `cargo xtask test`: what the tests need, and all of them.

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use crate::check::scripts;
use crate::packages::{self, Purpose};
use crate::process::{self, Program};
use crate::progress::{self, Steps};
use crate::workspace::{self, Programs, Workspace};
use crate::{front_end, pages, tools};

/// Names a real ComfyUI to the tests that need one.
const REAL_COMFYUI: &str = "COMFYUI_DIR";

/// What `cargo xtask test` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Version of ComfyUI's front end for the demo engine; tests of ComfyUI's page take the newest one as well
    #[arg(long, value_name = "VERSION", default_value = front_end::VERSION, value_parser = front_end::version)]
    front_end: String,
    /// Show what tests print
    #[arg(long)]
    nocapture: bool,
}

/// How many tests of a suite ended how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// What the programs under test are told about this machine.
#[derive(Debug)]
struct Surroundings {
    programs: Programs,
    front_end: Option<PathBuf>,
    newest_front_end: Option<PathBuf>,
    chromium: Option<PathBuf>,
}

/// Prepares and runs all suites, also after one failed; the last line says how many tests passed.
pub(crate) fn test(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if let Some(folder) = env::var_os(REAL_COMFYUI) {
        let program = PathBuf::from(folder).join("main.py");
        ensure!(
            program.is_file(),
            "{REAL_COMFYUI} is set, and there is no {}",
            program.display()
        );
    }
    let browser_tests = workspace.browser_tests();
    let has_browser_suite = match &browser_tests {
        Some(folder) => scripts(folder)?.iter().any(|script| script == "test"),
        None => false,
    };
    let mut steps = Steps::new(6 + usize::from(has_browser_suite));
    steps.step("Installing what the tests need", || {
        tools::prepare(&[Purpose::Build, Purpose::Desktop, Purpose::Test])
    })?;
    steps.step("Building the pages", || {
        pages::install_packages(&workspace.pages())?;
        if let Some(folder) = &browser_tests {
            pages::install_packages(folder)?;
        }
        pages::build(workspace)
    })?;
    let (front_end, newest_front_end) = steps.step("Getting ComfyUI's front end", || {
        Ok((
            front_end::get(workspace, &options.front_end),
            front_end::get(workspace, front_end::NEWEST),
        ))
    })?;
    let programs = steps.step("Building the programs", || {
        workspace.build_programs_for_tests()
    })?;
    let chromium = workspace::first_installed(packages::CHROMIUM);
    let surroundings = Surroundings {
        programs,
        front_end,
        newest_front_end,
        chromium,
    };

    let mut total = Counts::default();
    let mut suites = Vec::new();
    let mut finish = |name: &'static str, (ended_well, counts): (bool, Counts)| {
        let counts = counts.with_ending(ended_well);
        suites.push(format!("{name}: {counts}"));
        total.add(counts);
    };
    finish(
        "pages",
        steps.step("Testing the pages", || page_tests(workspace, options))?,
    );
    finish(
        "Rust",
        steps.step("Testing the Rust code", || {
            rust_tests(workspace, options, &surroundings)
        })?,
    );
    if let (true, Some(folder)) = (has_browser_suite, &browser_tests) {
        let mut program = surroundings.tell(Program::npm(folder)).arg("test");
        if let Some(filter) = &options.filter {
            program = program.args(["--", &format!("--test-name-pattern={filter}")]);
        }
        finish(
            "browser",
            steps.step("Testing in a browser", || {
                program_tests(program, Counts::read_node)
            })?,
        );
    }

    progress::line("");
    for suite in suites {
        progress::line(&suite);
    }
    if env::var_os(REAL_COMFYUI).is_none() {
        progress::line(&format!(
            "The tests with a real ComfyUI were skipped: set {REAL_COMFYUI} to its folder to run them."
        ));
    }
    if surroundings.chromium.is_none() {
        progress::line("No Chromium was found.");
    }
    if let (Some(filter), 0) = (&options.filter, total.passed + total.failed) {
        progress::line(&format!("No test's name contains {filter:?}."));
        total.failed = 1;
    }
    progress::line(&format!("Total: {total}"));
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn page_tests(workspace: &Workspace, options: &Options) -> Result<(bool, Counts)> {
    let mut program = Program::npm(&workspace.pages()).arg("test");
    if let Some(filter) = &options.filter {
        program = program.args(["--", "--testNamePattern", filter, "--passWithNoTests"]);
    }
    program_tests(program, Counts::read_vitest)
}

fn rust_tests(
    workspace: &Workspace,
    options: &Options,
    surroundings: &Surroundings,
) -> Result<(bool, Counts)> {
    if process::find("cargo-nextest").is_none() {
        let program = workspace
            .cargo("test")
            .args(["--workspace", "--no-fail-fast"])
            .args(&options.filter)
            .arg("--")
            .args(with_real_comfyui().then_some("--include-ignored"))
            .args(options.nocapture.then_some("--nocapture"));
        return program_tests(surroundings.tell(program), Counts::read_cargo_test);
    }
    // nextest leaves the examples in the documentation out.
    let examples = workspace
        .cargo("test")
        .args(["--workspace", "--doc", "--quiet", "--no-fail-fast"])
        .args(&options.filter);
    let (examples_ended_well, mut counts) =
        program_tests(surroundings.tell(examples), Counts::read_cargo_test)?;
    let mut program = workspace
        .cargo("nextest run")
        .args(["--workspace", "--no-fail-fast"])
        .args(&options.filter)
        .args(with_real_comfyui().then_some("--run-ignored=all"))
        .args(options.nocapture.then_some("--no-capture"));
    if options.filter.is_some() {
        // The tests that fit may be those of another suite.
        program = program.arg("--no-tests=pass");
    }
    let (ended_well, more) = program_tests(surroundings.tell(program), Counts::read_nextest)?;
    counts.add(more);
    Ok((ended_well && examples_ended_well, counts))
}

/// Tests that need a real ComfyUI are marked as ignored and run only when one is named.
fn with_real_comfyui() -> bool {
    env::var_os(REAL_COMFYUI).is_some()
}

fn program_tests(program: Program, read: fn(&str) -> Option<Counts>) -> Result<(bool, Counts)> {
    let mut counts = Counts::default();
    // Seen through a pipe, some tools leave colours out and others never do.
    let program = if std::io::stdout().is_terminal() {
        program
            .env("CARGO_TERM_COLOR", "always")
            .env("FORCE_COLOR", "1")
    } else {
        program.env("NO_COLOR", "1")
    };
    let ended_well = program.watch(|line| {
        if let Some(more) = read(line) {
            counts.add(more);
        }
    })?;
    Ok((ended_well, counts))
}

impl Surroundings {
    fn tell(&self, program: Program) -> Program {
        let mut program = program
            .env("SENTINELD", &self.programs.sentineld)
            .env("DEMO_ENGINE", &self.programs.demo_engine);
        if let Some(folder) = &self.front_end {
            program = program.env(front_end::VARIABLE, folder);
        }
        if let Some(folder) = &self.newest_front_end {
            program = program.env(front_end::NEWEST_VARIABLE, folder);
        }
        if let Some(path) = &self.chromium {
            program = program.env("CHROMIUM", path);
        }
        program
    }
}

impl Counts {
    /// `Summary [   0.1s] 4 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 0 skipped`
    fn read_nextest(line: &str) -> Option<Self> {
        let (_, list) = line
            .trim_start()
            .strip_prefix("Summary [")?
            .split_once(" run: ")?;
        let mut plain = String::new();
        let mut depth = 0_u32;
        for character in list.chars() {
            match character {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ if depth == 0 => plain.push(character),
                _ => {}
            }
        }
        Some(Self::read_list(plain.split(',')))
    }

    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s`
    fn read_cargo_test(line: &str) -> Option<Self> {
        let (_, list) = line.strip_prefix("test result: ")?.split_once(". ")?;
        Some(Self::read_list(list.split(';').filter(|part| {
            !part.contains("filtered") && !part.contains("measured")
        })))
    }

    /// `Tests  1 failed | 12 passed | 2 skipped (15)`
    fn read_vitest(line: &str) -> Option<Self> {
        let list = line.trim_start().strip_prefix("Tests ")?;
        let (list, _) = list.rsplit_once('(')?;
        Some(Self::read_list(list.split('|')))
    }

    /// `# pass 5` or `ℹ pass 5`: one line for each count.
    fn read_node(line: &str) -> Option<Self> {
        let (word, number) = line
            .strip_prefix("# ")
            .or_else(|| line.strip_prefix("ℹ "))?
            .split_once(' ')?;
        let count: u32 = number.trim().parse().ok()?;
        match word {
            "pass" => Some(Self {
                passed: count,
                ..Self::default()
            }),
            "fail" | "cancelled" => Some(Self {
                failed: count,
                ..Self::default()
            }),
            "skipped" | "todo" => Some(Self {
                skipped: count,
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Reads `2 passed`, `1 timed out` and the like. Every end that is not known to be harmless is a failure.
    fn read_list<T: AsRef<str>>(parts: impl Iterator<Item = T>) -> Self {
        let mut counts = Self::default();
        for part in parts {
            let Some((number, word)) = part.as_ref().trim().split_once(' ') else {
                continue;
            };
            let Ok(count) = number.parse::<u32>() else {
                continue;
            };
            match word.trim() {
                "passed" => counts.passed += count,
                "skipped" | "ignored" | "todo" => counts.skipped += count,
                _ if word.starts_with("finished") => {}
                _ => counts.failed += count,
            }
        }
        counts
    }

    /// A suite that ended badly counts as failed even if it died before it could count.
    fn with_ending(mut self, ended_well: bool) -> Self {
        if !ended_well && self.failed == 0 {
            self.failed = 1;
        }
        self
    }

    fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u32, failed: u32, skipped: u32) -> Counts {
        Counts {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn nextest_is_understood() {
        let line = "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(Counts::read_nextest(line), Some(counts(1, 0, 0)));
        let line = "     Summary [  12.1s] 4/9 tests run: 2 passed (1 slow, 1 flaky), 1 failed, 1 timed out, 5 skipped";
        assert_eq!(Counts::read_nextest(line), Some(counts(2, 2, 5)));
        assert_eq!(
            Counts::read_nextest("        PASS [   0.004s] crate test"),
            None
        );
    }

    #[test]
    fn cargo_test_is_understood() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(Counts::read_cargo_test(line), Some(counts(5, 2, 1)));
        assert_eq!(Counts::read_cargo_test("test name ... ok"), None);
    }

    #[test]
    fn vitest_is_understood() {
        assert_eq!(
            Counts::read_vitest("      Tests  12 passed (12)"),
            Some(counts(12, 0, 0))
        );
        let line = "      Tests  1 failed | 12 passed | 2 skipped (15)";
        assert_eq!(Counts::read_vitest(line), Some(counts(12, 1, 2)));
        assert_eq!(Counts::read_vitest(" Test Files  2 passed (2)"), None);
    }

    #[test]
    fn node_is_understood() {
        assert_eq!(Counts::read_node("# pass 5"), Some(counts(5, 0, 0)));
        assert_eq!(Counts::read_node("ℹ fail 1"), Some(counts(0, 1, 0)));
        assert_eq!(Counts::read_node("# duration_ms 12.5"), None);
    }

    #[test]
    fn a_suite_that_died_is_a_failure() {
        assert_eq!(counts(0, 0, 0).with_ending(false), counts(0, 1, 0));
        assert_eq!(counts(3, 2, 0).with_ending(false), counts(3, 2, 0));
        assert_eq!(counts(3, 0, 0).with_ending(true), counts(3, 0, 0));
    }
}
