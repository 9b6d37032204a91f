//! A real nginx before the gateway, as people put it there: a password of its own, below a path,
//! with decoded paths, with the encryption outside.

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::join_all;
use sentinel_tests::{Answer, Ask, Gateway, Options, PASSWORD, Socket};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A running nginx; it ends with this value.
struct Nginx {
    port: u16,
    child: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts one with `listening` behind its port and these lines in its only server.
    fn start(folder: TempDir, listening: &str, server: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let home = folder.path().display();
        // As root its workers would be another user, who could not read the folder.
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let config = format!(
            "{user} daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
             fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
             proxy_http_version 1.1;\n\
             server {{ listen 127.0.0.1:{port}{listening}; {server} }}\n\
             }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config)?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx does not start; cargo xtask test installs it")?;
        let mut nginx = Self {
            port,
            child,
            folder,
        };
        let started = Instant::now();
        while TcpStream::connect(nginx.address()).is_err() {
            if nginx.child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                bail!("nginx does not come up: {}", nginx.log());
            }
            sleep(PAUSE);
        }
        Ok(nginx)
    }

    fn plain(server: &str) -> Result<Self> {
        Self::start(tempfile::tempdir()?, "", server)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    fn ask(&self, ask: &Ask) -> Result<Answer> {
        ask.send(self.port)
            .with_context(|| format!("through nginx: {}", self.log()))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap_or_default());
        // Its workers end with it only when it is asked.
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// What recipes for nginx pass on.
const FORWARDED: &str = "proxy_set_header Host $http_host; \
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
    proxy_set_header X-Forwarded-Proto $scheme; \
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;";

fn token_of(answer: &Answer) -> Result<String> {
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let token = answer.json()["jwt_token"].as_str().map(str::to_owned);
    token.context("a token")
}

fn login() -> Ask {
    Ask::post("/login").json(&json!({"username": "owner", "password": PASSWORD}))
}

/// The most usual recipe there is: a password of nginx's before everything, which the browser then
/// sends with every request beside our cookie.
#[tokio::test]
async fn a_password_of_nginx_stands_before_a_sign_in_by_cookie() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy())?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("passwords"), "family:{PLAIN}secret\n")?;
    let server = format!(
        "auth_basic \"family\"; auth_basic_user_file {}/passwords; \
         location / {{ proxy_pass http://127.0.0.1:{}; {FORWARDED} }}",
        folder.path().display(),
        gateway.port
    );
    let nginx = Nginx::start(folder, "", &server)?;
    const BASIC: &str = "Basic ZmFtaWx5OnNlY3JldA==";
    assert_eq!(
        nginx.ask(&Ask::get("/login"))?.status,
        401,
        "nginx asks first"
    );
    let basic = |ask: Ask| ask.header("Authorization", BASIC);
    let page = nginx.ask(&basic(Ask::get("/").browser()))?;
    assert_eq!(
        (page.status, page.header("location")),
        (302, Some("/login"))
    );
    let origin = format!("http://localhost:{}", nginx.port);
    let token = token_of(&nginx.ask(&basic(login().header("Origin", &origin)))?)?;
    for path in ["/", "/queue", "/sentinel/api/me"] {
        let answer = nginx.ask(&basic(Ask::get(path).cookie(&token)))?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let cookie = format!("jwt_token={token}");
    let headers = [("Cookie", cookie.as_str()), ("Authorization", BASIC)];
    let mut socket = Socket::open(nginx.port, "/ws?clientId=a", &headers).await?;
    assert_eq!(socket.next_json().await?["type"], "status");
    Ok(())
}

/// Ways to show it below a path: with the prefix said by nginx or by the settings, taken off by
/// nginx or left on.
const BELOW: [(&str, &str, &str); 4] = [
    ("/", "proxy_set_header X-Forwarded-Prefix /ai;", ""),
    ("", "proxy_set_header X-Forwarded-Prefix /ai/;", ""),
    ("/", "", "sharing.base_path=/ai"),
    ("", "", "sharing.base_path=/ai/"),
];

