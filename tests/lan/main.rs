//! Two hosts in a LAN, made of network namespaces: a guest finds the gateway by its name, joins by
//! invite and signs in, trusting nothing but the certificate that he downloaded.
#![cfg(target_os = "linux")]

use anyhow::{Context as _, Result, bail, ensure};
use mdns_sd::{HostnameResolutionEvent, ServiceDaemon, ServiceEvent, ServiceInfo};
use nix::sched::{CloneFlags, setns};
use sentinel_tests::{Answer, Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// A host of the test's own; it ends with this value.
struct Namespace(String);

impl Namespace {
    fn make(name: &str) -> Result<Self> {
        let name = format!("sentinel-{name}-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        Ok(Self(name))
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-netns", self.0.as_str()], arguments].concat())
    }

    /// Runs `act` on a thread of this host; what it starts belongs to this host too.
    fn run<Answer: Send>(&self, act: impl FnOnce() -> Result<Answer> + Send) -> Result<Answer> {
        let file = fs::File::open(format!("/run/netns/{}", self.0))?;
        let acted = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(file, CloneFlags::CLONE_NEWNET)?;
                    act()
                })
                .join()
        });
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Two hosts with a cable between them.
fn lan() -> Result<(Namespace, Namespace)> {
    let (host, guest) = (Namespace::make("host")?, Namespace::make("guest")?);
    ip(&[
        "link", "add", "eth0", "netns", &host.0, "type", "veth", "peer", "name", "eth0", "netns",
        &guest.0,
    ])?;
    for (namespace, address) in [(&host, HOST), (&guest, GUEST)] {
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
    }
    Ok((host, guest))
}

fn sharing(gateway: &Gateway, body: Option<&Value>) -> Result<Value> {
    let method = if body.is_some() { "PUT" } else { "GET" };
    let answer = gateway.admin(method, "sharing", body)?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.json())
}

fn announced(gateway: &Gateway, state: &str) -> Result<Value> {
    let started = Instant::now();
    loop {
        let shown = sharing(gateway, None)?;
        if shown["mdns"]["state"] == state {
            return Ok(shown);
        }
        ensure!(started.elapsed() < SOON, "not {state}: {shown}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Looks a service up; gives its host name, port and addresses.
fn find_service(daemon: &ServiceDaemon, kind: &str) -> Result<(String, u16, Vec<IpAddr>)> {
    let events = daemon.browse(kind)?;
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).context("no service was found")?;
        if let ServiceEvent::ServiceResolved(service) = event {
            let addresses = service.get_addresses().iter();
            return Ok((
                service.get_hostname().to_owned(),
                service.get_port(),
                addresses.map(mdns_sd::ScopedIp::to_ip_addr).collect(),
            ));
        }
    }
}

/// Looks a host name up.
fn resolve(daemon: &ServiceDaemon, name: &str) -> Result<IpAddr> {
    let events = daemon.resolve_hostname(name, Some(10_000))?;
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events
            .recv_timeout(left)
            .context("the name was not resolved")?
        {
            HostnameResolutionEvent::AddressesFound(_, addresses) => {
                let address = addresses.iter().next().context("an address")?;
                return Ok(address.to_ip_addr());
            }
            HostnameResolutionEvent::SearchTimeout(name) => bail!("nobody knows {name}"),
            _ => {}
        }
    }
}

struct Guest {
    daemon: ServiceDaemon,
    address: SocketAddr,
    name: String,
    authority: Vec<u8>,
}

impl Guest {
    fn plain(&self, ask: Ask) -> Result<Answer> {
        ask.header("Host", &self.authority()).send_to(self.address)
    }

    fn secure(&self, ask: Ask) -> Result<Answer> {
        ask.header("Host", &self.authority()).send_over_tls(
            self.address,
            &self.name,
            &self.authority,
        )
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }
}

