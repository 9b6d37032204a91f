//! `/sentinel/api` for admins.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options, PASSWORD};
use serde_json::{Value, json};

fn start() -> Result<Gateway> {
    Gateway::start(Options::default().without_engine())
}

fn users(gateway: &Gateway, token: &str, proof: Option<&str>) -> Result<Answer> {
    let ask = Ask::get("/sentinel/api/users").bearer(token);
    gateway.ask(&match proof {
        Some(proof) => ask.header("X-Sentinel-Proof", proof),
        None => ask,
    })
}

#[test]
fn admin_calls_need_a_proof_of_this_session() -> Result<()> {
    let gateway = start()?;
    let refused = |proof: Option<&str>| -> Result<()> {
        let answer = users(&gateway, &gateway.owner, proof)?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "step_up_required"),
            "{proof:?}"
        );
        Ok(())
    };
    refused(None)?;
    refused(Some(""))?;
    refused(Some("wrong"))?;
    let other = gateway.sign_in("owner")?;
    refused(Some(&gateway.proof(&other)?))?;
    let proof = gateway.proof(&gateway.owner)?;
    assert_eq!(users(&gateway, &gateway.owner, Some(&proof))?.status, 200);
    let wrong = Ask::post("/sentinel/api/step-up")
        .bearer(&gateway.owner)
        .json(&json!({"password": "wrong-Guess-1"}));
    let answer = gateway.ask(&wrong)?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "wrong_credentials")
    );
    Ok(())
}

#[test]
fn others_are_no_admins_with_or_without_a_proof() -> Result<()> {
    let gateway = start()?;
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    let proof = gateway.proof(&anna)?;
    for (method, path) in [
        ("GET", "users"),
        ("POST", "users"),
        ("GET", "access"),
        ("PUT", "access/blacklist"),
        ("GET", "config"),
        ("PUT", "config"),
        ("GET", "audit"),
        ("GET", "status"),
        ("POST", "engine/stop"),
        ("GET", "engine/log"),
        ("POST", "engine/free"),
    ] {
        let ask = Ask::new(method, &format!("/sentinel/api/{path}"))
            .bearer(&anna)
            .header("X-Sentinel-Proof", &proof);
        let answer = gateway.ask(&ask.json(&json!({})))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "admin_required"),
            "{method} {path}"
        );
    }
    Ok(())
}

#[test]
fn tokens_have_admin_rights_only_when_made_so() -> Result<()> {
    let gateway = start()?;
    let plain = gateway.make_token("owner")?;
    assert_eq!(users(&gateway, &plain, None)?.code(), "admin_required");
    let make = |session: &str, admin: bool, password: &str| {
        let body =
            json!({"name": "script", "expire_hours": 1, "password": password, "admin": admin});
        gateway.ask(
            &Ask::post("/sentinel/api/tokens")
                .bearer(session)
                .json(&body),
        )
    };
    assert_eq!(make(&gateway.owner, true, "wrong-Guess-1")?.status, 401);
    let made = make(&gateway.owner, true, PASSWORD)?.json();
    let token = made["jwt_token"].as_str().context("a token")?;
    assert_eq!(users(&gateway, token, None)?.status, 200);
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    assert_eq!(make(&anna, true, PASSWORD)?.status, 403);
    assert_eq!(make(&anna, false, PASSWORD)?.status, 200);
    let id = made["id"].as_str().context("an id")?;
    let end = |session: &str| {
        gateway.ask(&Ask::new("DELETE", &format!("/sentinel/api/tokens/{id}")).bearer(session))
    };
    assert_eq!(end(&anna)?.status, 404, "another's token");
    assert_eq!(end(&gateway.owner)?.status, 204);
    assert_eq!(users(&gateway, token, None)?.status, 401);
    Ok(())
}

#[test]
fn people_are_made_changed_and_removed() -> Result<()> {
    let gateway = start()?;
    let made = gateway.admin(
        "POST",
        "users",
        Some(&json!({"username": "anna", "password": PASSWORD})),
    )?;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().context("an id")?.to_owned();
    assert_eq!(
        gateway
            .admin(
                "POST",
                "users",
                Some(&json!({"username": "Anna", "password": PASSWORD}))
            )?
            .code(),
        "username_taken"
    );
    let path = format!("users/{id}");
    let anna = gateway.sign_in("anna")?;
    let renamed = gateway.admin("PATCH", &path, Some(&json!({"username": "anne"})))?;
    assert_eq!(renamed.json()["username"], "anne");
    assert_eq!(
        gateway
            .ask(&Ask::get("/sentinel/api/me").bearer(&anna))?
            .json()["username"],
        "anne"
    );
    let sessions = gateway
        .admin("GET", &format!("{path}/sessions"), None)?
        .json();
    assert_eq!(
        sessions["sessions"].as_array().map(Vec::len),
        Some(1),
        "{sessions}"
    );
    assert_eq!(
        gateway
            .admin("DELETE", &format!("{path}/sessions"), None)?
            .status,
        204
    );
    assert_eq!(
        gateway
            .ask(&Ask::get("/sentinel/api/me").bearer(&anna))?
            .status,
        401
    );
    assert_eq!(
        gateway
            .admin(
                "POST",
                &format!("{path}/password"),
                Some(&json!({"new_password": "quite-New-8"}))
            )?
            .status,
        204
    );
    assert_eq!(gateway.login("anne", PASSWORD)?.status, 401);
    assert_eq!(gateway.login("anne", "quite-New-8")?.status, 200);
    assert_eq!(gateway.admin("DELETE", &path, None)?.status, 204);
    assert_eq!(gateway.login("anne", "quite-New-8")?.status, 401);
    assert_eq!(
        gateway
            .admin("PATCH", &path, Some(&json!({"admin": true})))?
            .status,
        404
    );
    Ok(())
}

