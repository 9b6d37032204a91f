//! How tokens and rights end.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{
    Answer, Ask, Gateway, Options, PASSWORD, Socket, command_on, ended_within, eventually,
    read_answer,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_millis(1500);

fn is_in(gateway: &Gateway, token: &str) -> Result<bool> {
    Ok(gateway
        .ask(&Ask::get("/sentinel/api/me").bearer(token))?
        .status
        == 200)
}

async fn socket(gateway: &Gateway, token: &str) -> Result<Socket> {
    let cookie = format!("jwt_token={token}");
    Socket::open(gateway.port, "/ws", &[("Cookie", &cookie)]).await
}

#[tokio::test]
async fn s33_logout_ends_the_token_and_its_socket() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let other = gateway.sign_in("owner")?;
    let open = socket(&gateway, &gateway.owner).await?;
    let mut others = socket(&gateway, &other).await?;
    let answer = gateway.ask(&Ask::get("/logout").cookie(&gateway.owner))?;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("/login"))
    );
    assert_eq!(
        answer.header("clear-site-data"),
        Some("\"cache\", \"cookies\", \"storage\"")
    );
    let cookie = answer.header("set-cookie").unwrap_or_default();
    assert!(
        cookie.starts_with("jwt_token=;") && cookie.contains("Max-Age=0"),
        "{cookie}"
    );
    assert!(!is_in(&gateway, &gateway.owner)?);
    assert!(ended_within(open, SECOND).await);
    assert!(is_in(&gateway, &other)?);
    others.next().await?;
    Ok(())
}

#[tokio::test]
async fn s34_a_new_password_ends_everything_else() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let other = gateway.sign_in("owner")?;
    let token = gateway.make_token("owner")?;
    let open = socket(&gateway, &token).await?;
    let change = |current: &str| {
        let body = json!({"current_password": current, "new_password": "quite-New-8"});
        gateway.ask(
            &Ask::post("/sentinel/api/password")
                .bearer(&gateway.owner)
                .json(&body),
        )
    };
    assert_eq!(change("wrong-Guess-1")?.status, 401);
    assert!(is_in(&gateway, &other)?);
    assert_eq!(change(PASSWORD)?.status, 204);
    assert!(is_in(&gateway, &gateway.owner)?);
    assert!(!is_in(&gateway, &other)?);
    assert!(!is_in(&gateway, &token)?);
    assert!(ended_within(open, SECOND).await);
    assert_eq!(gateway.login("owner", PASSWORD)?.status, 401);
    assert_eq!(gateway.login("owner", "quite-New-8")?.status, 200);
    Ok(())
}

#[test]
fn s35_tokens_survive_a_restart_and_ended_ones_stay_ended() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let kept = gateway.make_token("owner")?;
    let session = gateway.owner.clone();
    let ended = gateway.sign_in("owner")?;
    gateway.ask(&Ask::get("/logout").cookie(&ended))?;
    let data = gateway.stop()?;
    let again = Gateway::start(Options::default().data(&data))?;
    assert!(is_in(&again, &kept)?);
    assert!(is_in(&again, &session)?);
    assert!(!is_in(&again, &ended)?);
    assert_eq!(again.setup_code, None);
    Ok(())
}

#[test]
fn s36_the_engine_does_not_have_the_signing_key() -> Result<()> {
    let key = "a-signing-key-of-32-characters-xy";
    let gateway = Gateway::start(Options::default().environment("SECRET_KEY", key))?;
    let engines = gateway.engine_processes();
    assert!(!engines.is_empty());
    for id in engines {
        let environment = fs::read(format!("/proc/{id}/environ"))?;
        assert!(
            !environment
                .windows(key.len())
                .any(|window| window == key.as_bytes())
        );
    }
    for (place, bytes) in gateway.everything_written()? {
        assert!(
            !bytes
                .windows(key.len())
                .any(|window| window == key.as_bytes()),
            "{}",
            place.display()
        );
    }
    Ok(())
}

