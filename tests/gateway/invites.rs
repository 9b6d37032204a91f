//! Invites: a guest makes his own account, once.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options, PASSWORD};
use serde_json::{Value, json};
use std::thread;

fn invite(gateway: &Gateway, body: &Value) -> Result<Value> {
    let answer = gateway.admin("POST", "invites", Some(body))?;
    assert_eq!(answer.status, 201, "{}", answer.text());
    Ok(answer.json())
}

fn code(invite: &Value) -> Result<String> {
    Ok(invite["code"].as_str().context("a code")?.to_owned())
}

fn join(code: &str, name: &str) -> Ask {
    Ask::post("/join").json(&json!({"code": code, "username": name, "password": PASSWORD}))
}

/// The state that the page is given.
fn state(answer: &Answer) -> Result<Value> {
    let text = answer.text();
    let (_, rest) = text
        .split_once("<meta name=\"sentinel-state\" content=\"")
        .context("a state")?;
    let (state, _) = rest.split_once('"').context("its end")?;
    Ok(serde_json::from_str(&state.replace("&quot;", "\""))?)
}

#[test]
fn a_guest_joins_once_with_a_name_and_password_of_his_own() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let made = invite(&gateway, &json!({"expire_hours": 24, "note": "for Ben"}))?;
    let code = code(&made)?;
    assert_eq!(code.len(), 19);
    let url = made["url"].as_str().context("a URL")?;
    assert!(url.starts_with("http://localhost:"), "{url}");
    assert!(url.ends_with(&format!("/join?code={code}")), "{url}");
    let page = format!("/join?code={code}");
    for _ in 0..3 {
        let shown = state(&gateway.ask(&Ask::get(&page).browser())?)?;
        assert_eq!(shown["page"], "join");
        assert_eq!(shown["invite"]["valid"], true);
        assert_eq!(shown["invite"]["role"], "user");
        assert_eq!(shown["invite"]["expires_at"], made["expires_at"]);
    }
    let listed = gateway.admin("GET", "invites", None)?.json();
    assert_eq!(listed["invites"][0]["note"], "for Ben");
    assert_eq!(listed["invites"][0]["url"], Value::Null);
    assert!(!listed.to_string().contains(&code));

    let answer = gateway.ask(&join(&code.to_lowercase().replace('-', " "), "ben"))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cookie = answer.header("set-cookie").context("a cookie")?.to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let token = cookie
        .trim_start_matches("jwt_token=")
        .split(';')
        .next()
        .context("a token")?
        .to_owned();
    let me = gateway
        .ask(&Ask::get("/sentinel/api/me").cookie(&token))?
        .json();
    assert_eq!(
        (&me["username"], &me["admin"]),
        (&json!("ben"), &json!(false))
    );
    gateway.sign_in("ben")?;

    let again = gateway.ask(&join(&code, "carl"))?;
    assert_eq!(
        (again.status, again.code().as_str()),
        (403, "invite_invalid")
    );
    let shown = state(&gateway.ask(&Ask::get(&page).browser())?)?;
    assert_eq!(shown["invite"]["valid"], false);
    assert_eq!(
        gateway.admin("GET", "invites", None)?.json(),
        json!({"invites": []})
    );
    let audit = gateway.admin("GET", "audit", None)?.json();
    let events: Vec<_> = audit["entries"]
        .as_array()
        .context("entries")?
        .iter()
        .map(|entry| {
            (
                entry["event"].as_str().unwrap_or_default(),
                entry["user"].as_str(),
            )
        })
        .collect();
    for expected in [
        ("invite_made", Some("owner")),
        ("invite_used", Some("ben")),
        ("registered", Some("ben")),
        ("signed_in", Some("ben")),
    ] {
        assert!(events.contains(&expected), "{expected:?} in {events:?}");
    }
    for (path, bytes) in gateway.everything_written()? {
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains(&code) && !text.contains(&code.replace('-', "")),
            "the code is in {}",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn an_invited_admin_is_one_and_only_admins_invite() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let made = invite(&gateway, &json!({"expire_hours": 720, "admin": true}))?;
    let joined = gateway.ask(&join(&code(&made)?, "carla"))?;
    assert_eq!(joined.status, 200, "{}", joined.text());
    let token = gateway.sign_in("carla")?;
    let me = gateway
        .ask(&Ask::get("/sentinel/api/me").bearer(&token))?
        .json();
    assert_eq!(me["admin"], true);
    gateway.add_user("dora")?;
    let dora = gateway.sign_in("dora")?;
    let body = json!({"expire_hours": 1});
    for (token, expected) in [(&dora, "admin_required"), (&token, "step_up_required")] {
        let ask = Ask::post("/sentinel/api/invites").bearer(token);
        assert_eq!(gateway.ask(&ask.json(&body))?.code(), expected);
    }
    for hours in [0, 721] {
        let answer = gateway.admin("POST", "invites", Some(&json!({"expire_hours": hours})))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_expire_hours")
        );
    }
    Ok(())
}

