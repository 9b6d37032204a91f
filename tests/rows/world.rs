//! One gateway with an engine for each of three users, shared by all tests of a run, and what they
//! do with it.

use anyhow::{Context as _, Result, bail, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Upper bound of everything that is waited for; a real engine starts in ten seconds when it has
/// the machine for itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

static WORLD: LazyLock<Result<World, String>> =
    LazyLock::new(|| World::start().map_err(|error| format!("{error:#}")));
static ORDER: RwLock<()> = RwLock::new(());

/// Somebody with an account.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) cookie: String,
}

/// The gateway and its three users: an admin with ComfyUI's own directories, and two others.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) gateway: &'static Gateway,
    pub(crate) owner: User,
    pub(crate) alice: User,
    pub(crate) bob: User,
    pub(crate) is_real: bool,
}

/// A job that has ended.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) entry: Value,
}

impl Job {
    /// The first picture of a node.
    pub(crate) fn picture(&self, node: &str) -> Result<File> {
        let image = &self.entry["outputs"][node]["images"][0];
        let text = |name: &str| {
            image[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{name} of node {node} in {}", self.entry))
        };
        Ok(File {
            name: text("filename")?,
            subfolder: text("subfolder")?,
            kind: text("type")?,
        })
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.entry["status"]["status_str"] == "success"
    }
}

/// A file as ComfyUI names it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) subfolder: String,
    pub(crate) kind: String,
}

impl File {
    pub(crate) fn target(&self) -> String {
        format!(
            "/view?filename={}&type={}&subfolder={}",
            self.name, self.kind, self.subfolder
        )
    }
}

/// Tests that run beside others.
pub(crate) fn together() -> Result<(RwLockReadGuard<'static, ()>, &'static World)> {
    let guard = ORDER.read().unwrap_or_else(PoisonError::into_inner);
    Ok((guard, world()?))
}

/// Tests that stop jobs, end engines or count what all do, and so run alone.
pub(crate) fn alone() -> Result<(RwLockWriteGuard<'static, ()>, &'static World)> {
    let guard = ORDER.write().unwrap_or_else(PoisonError::into_inner);
    let world = world()?;
    for user in world.users() {
        world.await_engine(user)?;
        world.await_idle(user)?;
    }
    Ok((guard, world))
}

fn world() -> Result<&'static World> {
    WORLD
        .as_ref()
        .map_err(|reason| anyhow::anyhow!("the world did not come up: {reason}"))
}

/// Says that a row has nothing to show in this version.
pub(crate) fn not_there(row: &str, what: &str) {
    tell(&format!("{row}: {what} is not there in this version"));
}

/// Tells what no test fails for, but people want to know.
#[expect(clippy::print_stderr, reason = "the one place where these tests print")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}

/// A gateway before the demo engine, or before the real ComfyUI of `COMFYUI_DIR` with a base
/// directory of its own, in which the test node lies.
pub(crate) fn options() -> Result<(Options, bool)> {
    let Some(options) = Options::real_comfyui_in(|base| {
        let nodes = base.join("custom_nodes");
        fs::create_dir_all(&nodes)?;
        let node = include_str!("../contract/slow_probe.py");
        fs::write(nodes.join("slow_probe.py"), node)?;
        let names = include_str!("../contract/old_names.py");
        fs::write(nodes.join("old_names.py"), names)?;
        Ok(())
    })?
    else {
        // An older ComfyUI checks no path by itself, and what keeps its engines in has to hold for it too.
        let options = Options::default()
            .fault("unchecked-paths")
            .engine_argument("--enable-assets");
        return Ok((options.set("separate_users=true"), false));
    };
    let options = if has_assets_on_request()? {
        options.engine_argument("--enable-assets")
    } else {
        options
    };
    Ok((options.set("separate_users=true"), true))
}

/// Whether the real ComfyUI has the asset system, and switched off unless asked for.
fn has_assets_on_request() -> Result<bool> {
    let folder = std::env::var("COMFYUI_DIR")?;
    let flags = fs::read_to_string(std::path::Path::new(&folder).join("comfy/cli_args.py"))?;
    Ok(flags.contains("\"--enable-assets\"") && !flags.contains("\"--disable-assets\""))
}