#[test]
fn a_guest_finds_it_by_name_joins_and_signs_in() -> Result<()> {
    let (host, guest) = match lan() {
        Ok(lan) => lan,
        Err(error) => {
            eprintln!("skipped: network namespaces are not permitted here: {error:#}");
            return Ok(());
        }
    };
    let gateway = host.run(|| {
        let gateway = Gateway::start(Options::default().listening_by_settings())?;
        let wanted = json!({"enabled": true, "port": 8189, "name": "studio", "tls": true});
        sharing(&gateway, Some(&wanted))?;
        Ok(gateway)
    })?;
    let mut gateway = gateway;
    gateway.port = 8189;
    let (gateway, link) = host.run(move || {
        let shown = announced(&gateway, "announced")?;
        assert_eq!(
            shown["urls"],
            json!(["https://studio.local:8189", "https://10.77.0.1:8189"])
        );
        assert_eq!(shown["addresses"][0]["preferred"], true);
        let made = gateway.admin("POST", "invites", Some(&json!({"expire_hours": 1})))?;
        let link = made.json()["url"].as_str().context("a URL")?.to_owned();
        sharing(&gateway, Some(&json!({"force_https": true})))?;
        Ok((gateway, link))
    })?;

    // What a phone does that has scanned the code.
    let path = link
        .strip_prefix("https://studio.local:8189")
        .context("a URL with the name")?
        .to_owned();
    let here = guest.run(|| {
        let daemon = ServiceDaemon::new()?;
        for kind in [
            "_http._tcp.local.",
            "_comfyui-sentinel._sub._http._tcp.local.",
        ] {
            let (name, port, addresses) = find_service(&daemon, kind)?;
            assert_eq!((name.as_str(), port), ("studio.local.", 8189), "{kind}");
            assert_eq!(addresses, [IpAddr::from(HOST)], "{kind}");
        }
        let address = resolve(&daemon, "studio.local.")?;
        assert_eq!(address, IpAddr::from(HOST));
        let mut here = Guest {
            daemon,
            address: SocketAddr::new(address, 8189),
            name: "studio.local".to_owned(),
            authority: Vec::new(),
        };
        let sent = here.plain(Ask::get(&path))?;
        assert_eq!(
            (sent.status, sent.header("location")),
            (308, Some(link.as_str()))
        );
        assert_eq!(here.plain(Ask::get("/trust").browser())?.status, 200);
        let certificate = here.plain(Ask::get("/trust/certificate.crt"))?;
        assert_eq!(certificate.status, 200);
        here.authority = certificate.body;
        let page = here.secure(Ask::get(&path).browser())?;
        assert!(
            page.text().contains("&quot;valid&quot;:true"),
            "{}",
            page.text()
        );
        let (_, code) = path.split_once("code=").context("a code")?;
        let body = json!({"code": code, "username": "guest", "password": PASSWORD});
        let joined = here.secure(Ask::post("/join").json(&body))?;
        assert_eq!(joined.status, 200, "{}", joined.text());
        let cookie = joined.header("set-cookie").context("a cookie")?;
        assert!(cookie.ends_with("; Secure"), "{cookie}");
        let body = json!({"username": "guest", "password": PASSWORD});
        let signed_in = here.secure(Ask::post("/login").json(&body))?;
        assert_eq!(signed_in.status, 200, "{}", signed_in.text());
        let token = signed_in.json()["jwt_token"]
            .as_str()
            .context("a token")?
            .to_owned();
        let comfyui = here.secure(Ask::get("/system_stats").cookie(&token))?;
        assert_eq!(comfyui.status, 200, "{}", comfyui.text());
        // By address too; by a name that is not its own the certificate does not count.
        let by_address = Ask::get("/sentinel/health").header("Host", "10.77.0.1:8189");
        let answer = by_address.send_over_tls(here.address, "10.77.0.1", &here.authority)?;
        assert_eq!(answer.status, 200);
        assert!(
            by_address
                .send_over_tls(here.address, "bank.example", &here.authority)
                .is_err()
        );
        let again = here.secure(
            Ask::post("/join")
                .json(&json!({"code": code, "username": "more", "password": PASSWORD})),
        )?;
        assert_eq!(
            (again.status, again.code().as_str()),
            (403, "invite_invalid")
        );
        // The one-time link is the machine's own.
        assert_eq!(here.secure(Ask::get("/enter?code=x"))?.status, 403);
        Ok(here)
    })?;

    let deny_list = gateway.data.path().join("blacklist.txt");
    fs::write(&deny_list, format!("{GUEST}\n"))?;
    let health = || Ask::get("/sentinel/health");
    guest.run(|| {
        eventually(SOON, || {
            Ok(here.secure(health()).is_err() && here.plain(health()).is_err())
        })
    })?;
    fs::write(&deny_list, "")?;
    guest.run(|| eventually(SOON, || Ok(here.secure(health()).is_ok())))?;

    // A cable more, while it runs.
    host.ip(&[
        "link", "add", "lan1", "type", "veth", "peer", "name", "switch1",
    ])?;
    host.ip(&["link", "set", "switch1", "up"])?;
    host.ip(&["addr", "add", "10.78.0.1/24", "dev", "lan1"])?;
    host.ip(&["link", "set", "lan1", "up"])?;
    let authority = here.authority.clone();
    host.run(|| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 78, 0, 1), 8189));
        eventually(SOON, || {
            let ask = health().header("Host", "10.78.0.1:8189");
            Ok(ask.send_over_tls(address, "10.78.0.1", &authority).is_ok())
        })
    })?;
    guest.run(|| {
        let found = || Ok(resolve(&ServiceDaemon::new()?, "studio.local.")? == IpAddr::from(HOST));
        eventually(SOON, found)
    })?;

    // A name that the guest's machine has already.
    guest.run(|| {
        let service = ServiceInfo::new(
            "_ipp._tcp.local.",
            "Printer",
            "printer.local.",
            &[IpAddr::from(GUEST)][..],
            631,
            &[("path", "/")][..],
        )?;
        here.daemon.register(service)?;
        eventually(SOON, || {
            Ok(resolve(&ServiceDaemon::new()?, "printer.local.").is_ok())
        })
    })?;
    let file = gateway.data.path().join("config.json");
    let settings = |enabled: bool, name: &str| {
        json!({"sharing": {"enabled": enabled, "port": 8189, "name": name}}).to_string()
    };
    fs::write(&file, settings(true, "printer"))?;
    let shown = host.run(|| {
        eventually(SOON, || Ok(gateway.login("owner", PASSWORD)?.status == 200))?;
        announced(&gateway, "failed")
    })?;
    assert!(
        shown["mdns"]["fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("printer.local")),
        "{shown}"
    );
    let urls = shown["urls"].to_string();
    assert!(
        !urls.contains(".local") && urls.contains("\"http://10.77.0.1:8189\""),
        "{urls}"
    );
    fs::write(&file, settings(true, "studio"))?;
    host.run(|| announced(&gateway, "announced"))?;

    // Whoever turns sharing off from elsewhere still gets his answer.
    let token = host.run(|| {
        let body = json!({"name": "lan", "expire_hours": 1, "password": PASSWORD, "admin": true});
        let made = gateway.ask(
            &Ask::post("/sentinel/api/tokens")
                .bearer(&gateway.owner)
                .json(&body),
        )?;
        Ok(made.json()["jwt_token"]
            .as_str()
            .context("a token")?
            .to_owned())
    })?;
    guest.run(|| {
        let ask = Ask::new("PUT", "/sentinel/api/sharing").bearer(&token);
        let answer = here.plain(ask.json(&json!({"enabled": false})))?;
        assert_eq!(
            (answer.status, &answer.json()["enabled"]),
            (200, &json!(false))
        );
        eventually(SOON, || Ok(here.plain(health()).is_err()))
    })?;
    fs::write(&file, settings(true, "studio"))?;
    host.run(|| announced(&gateway, "announced"))?;

    let mut open = guest.run(|| Ok(TcpStream::connect(here.address)?))?;
    fs::write(&file, settings(false, "studio"))?;
    // Who is connected from elsewhere is not any more.
    open.set_read_timeout(Some(SOON))?;
    assert_eq!(open.read(&mut [0])?, 0);
    guest.run(|| {
        eventually(SOON, || Ok(here.plain(health()).is_err()))?;
        eventually(SOON, || {
            Ok(resolve(&ServiceDaemon::new()?, "studio.local.").is_err())
        })
    })?;
    host.run(|| {
        assert_eq!(gateway.ask(&health())?.status, 200);
        // The port is free on the LAN's address again.
        TcpListener::bind((HOST, 8189))?;
        gateway.stop().map(drop)
    })?;
    let _ = here.daemon.shutdown();
    Ok(())
}

