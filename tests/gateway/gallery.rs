//! Everybody's own pictures, as a browser asks for them.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const PNG: &[u8] = include_bytes!("../../docs/sign-in.png");

/// A gateway with one demo engine for all, which need not run: its output is what the owner sees.
fn start() -> Result<(Gateway, PathBuf)> {
    let gateway = Gateway::start(Options::default())?;
    let output = gateway.data.path().join("demo").join("output");
    fs::create_dir_all(&output)?;
    Ok((gateway, output))
}

fn ask(gateway: &Gateway, token: &str, rest: &str) -> Result<Answer> {
    gateway.ask(&Ask::get(&format!("/sentinel/api/gallery{rest}")).bearer(token))
}

fn names(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let items = body["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["path"].as_str().map(str::to_owned))
        .collect()
}

fn put(output: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = output.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, bytes)?)
}

#[test]
fn the_gallery_shows_files_and_works_while_comfyui_is_stopped() -> Result<()> {
    let (gateway, output) = start()?;
    put(&output, "sub/one & only.png", PNG)?;
    gateway.admin("POST", "engine/stop", None)?;
    gateway.await_state("stopped")?;
    let list = ask(&gateway, &gateway.owner, "?limit=10")?;
    assert_eq!(list.status, 200, "{}", list.text());
    let item = list.json()["items"][0].clone();
    assert_eq!(item["path"], "sub/one & only.png");
    assert_eq!(
        (&item["name"], &item["folder"]),
        (&json!("one & only.png"), &json!("sub"))
    );
    assert_eq!(
        (&item["kind"], &item["bytes"]),
        (&json!("image"), &json!(PNG.len()))
    );
    assert_eq!(list.json()["next"], Value::Null);
    assert_eq!(list.json()["total_bytes"], json!(PNG.len()));

    let view = item["view"].as_str().context("view")?;
    let whole = gateway.ask(&Ask::get(view).bearer(&gateway.owner))?;
    assert_eq!((whole.status, whole.body.as_slice()), (200, PNG));
    assert_eq!(whole.header("content-type"), Some("image/png"));
    assert_eq!(whole.header("cache-control"), Some("private, no-cache"));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        whole.header("content-disposition"),
        Some("inline; filename*=UTF-8''one%20%26%20only.png")
    );
    let policy = whole
        .header("content-security-policy")
        .context("a policy")?;
    assert!(
        policy.starts_with("sandbox; default-src 'none'"),
        "{policy}"
    );

    let part = gateway.ask(
        &Ask::get(view)
            .bearer(&gateway.owner)
            .header("Range", "bytes=4-9"),
    )?;
    assert_eq!((part.status, part.body.as_slice()), (206, &PNG[4..10]));
    let range = format!("bytes 4-9/{}", PNG.len());
    assert_eq!(part.header("content-range"), Some(range.as_str()));
    let beyond = gateway.ask(
        &Ask::get(view)
            .bearer(&gateway.owner)
            .header("Range", "bytes=99999999-"),
    )?;
    assert_eq!(beyond.status, 416);
    let tag = whole.header("etag").context("a tag")?;
    let again = gateway.ask(
        &Ask::get(view)
            .bearer(&gateway.owner)
            .header("If-None-Match", tag),
    )?;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = gateway.ask(&Ask::new("HEAD", view).bearer(&gateway.owner))?;
    assert_eq!(
        head.header("content-length"),
        Some(PNG.len().to_string().as_str())
    );
    let saved = gateway.ask(&Ask::get(&format!("{view}&download=1")).bearer(&gateway.owner))?;
    assert!(
        saved
            .header("content-disposition")
            .unwrap_or_default()
            .starts_with("attachment;")
    );

    let address = item["thumbnail"].as_str().context("thumbnail")?;
    let small = gateway.ask(&Ask::get(address).bearer(&gateway.owner))?;
    assert_eq!(small.status, 200, "{}", small.text());
    assert!(small.body.len() < PNG.len() && !small.body.is_empty());
    assert!(matches!(
        small.header("content-type"),
        Some("image/jpeg" | "image/webp")
    ));
    assert!(
        small
            .header("cache-control")
            .unwrap_or_default()
            .starts_with("private")
    );
    for path in [view, address, "/sentinel/api/gallery", "/sentinel/gallery"] {
        assert_eq!(gateway.ask(&Ask::get(path))?.status, 401, "{path}");
    }
    Ok(())
}