#[test]
fn s15_s16_several_admins_and_a_demotion_counts_at_once() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let id = gateway.user_id("anna")?;
    let anna = gateway.sign_in("anna")?;
    let change = |admin: bool| {
        gateway.admin(
            "PATCH",
            &format!("users/{id}"),
            Some(&json!({"admin": admin})),
        )
    };
    assert_eq!(change(true)?.status, 200);
    let proof = gateway.proof(&anna)?;
    let list = || {
        gateway.ask(
            &Ask::get("/sentinel/api/users")
                .bearer(&anna)
                .header("X-Sentinel-Proof", &proof),
        )
    };
    assert_eq!(list()?.status, 200);
    assert_eq!(
        gateway.admin("GET", "users", None)?.status,
        200,
        "the first admin still is one"
    );
    assert_eq!(change(false)?.status, 200);
    let answer = list()?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "admin_required")
    );
    Ok(())
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    gateway.add_user("anna")?;
    let id = gateway.user_id("anna")?;
    let anna = gateway.sign_in("anna")?;
    let open = socket(&gateway, &anna).await?;
    assert_eq!(
        gateway
            .admin(
                "PATCH",
                &format!("users/{id}"),
                Some(&json!({"disabled": true}))
            )?
            .status,
        200
    );
    assert!(!is_in(&gateway, &anna)?);
    assert!(ended_within(open, SECOND).await);
    assert_eq!(gateway.login("anna", PASSWORD)?.status, 401);
    assert_eq!(
        gateway
            .admin(
                "PATCH",
                &format!("users/{id}"),
                Some(&json!({"disabled": false}))
            )?
            .status,
        200
    );
    assert!(!is_in(&gateway, &anna)?, "an ended session stays ended");
    assert_eq!(gateway.login("anna", PASSWORD)?.status, 200);
    Ok(())
}

const NEW_PASSWORD: &str = "quite-New-8";
/// Sign-ins at a time while the password is changed.
const SIGN_INS: u32 = 16;

/// Sign-ins with the old password, in a row, until it counts no more.
fn sign_in_until_refused(
    gateway: &Gateway,
    name: &str,
    number: u32,
    made: &AtomicU32,
) -> Result<Vec<String>> {
    let mut tokens = Vec::new();
    let address = format!("10.0.0.{number}");
    loop {
        let (path, body) = if number.is_multiple_of(2) {
            ("/login", json!({"username": name, "password": PASSWORD}))
        } else {
            let body = json!({"username": name, "password": PASSWORD, "expire_hours": 1});
            ("/generate_token", body)
        };
        let answer = gateway.ask(&Ask::post(path).from(&address).json(&body))?;
        // An account has a hundred API tokens at most.
        ensure!(
            matches!(answer.status, 200 | 401 | 409),
            "{}",
            answer.text()
        );
        if answer.status == 401 {
            return Ok(tokens);
        }
        tokens.extend(answer.json()["jwt_token"].as_str().map(str::to_owned));
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Changes the password of an account under a stream of sign-ins; returns all that was signed in by
/// the old password, before and meanwhile.
fn signed_in_by_the_old_password(
    gateway: &Gateway,
    name: &str,
    change: impl FnOnce() -> Result<()>,
) -> Result<Vec<String>> {
    let mut tokens = vec![gateway.sign_in(name)?, gateway.make_token(name)?];
    let made = AtomicU32::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let made = &made;
        let streams: Vec<_> = (0..SIGN_INS)
            .map(|number| scope.spawn(move || sign_in_until_refused(gateway, name, number, made)))
            .collect();
        eventually(Duration::from_secs(60), || {
            Ok(made.load(Ordering::Relaxed) >= SIGN_INS)
        })?;
        change()?;
        for stream in streams {
            tokens.extend(stream.join().ok().context("a stream of sign-ins broke")??);
        }
        Ok(())
    })?;
    Ok(tokens)
}

fn alive(gateway: &Gateway, tokens: &[String]) -> Result<usize> {
    let mut alive = 0;
    for token in tokens {
        alive += usize::from(is_in(gateway, token)?);
    }
    Ok(alive)
}

/// Asks as the window does, which needs no sign-in.
fn ask_as_the_machines_owner(gateway: &Gateway, ask: &Ask) -> Result<Answer> {
    let mut stream = UnixStream::connect(gateway.data.path().join("control.sock"))?;
    stream.write_all(&ask.bytes(0))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    read_answer(&bytes, false)
}

fn edit_accounts(gateway: &Gateway, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let path = gateway.data.path().join("users_db.json");
    let mut accounts: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    edit(&mut accounts);
    let draft = path.with_extension("draft");
    fs::write(&draft, accounts.to_string())?;
    Ok(fs::rename(&draft, &path)?)
}

#[test]
fn no_session_survives_a_new_password_however_it_was_set_over_http() -> Result<()> {
    no_session_survives_a_new_password(&["own", "admin"])
}

