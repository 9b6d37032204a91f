//! What bob tries to write where it is not his: W1-W11, and the defects of the peers that let him.

use crate::graphs::{picture, preview};
use crate::world::{Form, User, World, alone, contents, holds, not_there, tell, together};
use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use sentinel_tests::{Answer, Ask};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

/// All files of the gateway's data directory that are not below `user`'s own folder.
fn of_others(world: &World, user: &User) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = contents(world.gateway.data.path())?;
    let own = world.folder(user);
    all.retain(|path, _| !path.starts_with(&own) && !is_ours(path));
    Ok(all)
}

/// What Sentinel itself writes while it runs.
fn is_ours(path: &std::path::Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("sentinel")
        || name.ends_with(".json")
            && path
                .parent()
                .is_some_and(|folder| folder.join("users_db.json").exists())
}

/// Tells which files differ.
fn changed(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = before
        .iter()
        .filter(|(path, bytes)| after.get(*path) != Some(*bytes))
        .chain(after.iter().filter(|(path, _)| !before.contains_key(*path)))
        .map(|(path, _)| path.clone())
        .collect();
    names.dedup();
    names
}

#[test]
fn w1_w2_c7_s19_uploads_stay_in_ones_own_folders() -> Result<()> {
    let (_guard, world) = alone()?;
    let output = world
        .run(&world.alice, &picture("w1_alice", 1))?
        .picture("2")?;
    let bytes = world.get(&world.alice, &output.target())?.body;
    ensure!(world.upload(&world.alice, "w1_input.png", &bytes)?.status == 200);
    let before = of_others(world, &world.bob)?;
    let id = &world.alice.id;
    let name = output.name.as_str();
    let disposition = |rest: &str| format!("Content-Disposition: form-data; {rest}");
    let inside = "bob was here";
    let mut forms: Vec<(String, Form)> = Vec::new();
    for kind in ["input", "output", "temp", "bogus"] {
        for folder in [
            String::new(),
            "..".to_owned(),
            format!("../../{id}/{kind}"),
            format!("../{kind}/../../{id}/{kind}"),
            world.folder(&world.alice).join(kind).display().to_string(),
            id.clone(),
        ] {
            for file in [name, "w1_input.png"] {
                let form = Form::default()
                    .file("image", file, inside.as_bytes())
                    .text("type", kind)
                    .text("subfolder", &folder)
                    .text("overwrite", "true");
                forms.push((format!("{kind} {folder} {file}"), form));
            }
        }
    }
    for file in [
        format!("../../{id}/output/{name}"),
        format!("/../../{id}/output/{name}"),
        format!("..%2F..%2F{id}%2Foutput%2F{name}"),
        world
            .folder(&world.alice)
            .join("output")
            .join(name)
            .display()
            .to_string(),
    ] {
        let all = [
            format!("name=\"image\"; filename=\"{file}\""),
            format!("name=\"image\"; filename=\"x.png\"; filename*=utf-8''{file}"),
            format!("name=\"x\"; name*=utf-8''image; filename=\"{file}\""),
            format!("name=\"image\"; filename*0=\"{file}\"; filename*1=\"\""),
        ];
        for headers in all {
            let form = Form::default()
                .part(&disposition(&headers), inside.as_bytes())
                .text("type", "output")
                .text("overwrite", "1");
            forms.push((headers, form));
        }
        let encoded = format!(
            "{}\r\nContent-Transfer-Encoding: base64",
            disposition(&format!("name=\"image\"; filename=\"{file}\""))
        );
        let form = Form::default()
            .part(&encoded, b"Ym9iIHdhcyBoZXJl")
            .text("subfolder", "a")
            .text("subfolder", &format!("../../{id}/output"))
            .text("overwrite", "true");
        forms.push((format!("base64 {file}"), form));
    }
    for (what, form) in forms {
        let answer = world.ask(&form.post("/upload/image").bearer(&world.bob.token))?;
        ensure!(answer.status < 600, "{what}");
        let after = of_others(world, &world.bob)?;
        let changed = changed(&before, &after);
        ensure!(changed.is_empty(), "{what} changed {changed:?}");
    }
    let gzip = {
        let form = Form::default()
            .file(
                "image",
                &format!("../../{id}/output/{name}"),
                inside.as_bytes(),
            )
            .text("type", "output")
            .text("overwrite", "true");
        let bytes = form.post("/upload/image").bytes(world.gateway.port);
        let split = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("a body")?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes[split + 4..])?;
        encoder.finish()?
    };
    world.ask(
        &Ask::post("/upload/image")
            .bearer(&world.bob.token)
            .header("Content-Encoding", "gzip")
            .body("multipart/form-data; boundary=a-border-of-the-tests", gzip),
    )?;
    let after = of_others(world, &world.bob)?;
    ensure!(changed(&before, &after).is_empty());
    ensure!(world.get(&world.alice, &output.target())?.body == bytes);
    // Alice herself overwrites what is hers.
    let form = Form::default()
        .file("image", name, inside.as_bytes())
        .text("type", "output")
        .text("overwrite", "true");
    let own = world.ask(&form.post("/upload/image").bearer(&world.alice.token))?;
    ensure!(own.status == 200, "{}", own.text());
    ensure!(world.get(&world.alice, &output.target())?.body == inside.as_bytes());
    Ok(())
}

