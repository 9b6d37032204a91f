//! The original's HTTP contract and what went wrong in it.

use anyhow::{Result, ensure};
use sentinel_tests::{Ask, Gateway, Options, PASSWORD};
use serde_json::json;
use std::fs;

const LAN: &str = "192.168.1.50";

#[test]
fn s44_all_three_forms_of_body_sign_in() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let multipart = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nowner\r\n\
         --edge\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{PASSWORD}\r\n--edge--\r\n"
    );
    let bodies = [
        (
            "application/json",
            json!({"username": "owner", "password": PASSWORD}).to_string(),
        ),
        (
            "application/json; charset=utf-8",
            json!({"username": "owner", "password": PASSWORD}).to_string(),
        ),
        (
            "application/x-www-form-urlencoded",
            format!("username=owner&password={PASSWORD}"),
        ),
        ("multipart/form-data; boundary=edge", multipart),
    ];
    for (kind, body) in bodies {
        let answer = gateway.ask(&Ask::post("/login").body(kind, body))?;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let token = answer.json()["jwt_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let cookie = answer.header("set-cookie").unwrap_or_default().to_owned();
        assert!(
            cookie.starts_with(&format!("jwt_token={token};")),
            "{cookie}"
        );
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
            assert!(cookie.contains(attribute), "{attribute} in {cookie}");
        }
        assert!(!cookie.contains("Secure"), "{cookie}");
        assert_eq!(
            gateway
                .ask(&Ask::get("/sentinel/api/me").cookie(&token))?
                .status,
            200
        );
        assert_eq!(
            gateway
                .ask(&Ask::get("/sentinel/api/me").bearer(&token))?
                .status,
            200
        );
    }
    Ok(())
}

#[test]
fn the_cookie_is_secure_behind_a_proxy_with_https() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy().without_engine())?;
    let ask = Ask::post("/login")
        .from(LAN)
        .header("X-Forwarded-Proto", "https");
    let answer = gateway.ask(&ask.json(&json!({"username": "owner", "password": PASSWORD})))?;
    assert!(
        answer
            .header("set-cookie")
            .unwrap_or_default()
            .contains("; Secure")
    );
    Ok(())
}

#[test]
fn without_a_session_programs_get_401_and_browsers_the_sign_in_page() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let answer = gateway.ask(&Ask::get("/queue").header("Accept", "application/json"))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "sign_in_required")
    );
    let answer = gateway.ask(&Ask::get("/").browser())?;
    assert_eq!(answer.status, 302);
    assert!(
        answer
            .header("location")
            .unwrap_or_default()
            .starts_with("/login")
    );
    let answer = gateway.ask(&Ask::get("/queue").bearer(&gateway.owner))?;
    assert_eq!(answer.status, 200);
    Ok(())
}

#[test]
fn s45_missing_fields_are_named() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let cases = [
        ("/login", json!({"username": "owner"}), "password"),
        ("/login", json!({"password": PASSWORD}), "username"),
        (
            "/register",
            json!({"new_user_username": "anna"}),
            "new_user_password",
        ),
        (
            "/register",
            json!({"new_user_username": "anna", "new_user_password": PASSWORD}),
            "username",
        ),
        (
            "/generate_token",
            json!({"username": "owner", "password": PASSWORD}),
            "expire_hours",
        ),
    ];
    for (path, body, field) in cases {
        let answer = gateway.ask(&Ask::post(path).json(&body))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "missing_field"),
            "{path} {field}"
        );
        assert!(answer.text().contains(field), "{}", answer.text());
    }
    for body in ["", "[]", "null", "{", "\"text\""] {
        let answer = gateway.ask(&Ask::post("/login").body("application/json", body))?;
        assert_eq!(answer.status, 400, "{body:?}");
    }
    Ok(())
}

