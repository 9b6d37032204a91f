//! What a confined engine can do, tried by a hostile one, and that without confinement it could.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::io::AsyncReadExt;

use crate::comfyui::{Installation, PythonPlaces};
use crate::config::Config;
use crate::files::DataDirectory;
use crate::sandbox::{Confinement, Profile, Purpose, SandboxPlan, SandboxState, support};

use super::*;

/// The hostile node, which can be run by hand as well.
const HOSTILE: &str = include_str!("../../../../tests/hostile-node/__init__.py");

/// A small machine: an owner's ComfyUI, Sentinel's data with two users, another engine.
struct Machine {
    root: tempfile::TempDir,
    data: DataDirectory,
    python: PathBuf,
    places: PythonPlaces,
    victim: std::process::Child,
    engine: TcpListener,
    config: Config,
    /// Arguments besides the usual ones.
    arguments: Vec<String>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _already_gone = self.victim.kill();
        let _reaped = self.victim.wait();
    }
}

impl Machine {
    /// `None`, with a word on the console, where nothing can be confined.
    async fn new() -> Option<Self> {
        let support = support();
        if support.state != SandboxState::Confined {
            eprintln!("skipped: {}", support.detail);
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let data = DataDirectory::open(&path("data")).unwrap();
        for directory in [
            "comfyui/comfy",
            "comfyui/custom_nodes/node",
            "comfyui/output",
            "comfyui/datasets/cats",
            "comfyui/models/loras/a/b/c/d",
            "foreign",
            "linked",
            "settings",
            "moved/checkpoints",
            "models",
            "pictures",
            "data/users/own/input",
            "data/users/own/output",
            "data/users/other/input",
        ] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        for file in [
            "comfyui/main.py",
            "comfyui/comfy/cli_args.py",
            "comfyui/custom_nodes/node/__init__.py",
            "comfyui/output/owner.png",
            "comfyui/datasets/cats/metadata.json",
            "comfyui/off.yaml",
            "foreign/secret",
            "settings/off.yaml",
            "linked/deep.safetensors",
            "moved/checkpoints/model.safetensors",
            "models/model.safetensors",
            "pictures/a.png",
            "data/sentinel.db",
            "data/users/own/input/a.png",
            "data/users/other/input/a.png",
        ] {
            fs::write(path(file), "text").unwrap();
        }
        let yaml = format!(
            "other:\n  base_path: {}\n  vae: models\n",
            root.path().display()
        );
        fs::write(path("comfyui/extra_model_paths.yaml"), yaml).unwrap();
        let python = Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .unwrap();
        let python = PathBuf::from(String::from_utf8(python.stdout).unwrap().trim());
        Some(Self {
            data,
            places: PythonPlaces::of(&python).await,
            python,
            victim: Command::new("sleep")
                .arg("1000")
                .env("VICTIMS_SECRET", "1")
                .process_group(0)
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
            engine: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
            config: Config::default(),
            arguments: Vec::new(),
            root,
        })
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    fn engine_port(&self) -> u16 {
        self.engine.local_addr().unwrap().port()
    }

    fn launch(&self, attempts: &[String]) -> LaunchPlan {
        let mut arguments: Vec<OsString> = vec!["-c".into(), HOSTILE.into()];
        arguments.extend(attempts.iter().map(OsString::from));
        for kind in ["input", "output"] {
            arguments.push(format!("--{kind}-directory").into());
            arguments.push(self.path(&format!("data/users/own/{kind}")).into());
        }
        arguments.extend(self.arguments.iter().map(OsString::from));
        LaunchPlan {
            program: self.python.clone(),
            arguments,
            working_directory: self.root.path().join("comfyui"),
            environment: Vec::new(),
            removed_environment: vec![GUARD_VARIABLE.into()],
            address: free_loopback_port().unwrap(),
            sandbox: None,
        }
    }

    fn confine(&self, launch: &mut LaunchPlan, profile: Profile) {
        let installation = Installation {
            python: Some(self.python.clone()),
            ..Installation::open(&self.root.path().join("comfyui")).unwrap()
        };
        let purpose = Purpose {
            profile,
            private: self.root.path().join("data/users/own/private"),
            gateway_ports: vec![443],
        };
        let places = Some(&self.places);
        Confinement::new(&self.config, &installation, places, &self.data, purpose)
            .confine(launch)
            .unwrap();
    }

    /// What became of each attempt, `ok` or `refused`.
    async fn attempt(&self, profile: Option<Profile>, attempts: &[String]) -> Vec<String> {
        let mut launch = self.launch(attempts);
        if let Some(profile) = profile {
            self.confine(&mut launch, profile);
        }
        let (state, output) = run(&launch).await;
        let expected = match profile {
            Some(_) => SandboxState::Confined,
            None => SandboxState::Off,
        };
        assert_eq!(state, expected, "{output}");
        let answers = attempts.iter().map(|attempt| {
            let line = output
                .lines()
                .find_map(|line| line.strip_prefix(attempt.as_str())?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{attempt}: no answer in {output}"))
                .to_owned()
        });
        answers.collect()
    }

    /// Attempts that succeed without confinement and are refused with it.
    async fn refused(&self, profile: Profile, attempts: &[String]) {
        // Confined first: without it some of them change what is there.
        let confined = self.attempt(Some(profile), attempts).await;
        let free = self.attempt(None, attempts).await;
        for (attempt, (confined, free)) in attempts.iter().zip(confined.iter().zip(&free)) {
            assert!(confined.starts_with("refused"), "{attempt}: {confined}");
            assert!(free.starts_with("ok"), "{attempt}, unconfined: {free}");
        }
    }

    /// The same for what not every kernel or file system knows.
    async fn refused_where_known(&self, profile: Profile, attempt: &str) {
        let attempts = [attempt.to_owned()];
        let confined = self.attempt(Some(profile), &attempts).await;
        assert!(
            confined[0].starts_with("refused"),
            "{attempt}: {confined:?}"
        );
        let free = self.attempt(None, &attempts).await;
        if !free[0].starts_with("ok") {
            eprintln!("{attempt} shows nothing here: {}", free[0]);
        }
    }

    async fn allowed(&self, profile: Profile, attempts: &[String]) {
        let answers = self.attempt(Some(profile), attempts).await;
        for (attempt, answer) in attempts.iter().zip(&answers) {
            assert!(answer.starts_with("ok"), "{attempt}: {answer}");
        }
    }
}

/// Runs an engine to its end and returns how it was confined and what it said.
async fn run(launch: &LaunchPlan) -> (SandboxState, String) {
    let mut process = spawner().spawn(launch).await.unwrap();
    let (mut output, mut errors) = (String::new(), String::new());
    let both = async {
        tokio::join!(
            process.output.read_to_string(&mut output),
            process.errors.read_to_string(&mut errors),
        )
    };
    let (read, _) = tokio::time::timeout(LIMIT, both).await.unwrap();
    read.unwrap();
    process.control.wait().await;
    (process.sandbox.state, output + &errors)
}

#[tokio::test]
async fn files_of_others_are_out_of_reach() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let home = directories::BaseDirs::new().unwrap();
    let attempts = [
        format!("list {}", machine.path("foreign")),
        format!("read {}", machine.path("foreign/secret")),
        format!("list {}", home.home_dir().display()),
        format!("list {}", machine.path("data")),
        format!("read {}", machine.path("data/sentinel.db")),
        format!("append {}", machine.path("data/sentinel.db")),
        format!("write {}", machine.path("data/planted")),
        format!("list {}", machine.path("data/users")),
        format!("read {}", machine.path("data/users/other/input/a.png")),
        format!("truncate {}", machine.path("data/users/other/input/a.png")),
        format!("link {}", machine.path("data/users/own/output-link")),
        "list /tmp".to_owned(),
        "list /dev/shm".to_owned(),
        "list /".to_owned(),
        "write /var/tmp/sentinel-test-planted".to_owned(),
        "run sh -c ls>/var/tmp/sentinel-test-planted".to_owned(),
    ];
    for profile in [Profile::Owner, Profile::User] {
        // A shell refused a file ends with an error instead.
        let (shell, others) = attempts.split_last().unwrap();
        let told = machine
            .attempt(Some(profile), std::slice::from_ref(shell))
            .await;
        assert!(
            told[0].contains("Permission denied") || told[0].contains("exit code"),
            "{told:?}"
        );
        machine.refused(profile, others).await;
        let _ = fs::remove_file(machine.path("data/planted"));
        let _ = fs::remove_file(machine.path("data/users/own/output-link"));
    }
    fs::remove_file("/var/tmp/sentinel-test-planted").unwrap();
}

#[tokio::test]
async fn a_users_engine_changes_nothing_that_is_shared() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let attempts = [
        format!("write {}", machine.path("comfyui/custom_nodes/planted.py")),
        format!(
            "append {}",
            machine.path("comfyui/custom_nodes/node/__init__.py")
        ),
        format!("append {}", machine.path("comfyui/main.py")),
        format!(
            "write {}",
            machine.path("comfyui/models/planted.safetensors")
        ),
        format!("append {}", machine.path("models/model.safetensors")),
        format!("read {}", machine.path("comfyui/output/owner.png")),
        format!("list {}", machine.path("comfyui/output")),
        format!("list {}", machine.path("comfyui/datasets")),
        format!(
            "read {}",
            machine.path("comfyui/datasets/cats/metadata.json")
        ),
        format!("list {}", machine.path("comfyui")),
        format!("truncate {}", machine.path("models/model.safetensors")),
        format!("change-mode {}", machine.path("models/model.safetensors")),
        format!(
            "change-mode-open {}",
            machine.path("models/model.safetensors")
        ),
        format!("change-mode-open {}", machine.path("models")),
        format!("change-mode-open {}", machine.path("comfyui/main.py")),
        format!("remove {}", machine.path("models/model.safetensors")),
    ];
    machine.refused(Profile::User, &attempts).await;
}

#[tokio::test]
async fn the_owners_engine_installs_nodes() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let attempts = [
        format!("write {}", machine.path("comfyui/custom_nodes/new.py")),
        format!(
            "append {}",
            machine.path("comfyui/custom_nodes/node/__init__.py")
        ),
        format!("write {}", machine.path("comfyui/output/new.png")),
        format!("read {}", machine.path("models/model.safetensors")),
    ];
    machine.allowed(Profile::Owner, &attempts).await;
    let outside = [format!(
        "append {}",
        machine.path("models/model.safetensors")
    )];
    machine.refused(Profile::Owner, &outside).await;
}