#[test]
fn no_session_survives_a_new_password_however_it_was_set_at_the_machine() -> Result<()> {
    no_session_survives_a_new_password(&["window", "command", "edit"])
}

fn no_session_survives_a_new_password(ways: &[&str]) -> Result<()> {
    let options = Options::default()
        .behind_a_proxy()
        .without_engine()
        // Spared the lock-out: what this test wants to see is not that.
        .file("whitelist.txt", "127.0.0.1\n10.0.0.0/8\n");
    let gateway = Gateway::start(options)?;
    gateway.add_user_with("giver", NEW_PASSWORD)?;
    let giver = gateway.user_id("giver")?;
    for way in ways.iter().copied() {
        let name = format!("user_{way}");
        gateway.add_user(&name)?;
        let id = gateway.user_id(&name)?;
        let own = gateway.sign_in(&name)?;
        let change = || -> Result<()> {
            let body = json!({"new_password": NEW_PASSWORD});
            let answer = match way {
                "own" => {
                    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
                    gateway.ask(&Ask::post("/sentinel/api/password").bearer(&own).json(&body))?
                }
                "admin" => gateway.admin("POST", &format!("users/{id}/password"), Some(&body))?,
                "window" => {
                    let body = json!({"username": name, "password": NEW_PASSWORD});
                    let ask = Ask::post("/setup/admin").header("Host", "localhost");
                    ask_as_the_machines_owner(&gateway, &ask.json(&body))?
                }
                "command" => {
                    command_on(
                        gateway.data.path(),
                        &["user", "passwd", &name],
                        NEW_PASSWORD,
                    )?;
                    return Ok(());
                }
                _ => {
                    return edit_accounts(&gateway, |accounts| {
                        accounts[&id]["password"] = accounts[&giver]["password"].clone();
                    });
                }
            };
            ensure!(answer.status < 300, "{way}: {}", answer.text());
            Ok(())
        };
        let tokens = signed_in_by_the_old_password(&gateway, &name, change)?;
        assert!(tokens.len() > SIGN_INS as usize, "{way}");
        // The running gateway notices within a second what others write into its files; by then it
        // has refused the old password.
        assert_eq!(alive(&gateway, &tokens)?, 0, "{way}: of {}", tokens.len());
        assert_eq!(is_in(&gateway, &own)?, way == "own", "{way}");
        assert_eq!(gateway.login(&name, PASSWORD)?.status, 401, "{way}");
        assert_eq!(gateway.login(&name, NEW_PASSWORD)?.status, 200, "{way}");
        let left = gateway.admin("GET", &format!("users/{id}/sessions"), None)?;
        let tokens = left.json()["tokens"].as_array().map(Vec::len);
        assert_eq!(tokens, Some(0), "{way}: {}", left.text());
    }
    Ok(())
}

#[test]
fn no_session_survives_a_password_that_was_set_while_sentinel_was_stopped() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    gateway.add_user("bert")?;
    let of_anna = [gateway.sign_in("anna")?, gateway.make_token("anna")?];
    let of_bert = [gateway.sign_in("bert")?, gateway.make_token("bert")?];
    let data = gateway.stop()?;
    command_on(data.path(), &["user", "passwd", "anna"], NEW_PASSWORD)?;
    let again = Gateway::start(Options::default().data(&data))?;
    assert_eq!(alive(&again, &of_anna)?, 0);
    assert_eq!(alive(&again, &of_bert)?, 2, "nobody else is signed out");
    let data = again.stop()?;
    let again = Gateway::start(Options::default().data(&data))?;
    assert_eq!(alive(&again, &of_anna)?, 0);
    assert_eq!(alive(&again, &of_bert)?, 2);
    Ok(())
}

#[tokio::test]
async fn a_password_set_on_the_command_line_closes_open_sockets() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let (first, token) = (gateway.sign_in("owner")?, gateway.make_token("owner")?);
    let sockets = [
        socket(&gateway, &first).await?,
        socket(&gateway, &token).await?,
    ];
    command_on(
        gateway.data.path(),
        &["user", "passwd", "owner"],
        NEW_PASSWORD,
    )?;
    for socket in sockets {
        assert!(ended_within(socket, 2 * SECOND).await);
    }
    Ok(())
}