/// Values of `src` and `href`.
fn addresses_in(page: &str) -> BTreeSet<String> {
    ["src=\"", "href=\""]
        .iter()
        .flat_map(|mark| page.split(mark).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_below_a_path() -> Result<()> {
    let all = BELOW.map(|way| async move {
        works_below_a_path(way)
            .await
            .with_context(|| format!("{way:?}"))
    });
    join_all(all).await.into_iter().collect()
}

async fn works_below_a_path((kept, header, setting): (&str, &str, &str)) -> Result<()> {
    let mut options = Options::default()
        .behind_a_proxy()
        .set(&format!("allowed_hosts={NAME}"));
    if !setting.is_empty() {
        options = options.set(setting);
    }
    let gateway = Gateway::start(options)?;
    let nginx = Nginx::plain(&format!(
        "location /ai/ {{ proxy_pass http://127.0.0.1:{}{kept}; {FORWARDED} {header} }}",
        gateway.port
    ))?;
    let location = |answer: &Answer| answer.header("location").unwrap_or_default().to_owned();

    let away = nginx.ask(&Ask::get("/ai/sentinel/gallery").browser())?;
    assert_eq!(
        (away.status, location(&away).as_str()),
        (302, "/ai/login?next=/sentinel/gallery")
    );
    let page = nginx.ask(&Ask::get("/ai/login?next=/sentinel/gallery").browser())?;
    assert_eq!(page.status, 200);
    assert!(
        page.text().contains("&quot;base&quot;:&quot;/ai&quot;"),
        "{}",
        page.text()
    );
    assert!(
        page.text()
            .contains("&quot;next&quot;:&quot;/sentinel/gallery&quot;"),
        "{}",
        page.text()
    );

    let form = Ask::post("/ai/login").browser().body(
        "application/x-www-form-urlencoded",
        format!("username=owner&password={PASSWORD}"),
    );
    let entered = nginx.ask(&form)?;
    assert_eq!((entered.status, location(&entered).as_str()), (302, "/ai/"));
    let cookie = entered.header("set-cookie").context("a cookie")?.to_owned();
    assert!(cookie.contains("; Path=/ai;"), "{cookie}");
    let token = cookie
        .split(';')
        .next()
        .and_then(|pair| pair.strip_prefix("jwt_token="))
        .context("a token")?
        .to_owned();

    let mut found = 0;
    for path in [
        "/ai/",
        "/ai/login",
        "/ai/register",
        "/ai/generate_token",
        "/ai/join",
        "/ai/trust",
        "/ai/sentinel/",
        "/ai/sentinel/account",
        "/ai/sentinel/gallery",
    ] {
        let page = nginx.ask(&Ask::get(path).browser().cookie(&token))?;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        for address in addresses_in(&page.text()) {
            // Looking at the way out would go it.
            if !address.starts_with('/') || address.ends_with("/logout") {
                continue;
            }
            assert!(address.starts_with("/ai/"), "{path}: {address}");
            let asset = nginx.ask(&Ask::get(&address).cookie(&token))?;
            assert!(
                matches!(asset.status, 200 | 302),
                "{path}: {address}: {}",
                asset.status
            );
            // A script that names another by a path from the root would look beside the base path.
            if address.ends_with(".js") {
                assert!(!asset.text().contains("\"/sentinel/assets"), "{address}");
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found} scripts");

    assert_eq!(
        nginx.ask(&Ask::get("/ai/queue").cookie(&token))?.status,
        200
    );
    let me = nginx.ask(&Ask::get("/ai/sentinel/api/me").cookie(&token))?;
    assert_eq!(me.json()["username"], "owner");
    let cookie = format!("jwt_token={token}");
    let mut socket = Socket::open(nginx.port, "/ai/ws?clientId=a", &[("Cookie", &cookie)]).await?;
    assert_eq!(socket.next_json().await?["type"], "status");

    // A refused job has ComfyUI's form there too.
    let refused = nginx.ask(&Ask::post("/ai/prompt").json(&json!({})))?;
    assert_eq!(refused.status, 401);
    assert!(refused.json()["error"].is_object(), "{}", refused.text());

    let made = gateway_invite(&nginx, &token)?;
    let own = format!("http://{NAME}/ai/join?code=");
    assert!(made.starts_with(&own), "{made}");

    let left = nginx.ask(&Ask::get("/ai/logout").browser().cookie(&token))?;
    assert_eq!((left.status, location(&left).as_str()), (302, "/ai/login"));
    let cleared = left.header("set-cookie").context("a cookie")?;
    assert!(
        cleared.contains("Path=/ai;") && cleared.contains("Max-Age=0"),
        "{cleared}"
    );

    // The path without the slash at its end, asked of the gateway itself.
    if !setting.is_empty() {
        let bare = gateway.ask(&Ask::get("/ai?x=1").browser())?;
        assert_eq!((bare.status, location(&bare).as_str()), (307, "/ai/?x=1"));
    }
    Ok(())
}

fn gateway_invite(nginx: &Nginx, token: &str) -> Result<String> {
    let proven = nginx.ask(
        &Ask::post("/ai/sentinel/api/step-up")
            .bearer(token)
            .json(&json!({"password": PASSWORD})),
    )?;
    let proof = proven.json()["proof"]
        .as_str()
        .context("a proof")?
        .to_owned();
    let ask = Ask::post("/ai/sentinel/api/invites")
        .header("Host", NAME)
        .bearer(token)
        .header("X-Sentinel-Proof", &proof)
        .json(&json!({"expire_hours": 1}));
    let made = nginx.ask(&ask)?;
    Ok(made.json()["url"]
        .as_str()
        .with_context(|| made.text())?
        .to_owned())
}

#[test]
fn a_prefix_counts_from_a_trusted_proxy_alone_and_is_read_strictly() -> Result<()> {
    let open = Gateway::start(Options::default().without_engine())?;
    let page = |prefix: &str| Ask::get("/").browser().header("X-Forwarded-Prefix", prefix);
    let answer = open.ask(&page("/ai"))?;
    assert_eq!(answer.header("location"), Some("/login"), "not trusted");
    let gateway = Gateway::start(Options::default().without_engine().behind_a_proxy())?;
    for (prefix, expected) in [
        ("/ai", Some("/ai/login")),
        ("/a/b.c/", Some("/a/b.c/login")),
        ("/", Some("/login")),
        ("/ignored, /ai", Some("/ai/login")),
        ("//evil.example", None),
        ("/\\evil.example", None),
        ("https://evil.example", None),
        ("/a/../b", None),
        ("/a//b", None),
        ("/a%0d%0aSet-Cookie:x", None),
        ("/a b", None),
        ("/a\"onload=\"x", None),
        ("ai", None),
        ("/sentinel", None),
        ("/api", None),
    ] {
        let answer = gateway.ask(&page(prefix))?;
        match expected {
            Some(expected) => assert_eq!(answer.header("location"), Some(expected), "{prefix}"),
            None => assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "bad_prefix"),
                "{prefix}"
            ),
        }
    }
    let started = Gateway::start(
        Options::default()
            .without_owner()
            .set("sharing.base_path=//x"),
    );
    let error = started.err().context("it must not start")?.to_string();
    assert!(error.contains("sharing.base_path"), "{error}");
    Ok(())
}

/// Names in a folder as ComfyUI keeps them, and as a program writes them into an address. ComfyUI
/// undoes escapes twice, so a file of its own cannot be called `a%2Fb.json`.
const NAMES: [(&str, &str); 6] = [
    ("a/b c.json", "a%2Fb%20c.json"),
    ("äöü 图.json", "%C3%A4%C3%B6%C3%BC%20%E5%9B%BE.json"),
    ("100%.json", "100%25.json"),
    ("a+b.json", "a%2Bb.json"),
    ("a#b.json", "a%23b.json"),
    ("a/b.json", "a%252Fb.json"),
];

fn workflows(gateway: &Gateway) -> Result<BTreeSet<String>> {
    let ask = Ask::get("/userdata?dir=workflows&recurse=true").bearer(&gateway.owner);
    let answer = gateway.ask(&ask)?;
    let Value::Array(names) = answer.json() else {
        // There is no folder yet.
        return Ok(BTreeSet::new());
    };
    Ok(names
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

#[test]
fn workflows_are_saved_renamed_and_deleted_though_nginx_decodes_their_paths() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy())?;
    let decoding = Nginx::plain(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}/; {FORWARDED} }}",
        gateway.port
    ))?;
    let passing = Nginx::plain(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; {FORWARDED} }}",
        gateway.port
    ))?;
    for port in [gateway.port, passing.port, decoding.port] {
        for head in ["/userdata", "/api/userdata"] {
            for (name, written) in NAMES {
                let at = |rest: &str| format!("{head}/workflows%2F{written}{rest}");
                let expect = |method: &str, target: &str, body: Option<&str>, status: u16| {
                    let mut ask = Ask::new(method, target).bearer(&gateway.owner);
                    if let Some(body) = body {
                        ask = ask.body("application/json", body);
                    }
                    let answer = ask.send(port)?;
                    ensure!(
                        answer.status == status,
                        "{port} {method} {target}: {} {}",
                        answer.status,
                        answer.text()
                    );
                    Ok(answer)
                };
                let holds = |expected: &[&str]| -> Result<()> {
                    let expected = expected.iter().map(|name| (*name).to_owned()).collect();
                    let found = workflows(&gateway)?;
                    ensure!(found == expected, "{port} {name}: {found:?}");
                    Ok(())
                };
                expect("POST", &at("?overwrite=true"), Some("{\"a\":1}"), 200)?;
                holds(&[name])?;
                assert_eq!(expect("GET", &at(""), None, 200)?.text(), "{\"a\":1}");
                let moved = format!("/move/workflows%2Fnew%2F{written}?overwrite=false");
                expect("POST", &at(&moved), None, 200)?;
                holds(&[&format!("new/{name}")])?;
                let target = format!("{head}/workflows%2Fnew%2F{written}");
                expect("DELETE", &target, None, 204)?;
                holds(&[])?;
            }
        }
    }
    Ok(())
}