#[test]
fn of_many_guests_at_once_one_gets_in() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let code = code(&invite(&gateway, &json!({"expire_hours": 1}))?)?;
    let port = gateway.port;
    let guests: Vec<_> = (0..8)
        .map(|number| {
            let ask = join(&code, &format!("guest{number}"));
            thread::spawn(move || ask.send(port))
        })
        .collect();
    let mut statuses = Vec::new();
    for guest in guests {
        statuses.push(guest.join().expect("no panic")?.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403, 403, 403, 403, 403, 403, 403]);
    let users = gateway.admin("GET", "users", None)?.json();
    assert_eq!(users["users"].as_array().context("users")?.len(), 2);
    Ok(())
}

#[test]
fn a_mistake_of_the_guest_does_not_use_the_invite_up() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let code = code(&invite(&gateway, &json!({"expire_hours": 1}))?)?;
    let table = [
        (
            json!({"code": code, "username": "owner", "password": PASSWORD}),
            "username_taken",
        ),
        (
            json!({"code": code, "username": "x", "password": PASSWORD}),
            "invalid_username",
        ),
        (
            json!({"code": code, "username": "ben", "password": "short"}),
            "invalid_password",
        ),
        (json!({"code": code, "username": "ben"}), "missing_field"),
        (
            json!({"username": "ben", "password": PASSWORD}),
            "missing_field",
        ),
    ];
    for (body, expected) in table {
        let answer = gateway.ask(&Ask::post("/join").json(&body))?;
        assert_eq!((answer.status, answer.code().as_str()), (400, expected));
    }
    let form = Ask::post("/join").browser().body(
        "application/x-www-form-urlencoded",
        format!("code={code}&username=ben&password={PASSWORD}"),
    );
    let answer = gateway.ask(&form)?;
    assert_eq!((answer.status, answer.header("location")), (302, Some("/")));
    Ok(())
}

#[test]
fn a_withdrawn_invite_and_one_that_has_run_out_are_refused() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let withdrawn = invite(&gateway, &json!({"expire_hours": 1}))?;
    let late = invite(&gateway, &json!({"expire_hours": 1}))?;
    let path = format!("invites/{}", withdrawn["id"].as_str().context("an id")?);
    assert_eq!(gateway.admin("DELETE", &path, None)?.status, 204);
    assert_eq!(gateway.admin("DELETE", &path, None)?.status, 404);
    let store = rusqlite::Connection::open(gateway.data.path().join("sentinel.db"))?;
    let changed = store.execute(
        "UPDATE invites SET expires_at = expires_at - 3601 WHERE id = ?1",
        [late["id"].as_str().context("an id")?],
    )?;
    assert_eq!(changed, 1);
    for made in [&withdrawn, &late] {
        let code = code(made)?;
        let shown = state(&gateway.ask(&Ask::get(&format!("/join?code={code}")).browser())?)?;
        assert_eq!(shown["invite"]["valid"], false);
        let answer = gateway.ask(&join(&code, "ben"))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "invite_invalid")
        );
    }
    assert_eq!(
        gateway.admin("GET", "invites", None)?.json(),
        json!({"invites": []})
    );
    Ok(())
}