#[tokio::test]
async fn b1_what_arguments_of_today_name_is_open() {
    let Some(mut machine) = Machine::new().await else {
        return;
    };
    let arguments = [
        ("--models-directory", "moved"),
        ("--disabled-nodes-config", "settings/off.yaml"),
    ];
    for (flag, path) in arguments {
        machine
            .arguments
            .extend([flag.to_owned(), machine.path(path)]);
    }
    let log = machine.path("logs-of-comfyui.txt");
    let verbose = ["--verbose", "DETAIL", &log].map(str::to_owned);
    machine.arguments.extend(verbose);
    let read = [
        format!("list {}", machine.path("moved/checkpoints")),
        format!(
            "read {}",
            machine.path("moved/checkpoints/model.safetensors")
        ),
        format!("read {}", machine.path("settings/off.yaml")),
    ];
    machine.allowed(Profile::User, &read).await;
    machine.allowed(Profile::Owner, &read).await;
    // The owner downloads models and writes the log; others do not, and nobody gets what is beside.
    let written = [
        format!("write {}", machine.path("moved/checkpoints/new")),
        format!("append {log}"),
    ];
    machine.allowed(Profile::Owner, &written).await;
    fs::remove_file(machine.path("moved/checkpoints/new")).unwrap();
    machine.refused(Profile::User, &written).await;
    let beside = [format!("read {}", machine.path("foreign/secret"))];
    machine.refused(Profile::Owner, &beside).await;
}