const NAME: &str = "comfy.example.org";

/// A certificate of its own for [`NAME`], in `folder`; its text.
fn certificate(folder: &TempDir) -> Result<String> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let text = made.cert.pem();
    fs::write(folder.path().join("certificate.pem"), &text)?;
    fs::write(
        folder.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )?;
    Ok(text)
}

#[test]
fn encryption_that_ends_at_nginx_is_ours_after_two_clicks() -> Result<()> {
    let gateway = Gateway::start(Options::default().listening_by_settings())?;
    let folder = tempfile::tempdir()?;
    let trusted = certificate(&folder)?;
    let home = folder.path().display().to_string();
    let server = format!(
        "ssl_certificate {home}/certificate.pem; ssl_certificate_key {home}/key.pem; \
             location / {{ proxy_pass http://127.0.0.1:{}; {FORWARDED} }}",
        gateway.port
    );
    let nginx = Nginx::start(folder, " ssl", &server)?;
    let ask = |ask: Ask| {
        let origin = format!("https://{NAME}");
        ask.header("Host", NAME)
            .header("Origin", &origin)
            .send_over_tls(nginx.address(), NAME, trusted.as_bytes())
    };
    let refused = |key: &str, value: &str| -> Result<()> {
        let answer = ask(login())?;
        let told = answer.json();
        assert_eq!(answer.status, 403, "{told}");
        assert_eq!(
            (&told["key"], &told["value"]),
            (&json!(key), &json!(value)),
            "{told}"
        );
        let page = ask(Ask::get("/login").browser().header("Accept-Language", "de"))?;
        assert_eq!(page.status, 403);
        assert!(
            page.text().contains(key) && page.text().contains("Tragen Sie"),
            "{}",
            page.text()
        );
        let shown = gateway.admin("GET", "access", None)?.json();
        assert_eq!(shown["refused_names"][0]["value"], value, "{shown}");
        let body = json!({"key": key, "value": value});
        let allowed = gateway.admin("POST", "access/refused-names", Some(&body))?;
        assert_eq!(allowed.status, 204, "{}", allowed.text());
        Ok(())
    };
    refused("allowed_hosts", NAME)?;
    refused("trusted_proxies", "127.0.0.1/32")?;
    let entered = ask(login())?;
    let cookie = entered.header("set-cookie").context("a cookie")?.to_owned();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let token = token_of(&entered)?;
    let asked = ask(Ask::post("/queue")
        .cookie(&token)
        .json(&json!({"clear": true})))?;
    assert_eq!(asked.status, 200, "{}", asked.text());
    let audit = gateway.admin("GET", "audit", None)?.text();
    assert!(
        audit.contains("comfy.example.org added to allowed_hosts"),
        "{audit}"
    );
    Ok(())
}