#[test]
fn s1_s2_no_password_is_written_anywhere() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("log_levels=DEBUG,INFO,WARNING,ERROR"))?;
    let secrets = [
        "first-Wrong-1",
        "second-Wrong-2",
        "never-Made-3",
        "new-User-4!",
        "nodigitsecret!",
        PASSWORD,
    ];
    assert_eq!(gateway.login("owner", secrets[0])?.status, 401);
    let by_form = Ask::post("/login").body(
        "application/x-www-form-urlencoded",
        format!("username=owner&password={}", secrets[1]),
    );
    assert_eq!(gateway.ask(&by_form)?.status, 401);
    gateway.login("owner", PASSWORD)?;
    let register = |name: &str, new: &str, admin: &str| {
        let body = json!({"new_user_username": name, "new_user_password": new, "username": "owner", "password": admin});
        gateway.ask(&Ask::post("/register").json(&body))
    };
    assert_eq!(register("anna", secrets[2], secrets[0])?.status, 403);
    assert_eq!(register("anna", secrets[4], PASSWORD)?.status, 400);
    assert_eq!(register("anna", secrets[3], PASSWORD)?.status, 200);
    // Typed into the field for the name.
    gateway.login(secrets[2], "x")?;
    let log = gateway
        .ask(&Ask::get("/internal/logs/raw").bearer(&gateway.owner))?
        .body;
    let mut written = gateway.everything_written()?;
    written.push(("ComfyUI's own log".into(), log));
    for (place, bytes) in written {
        for secret in secrets {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", place.display());
        }
    }
    Ok(())
}

#[test]
fn s7_the_sign_in_has_no_second_door() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let body = json!({"username": "owner", "password": PASSWORD, "new_user_username": "anna", "new_user_password": PASSWORD});
    for path in [
        "/api/login",
        "/api/register",
        "/api/generate_token",
        "/api/logout",
    ] {
        for method in ["POST", "GET"] {
            let answer = gateway.ask(&Ask::new(method, path).json(&body))?;
            assert_eq!(answer.status, 401, "{method} {path}");
            let answer = gateway.ask(&Ask::new(method, path).bearer(&gateway.owner).json(&body))?;
            assert!(
                matches!(answer.status, 404 | 405),
                "{method} {path}: {}",
                answer.status
            );
            assert!(!answer.text().contains("jwt_token"));
        }
    }
    Ok(())
}

#[test]
fn s38_a_damaged_account_file_at_the_start_opens_nothing() -> Result<()> {
    for text in ["{", "", "[]", "{\"x\": {\"username\": 5}}"] {
        let options = Options::default()
            .without_owner()
            .file("users_db.json", text);
        let gateway = match Gateway::start(options) {
            Ok(gateway) => gateway,
            // Not to start is closed, too; it must say why.
            Err(error) => {
                ensure!(error.to_string().contains("users_db.json"), "{error}");
                continue;
            }
        };
        let body = json!({"new_user_username": "mallory", "new_user_password": PASSWORD});
        let answer = gateway.ask(&Ask::post("/register").json(&body))?;
        assert_ne!(answer.status, 200, "{text:?}");
        assert_eq!(
            fs::read_to_string(gateway.data.path().join("users_db.json"))?,
            text
        );
    }
    Ok(())
}

#[test]
fn s38_a_file_damaged_while_running_opens_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let path = gateway.data.path().join("users_db.json");
    let good = fs::read_to_string(&path)?;
    for text in [&good[..good.len() / 2], "", "null"] {
        fs::write(&path, text)?;
        let body = json!({"new_user_username": "mallory", "new_user_password": PASSWORD});
        for _ in 0..20 {
            let answer = gateway.ask(&Ask::post("/register").json(&body))?;
            assert_ne!(answer.status, 200, "{text:?}");
            // Signing in goes on with what was last good.
            assert_eq!(gateway.login("owner", PASSWORD)?.status, 200, "{text:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    Ok(())
}

#[test]
fn s38_an_account_file_that_is_gone_opens_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    fs::remove_file(gateway.data.path().join("users_db.json"))?;
    let body = json!({"new_user_username": "mallory", "new_user_password": PASSWORD});
    for _ in 0..50 {
        assert_ne!(
            gateway.ask(&Ask::post("/register").json(&body))?.status,
            200
        );
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    Ok(())
}

#[test]
fn s39_the_first_account_from_the_lan_needs_the_code() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy().without_owner())?;
    let code = gateway.setup_code.clone().unwrap_or_default();
    assert!(
        code.len() == 9 && code.chars().nth(4) == Some('-'),
        "{code}"
    );
    let register = |code: Option<&str>| {
        let mut body = json!({"new_user_username": "owner", "new_user_password": PASSWORD});
        if let Some(code) = code {
            body["setup_code"] = code.into();
        }
        gateway.ask(&Ask::post("/register").from(LAN).json(&body))
    };
    let answer = register(None)?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "setup_code_required")
    );
    for wrong in ["0000-0000", ""] {
        let answer = register(Some(wrong))?;
        assert_eq!(answer.status, 403, "{wrong:?}: {}", answer.text());
    }
    let answer = register(Some(&code.replace('-', "").to_lowercase()))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = register(Some(&code))?;
    assert_ne!(answer.status, 200, "the code counts once");
    Ok(())
}