#[tokio::test]
async fn r20_a_model_linked_from_deep_below_is_read() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let link = machine.path("comfyui/models/loras/a/b/c/d/deep.safetensors");
    std::os::unix::fs::symlink(machine.path("linked/deep.safetensors"), &link).unwrap();
    let read = [format!("read {link}")];
    machine.allowed(Profile::User, &read).await;
    machine.allowed(Profile::Owner, &read).await;
}

#[tokio::test]
async fn ports_and_sockets_of_others_are_out_of_reach() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let port = machine.engine_port();
    let socket = machine.path("data/users/own/output/session-bus");
    let _bus = UnixListener::bind(&socket).unwrap();
    let name = format!("sentinel-test-{}", std::process::id());
    let abstract_name = UnixAddress::from_abstract_name(&name).unwrap();
    let _server = UnixListener::bind_addr(&abstract_name).unwrap();
    let free_port = free_loopback_port().unwrap().port();
    let mut attempts = vec![
        format!("connect {port}"),
        format!("connect-fast {port}"),
        format!("listen {free_port}"),
        format!("connect-file {socket}"),
        format!("connect-abstract {name}"),
    ];
    let has_multipath = fs::read_to_string("/proc/sys/net/mptcp/enabled");
    if has_multipath.is_ok_and(|text| text.trim() == "1") {
        attempts.push(format!("connect-multipath {port}"));
    }
    for profile in [Profile::Owner, Profile::User] {
        machine.refused(profile, &attempts).await;
    }
}