/// A laptop on cable and Wi-Fi at once hears itself; that is nobody else with the same name.
#[test]
fn two_adapters_in_one_network_are_no_conflict() -> Result<()> {
    let (host, switch) = match (Namespace::make("laptop"), Namespace::make("switch")) {
        (Ok(host), Ok(switch)) => (host, switch),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("skipped: network namespaces are not permitted here: {error:#}");
            return Ok(());
        }
    };
    host.ip(&["link", "set", "lo", "up"])?;
    let bridged = switch.ip(&["link", "add", "br0", "type", "bridge"]);
    if let Err(error) = bridged {
        eprintln!("skipped: there are no bridges here: {error:#}");
        return Ok(());
    }
    switch.ip(&["link", "set", "br0", "up"])?;
    for (name, address) in [("eth0", "10.77.0.1/24"), ("wlan0", "10.77.0.9/24")] {
        ip(&[
            "link", "add", name, "netns", &host.0, "type", "veth", "peer", "name", name, "netns",
            &switch.0,
        ])?;
        switch.ip(&["link", "set", name, "master", "br0", "up"])?;
        host.ip(&["addr", "add", address, "dev", name])?;
        host.ip(&["link", "set", name, "up"])?;
    }
    host.run(|| {
        let gateway = Gateway::start(Options::default().listening_by_settings())?;
        sharing(&gateway, Some(&json!({"enabled": true, "name": "laptop"})))?;
        announced(&gateway, "announced")?;
        // Conflicts come to light within the second after the announcement.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let shown = sharing(&gateway, None)?;
            assert_eq!(shown["mdns"]["state"], "announced", "{shown}");
            thread::sleep(Duration::from_millis(100));
        }
        gateway.stop().map(drop)
    })
}