#[test]
fn s39_a_forged_header_from_nearby_does_not_make_a_stranger_local() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy().without_owner())?;
    let body = json!({"new_user_username": "owner", "new_user_password": PASSWORD});
    for forged in [
        "127.0.0.1",
        "::1",
        "127.0.0.1, 127.0.0.1",
        "192.168.1.50, 127.0.0.1",
        "localhost",
    ] {
        let answer = gateway.ask(&Ask::post("/register").from(forged).json(&body))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "setup_code_required"),
            "{forged}"
        );
    }
    Ok(())
}

#[test]
fn s42_long_passwords_work_to_the_last_letter() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let long = format!("{}-1", "x".repeat(200));
    gateway.add_user_with("anna", &long)?;
    assert_eq!(gateway.login("anna", &long)?.status, 200);
    assert_eq!(
        gateway
            .login("anna", &format!("{}-2", "x".repeat(200)))?
            .status,
        401
    );
    let endless = format!("{}-1", "x".repeat(1100));
    let body = json!({"new_user_username": "bert", "new_user_password": endless, "username": "owner", "password": PASSWORD});
    let answer = gateway.ask(&Ask::post("/register").json(&body))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "invalid_password")
    );
    Ok(())
}

#[test]
fn s43_odd_passwords_stay_what_they_are() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let pairs = [
        ("pa|ss1!xy", "pass1!xy"),
        ("pass;1!xy", "pass\\1!xy"),
        ("pass&1!xy", "passamp\\1!xy"),
        ("<b>1!ok</b>", "1!ok"),
        ("pässwörter1§", "passworter1§"),
    ];
    for (index, (right, other)) in pairs.iter().enumerate() {
        let name = format!("user_{index}");
        gateway.add_user_with(&name, right)?;
        assert_eq!(gateway.login(&name, other)?.status, 401, "{right} {other}");
        assert_eq!(gateway.login(&name, right)?.status, 200, "{right}");
    }
    Ok(())
}

#[test]
fn s51_pages_and_tokens_leave_the_session_alone() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    for path in ["/login", "/generate_token", "/register"] {
        let answer = gateway.ask(&Ask::get(path).browser().cookie(&gateway.owner))?;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("set-cookie"), None, "{path}");
        assert_eq!(answer.header("clear-site-data"), None, "{path}");
    }
    let body = json!({"username": "owner", "password": PASSWORD, "expire_hours": 1});
    let answer = gateway.ask(
        &Ask::post("/generate_token")
            .cookie(&gateway.owner)
            .json(&body),
    )?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(
        gateway
            .ask(&Ask::get("/sentinel/api/me").cookie(&gateway.owner))?
            .status,
        200
    );
    Ok(())
}

#[test]
fn s52_our_prefix_is_not_a_way_in() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    for path in [
        "/sentinelx",
        "/sentinel",
        "/sentinel/",
        "/sentinel_evil/x",
        "/sentinel/api/../../queue",
        "/sentinel/assets/../../queue",
        "/sentinel/assets/..%2f..%2fqueue",
        "/sentinel/assets/%2e%2e/api/me",
        "/sentinel/health/../../queue",
        "/sentinel/healthx",
        "/sentinel//health",
        "/login/",
        "/login/x",
        "/login%2f..%2fqueue",
        "/LOGIN",
        "//login",
        "/login;x",
    ] {
        let answer = gateway.ask(&Ask::get(path))?;
        assert!(
            matches!(answer.status, 400 | 401 | 404),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        assert!(!answer.text().contains("queue_running"), "{path}");
    }
    Ok(())
}