#[tokio::test]
async fn processes_of_others_are_out_of_reach() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let victim = machine.victim.id();
    let attempts = [
        format!("signal {victim}"),
        format!("read /proc/{victim}/environ"),
        format!("read /proc/{victim}/maps"),
        format!("read /proc/{victim}/fd/0"),
        format!("list /proc/{victim}/cwd/"),
    ];
    for profile in [Profile::Owner, Profile::User] {
        machine.refused(profile, &attempts).await;
    }
}

#[tokio::test]
async fn a_confined_engine_ends_and_slows_down_nobody_and_locks_nobody_out() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let victim = machine.victim.id();
    let model = machine.path("models/model.safetensors");
    let attempts = [
        format!("limit {victim}"),
        format!("limit {}", std::process::id()),
        format!("slow-group {victim}"),
        format!("take-reading {model}"),
    ];
    for profile in [Profile::Owner, Profile::User] {
        machine.refused(profile, &attempts).await;
        let attribute = format!("set-attribute {model}");
        machine.refused_where_known(profile, &attribute).await;
    }
}

/// Shared memory of another program of this account, as pictures of windows are.
const SHARED_MEMORY: &str = "
import ctypes, sys
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_ssize_t
number = libc.shmget(0, 4096, 0o1600)
ctypes.memmove(libc.shmat(number, None, 0), b'secret', 6)
print(number, flush=True)
sys.stdin.read()
libc.shmctl(number, 0, None)
";

#[tokio::test]
async fn memory_messages_and_keys_of_the_account_are_out_of_reach() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let mut other = Command::new("python3")
        .args(["-c", SHARED_MEMORY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut number = String::new();
    BufReader::new(other.stdout.take().unwrap())
        .read_line(&mut number)
        .unwrap();
    let attempts = [
        format!("shared-memory {}", number.trim()),
        "semaphore ".to_owned(),
        "messages ".to_owned(),
    ];
    for profile in [Profile::Owner, Profile::User] {
        machine.refused(profile, &attempts).await;
        machine.refused_where_known(profile, "keyring ").await;
        machine.refused_where_known(profile, "x32 ").await;
    }
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
}

#[tokio::test]
async fn its_own_things_work() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let launch = machine.launch(&[]);
    let own = launch.address.port();
    let private = machine.path("data/users/own/private");
    let attempts = [
        format!("read {}", machine.path("data/users/own/input/a.png")),
        format!("write {}", machine.path("data/users/own/output/b.png")),
        format!("remove {}", machine.path("data/users/own/output/b.png")),
        format!("write {private}/tmp/c"),
        format!("write {private}/home/d"),
        format!("read {}", machine.path("comfyui/main.py")),
        format!("list {}", machine.path("comfyui/custom_nodes")),
        format!("read {}", machine.path("models/model.safetensors")),
        "read /dev/urandom".to_owned(),
        "write /dev/null".to_owned(),
        "write /dev/shm/sentinel-test-own".to_owned(),
        "remove /dev/shm/sentinel-test-own".to_owned(),
        "read /proc/self/status".to_owned(),
        "read /proc/meminfo".to_owned(),
        "read /etc/hosts".to_owned(),
        "list /sys/devices".to_owned(),
        "look-up localhost".to_owned(),
        "run sh -c exit".to_owned(),
        format!(
            "run cp -a {} {}",
            machine.path("models/model.safetensors"),
            machine.path("data/users/own/output/copy")
        ),
        format!("run {} -c pass", machine.python.display()),
        "run sh -c echo>$TMPDIR/x".to_owned(),
    ];
    for profile in [Profile::Owner, Profile::User] {
        machine.allowed(profile, &attempts).await;
    }
    // The port is chosen before each start, so this one is asked for by name.
    let mut launch = machine.launch(&[format!("listen {own}")]);
    launch.address.set_port(own);
    machine.confine(&mut launch, Profile::User);
    let (_, output) = run(&launch).await;
    assert!(output.contains(": ok"), "{output}");
}