#[test]
fn forced_https_is_content_with_the_encryption_of_a_trusted_proxy() -> Result<()> {
    let options = Options::default()
        .without_owner()
        .set("force_https=true")
        .set(&format!("allowed_hosts={NAME}"))
        .behind_a_proxy();
    let gateway = Gateway::start(options)?;
    let folder = tempfile::tempdir()?;
    let trusted = certificate(&folder)?;
    let home = folder.path().display().to_string();
    let server = format!(
        "ssl_certificate {home}/certificate.pem; ssl_certificate_key {home}/key.pem; \
         location / {{ proxy_pass http://127.0.0.1:{}; {FORWARDED} }}",
        gateway.port
    );
    let nginx = Nginx::start(folder, " ssl", &server)?;
    let ask = Ask::get("/register").browser().header("Host", NAME);
    let page = ask.send_over_tls(nginx.address(), NAME, trusted.as_bytes())?;
    assert_eq!(page.status, 200, "{:?}", page.header("location"));
    let clear = Ask::get("/register").browser();
    assert_eq!(
        gateway.ask(&clear)?.status,
        308,
        "a browser without encryption"
    );
    let clear = clear.header("X-Forwarded-Proto", "http");
    assert_eq!(
        gateway.ask(&clear)?.status,
        308,
        "a proxy without encryption"
    );
    Ok(())
}