#[test]
fn l1_l5_an_ending_or_a_method_opens_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    for path in [
        "/userdata/evil.js",
        "/api/userdata/evil.css",
        "/userdata/favicon.ico",
        "/prompt",
        "/favicon.ico",
        "/static_gallery/x.png",
    ] {
        for method in ["GET", "POST", "PUT", "OPTIONS", "HEAD"] {
            let answer = gateway.ask(&Ask::new(method, path).body("text/plain", "evil"))?;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
    let answer = gateway.ask(&Ask::get("/userdata/evil.js").bearer(&gateway.owner))?;
    assert_eq!(answer.status, 404, "nothing was written");
    Ok(())
}

#[test]
fn l2_l3_a_token_in_the_address_does_not_count() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    for query in [String::new(), gateway.owner.clone()] {
        for name in ["token", "jwt_token", "access_token"] {
            let answer = gateway.ask(&Ask::get(&format!("/queue?{name}={query}")))?;
            assert_eq!(answer.status, 401, "{name}");
        }
    }
    let fresh = Gateway::start(Options::default().without_owner())?;
    assert_eq!(fresh.ask(&Ask::get("/queue?token="))?.status, 401);
    Ok(())
}

#[test]
fn u2_a_forged_cookie_beside_a_good_token_gives_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    // {"alg":"none","typ":"JWT"} and {"alg":"HS256","typ":"JWT"}
    for head in [
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    ] {
        let middle = gateway.owner.split('.').nth(1).unwrap_or_default();
        for forged in [format!("{head}.{middle}."), format!("{head}.{middle}.AAAA")] {
            let answer =
                gateway.ask(&Ask::get("/sentinel/api/me").cookie(&forged).bearer(&anna))?;
            assert_eq!(answer.json()["username"], "anna");
            assert_eq!(
                gateway
                    .ask(&Ask::get("/sentinel/api/me").cookie(&forged))?
                    .status,
                401
            );
            assert_eq!(
                gateway
                    .ask(&Ask::get("/sentinel/api/me").bearer(&forged))?
                    .status,
                401
            );
        }
    }
    // A wrong token is wrong, whatever cookie stands beside it.
    let answer = gateway.ask(
        &Ask::get("/sentinel/api/me")
            .cookie(&gateway.owner)
            .bearer("nonsense"),
    )?;
    assert_eq!(answer.status, 401);
    Ok(())
}

#[test]
fn u3_only_admins_make_accounts() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let body = json!({"new_user_username": "mallory", "new_user_password": PASSWORD, "username": "anna", "password": PASSWORD});
    let answer = gateway.ask(&Ask::post("/register").json(&body))?;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let body = json!({"new_user_username": "mallory", "new_user_password": PASSWORD});
    assert_eq!(
        gateway
            .ask(&Ask::post("/register").cookie(&gateway.owner).json(&body))?
            .status,
        400
    );
    assert_eq!(gateway.login("mallory", PASSWORD)?.status, 401);
    Ok(())
}

#[test]
fn u4_u5_rules_for_names_and_passwords_hold() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let register = |name: &str, password: &str| -> Result<(u16, String)> {
        let body = json!({"new_user_username": name, "new_user_password": password, "username": "owner", "password": PASSWORD});
        let answer = gateway.ask(&Ask::post("/register").json(&body))?;
        Ok((answer.status, answer.code()))
    };
    let long = "x".repeat(65);
    for name in [
        "ab",
        "",
        "../../../pwned",
        "a/b",
        "a b",
        "anna\u{0}",
        "änna",
        "anna.",
        "..",
        &long,
    ] {
        assert_eq!(
            register(name, PASSWORD)?,
            (400, "invalid_username".to_owned()),
            "{name:?}"
        );
    }
    for password in [
        "1",
        "short-1",
        "no-digit-here",
        "nospecial123",
        "with space-1",
        "tab\t-1xyzab",
        "",
    ] {
        assert_eq!(
            register("anna", password)?,
            (400, "invalid_password".to_owned()),
            "{password:?}"
        );
    }
    assert_eq!(
        register("OWNER", PASSWORD)?,
        (400, "username_taken".to_owned())
    );
    assert_eq!(register("anna", PASSWORD)?.0, 200);
    Ok(())
}