#[test]
fn guessing_locks_the_guesser_out_and_nobody_else() -> Result<()> {
    let options = Options::default()
        .behind_a_proxy()
        .set("blacklist_after_attempts=6")
        .without_engine();
    let gateway = Gateway::start(options)?;
    let code = code(&invite(&gateway, &json!({"expire_hours": 1}))?)?;
    let guesser = "192.168.1.50";
    let guess = "AAAA-BBBB-CCCC-DDDD";
    assert_eq!(
        gateway.ask(&join(guess, "eve").from(guesser))?.code(),
        "invite_invalid"
    );
    let looked = gateway.ask(&Ask::get(&format!("/join?code={guess}")).from(guesser))?;
    assert_eq!(state(&looked)?["invite"]["valid"], false);
    assert_eq!(
        gateway.ask(&join("", "eve").from(guesser))?.code(),
        "invite_invalid"
    );
    // Locked out now, even with the right code, and for sign-ins too.
    for ask in [
        join(&code, "eve"),
        Ask::get(&format!("/join?code={code}")),
        Ask::post("/login").json(&json!({"username": "owner", "password": PASSWORD})),
    ] {
        let answer = gateway.ask(&ask.from(guesser))?;
        assert_eq!((answer.status, answer.code().as_str()), (403, "locked_out"));
        assert!(answer.json()["remaining_seconds"].as_u64() > Some(0));
    }
    let answer = gateway.ask(&join(&code, "ben").from("192.168.1.51"))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The link of a used invite is no guess: reloading it locks nobody out.
    for _ in 0..4 {
        let page = Ask::get(&format!("/join?code={code}")).from("192.168.1.52");
        assert_eq!(gateway.ask(&page)?.status, 200);
    }
    let lift = json!({"kind": "address", "key": guesser});
    assert_eq!(
        gateway
            .admin("DELETE", "access/lockouts", Some(&lift))?
            .status,
        204
    );
    Ok(())
}

#[test]
fn a_guesser_is_banned_with_reason_and_time_and_can_be_let_in_again() -> Result<()> {
    let options = Options::default()
        .behind_a_proxy()
        .set("blacklist_after_attempts=3")
        .file(
            "blacklist.txt",
            "192.168.1.77 # the printer\n10.0.0.9 # banned: of old\n",
        )
        .without_engine();
    let gateway = Gateway::start(options)?;
    let guesser = "192.168.1.50";
    for _ in 0..3 {
        gateway.ask(&join("AAAA-BBBB-CCCC-DDDD", "eve").from(guesser))?;
    }
    let health = Ask::get("/sentinel/health").from(guesser);
    assert_eq!(gateway.ask(&health)?.status, 403);
    let bans = gateway.admin("GET", "access", None)?.json()["bans"].clone();
    assert_eq!(
        bans[0],
        json!({"address": "10.0.0.9", "reason": "of old", "since": null})
    );
    assert_eq!(bans[1]["address"], guesser);
    assert_eq!(bans[1]["reason"], "3 failed sign-ins");
    let since = bans[1]["since"].as_str().context("a time")?;
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    for (address, expected) in [
        (guesser, 204),
        (guesser, 404),
        ("192.168.1.77", 404),
        ("nonsense", 404),
    ] {
        let body = json!({"address": address});
        let answer = gateway.admin("DELETE", "access/bans", Some(&body))?;
        assert_eq!(answer.status, expected, "{address}");
    }
    assert_eq!(gateway.ask(&health)?.status, 200);
    let text = std::fs::read_to_string(gateway.data.path().join("blacklist.txt"))?;
    assert_eq!(
        text,
        "192.168.1.77 # the printer\n10.0.0.9 # banned: of old\n"
    );
    // The failures are forgotten: one more does not ban again.
    let answer = gateway.ask(&join("AAAA-BBBB-CCCC-DDDD", "eve").from(guesser))?;
    assert_eq!(answer.code(), "invite_invalid");
    assert_eq!(gateway.ask(&health)?.status, 200);
    Ok(())
}