#[test]
fn w3_s19_s20_s21_prefixes_stay_in_ones_own_output_and_may_be_links() -> Result<()> {
    let (_guard, world) = alone()?;
    world.run(&world.alice, &picture("w3_alice", 1))?;
    let before = of_others(world, &world.bob)?;
    let id = &world.alice.id;
    let absolute = world.folder(&world.alice).join("output/w3_alice");
    let prefixes = [
        format!("../../{id}/output/w3_alice"),
        format!("x/../../../{id}/output/w3_alice"),
        absolute.display().to_string(),
        format!("..\\..\\{id}\\output\\w3_alice"),
        format!("%year%/../../../{id}/output/w3_alice"),
        format!("{id}/w3_alice"),
    ];
    for prefix in &prefixes {
        let (start, rest) = prefix.split_at(prefix.len() / 2);
        let mut graphs = vec![picture(prefix.as_str(), 2)];
        let mut linked = picture(json!(["3", 0]), 2);
        linked["3"] = json!({"class_type": "PrimitiveString", "inputs": {"value": prefix}});
        graphs.push(linked.clone());
        linked["3"] = json!({
            "class_type": "StringConcatenate",
            "inputs": {"string_a": start, "string_b": rest, "delimiter": ""},
        });
        graphs.push(linked);
        for class in ["SaveAnimatedWEBP", "SaveAnimatedPNG"] {
            let mut graph = picture(prefix.as_str(), 2);
            graph["2"]["class_type"] = json!(class);
            for (name, value) in [
                ("fps", json!(6)),
                ("lossless", json!(true)),
                ("quality", json!(80)),
                ("method", json!("default")),
                ("compress_level", json!(4)),
            ] {
                graph["2"]["inputs"][name] = value;
            }
            graphs.push(graph);
        }
        for graph in graphs {
            let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": graph }))?;
            if let Some(job) = answer.json()["prompt_id"].as_str() {
                world.ended(&world.bob, job)?;
            }
            let changed = changed(&before, &of_others(world, &world.bob)?);
            ensure!(changed.is_empty(), "{graph} changed {changed:?}");
        }
    }
    let mut linked = picture(json!(["3", 0]), 20);
    linked["3"] = json!({"class_type": "PrimitiveString", "inputs": {"value": "w3_folder/linked"}});
    let own = world.run(&world.alice, &linked)?.picture("2")?;
    ensure!(
        own.subfolder == "w3_folder" && own.name.starts_with("linked_"),
        "{own:?}"
    );
    ensure!(
        world
            .folder(&world.alice)
            .join("output/w3_folder")
            .join(&own.name)
            .is_file()
    );
    Ok(())
}

/// A graph that writes a text anywhere, if it is let.
fn writes_text(folder: &str) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 4}},
        "2": {"class_type": "SaveImageTextDataSetToFolder", "inputs":
            {"images": ["1", 0], "texts": "w4 was here", "folder_name": folder, "filename_prefix": "w4",
             "mode": "overwrite"}},
    })
}