#[test]
fn pages_follow_each_other() -> Result<()> {
    let (gateway, output) = start()?;
    for number in 0..7 {
        put(&output, &format!("{number}.png"), PNG)?;
        put(&output, &format!("{number}.mp4"), b"film")?;
    }
    let mut seen = Vec::new();
    let mut rest = "?limit=3&kind=image".to_owned();
    loop {
        let page = ask(&gateway, &gateway.owner, &rest)?;
        seen.extend(names(&page));
        put(&output, &format!("new-{}.png", seen.len()), PNG)?;
        match page.json()["next"].as_str() {
            Some(next) => rest = format!("?limit=3&kind=image&before={next}"),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "6.png"
        ]
    );
    for wrong in ["?before=x", "?kind=secret", "?limit=-1"] {
        assert_eq!(ask(&gateway, &gateway.owner, wrong)?.status, 400, "{wrong}");
    }
    Ok(())
}

/// Ways to write a path that shall lead to `target` from the output directory.
fn ways_to(target: &Path) -> Vec<String> {
    let plain = target.display().to_string();
    let up = "../../users_db.json".to_owned();
    let encoded = |text: &str| text.replace('/', "%2F").replace('.', "%2E");
    let mut ways = vec![
        plain.clone(),
        encoded(&plain),
        format!("/{plain}"),
        format!("sub/..{plain}"),
        format!("./{up}"),
        format!("sub/../{up}"),
        format!("sub/{up}"),
        format!("....//....//users_db.json"),
        up.replace('/', "%5C"),
        up.replace("..", "%2E%2E"),
        up.replace("..", "%252E%252E"),
        up.replace("..", ".%2E"),
        up.replace("..", "%C0%AE%C0%AE"),
        up.replace('/', "%2F"),
        up.replace('/', "%252F"),
        format!("a.png%00{up}"),
        format!("{up}%00.png"),
        format!("file:%2F%2F{plain}"),
        "link.json".to_owned(),
        "folder/users_db.json".to_owned(),
        "folder%2Fusers_db.json".to_owned(),
        "root/etc/passwd".to_owned(),
        "CON".to_owned(),
        "a.png::$DATA".to_owned(),
        "%FF%FE".to_owned(),
        String::new(),
        ".".to_owned(),
        "sub".to_owned(),
    ];
    ways.push(up);
    ways
}