#[tokio::test]
async fn settings_open_more_and_limit_more() {
    let Some(mut machine) = Machine::new().await else {
        return;
    };
    let port = machine.engine_port();
    machine.config.sandbox_allow_read = vec![machine.path("pictures")];
    machine.config.sandbox_allow_write = vec![machine.path("foreign")];
    machine.config.sandbox_allow_ports = vec![port.to_string(), "443".to_owned()];
    machine.config.sandbox_custom_nodes_write = true;
    machine.config.sandbox_max_file_gib = 3;
    let attempts = [
        format!("read {}", machine.path("pictures/a.png")),
        format!("write {}", machine.path("foreign/new")),
        format!("connect {port}"),
        format!(
            "write {}",
            machine.path("comfyui/custom_nodes/node/config.ini")
        ),
    ];
    machine.allowed(Profile::User, &attempts).await;
    let still = [
        format!("append {}", machine.path("pictures/a.png")),
        format!("write {}", machine.path("comfyui/custom_nodes/planted.py")),
    ];
    machine.refused(Profile::User, &still).await;
    let limits = machine
        .attempt(Some(Profile::User), &["show-limits ".to_owned()])
        .await;
    assert_eq!(limits, [format!("ok 16384 0 {}", 3_u64 << 30)]);
    let mut launch = machine.launch(&[]);
    machine.confine(&mut launch, Profile::User);
    let plan = launch.sandbox.unwrap();
    assert!(!plan.connect_ports.contains(&443), "the gateway's own port");
}