#[test]
fn w4_w6_s21_nodes_that_write_anywhere_are_refused_to_users() -> Result<()> {
    let (_guard, world) = alone()?;
    let before = of_others(world, &world.bob)?;
    let id = &world.alice.id;
    let absolute = world
        .folder(&world.alice)
        .join("output/w4")
        .display()
        .to_string();
    for folder in ["own", &format!("../../{id}/output/w4"), &absolute] {
        for class in [
            "SaveImageDataSetToFolder",
            "SaveImageTextDataSetToFolder",
            "SaveTrainingDataset",
            "LoadTrainingDataset",
        ] {
            let mut graph = writes_text(folder);
            graph["2"]["class_type"] = json!(class);
            let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": graph }))?;
            ensure!(answer.status == 400, "{class} {folder}: {}", answer.text());
            ensure!(
                answer.json()["error"]["type"] == "node_not_allowed",
                "{class}: {}",
                answer.text()
            );
        }
    }
    ensure!(changed(&before, &of_others(world, &world.bob)?).is_empty());
    if !world.has_node("SaveImageTextDataSetToFolder")? {
        not_there("w4", "SaveImageTextDataSetToFolder");
        return Ok(());
    }
    // An admin may.
    world.run(&world.owner, &writes_text("w4_of_the_owner"))?;
    let written = contents(&world.folder_of_owner("output").join("w4_of_the_owner"))?;
    ensure!(
        written.values().any(|bytes| holds(bytes, "w4 was here")),
        "{:?}",
        written.keys()
    );
    // The engine itself takes any path; where the operating system can, it does not let it.
    let direct = Ask::post("/prompt")
        .json(&json!({ "prompt": writes_text(&absolute) }))
        .send(world.direct(&world.bob)?)?;
    let job = direct.json()["prompt_id"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| direct.text())?;
    let wrote = world.succeeds_in_engine(&world.bob, &job)?;
    let is_there = PathBuf::from(&absolute).exists();
    ensure!(wrote == is_there);
    ensure!(
        !(wrote && world.holds_files(&world.bob)?),
        "{}",
        world.engine(&world.bob)?["sandbox"]
    );
    if wrote {
        tell("w4: no help of the operating system here; the gateway alone keeps the nodes off");
    }
    if is_there {
        fs::remove_dir_all(&absolute)?;
    }
    Ok(())
}