#[test]
fn sessions_outlive_the_renewal_of_an_old_hash() -> Result<()> {
    // Made by the original: bcrypt of the usual password.
    let original = bcrypt::hash(PASSWORD, 4)?;
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let (session, token) = (gateway.sign_in("anna")?, gateway.make_token("anna")?);
    let id = gateway.user_id("anna")?;
    let data = gateway.stop()?;
    // As a version before this one would have left it: sessions bound to nothing yet.
    let path = data.path().join("users_db.json");
    let mut accounts: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    accounts[&id]["password"] = original.into();
    fs::write(&path, accounts.to_string())?;
    let database = rusqlite::Connection::open(data.path().join("sentinel.db"))?;
    database.execute("UPDATE sessions SET binding = NULL", [])?;
    drop(database);
    let again = Gateway::start(Options::default().data(&data))?;
    let before = [session, token];
    assert_eq!(alive(&again, &before)?, 2);
    let renewed = again.sign_in("anna")?;
    let text = fs::read_to_string(&path)?;
    assert!(!text.contains("$2b$"), "the hash was renewed: {text}");
    assert_eq!(alive(&again, &before)?, 2);
    let data = again.stop()?;
    let again = Gateway::start(Options::default().data(&data))?;
    assert_eq!(alive(&again, &before)?, 2);
    assert!(is_in(&again, &renewed)?);
    Ok(())
}

#[test]
fn a_sign_out_that_the_database_refuses_is_an_error_and_true_after_a_restart() -> Result<()> {
    let mut gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let (session, token) = (gateway.sign_in("anna")?, gateway.make_token("anna")?);
    let kept = gateway.make_token("anna")?;
    let path = gateway.data.path().join("sentinel.db");
    let database = rusqlite::Connection::open(&path)?;
    let of_anna = "SELECT count(*) FROM sessions WHERE user_id = ?1";
    let id = gateway.user_id("anna")?;
    let count = |database: &rusqlite::Connection| -> Result<i64> {
        Ok(database.query_row(of_anna, [&id], |row| row.get(0))?)
    };
    assert_eq!(count(&database)?, 3);
    database.execute_batch("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE;")?;
    let refused = gateway.ask(&Ask::get("/logout").cookie(&session))?;
    assert!(refused.status >= 500, "{}", refused.text());
    assert!(is_in(&gateway, &token)?);
    assert!(!is_in(&gateway, &session)?, "dead at once");
    database.execute_batch("ROLLBACK")?;
    // Written down without another request.
    eventually(15 * SECOND, || Ok(count(&database)? == 2))?;
    gateway.signal(nix::sys::signal::Signal::SIGKILL)?;
    gateway.ended_within(15 * SECOND)?;
    let again = Gateway::start(Options::default().data(&gateway.data))?;
    assert!(!is_in(&again, &session)?);
    assert!(is_in(&again, &kept)?);
    Ok(())
}

#[test]
fn an_admin_s_end_of_all_sessions_is_true_although_the_database_refuses() -> Result<()> {
    let mut gateway = Gateway::start(Options::default().without_engine())?;
    for name in ["anna", "bert"] {
        gateway.add_user(name)?;
    }
    let (annas, berts) = (gateway.make_token("anna")?, gateway.make_token("bert")?);
    let (anna, bert) = (gateway.user_id("anna")?, gateway.user_id("bert")?);
    // Made before the database is locked.
    let admin = gateway.admin_token()?;
    let call = |method: &str, path: String| {
        Ask::new(method, &format!("/sentinel/api/users/{path}")).bearer(&admin)
    };
    let database = rusqlite::Connection::open(gateway.data.path().join("sentinel.db"))?;
    database.execute_batch("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE;")?;
    let ended = gateway.ask(&call("DELETE", format!("{anna}/sessions")))?;
    ensure!(ended.status == 204, "{}", ended.text());
    let shut_out = call("PATCH", bert).json(&serde_json::json!({"disabled": true}));
    let shut_out = gateway.ask(&shut_out)?;
    ensure!(shut_out.status == 200, "{}", shut_out.text());
    // Nothing of it reaches the database.
    gateway.signal(nix::sys::signal::Signal::SIGKILL)?;
    gateway.ended_within(15 * SECOND)?;
    database.execute_batch("ROLLBACK")?;
    gateway.command(&["user", "enable", "bert"])?;
    let again = Gateway::start(Options::default().data(&gateway.data))?;
    ensure!(!is_in(&again, &annas)?);
    ensure!(!is_in(&again, &berts)?, "let in again, not signed in again");
    ensure!(is_in(&again, &again.make_token("anna")?)?);
    Ok(())
}