#[test]
fn the_last_admin_stays() -> Result<()> {
    let gateway = start()?;
    let path = format!("users/{}", gateway.user_id("owner")?);
    for body in [json!({"admin": false}), json!({"disabled": true})] {
        let answer = gateway.admin("PATCH", &path, Some(&body))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (409, "last_admin"),
            "{body}"
        );
    }
    let answer = gateway.admin("DELETE", &path, None)?;
    assert_eq!((answer.status, answer.code().as_str()), (409, "last_admin"));
    Ok(())
}

#[test]
fn s48_a_wrong_setting_is_refused_with_every_fault() -> Result<()> {
    let gateway = start()?;
    let body = json!({"force_https": "yes", "sharing": {"port": 70000}, "no_such_key": 1, "blacklist_after_attempts": 5});
    let answer = gateway.admin("PUT", "config", Some(&body))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_config")
    );
    let errors = answer.json();
    let mut keys: Vec<_> = errors["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|error| error["key"].as_str())
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["force_https", "no_such_key", "sharing.port"],
        "{errors}"
    );
    assert_eq!(
        gateway.admin("GET", "config", None)?.json()["config"]["blacklist_after_attempts"],
        0,
        "nothing was changed"
    );
    let answer = gateway.admin(
        "PUT",
        "config",
        Some(&json!({"blacklist_after_attempts": 5, "users_db": "others.json"})),
    )?;
    assert_eq!(
        answer.json()["config"]["blacklist_after_attempts"],
        5,
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["restart_required"], json!(["users_db"]));
    Ok(())
}

#[test]
fn lists_are_read_and_replaced_and_lock_outs_lifted() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy().without_engine())?;
    let answer = gateway.admin(
        "PUT",
        "access/blacklist",
        Some(&json!({"text": "192.168.1.5\nnonsense\n"})),
    )?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_list")
    );
    assert_eq!(answer.json()["line"], 2);
    assert_eq!(
        gateway
            .admin(
                "PUT",
                "access/blacklist",
                Some(&json!({"text": "# mine\n192.168.1.5\n"}))
            )?
            .status,
        204
    );
    for _ in 0..3 {
        gateway.ask(
            &Ask::post("/login")
                .from("192.168.1.9")
                .json(&json!({"username": "nobody", "password": "x"})),
        )?;
    }
    let access = gateway.admin("GET", "access", None)?.json();
    assert_eq!(
        (
            &access["blacklist"]["text"],
            &access["blacklist"]["entries"]
        ),
        (&json!("# mine\n192.168.1.5\n"), &json!(1))
    );
    assert_eq!(access["trusted_proxies"], json!(["127.0.0.1/32"]));
    let lockouts = access["lockouts"].as_array().cloned().unwrap_or_default();
    let locked = lockouts
        .iter()
        .any(|lockout| lockout["kind"] == "address" && lockout["key"] == "192.168.1.9");
    assert!(locked, "{access}");
    let lift = |key: &str| {
        gateway.admin(
            "DELETE",
            "access/lockouts",
            Some(&json!({"kind": "address", "key": key})),
        )
    };
    assert_eq!(lift("192.168.1.9")?.status, 204);
    assert_eq!(lift("192.168.1.9")?.status, 404);
    Ok(())
}

#[test]
fn the_document_lists_every_route() -> Result<()> {
    let gateway = start()?;
    let document = gateway
        .ask(&Ask::get("/sentinel/api/openapi.json").bearer(&gateway.owner))?
        .json();
    let has = |method: &str, path: &str| {
        !document["paths"][&format!("/sentinel/api/{path}")][method].is_null()
    };
    for (method, path) in [
        ("get", "me"),
        ("post", "step-up"),
        ("post", "password"),
        ("get", "sessions"),
        ("delete", "sessions/{id}"),
        ("get", "tokens"),
        ("post", "tokens"),
        ("delete", "tokens/{id}"),
        ("get", "engine"),
        ("post", "engine/start"),
        ("post", "engine/stop"),
        ("post", "engine/restart"),
        ("post", "engine/free"),
        ("get", "engine/log"),
        ("get", "users"),
        ("post", "users"),
        ("patch", "users/{id}"),
        ("delete", "users/{id}"),
        ("post", "users/{id}/password"),
        ("get", "users/{id}/sessions"),
        ("delete", "users/{id}/sessions"),
        ("get", "access"),
        ("put", "access/{list}"),
        ("delete", "access/lockouts"),
        ("get", "config"),
        ("put", "config"),
        ("get", "audit"),
        ("get", "status"),
        ("get", "openapi.json"),
    ] {
        assert!(has(method, path), "{method} {path}");
    }
    Ok(())
}

#[test]
fn the_audit_tells_who_did_what() -> Result<()> {
    let gateway = start()?;
    gateway.login("owner", "wrong-Guess-1")?;
    gateway.add_user("anna")?;
    let mut audit = Value::Null;
    sentinel_tests::eventually(std::time::Duration::from_secs(3), || {
        audit = gateway.admin("GET", "audit?limit=100", None)?.json();
        Ok(audit["entries"]
            .as_array()
            .is_some_and(|entries| entries.len() >= 4))
    })?;
    let text = audit.to_string();
    assert!(
        text.contains("anna") && text.contains("127.0.0.1"),
        "{text}"
    );
    assert!(!text.contains("wrong-Guess-1"));
    Ok(())
}