#[test]
fn w5_nobody_plants_code_or_models_but_an_admin() -> Result<()> {
    let (_guard, world) = together()?;
    if !world.has_route("/api/assets")? {
        not_there("w5", "/api/assets");
        return Ok(());
    }
    let code = b"open('planted', 'w')";
    let upload = |user: &User, target: &str, form: Form| -> Result<Answer> {
        world.ask(&form.post(target).bearer(&user.token))
    };
    for target in ["/api/assets", "/%61pi/assets", "//api//assets"] {
        for tags in [
            r#"["models","custom_nodes"]"#,
            r#"["models","checkpoints"]"#,
            "models,custom_nodes",
            r#"["MODELS","custom_nodes"]"#,
            r#"[" models ","custom_nodes"]"#,
            r#"["input","..","..","custom_nodes"]"#,
            r#"["input","a/../../custom_nodes"]"#,
            "[\"models\",\"custom\\u005fnodes\"]",
        ] {
            let plain = Form::default()
                .text("tags", tags)
                .file("file", "w5.py", code);
            let answer = upload(&world.bob, target, plain)?;
            ensure!(
                (400..500).contains(&answer.status),
                "{target} {tags}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    for headers in [
        "Content-Disposition: form-data; name=\"x\"; name*=utf-8''tags",
        "Content-Disposition: form-data; name*0=\"ta\"; name*1=\"gs\"",
        "Content-Disposition: form-data; name=\"tags\"\r\nContent-Transfer-Encoding: base64",
        "Content-Disposition: form-data; name=tags",
    ] {
        let tags: &[u8] = if headers.contains("base64") {
            b"WyJtb2RlbHMiLCJjdXN0b21fbm9kZXMiXQ=="
        } else {
            br#"["models","custom_nodes"]"#
        };
        let form = Form::default()
            .part(headers, tags)
            .file("file", "w5.py", code);
        let answer = upload(&world.bob, "/api/assets", form)?;
        ensure!(answer.status >= 400, "{headers}: {}", answer.status);
    }
    for folder in ["custom_nodes", "models"] {
        let base = world.gateway.data.path();
        for (path, bytes) in contents(base)? {
            let is_inside = path.components().any(|part| part.as_os_str() == folder);
            ensure!(
                !is_inside || !holds(&bytes, "planted"),
                "{}",
                path.display()
            );
        }
    }
    // Not refused to an admin, nor to bob for what is his: what this engine says to it is its own.
    let form = |tags: &str| {
        Form::default()
            .text("tags", tags)
            .file("file", "w5.bin", b"w5")
    };
    for (user, tags) in [
        (&world.owner, r#"["models","checkpoints"]"#),
        (&world.bob, r#"["input","w5"]"#),
    ] {
        let answer = upload(user, "/api/assets", form(tags))?;
        ensure!(answer.status != 403, "{}: {}", user.name, answer.text());
    }
    Ok(())
}

#[test]
fn w7_c3_the_job_id_of_another_leads_to_a_job_of_ones_own_under_another_id() -> Result<()> {
    let (_guard, world) = together()?;
    let hers = world.run(&world.alice, &picture("w7_alice", 7))?;
    let taken = json!({ "prompt": picture("w7_bob", 7), "prompt_id": hers.id });
    let his = world.attempt(&world.bob, &taken)?;
    ensure!(his.id != hers.id);
    ensure!(his.entry.to_string().contains("w7_bob"));
    let entry = world
        .get(&world.alice, &format!("/history/{}", hers.id))?
        .json();
    ensure!(entry[&hers.id] == hers.entry, "{entry}");
    for user in [&world.alice, &world.bob] {
        let prefix = format!("w7_null_{}", user.name);
        let body = json!({ "prompt": picture(prefix, 8), "prompt_id": null });
        let job = world.attempt(user, &body)?;
        ensure!(job.entry.to_string().contains(user.name), "{}", job.entry);
    }
    Ok(())
}

#[test]
fn w11_no_script_of_one_runs_in_the_session_of_another() -> Result<()> {
    let (_guard, world) = together()?;
    let script = "<script>w11</script>";
    let svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{script}</svg>");
    for (name, text) in [
        ("w11.svg", svg.as_str()),
        ("w11.xml", script),
        ("w11.js", script),
    ] {
        for kind in ["input", "output", "temp"] {
            let form = Form::default()
                .file("image", name, text.as_bytes())
                .text("type", kind)
                .text("overwrite", "true");
            world.ask(&form.post("/upload/image").bearer(&world.bob.token))?;
            let target = format!("/view?filename={name}&type={kind}");
            ensure!(
                holds(&world.get(&world.bob, &target)?.body, "w11"),
                "bob has {target}"
            );
            for other in [&world.alice, &world.owner] {
                let answer = world.get(other, &target)?;
                ensure!(
                    answer.status >= 400 && !holds(&answer.body, "w11<"),
                    "{target}"
                );
            }
        }
    }
    for name in ["w11.html", "user.css", "workflows%2Fw11.html"] {
        let target = format!("/userdata/{name}");
        let stored = Ask::post(&format!("{target}?overwrite=true"))
            .bearer(&world.bob.token)
            .body("text/plain", script);
        ensure!(world.ask(&stored)?.status == 200);
        ensure!(holds(&world.get(&world.bob, &target)?.body, "w11"));
        for other in [&world.alice, &world.owner] {
            ensure!(!holds(&world.get(other, &target)?.body, "w11"), "{target}");
        }
    }
    Ok(())
}

#[test]
fn s22_s23_c15_jobs_run_as_whoever_posted_them() -> Result<()> {
    let (_guard, world) = together()?;
    let png = world
        .get(
            &world.alice,
            &world
                .run(&world.alice, &preview(22))?
                .picture("2")?
                .target(),
        )?
        .body;
    for user in [&world.alice, &world.bob] {
        ensure!(world.upload(user, "s22.png", &png)?.status == 200);
    }
    let graph = |user: &User| {
        json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "s22.png"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": format!("s22_{}", user.name)}},
        })
    };
    let mut jobs = Vec::new();
    for round in 0..3 {
        for user in [&world.alice, &world.bob] {
            let target = if round % 2 == 0 {
                "/prompt"
            } else {
                "/api/prompt"
            };
            let answer = world.post(user, target, &json!({ "prompt": graph(user) }))?;
            let id = answer.json()["prompt_id"]
                .as_str()
                .map(str::to_owned)
                .with_context(|| answer.text())?;
            jobs.push((user, id));
        }
    }
    for (user, id) in jobs {
        let job = world.ended(user, &id)?;
        ensure!(job.succeeded(), "{}: {}", user.name, job.entry);
    }
    for (user, other) in [(&world.alice, &world.bob), (&world.bob, &world.alice)] {
        let files: Vec<PathBuf> = contents(&world.folder(user).join("output"))?
            .into_keys()
            .collect();
        let has = |name: &str| {
            files.iter().any(|path| {
                path.file_name()
                    .is_some_and(|file| file.to_string_lossy().starts_with(&format!("s22_{name}_")))
            })
        };
        ensure!(has(user.name) && !has(other.name), "{files:?}");
    }
    Ok(())
}