impl World {
    fn start() -> Result<Self> {
        let (options, is_real) = options()?;
        let options = options
            .set("gpu_slots=4")
            .set("comfyui.idle_stop_minutes=0");
        let gateway = Gateway::start(options.without_engine())?.for_the_whole_run()?;
        let user = |name: &'static str| -> Result<User> {
            if name != "owner" {
                gateway.add_user(name)?;
            }
            let cookie = gateway.sign_in(name)?;
            Ok(User {
                name,
                id: gateway.user_id(name)?,
                // Tokens made this way carry no rights of admins.
                token: match name {
                    "owner" => cookie.clone(),
                    _ => gateway.make_token(name)?,
                },
                cookie,
            })
        };
        let world = Self {
            owner: user("owner")?,
            alice: user("alice")?,
            bob: user("bobby")?,
            gateway,
            is_real,
        };
        for user in world.users() {
            world.await_engine(user)?;
        }
        let engine = world.engine(&world.bob)?;
        tell(&format!(
            "ComfyUI {}; {}",
            engine["version"], engine["sandbox"]
        ));
        Ok(world)
    }

    pub(crate) fn users(&self) -> [&User; 3] {
        [&self.owner, &self.alice, &self.bob]
    }

    /// Waits until a user's engine answers.
    pub(crate) fn await_engine(&self, user: &User) -> Result<()> {
        eventually(PATIENCE, || {
            // Held by the gateway while the engine starts, so it may take longer than a client waits.
            Ok(self
                .get(user, "/system_stats")
                .is_ok_and(|answer| answer.status == 200))
        })
        .with_context(|| format!("the engine of {}: {}", user.name, self.gateway.console()))
    }

    /// Waits until a user has no job.
    pub(crate) fn await_idle(&self, user: &User) -> Result<()> {
        eventually(PATIENCE, || {
            let queue = self.get(user, "/prompt")?.json();
            Ok(queue["exec_info"]["queue_remaining"] == 0)
        })
        .with_context(|| format!("the jobs of {}", user.name))
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Result<Answer> {
        self.gateway.ask(ask)
    }

    pub(crate) fn get(&self, user: &User, target: &str) -> Result<Answer> {
        self.ask(&Ask::get(target).bearer(&user.token))
    }

    pub(crate) fn send(
        &self,
        user: &User,
        method: &str,
        target: &str,
        body: &Value,
    ) -> Result<Answer> {
        self.ask(&Ask::new(method, target).bearer(&user.token).json(body))
    }

    pub(crate) fn post(&self, user: &User, target: &str, body: &Value) -> Result<Answer> {
        self.send(user, "POST", target, body)
    }

    /// Queues a prompt, given with all that stands beside it, and returns its id.
    pub(crate) fn queue(&self, user: &User, body: &Value) -> Result<String> {
        let answer = self.post(user, "/prompt", body)?;
        answer.json()["prompt_id"]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("{}: {} {}", user.name, answer.status, answer.text()))
    }

    /// Waits for the end of a job that was given to a user's engine past the gateway, which so knows
    /// nothing of it.
    pub(crate) fn succeeds_in_engine(&self, user: &User, id: &str) -> Result<bool> {
        let port = self.direct(user)?;
        let mut status = Value::Null;
        eventually(PATIENCE, || {
            let history = Ask::get(&format!("/history/{id}")).send(port)?.json();
            status = history[id]["status"]["status_str"].clone();
            Ok(!status.is_null())
        })
        .with_context(|| format!("job {id} in the engine of {}", user.name))?;
        Ok(status == "success")
    }

    /// Waits for the end of a job, good or bad.
    pub(crate) fn ended(&self, user: &User, id: &str) -> Result<Job> {
        let mut entry = Value::Null;
        eventually(PATIENCE, || {
            let history = self.get(user, &format!("/history/{id}"))?.json();
            entry = history[id].clone();
            Ok(!entry["status"]["status_str"].is_null())
        })
        .with_context(|| format!("job {id} of {}", user.name))?;
        Ok(Job {
            id: id.to_owned(),
            entry,
        })
    }

    /// Queues a graph and waits for its end.
    pub(crate) fn run(&self, user: &User, graph: &Value) -> Result<Job> {
        let job = self.attempt(user, &json!({ "prompt": graph }))?;
        ensure!(job.succeeded(), "{}: {}", user.name, job.entry);
        Ok(job)
    }

    /// Queues a prompt and waits for its end, which may be a failure.
    pub(crate) fn attempt(&self, user: &User, body: &Value) -> Result<Job> {
        let id = self.queue(user, body)?;
        self.ended(user, &id)
    }

    /// Port of a user's engine, the way before the gateway.
    pub(crate) fn direct(&self, user: &User) -> Result<u16> {
        let process = self.process(user)?;
        let line = fs::read(format!("/proc/{process}/cmdline"))?;
        let mut words = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .skip_while(|word| word != "--port");
        words.next();
        let port = words.next().context("no port in the command line")?;
        Ok(port.parse()?)
    }

    /// What admins see of a user's engine.
    pub(crate) fn engine(&self, user: &User) -> Result<Value> {
        let list = self.gateway.admin("GET", "engines", None)?.json();
        let engines = list["engines"].as_array().into_iter().flatten();
        let own = engines.into_iter().find(|engine| engine["id"] == user.id);
        own.cloned().with_context(|| list.to_string())
    }

    /// Id of the process of a user's engine.
    pub(crate) fn process(&self, user: &User) -> Result<u32> {
        let engine = self.engine(user)?;
        let id = engine["pid"].as_u64().with_context(|| engine.to_string())?;
        Ok(id.try_into()?)
    }

    /// Whether the operating system holds the files of a user's engine.
    pub(crate) fn holds_files(&self, user: &User) -> Result<bool> {
        let state = self.engine(user)?["sandbox"]["state"].clone();
        Ok(state == "confined" || state == "partly")
    }

    /// Directory of a user's files.
    pub(crate) fn folder(&self, user: &User) -> PathBuf {
        self.gateway.data.path().join("users").join(&user.id)
    }

    /// Where the owner's files of a kind are.
    pub(crate) fn folder_of_owner(&self, kind: &str) -> PathBuf {
        let place = if self.is_real { "comfyui" } else { "demo" };
        self.gateway.data.path().join(place).join(kind)
    }

    /// Uploads a file to the input directory.
    pub(crate) fn upload(&self, user: &User, name: &str, bytes: &[u8]) -> Result<Answer> {
        let form = Form::default().file("image", name, bytes);
        self.ask(&form.post("/upload/image").bearer(&user.token))
    }

    pub(crate) async fn socket(&self, user: &User, target: &str) -> Result<Socket> {
        let bearer = format!("Bearer {}", user.token);
        Socket::open(self.gateway.port, target, &[("Authorization", &bearer)]).await
    }

    /// Whether this version answers `target` at all.
    pub(crate) fn has_route(&self, target: &str) -> Result<bool> {
        Ok(!matches!(self.get(&self.owner, target)?.status, 404 | 405))
    }

    pub(crate) fn has_node(&self, class: &str) -> Result<bool> {
        let known = self.get(&self.owner, &format!("/object_info/{class}"))?;
        Ok(!known.json()[class].is_null())
    }
}

