//! How tokens and rights end.

use anyhow::Result;
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, Socket, ended_within};
use serde_json::json;
use std::fs;
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