#[cfg(unix)]
#[test]
fn no_spelling_leads_out_of_the_directory() -> Result<()> {
    use std::os::unix::fs::symlink;
    let (gateway, output) = start()?;
    put(&output, "sub/a.png", PNG)?;
    let accounts = gateway.data.path().join("users_db.json");
    symlink(&accounts, output.join("link.json"))?;
    symlink(gateway.data.path(), output.join("folder"))?;
    symlink("/", output.join("root"))?;
    let before = fs::read(&accounts)?;
    for way in ways_to(&accounts) {
        for route in ["file", "thumbnail"] {
            let answer = ask(&gateway, &gateway.owner, &format!("/{route}?path={way}"))?;
            assert!(
                matches!(answer.status, 400 | 404),
                "{route} {way}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(!answer.text().contains("argon2"), "{way}");
        }
        let delete = Ask::new("DELETE", "/sentinel/api/gallery").bearer(&gateway.owner);
        let decoded = way.replace("%2F", "/").replace("%2E", ".");
        for spelling in [way, decoded] {
            let answer = gateway.ask(&delete.clone().json(&json!({"paths": [spelling]})))?;
            assert!(
                matches!(answer.status, 400 | 404),
                "{spelling}: {}",
                answer.status
            );
        }
    }
    assert_eq!(fs::read(&accounts)?, before);
    assert_eq!(names(&ask(&gateway, &gateway.owner, "")?), ["sub/a.png"]);
    Ok(())
}

#[test]
fn active_types_are_never_shown_in_place() -> Result<()> {
    let (gateway, output) = start()?;
    let script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    for name in [
        "a.svg",
        "a.SVG",
        "a.html",
        "a.htm",
        "a.xhtml",
        "a.xml",
        "a.js",
        "a.mjs",
        "a.pdf",
        "a.css",
        "a.unknown",
        "plain",
        "a.png.svg",
        "a.swf",
        "a.mht",
    ] {
        put(&output, name, script)?;
        let answer = ask(&gateway, &gateway.owner, &format!("/file?path={name}"))?;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream"),
            "{name}"
        );
        let how = answer.header("content-disposition").unwrap_or_default();
        assert!(how.starts_with("attachment;"), "{name}: {how}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{name}"
        );
        assert!(
            answer
                .header("content-security-policy")
                .unwrap_or_default()
                .starts_with("sandbox"),
            "{name}"
        );
        let small = ask(&gateway, &gateway.owner, &format!("/thumbnail?path={name}"))?;
        assert_eq!(
            (small.status, small.code().as_str()),
            (404, "no_thumbnail"),
            "{name}"
        );
    }
    // What only calls itself a picture is no page either.
    put(
        &output,
        "page.png",
        b"<html><script>alert(1)</script></html>",
    )?;
    let answer = ask(&gateway, &gateway.owner, "/file?path=page.png")?;
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        ask(&gateway, &gateway.owner, "/thumbnail?path=page.png")?.status,
        404
    );
    Ok(())
}

#[test]
fn names_cannot_break_the_headers() -> Result<()> {
    let (gateway, output) = start()?;
    for name in [
        "a\r\nSet-Cookie: x=1.png",
        "quote\".png",
        "semi;filename=b.html;.png",
        "Füße ☂.png",
    ] {
        if cfg!(windows) && name.contains(['\r', '"']) {
            continue;
        }
        put(&output, name, PNG)?;
    }
    let list = ask(&gateway, &gateway.owner, "")?.json();
    let items = list["items"].as_array().context("items")?;
    assert!(!items.is_empty());
    for item in items {
        let view = item["view"].as_str().context("view")?;
        let answer = gateway.ask(&Ask::get(view).bearer(&gateway.owner))?;
        assert_eq!(answer.status, 200, "{view}");
        assert_eq!(answer.header("set-cookie"), None);
        let how = answer.header("content-disposition").context("a header")?;
        let name = how
            .strip_prefix("inline; filename*=UTF-8''")
            .context("a name")?;
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"%-._".contains(&byte))
        );
    }
    Ok(())
}

#[test]
fn deleting_takes_all_of_the_list_or_nothing() -> Result<()> {
    let (gateway, output) = start()?;
    for name in ["a.png", "sub/b.png", "c.png"] {
        put(&output, name, PNG)?;
    }
    let delete = |paths: Value| {
        let ask = Ask::new("DELETE", "/sentinel/api/gallery").bearer(&gateway.owner);
        gateway.ask(&ask.json(&json!({"paths": paths})))
    };
    for (wrong, status) in [
        (json!(["a.png", "missing.png"]), 404),
        (json!(["a.png", "../output/c.png"]), 400),
        (json!(["a.png", "sub"]), 404),
        (json!(["a.png", 1]), 400),
        (json!(vec!["a.png"; 5000]), 400),
    ] {
        let answer = delete(wrong.clone())?;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(output.join("a.png").exists());
    }
    assert_eq!(delete(json!(["a.png", "sub/b.png"]))?.status, 204);
    assert_eq!(names(&ask(&gateway, &gateway.owner, "")?), ["c.png"]);
    Ok(())
}