#[tokio::test]
async fn nothing_is_gained_by_links_in_its_own_directories() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let mut launch = machine.launch(&[]);
    machine.confine(&mut launch, Profile::User);
    let private = machine.root.path().join("data/users/own/private");
    for name in ["tmp", "cache", "home"] {
        fs::remove_dir_all(private.join(name)).unwrap();
        std::os::unix::fs::symlink(machine.path("foreign"), private.join(name)).unwrap();
    }
    let attempts = [format!("read {}", machine.path("foreign/secret"))];
    machine.refused(Profile::User, &attempts).await;
    assert!(private.join("tmp").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_dir(machine.path("foreign")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_runaway_of_a_confined_engine_ends_with_it() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let written = machine.path("data/users/own/output/pid");
    let attempts = ["ignore-sigterm ".to_owned(), format!("fork-away {written}")];
    let answers = machine.attempt(Some(Profile::User), &attempts).await;
    assert_eq!(answers, ["ok", "ok"]);
    let pid = fs::read_to_string(&written).unwrap_or_default();
    // It may have been killed before it could write.
    if let Ok(pid) = pid.trim().parse() {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn a_killed_guard_takes_a_confined_engine_along() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let mut launch = machine.launch(&[]);
    let program = "import os, time; print(os.getppid(), flush=True); time.sleep(1000)";
    launch.arguments = vec!["-c".into(), program.into()];
    machine.confine(&mut launch, Profile::User);
    let mut process = spawner().spawn(&launch).await.unwrap();
    // Behind what the test program that plays the guard prints itself.
    let mut printed = Vec::new();
    let guard = loop {
        process.output.read_buf(&mut printed).await.unwrap();
        let text = String::from_utf8_lossy(&printed);
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        if let Some(pid) = lines.filter_map(|line| line.trim().parse().ok()).next() {
            break nix::unistd::Pid::from_raw(pid);
        }
    };
    nix::sys::signal::kill(guard, nix::sys::signal::SIGKILL).unwrap();
    is_gone(i32::try_from(process.pid.unwrap()).unwrap()).await;
}

#[tokio::test]
async fn a_required_confinement_that_fails_starts_nothing() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let mut launch = machine.launch(&["show-limits ".to_owned()]);
    machine.confine(&mut launch, Profile::User);
    // Without a permission to run Python nothing can start, and no second try is made.
    launch.sandbox = Some(SandboxPlan {
        required: true,
        max_open_files: 64,
        ..SandboxPlan::default()
    });
    let error = spawner().spawn(&launch).await.unwrap_err();
    assert!(matches!(error, SpawnError::Program { .. }), "{error}");
    assert!(error.to_string().contains("ermission denied"), "{error}");
}

#[tokio::test]
async fn the_status_says_how_an_engine_is_confined() {
    struct Confined(Script, Machine);
    impl Launcher for Confined {
        fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
            let mut plan = self.0.plan(address)?;
            plan.program = self.1.python.clone();
            self.1.confine(&mut plan, Profile::User);
            Ok(plan)
        }
    }
    let Some(machine) = Machine::new().await else {
        return;
    };
    let script = Script {
        program: "python3",
        text: PYTHON_ENGINE.replace("{before}", ""),
        directory: machine.root.path().join("comfyui"),
    };
    let log = LogRing::new(LogLimits::default());
    let launcher = Arc::new(Confined(script, machine));
    let supervisor = Supervisor::launch(quick(), launcher, Arc::new(spawner()), log);
    let engine = supervisor.handle();
    assert_eq!(engine.current().sandbox.state, SandboxState::Off);
    engine.start().await.unwrap();
    let ready = engine.wait_for(EngineStatus::is_ready);
    let ready = tokio::time::timeout(LIMIT, ready).await.unwrap().unwrap();
    assert_eq!(ready.sandbox.state, SandboxState::Confined);
    assert!(ready.sandbox.abi >= 6);
    assert!(
        ready.sandbox.detail.contains("Landlock"),
        "{:?}",
        ready.sandbox
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn permissions_of_own_copies_are_no_obstacle() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let copy = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2]); print('copied')";
    let from = machine.path("models/model.safetensors");
    let to = machine.path("data/users/own/output/copy");
    fs::set_permissions(&from, fs::Permissions::from_mode(0o444)).unwrap();
    let mut launch = machine.launch(&[]);
    launch.arguments.splice(
        ..,
        [
            "-c",
            copy,
            &from,
            &to,
            "--output-directory",
            &machine.path("data/users/own/output"),
        ]
        .map(OsString::from),
    );
    machine.confine(&mut launch, Profile::User);
    let (_, output) = run(&launch).await;
    assert!(output.contains("copied"), "{output}");
}

#[tokio::test]
async fn python_imports_from_comfyui_without_listing_it() {
    let Some(machine) = Machine::new().await else {
        return;
    };
    let program = "import os, sys, helper, package, comfy.cli_args\n\
                   try:\n    os.listdir(sys.path[0])\nexcept PermissionError:\n    print('not listed')\n\
                   print('imported', helper.VALUE, package.VALUE)\n";
    for (file, text) in [
        ("main.py", program),
        ("helper.py", "VALUE = 1"),
        ("comfy/cli_args.py", ""),
        ("package/__init__.py", "VALUE = 2"),
    ] {
        let path = machine.root.path().join("comfyui").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut launch = machine.launch(&[]);
    launch.arguments = vec!["main.py".into()];
    machine.confine(&mut launch, Profile::User);
    let (_, output) = run(&launch).await;
    assert!(output.contains("not listed"), "{output}");
    assert!(output.contains("imported 1 2"), "{output}");
    assert!(!output.contains("sitecustomize"), "{output}");
}