/// A multipart form, written as given.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<u8>);

const BORDER: &str = "a-border-of-the-tests";

impl Form {
    /// A part with these headers.
    pub(crate) fn part(mut self, headers: &str, bytes: &[u8]) -> Self {
        self.0
            .extend_from_slice(format!("--{BORDER}\r\n{headers}\r\n\r\n").as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        let headers = format!("Content-Disposition: form-data; name=\"{name}\"");
        self.part(&headers, value.as_bytes())
    }

    pub(crate) fn file(self, name: &str, file: &str, bytes: &[u8]) -> Self {
        let headers = format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream"
        );
        self.part(&headers, bytes)
    }

    pub(crate) fn post(mut self, target: &str) -> Ask {
        self.0
            .extend_from_slice(format!("--{BORDER}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BORDER}");
        Ask::post(target).body(&kind, self.0)
    }
}

/// Every file below a folder, but for logs, databases and caches that an engine writes by itself.
pub(crate) fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => bail!("{}: {error}", folder.display()),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !matches!(&*name, "private" | "cache" | "__pycache__") {
                    folders.push(path);
                }
            } else if path.is_file() && !name.contains(".db") && !name.ends_with(".log") {
                all.insert(path.clone(), fs::read(&path)?);
            }
        }
    }
    Ok(all)
}

/// Whether the bytes of a file hold a text.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
