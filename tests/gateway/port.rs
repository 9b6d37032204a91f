//! A port that another program holds.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, Options, eventually};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Another program that listens on a port; it ends with this value.
struct Program {
    child: Child,
    port: u16,
}

impl Program {
    /// Listens on `address` (`0.0.0.0`, `::`), on IPv6 for IPv6 alone.
    fn listening_on(address: &str) -> Result<Self> {
        const SCRIPT: &str = "import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.bind((sys.argv[1], 0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT, address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let port = line.trim().parse()?;
        Ok(Self { child, port })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why it does not start; nothing else is begun then.
fn refusal(options: Options) -> Result<String> {
    let data = Arc::new(tempfile::tempdir()?);
    let started = Gateway::start(options.data(&data));
    let error = started.err().context("it must not start")?;
    ensure!(!data.path().join("sentinel.db").exists(), "half a start");
    Ok(format!("{error:#}"))
}

#[test]
fn a_taken_port_is_named_with_its_program_and_the_next_free_one() -> Result<()> {
    // The other program has all addresses of one family, or one address alone.
    for address in ["0.0.0.0", "127.0.0.1", "::", "::1"] {
        let Ok(other) = Program::listening_on(address) else {
            eprintln!("skipped: there is no {address} here");
            continue;
        };
        let port = other.port;
        let holder = format!("port {port} is used by python3");
        let process = format!("(process {})", other.child.id());
        let by_settings = refusal(
            Options::default()
                .listening_by_settings()
                .set(&format!("sharing.port={port}")),
        )?;
        let by_argument = refusal(Options::default().listening_on(&format!("127.0.0.1:{port}")))?;
        for (told, way_out) in [
            (&by_settings, "--set sharing.port="),
            (&by_argument, "--listen 127.0.0.1:"),
        ] {
            assert!(
                told.contains(&holder) && told.contains(&process),
                "{address}: {told}"
            );
            let free = told
                .split(way_out)
                .nth(1)
                .with_context(|| format!("{address}: {told}"))?
                .split(|character: char| !character.is_ascii_digit())
                .next()
                .context("a port")?;
            assert!(
                told.contains(&format!("port {free} is free")),
                "{address}: {told}"
            );
            let free: u16 = free.parse()?;
            assert!(free > port, "{address}: {told}");
        }
        // Half a start would hold the other family's address now.
        if address.contains(':') {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        } else {
            TcpListener::bind((Ipv6Addr::LOCALHOST, port))?;
        }
    }
    Ok(())
}

#[test]
fn a_running_gateway_keeps_its_port_and_offers_the_next_free_one() -> Result<()> {
    let gateway = Gateway::start(Options::default().listening_by_settings().without_engine())?;
    let other = Program::listening_on("0.0.0.0")?;
    let shown = gateway
        .admin("PUT", "sharing", Some(&json!({"port": other.port})))?
        .json();
    assert_eq!(shown["port"], gateway.port);
    let taken = &shown["port_taken"];
    assert_eq!(
        (&taken["port"], &taken["process"]),
        (&json!(other.port), &json!(other.child.id())),
        "{shown}"
    );
    assert!(
        taken["program"]
            .as_str()
            .is_some_and(|name| name.starts_with("python3"))
    );
    let doctor = gateway.admin("GET", "sharing/doctor", None)?.text();
    assert!(doctor.contains("port_taken"), "{doctor}");
    let mut gateway = gateway;
    let free = taken["next_free"].as_u64().context("a free port")?;
    let shown = gateway
        .admin("PUT", "sharing", Some(&json!({"port": free})))?
        .json();
    gateway.port = free.try_into()?;
    assert_eq!(
        (&shown["port"], &shown["port_taken"]),
        (&json!(free), &json!(null))
    );
    eventually(SOON, || Ok(gateway.engine().is_ok()))
}