#[test]
fn with_one_comfyui_for_all_others_have_no_gallery() -> Result<()> {
    let (gateway, output) = start()?;
    put(&output, "a.png", PNG)?;
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    for rest in ["", "/file?path=a.png", "/thumbnail?path=a.png"] {
        let answer = ask(&gateway, &anna, rest)?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (409, "shared_engine"),
            "{rest}"
        );
    }
    let delete = Ask::new("DELETE", "/sentinel/api/gallery").bearer(&anna);
    let answer = gateway.ask(&delete.json(&json!({"paths": ["a.png"]})))?;
    assert_eq!(answer.status, 409);
    assert!(output.join("a.png").exists());
    // An API token without admin rights is no admin either.
    let token = gateway.make_token("owner")?;
    assert_eq!(ask(&gateway, &token, "")?.status, 409);
    Ok(())
}

#[test]
fn each_user_sees_his_own_files_alone_without_a_running_comfyui() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("separate_users=true"))?;
    let mut folders = Vec::new();
    for name in ["anna", "ben"] {
        gateway.add_user(name)?;
        let id = gateway.user_id(name)?;
        let folder = gateway.data.path().join("users").join(&id).join("output");
        put(&folder, &format!("{name}.png"), PNG)?;
        folders.push((id, folder));
    }
    let anna = gateway.sign_in("anna")?;
    assert_eq!(names(&ask(&gateway, &anna, "")?), ["anna.png"]);
    assert_eq!(ask(&gateway, &anna, "/file?path=anna.png")?.body, PNG);
    let (ben, output) = &folders[1];
    for way in [
        "ben.png".to_owned(),
        format!("../../{ben}/output/ben.png"),
        format!("..%2F..%2F{ben}%2Foutput%2Fben.png"),
        format!("{ben}/output/ben.png"),
        output.join("ben.png").display().to_string(),
    ] {
        for route in ["file", "thumbnail"] {
            let answer = ask(&gateway, &anna, &format!("/{route}?path={way}"))?;
            assert!(
                matches!(answer.status, 400 | 404),
                "{way}: {}",
                answer.status
            );
        }
        let delete = Ask::new("DELETE", "/sentinel/api/gallery").bearer(&anna);
        let answer = gateway.ask(&delete.json(&json!({"paths": [way.replace("%2F", "/")]})))?;
        assert!(
            matches!(answer.status, 400 | 404),
            "{way}: {}",
            answer.status
        );
    }
    // A ComfyUI may write in its user's directory: it could put a link in the place of the output.
    #[cfg(unix)]
    {
        fs::remove_dir_all(&folders[0].1)?;
        std::os::unix::fs::symlink(output, &folders[0].1)?;
        assert!(ask(&gateway, &anna, "")?.status >= 400);
        assert!(ask(&gateway, &anna, "/file?path=ben.png")?.status >= 400);
    }
    assert!(output.join("ben.png").exists());
    // Nor does the owner see into the directories of others here.
    assert!(!names(&ask(&gateway, &gateway.owner, "")?).contains(&"ben.png".to_owned()));
    Ok(())
}

#[test]
fn the_list_of_people_tells_how_much_room_each_takes() -> Result<()> {
    let (gateway, _) = start()?;
    gateway.add_user("anna")?;
    let folder = gateway
        .data
        .path()
        .join("users")
        .join(gateway.user_id("anna")?);
    put(&folder, "output/a.bin", &[0; 12_345])?;
    // Asking for the id has measured already, and a measurement holds for a minute.
    let data = gateway.stop()?;
    let gateway = Gateway::start(Options::default().data(&data))?;
    let owner = gateway.sign_in("owner")?;
    let users = gateway.ask(
        &Ask::get("/sentinel/api/users")
            .bearer(&owner)
            .header("X-Sentinel-Proof", &gateway.proof(&owner)?),
    )?;
    let anna = users.json()["users"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|user| user["username"] == "anna")
        .cloned()
        .context("anna")?;
    assert_eq!(anna["storage_bytes"], json!(12_345));
    Ok(())
}
