//! What bob tries to read of alice's: R1-R20, and the defects of the peers that let him.

use crate::graphs::{load, picture, preview, probe, slow, with_note};
use crate::world::{File, Form, User, World, alone, holds, not_there, tell, together};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::Ask;
use serde_json::{Value, json};
use std::fs;

/// Every address under which bob could look, with `{id}` for the job.
const LISTS: [&str; 17] = [
    "/history",
    "/api/history",
    "/%68istory",
    "/%61pi/history",
    "/history?max_items=64",
    "/history?max_items=64&offset=0",
    "/history/{id}",
    "/api/history/{id}",
    "/queue",
    "/api/queue",
    "/q%75eue",
    "/api/jobs",
    "/api/jobs?limit=100",
    "/api/api/jobs",
    "/api/jobs/{id}",
    "/api/api/jobs/{id}",
    "/%61pi/%61pi/jobs/{id}",
];

fn not_seen(world: &World, by: &User, targets: &[String], secrets: &[&str]) -> Result<()> {
    for target in targets {
        let answer = world.get(by, target)?;
        for secret in secrets {
            ensure!(
                !holds(&answer.body, secret),
                "{target} shows {secret} to {}: {}",
                by.name,
                answer.text()
            );
        }
    }
    Ok(())
}

#[test]
fn r1_c11_c12_s25_u14_m2_history_queue_and_jobs_show_ones_own_only() -> Result<()> {
    let (_guard, world) = together()?;
    let note = "r1-note-of-alice";
    let mut body = with_note(&picture("r1_alice", 11), note);
    body["extra_data"]["api_key_comfy_org"] = json!("r1-key-of-alice");
    body["extra_data"]["auth_token_comfy_org"] = json!("r1-token-of-alice");
    let done = world.attempt(&world.alice, &body)?;
    body["prompt"] = slow(3.0, "r1-slow-of-alice");
    let running = world.queue(&world.alice, &body)?;
    let waiting = world.queue(&world.alice, &body)?;
    let secrets = [
        note,
        "r1_alice",
        "r1-slow-of-alice",
        "r1-key-of-alice",
        "r1-token-of-alice",
        done.id.as_str(),
        running.as_str(),
        waiting.as_str(),
    ];
    for id in [&done.id, &running, &waiting] {
        let targets: Vec<String> = LISTS
            .iter()
            .map(|target| target.replace("{id}", id))
            .collect();
        for by in [&world.bob, &world.owner] {
            // The address itself may come back in an error text.
            let secrets: Vec<&str> = secrets.iter().copied().filter(|text| text != id).collect();
            not_seen(world, by, &targets, &secrets)?;
        }
        ensure!(world.get(&world.bob, &format!("/history/{id}"))?.json() == json!({}));
        let job = world.get(&world.bob, &format!("/api/jobs/{id}"))?;
        ensure!(job.status == 404, "{}", job.text());
    }
    let own = |target: &str| world.get(&world.alice, target);
    ensure!(holds(&own("/history")?.body, note));
    let queue = own("/queue")?;
    ensure!(holds(&queue.body, &waiting), "{}", queue.text());
    if holds(&queue.body, "r1-key-of-alice") {
        tell("r1: this version shows alice's own key in her own queue, and to nobody else");
    }
    if world.has_route("/api/jobs")? {
        ensure!(holds(&own("/api/api/jobs?limit=100")?.body, &done.id));
        ensure!(own(&format!("/api/jobs/{}", done.id))?.status == 200);
    } else {
        not_there("r1", "/api/jobs");
    }
    Ok(())
}

/// The same file in many spellings, each of which reaches it in an engine that alice and bob share.
fn spellings(file: &File) -> Vec<String> {
    let File {
        name,
        subfolder,
        kind,
    } = file;
    let mut all = vec![
        file.target(),
        format!("/api/view?filename={name}&type={kind}&subfolder={subfolder}"),
        format!("/%76iew?filename={name}&type={kind}&subfolder={subfolder}"),
        format!("/%61pi/v%69ew?filename={name}&type={kind}&subfolder={subfolder}"),
        format!("/view?filename={name}%20[{kind}]&type=input&subfolder={subfolder}"),
        format!("/view?filename={name}x[{kind}]&subfolder={subfolder}"),
        format!("/view?filename=any/where/{name}&type={kind}&subfolder={subfolder}"),
        format!("/view?filename={name}&type={kind}&subfolder=../{kind}/{subfolder}"),
        format!("/view?filename={name}&type={kind}&sub%66older={subfolder}"),
        format!("/view?filename={name}&type={kind}&subfolder={subfolder}&subfolder=x"),
        format!("/view?filename={name}&type={kind}&subfolder={subfolder}&preview=webp;90"),
        format!("/view?filename={name}&type={kind}&subfolder={subfolder}&channel=rgb"),
        format!("//view?filename={name}&type={kind}&subfolder={subfolder}"),
    ];
    if kind == "output" {
        all.push(format!("/view?filename={name}&subfolder={subfolder}"));
    }
    all
}

#[test]
fn r2_c7_s17_s18_files_of_another_are_not_viewed_in_any_spelling() -> Result<()> {
    let (_guard, world) = together()?;
    let output = world
        .run(&world.alice, &picture("r2_alice", 2))?
        .picture("2")?;
    let below = world
        .run(&world.alice, &picture("r2_folder/alice", 3))?
        .picture("2")?;
    let temp = world.run(&world.alice, &preview(4))?.picture("2")?;
    let bytes = world.get(&world.alice, &output.target())?.body;
    ensure!(bytes.starts_with(b"\x89PNG"));
    ensure!(world.upload(&world.alice, "r2_input.png", &bytes)?.status == 200);
    let input = File {
        name: "r2_input.png".to_owned(),
        subfolder: String::new(),
        kind: "input".to_owned(),
    };
    for file in [&output, &below, &temp, &input] {
        let own = world.get(&world.alice, &file.target())?;
        ensure!(own.status == 200, "alice: {file:?}");
        for by in [&world.bob, &world.owner] {
            for target in spellings(file) {
                let answer = world.get(by, &target)?;
                ensure!(
                    answer.status >= 400 && !answer.body.starts_with(b"\x89PNG"),
                    "{target} is open to {}",
                    by.name
                );
                let head = world.ask(&Ask::new("HEAD", &target).bearer(&by.token))?;
                ensure!(head.status >= 400, "HEAD {target}");
            }
        }
    }
    let alice = world.folder(&world.alice);
    let id = &world.alice.id;
    for subfolder in [
        format!("../../{id}/output"),
        format!("..%2F..%2F{id}%2Foutput"),
        format!("../output/../../{id}/output"),
        alice.join("output").display().to_string(),
        id.clone(),
    ] {
        let target = format!(
            "/view?filename={}&type=output&subfolder={subfolder}",
            output.name
        );
        ensure!(world.get(&world.bob, &target)?.status >= 400, "{target}");
    }
    for name in [
        alice
            .join("output")
            .join(&output.name)
            .display()
            .to_string(),
        format!("../../{id}/output/{}", output.name),
    ] {
        let target = format!("/view?filename={name}&type=output");
        ensure!(world.get(&world.bob, &target)?.status >= 400, "{target}");
    }
    let mut shown = 0;
    for (kind, name) in [
        ("output", &output.name),
        ("temp", &temp.name),
        ("input", &input.name),
    ] {
        let target = format!("/internal/files/{kind}");
        shown += usize::from(holds(&world.get(&world.alice, &target)?.body, name));
        not_seen(world, &world.bob, &[target], &[name])?;
    }
    ensure!(shown == 3, "alice sees her own");
    Ok(())
}

#[test]
fn r3_names_of_previews_are_of_no_use_to_another() -> Result<()> {
    let (_guard, world) = together()?;
    let first = world.run(&world.alice, &preview(31))?.picture("2")?;
    let second = world.run(&world.alice, &preview(32))?.picture("2")?;
    let own = world.run(&world.bob, &preview(33))?.picture("2")?;
    for file in [&first, &second] {
        ensure!(world.get(&world.alice, &file.target())?.status == 200);
        ensure!(
            world.get(&world.bob, &file.target())?.status >= 400,
            "{file:?}"
        );
        ensure!(file.name != own.name);
    }
    // What bob would count back and forth from his own name.
    let (stem, _) = own.name.rsplit_once("_0").context("a counter")?;
    let alices = world.get(&world.alice, &first.target())?.body;
    for counter in 1..30 {
        let target = format!("/view?filename={stem}_{counter:05}_.png&type=temp&subfolder=");
        let answer = world.get(&world.bob, &target)?;
        ensure!(answer.status >= 400 || answer.body != alices, "{target}");
    }
    Ok(())
}

#[test]
fn r4_an_equal_graph_is_not_answered_with_the_file_of_another() -> Result<()> {
    let (_guard, world) = alone()?;
    let graph = picture("r4_same", 44);
    let run = |user: &User, note: &str| -> Result<File> {
        let mut body = with_note(&graph, note);
        // Without it ComfyUI tells no outputs of cached nodes.
        body["client_id"] = json!("r4");
        world.attempt(user, &body)?.picture("2")
    };
    let hers = run(&world.alice, "r4-note-of-alice")?;
    let his = run(&world.bob, "r4-note-of-bob")?;
    let picture_of = |user: &User, file: &File| -> Result<Vec<u8>> {
        let answer = world.get(user, &file.target())?;
        ensure!(answer.status == 200, "{}: {file:?}", user.name);
        Ok(answer.body)
    };
    ensure!(holds(&picture_of(&world.alice, &hers)?, "r4-note-of-alice"));
    let his = picture_of(&world.bob, &his)?;
    ensure!(holds(&his, "r4-note-of-bob") && !holds(&his, "r4-note-of-alice"));
    // In one engine an equal graph is answered from the cache.
    let again = run(&world.alice, "r4-another-note")?;
    ensure!(again.name == hers.name, "{} and {}", again.name, hers.name);
    Ok(())
}

/// Nodes that read files, with the input that names one.
const LOADERS: [(&str, &str); 22] = [
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoadImageOutput", "image"),
    ("LoadImageSetNode", "images"),
    ("LoadImageSetFromFolderNode", "folder"),
    ("LoadImageTextSetFromFolderNode", "folder"),
    ("LoadLatent", "latent"),
    ("LoadVideo", "file"),
    ("LoadAudio", "audio"),
    ("RecordAudio", "audio"),
    ("WebcamCapture", "image"),
    ("Load3D", "model_file"),
    ("Load3D", "image"),
    ("GeminiInputFiles", "file"),
    ("OpenAIInputFiles", "file"),
    ("LoadImageDataSetFromFolder", "folder"),
    ("LoadImageTextDataSetFromFolder", "folder"),
    ("LoadTrainingDataset", "folder_name"),
    ("LoadVideoDataSetFromFolder", "folder"),
    ("LoadVideoTextDataSetFromFolder", "folder"),
    ("Load3DAdvanced", "model_file"),
    ("Painter", "mask"),
];

/// Graphs of bob's that name `path` in every node and form.
fn ways_to(path: &str) -> Vec<Value> {
    let forms = [
        json!(path),
        json!(format!("{path} [output]")),
        json!(format!("{path}[temp]")),
        json!({ "__value__": path }),
        json!({ "image": path, "mask": path, "normal": path, "recording": "" }),
        json!([path]),
    ];
    LOADERS
        .iter()
        .flat_map(|(class, input)| forms.iter().map(|form| load(class, input, form.clone())))
        .collect()
}

/// Names of files as people give them. Only what a node makes of a name decides.
const ODD_NAMES: [&str; 14] = [
    "mom's.png",
    "a [b].png",
    "100%.png",
    "%41.png",
    "ä (1).png",
    "a\u{308} (1).png",
    "it\"s.png",
    "'quoted'.png",
    " blanks .png",
    "wait...what.png",
    "x [input].png",
    "~draft.png",
    "12:30.png",
    "a+b & c=d #1 @2, {3}.png",
];

#[test]
fn r5_a_name_that_its_owner_could_upload_can_be_used() -> Result<()> {
    let (_guard, world) = together()?;
    let file = world
        .run(&world.bob, &picture("r5_odd", 77))?
        .picture("2")?;
    let bytes = world.get(&world.bob, &file.target())?.body;
    for name in ODD_NAMES {
        let quoted = name.replace('"', "\\\"");
        let uploaded = world.upload(&world.bob, &quoted, &bytes)?;
        ensure!(
            uploaded.status == 200 && uploaded.json()["name"] == name,
            "{name}: {}",
            uploaded.text()
        );
        for spelling in [name.to_owned(), format!("{name} [input]")] {
            let shown = world
                .run(&world.bob, &load("LoadImage", "image", spelling.as_str()))
                .with_context(|| spelling.clone())?;
            ensure!(shown.picture("2")?.kind == "temp", "{spelling}");
        }
    }
    Ok(())
}

#[test]
fn c8_a_class_that_comfyui_replaces_may_wait_for_its_turn() -> Result<()> {
    let (_guard, world) = alone()?;
    if !world.has_route("/node_replacements")? {
        not_there("c8", "/node_replacements");
        return Ok(());
    }
    let replaced = world.get(&world.bob, "/node_replacements")?.json();
    let class = "Preview3DAnimation";
    ensure!(
        replaced[class][0]["new_node_id"] == "Preview3D",
        "{replaced}"
    );
    ensure!(!world.has_node(class)?);
    let answer = |class: &str| -> Result<sentinel_tests::Answer> {
        let node = json!({"class_type": class, "inputs": {"model_file": "a.glb"}, "_meta": {"title": "x"}});
        world.post(&world.bob, "/prompt", &json!({ "prompt": { "1": node } }))
    };
    // The first unknown class has the list of nodes read again, which takes its time.
    ensure!(answer("Nowhere")?.status == 400);
    let running = world.queue(&world.bob, &json!({ "prompt": slow(3.0, "c8") }))?;
    let known = answer(class)?;
    let unknown = answer("Nowhere")?;
    let state = world
        .get(&world.bob, &format!("/history/{running}"))?
        .json();
    ensure!(
        state[&running].is_null(),
        "the job before them ended too soon"
    );
    ensure!(known.status == 200, "{}", known.text());
    ensure!(
        unknown.status == 400 && unknown.json()["error"]["type"] == "missing_node_type",
        "{}",
        unknown.text()
    );
    world.ended(&world.bob, &running)?;
    world.await_idle(&world.bob)
}

#[test]
fn r5_a_new_name_for_a_loader_is_no_way_around() -> Result<()> {
    let (_guard, world) = together()?;
    let class = "SentinelOldLoad";
    let replaced = world.get(&world.bob, "/node_replacements")?.json();
    if replaced[class].is_null() {
        not_there("r5", "a pack that replaces a loader");
        return Ok(());
    }
    let file = world
        .run(&world.bob, &picture("r5_old", 78))?
        .picture("2")?;
    let load = |name: Value| {
        json!({
            "1": {"class_type": class, "inputs": {"picture": name}, "_meta": {"title": "x"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        })
    };
    world.run(&world.bob, &load(json!(format!("{} [output]", file.name))))?;
    let other = format!("../../{}/output/{}", world.alice.id, file.name);
    for name in [
        json!(other),
        json!("/etc/passwd"),
        json!(["2", 0]),
        json!(["2", false]),
    ] {
        let answer = world.post(
            &world.bob,
            "/prompt",
            &json!({ "prompt": load(name.clone()) }),
        )?;
        ensure!(
            answer.status == 400 && answer.json()["error"]["type"] == "node_not_allowed",
            "{name}: {}",
            answer.text()
        );
    }
    Ok(())
}

#[test]
fn r5_r6_c8_load_nodes_read_ones_own_files_only() -> Result<()> {
    let (_guard, world) = together()?;
    let file = world
        .run(&world.alice, &picture("r5_alice", 5))?
        .picture("2")?;
    let path = world.folder(&world.alice).join("output").join(&file.name);
    ensure!(path.is_file(), "{}", path.display());
    let id = &world.alice.id;
    let folder = path.parent().context("a folder")?.display().to_string();
    let places = [
        path.display().to_string(),
        format!("../../{id}/output/{}", file.name),
        format!("sub/../../../{id}/output/{}", file.name),
        folder,
        format!("../../{id}/output"),
    ];
    for place in &places {
        for graph in ways_to(place) {
            let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": graph }))?;
            ensure!(
                answer.status == 400 && answer.json()["error"]["type"] == "node_not_allowed",
                "{graph}: {}",
                answer.text()
            );
        }
    }
    // FFmpeg would go where a playlist leads.
    let list = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{}\n",
        places[0]
    );
    ensure!(world.upload(&world.bob, "r5.m3u8", list.as_bytes())?.status == 200);
    for graph in ways_to("r5.m3u8") {
        let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": graph }))?;
        ensure!(
            answer.status == 400 && answer.json()["error"]["type"] == "node_not_allowed",
            "{graph}: {}",
            answer.text()
        );
    }
    // Over links, where no name stands in the loader.
    let linked = json!({
        "1": {"class_type": "PrimitiveString", "inputs": {"value": places[0]}},
        "2": {"class_type": "ComfySwitchNode", "inputs": {"switch": true, "on_true": ["1", 0], "on_false": ["1", 0]}},
        "3": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    });
    let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": linked }))?;
    ensure!(answer.status == 400, "{}", answer.text());
    // Python's booleans and floats number outputs as well.
    for (class, input) in LOADERS {
        for slot in [json!(0), json!(false), json!(0.0)] {
            let mut linked = linked.clone();
            linked["3"] = json!({"class_type": class, "inputs": {input: ["2", slot]}});
            let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": linked }))?;
            ensure!(
                answer.status == 400 && answer.json()["error"]["type"] == "node_not_allowed",
                "{class} {slot}: {}",
                answer.text()
            );
        }
    }
    // A plain name works, for whoever has the file.
    let bytes = world.get(&world.alice, &file.target())?.body;
    ensure!(world.upload(&world.alice, "r5_own.png", &bytes)?.status == 200);
    world.run(&world.alice, &load("LoadImage", "image", "r5_own.png"))?;
    let missing = json!({ "prompt": load("LoadImage", "image", "r5_own.png") });
    ensure!(world.post(&world.bob, "/prompt", &missing)?.status == 400);
    // The way before the gateway: the engine itself takes any path, and the operating system, where
    // it can, does not.
    let direct = Ask::post("/prompt")
        .json(&json!({ "prompt": load("LoadImage", "image", places[0].as_str()) }))
        .send(world.direct(&world.bob)?)?;
    let loaded = match direct.json()["prompt_id"].as_str() {
        Some(id) => world.succeeds_in_engine(&world.bob, id)?,
        None => false,
    };
    ensure!(
        !(loaded && world.holds_files(&world.bob)?),
        "{}",
        world.engine(&world.bob)?["sandbox"]
    );
    if loaded {
        tell("r5: no help of the operating system here; the gateway alone keeps paths off");
    }
    Ok(())
}

#[test]
fn r6_c8_a_folder_given_over_links_is_refused_to_users_and_not_to_admins() -> Result<()> {
    let (_guard, world) = together()?;
    if !world.has_node("LoadImageDataSetFromFolder")? {
        not_there("r6", "LoadImageDataSetFromFolder");
        return Ok(());
    }
    let picture = world
        .run(&world.owner, &picture("r6_owner", 6))?
        .picture("2")?;
    let bytes = world.get(&world.owner, &picture.target())?.body;
    let form = Form::default()
        .file("image", "r6.png", &bytes)
        .text("subfolder", "r6_set");
    let uploaded = world.ask(&form.post("/upload/image").bearer(&world.owner.token))?;
    ensure!(uploaded.status == 200, "{}", uploaded.text());
    let folder = world.folder_of_owner("input").join("r6_set");
    let graph = json!({
        "1": {"class_type": "PrimitiveString", "inputs": {"value": folder.display().to_string()}},
        "2": {"class_type": "ComfySwitchNode", "inputs": {"switch": true, "on_true": ["1", 0], "on_false": ["1", 0]}},
        "3": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    });
    world.run(&world.owner, &graph)?;
    let answer = world.post(&world.bob, "/prompt", &json!({ "prompt": graph }))?;
    ensure!(
        answer.status == 400 && answer.json()["error"]["type"] == "node_not_allowed",
        "{}",
        answer.text()
    );
    Ok(())
}

#[test]
fn r7_a_model_s_preview_shows_no_picture_from_elsewhere() -> Result<()> {
    let (_guard, world) = together()?;
    let png = fs::canonicalize(world.folder(&world.alice))?.join("output/a.png");
    let path = png.display().to_string().replace('/', "%2F");
    for name in [
        path.as_str(),
        "a%2F..%2F..%2Fb.png",
        r"C:%5Ca.png",
        "%5C%5Chost%5Ca.png",
    ] {
        let target = format!("/experiment/models/preview/checkpoints/0/{name}");
        let refused = world.get(&world.bob, &target)?;
        let (status, code) = (refused.status, refused.code());
        ensure!(
            status == 403 && code == "admin_required",
            "{name}: {status} {code}"
        );
    }
    Ok(())
}

#[test]
fn r7_c7_a_mask_does_not_copy_the_picture_of_another() -> Result<()> {
    let (_guard, world) = together()?;
    let note = "r7-note-of-alice";
    let job = world.attempt(&world.alice, &with_note(&picture("r7_alice", 77), note))?;
    let file = job.picture("2")?;
    let png = world
        .get(
            &world.alice,
            &world
                .run(&world.alice, &preview(78))?
                .picture("2")?
                .target(),
        )?
        .body;
    let mask = |user: &User, name: &str, reference: &Value| {
        let form = Form::default()
            .file("image", name, &png)
            .text("original_ref", &reference.to_string());
        world.ask(&form.post("/upload/mask").bearer(&user.token))
    };
    let id = &world.alice.id;
    let path = world.folder(&world.alice).join("output").join(&file.name);
    let references = [
        json!({"filename": file.name}),
        json!({"filename": file.name, "type": "output", "subfolder": ""}),
        json!({"filename": format!("{} [output]", file.name)}),
        json!({"filename": file.name, "subfolder": format!("../../{id}/output")}),
        json!({"filename": format!("../../{id}/output/{}", file.name)}),
        json!({"filename": path.display().to_string()}),
        json!({"filename": file.name, "subfolder": path.parent().map(|folder| folder.display().to_string())}),
    ];
    for (number, reference) in references.iter().enumerate() {
        let name = format!("r7_{number}.png");
        mask(&world.bob, &name, reference)?;
        for kind in ["input", "output"] {
            let target = format!("/view?filename={name}&type={kind}&subfolder=");
            let copied = world.get(&world.bob, &target)?;
            ensure!(!holds(&copied.body, note), "{reference}");
        }
    }
    // Where such a name leads away, ComfyUI does not refuse it itself. Drives are there on Windows alone.
    let drives = [r"C:\pictures\a.png", "c:a.png"].into_iter();
    let away = [r"\\host\share\a.png", "/pictures/a.png"];
    for away in drives.filter(|_| cfg!(windows)).chain(away) {
        let refused = mask(&world.bob, "r7_away.png", &json!({"filename": away}))?;
        let (status, code) = (refused.status, refused.code());
        ensure!(
            status == 403 && code == "foreign_file",
            "{away}: {status} {code}"
        );
    }
    ensure!(mask(&world.alice, "r7_own.png", &references[0])?.status == 200);
    let own = world.get(
        &world.alice,
        "/view?filename=r7_own.png&type=input&subfolder=",
    )?;
    ensure!(
        own.status == 200 && holds(&own.body, note),
        "{}",
        own.status
    );
    Ok(())
}

#[test]
fn r8_w9_c10_s32_the_user_header_of_comfyui_opens_and_changes_nothing() -> Result<()> {
    let (_guard, world) = together()?;
    let file = "/userdata/workflows%2Fr8.json";
    let secret = json!({"note": "r8-secret-of-alice"});
    ensure!(world.post(&world.alice, file, &secret)?.status == 200);
    let setting = json!("r8-setting-of-alice");
    ensure!(
        world
            .post(&world.alice, "/settings/r8.setting", &setting)?
            .status
            == 200
    );
    for claimed in [
        world.alice.id.as_str(),
        "default",
        "alice",
        "",
        "../default",
    ] {
        for target in [
            file,
            "/api/userdata/workflows%2Fr8.json",
            "/settings",
            "/settings/r8.setting",
            "/userdata?dir=workflows&recurse=true",
            "/v2/userdata?path=workflows",
            "/users",
        ] {
            let answer = world.ask(
                &Ask::get(target)
                    .bearer(&world.bob.token)
                    .header("comfy-user", claimed),
            )?;
            for secret in ["r8-se", "r8.json", &world.alice.id] {
                ensure!(
                    !holds(&answer.body, secret),
                    "{claimed} {target}: {}",
                    answer.text()
                );
            }
        }
        let as_alice =
            |ask: Ask| world.ask(&ask.bearer(&world.bob.token).header("comfy-user", claimed));
        let body = json!({"note": "bob was here"});
        as_alice(Ask::post(&format!("{file}?overwrite=true")).json(&body))?;
        as_alice(Ask::post("/settings/r8.setting").json(&body))?;
        as_alice(Ask::post(&format!(
            "{file}/move/workflows%2Fr8_moved.json?overwrite=true"
        )))?;
        as_alice(Ask::new("DELETE", file))?;
        as_alice(Ask::new("DELETE", "/userdata/workflows%2Fr8_moved.json"))?;
    }
    ensure!(world.get(&world.alice, file)?.json() == secret);
    ensure!(world.get(&world.alice, "/settings/r8.setting")?.json() == setting);
    Ok(())
}

#[test]
fn r9_w10_assets_of_another_are_not_seen_and_not_changed() -> Result<()> {
    let (_guard, world) = together()?;
    if !world.has_route("/api/assets")? {
        not_there("r9", "/api/assets");
        return Ok(());
    }
    let file = world
        .run(&world.alice, &picture("r9_alice", 9))?
        .picture("2")?;
    let seed = json!({"roots": ["output"]});
    ensure!(
        world.post(&world.alice, "/api/assets/seed", &seed)?.status != 403,
        "each user has an engine of their own"
    );
    // Before the gateway it fills the list, without owners.
    for user in [&world.alice, &world.bob] {
        let seeded = Ask::post("/api/assets/seed?wait=true")
            .json(&seed)
            .send(world.direct(user)?)?;
        ensure!(seeded.status == 200, "{}", seeded.text());
    }
    let list = "/api/assets?limit=500&name_contains=r9_alice";
    let own = world.get(&world.alice, list)?.json();
    let row = &own["assets"][0];
    ensure!(row["name"] == file.name, "{own}");
    let id = row["id"].as_str().context("an id")?;
    for target in [
        list.to_owned(),
        "/api/assets?limit=500".to_owned(),
        format!("/api/assets/{id}/content"),
        "/api/tags?limit=1000".to_owned(),
        format!(
            "/view?filename={}",
            row["asset_hash"].as_str().unwrap_or("blake3:0")
        ),
    ] {
        not_seen(world, &world.bob, &[target], &[&file.name, "PNG"])?;
    }
    ensure!(world.get(&world.bob, &format!("/api/assets/{id}"))?.status == 404);
    let one = format!("/api/assets/{id}");
    let tags = format!("{one}/tags");
    for (method, target, body) in [
        ("PUT", &one, json!({"name": "bob's now"})),
        ("POST", &tags, json!({"tags": ["bob"]})),
        ("DELETE", &tags, json!({"tags": ["output"]})),
        ("DELETE", &one, json!({})),
    ] {
        let answer = world.send(&world.bob, method, target, &body)?;
        ensure!(answer.status >= 400, "{method} {target}: {}", answer.status);
    }
    if let Some(hash) = row["asset_hash"].as_str() {
        let target = format!("/api/assets/hash/{hash}");
        let head = world.ask(&Ask::new("HEAD", &target).bearer(&world.bob.token))?;
        ensure!(head.status == 404, "{}", head.status);
        let body = json!({"hash": hash, "name": "mine", "tags": ["input"]});
        let taken = world.post(&world.bob, "/api/assets/from-hash", &body)?;
        ensure!(taken.status >= 400, "{}", taken.text());
    }
    let after = world.get(&world.alice, &one)?.json();
    ensure!(after["name"] == file.name, "{after}");
    ensure!(world.get(&world.alice, &format!("{one}/content"))?.status == 200);
    ensure!(world.get(&world.alice, &file.target())?.status == 200);
    Ok(())
}

#[test]
fn r10_r11_choices_and_answers_do_not_tell_what_another_has() -> Result<()> {
    let (_guard, world) = together()?;
    let png = world
        .get(
            &world.alice,
            &world
                .run(&world.alice, &preview(10))?
                .picture("2")?
                .target(),
        )?
        .body;
    ensure!(world.upload(&world.alice, "r10_alice.png", &png)?.status == 200);
    let form = Form::default()
        .file("image", "r10_below.png", &png)
        .text("subfolder", "r10_folder_of_alice");
    world.ask(&form.post("/upload/image").bearer(&world.alice.token))?;
    let classes = [
        "LoadImage",
        "LoadImageMask",
        "LoadImageDataSetFromFolder",
        "Load3D",
    ];
    for class in classes {
        let target = format!("/object_info/{class}");
        not_seen(
            world,
            &world.bob,
            &[target],
            &["r10_", &world.alice.id, &world.owner.id],
        )?;
    }
    let own = world.get(&world.alice, "/object_info/LoadImage")?;
    ensure!(holds(&own.body, "r10_alice.png"), "{}", own.text());
    not_seen(world, &world.bob, &["/object_info".to_owned()], &["r10_"])?;

    let load = |user: &User, name: &str| -> Result<(u16, String)> {
        let body = json!({ "prompt": load("LoadImage", "image", name) });
        let answer = world.post(user, "/prompt", &body)?;
        Ok((answer.status, answer.text().replace(name, "")))
    };
    ensure!(load(&world.alice, "r10_alice.png")?.0 == 200);
    let hers = load(&world.bob, "r10_alice.png")?;
    let nobodys = load(&world.bob, "r10_nobody.png")?;
    ensure!(hers == nobodys && hers.0 == 400, "{hers:?} {nobodys:?}");
    ensure!(!hers.1.contains("r10_folder"), "{}", hers.1);
    let head = |user: &User| {
        let target = "/view?filename=r10_alice.png&type=input";
        Ok::<_, anyhow::Error>(
            world
                .ask(&Ask::new("HEAD", target).bearer(&user.token))?
                .status,
        )
    };
    ensure!(head(&world.alice)? == 200 && head(&world.bob)? == 404);
    let again = |user: &User, bytes: &[u8]| {
        Ok::<_, anyhow::Error>(world.upload(user, "r10_alice.png", bytes)?.json()["name"].clone())
    };
    let mut other = png;
    other.extend_from_slice(b"more");
    ensure!(again(&world.alice, &other)? == "r10_alice (1).png");
    ensure!(again(&world.bob, &other)? == "r10_alice.png");
    for color in [1, 2] {
        world.run(&world.alice, &picture("r11_counter", color))?;
    }
    let first = world
        .run(&world.bob, &picture("r11_counter", 3))?
        .picture("2")?;
    ensure!(first.name == "r11_counter_00001_.png", "{first:?}");
    Ok(())
}

#[test]
fn r12_r13_c9_logs_and_error_texts_tell_of_oneself_only() -> Result<()> {
    let (_guard, world) = together()?;
    let bad = json!({ "prompt": load("LoadImage", "image", "r12_name_of_alice.png") });
    // Refused at once, or later if the GPU is busy at this moment.
    let answer = world.post(&world.alice, "/prompt", &bad)?;
    if answer.status == 200 {
        let id = answer.json()["prompt_id"].as_str().map(str::to_owned);
        let id = id.context("an id")?;
        ensure!(!world.ended(&world.alice, &id)?.succeeded());
    } else {
        ensure!(answer.status == 400, "{}", answer.text());
    }
    let failing = json!({ "prompt": probe(0.1, "r12-input-of-alice", "none", true) });
    let failed = world.attempt(&world.alice, &failing)?;
    ensure!(!failed.succeeded());
    let texts = ["r12_name_of_alice", "r12-input-of-alice", &world.alice.id];
    let targets = ["/internal/logs", "/internal/logs/raw", "/%69nternal/logs"].map(str::to_owned);
    not_seen(world, &world.bob, &targets, &texts)?;
    let own = world.get(&world.alice, "/internal/logs/raw")?;
    ensure!(holds(&own.body, "r12_name_of_alice"), "{}", own.text());
    // Errors of his own name places of his own alone.
    let out = json!({ "prompt": picture("../../r13/x", 1) });
    let job = world.attempt(&world.bob, &out)?;
    ensure!(!job.succeeded(), "{}", job.entry);
    let failed = world.attempt(&world.bob, &failing)?;
    for job in [&job, &failed] {
        let text = job.entry.to_string();
        for stranger in [&world.alice, &world.owner] {
            ensure!(!text.contains(&stranger.id), "{text}");
        }
    }
    ensure!(failed.entry.to_string().contains("on purpose"));
    let admins = world.gateway.ask(
        &Ask::get(&format!("/sentinel/api/engines/{}/log", world.alice.id))
            .bearer(&world.bob.token),
    )?;
    ensure!(admins.status == 403, "{}", admins.text());
    Ok(())
}

#[test]
fn r16_counts_tell_nothing_of_others() -> Result<()> {
    let (_guard, world) = alone()?;
    let remaining = |user: &User| -> Result<u64> {
        world.get(user, "/prompt")?.json()["exec_info"]["queue_remaining"]
            .as_u64()
            .context("a count")
    };
    for _ in 0..2 {
        world.queue(&world.alice, &json!({ "prompt": slow(1.0, "r16") }))?;
    }
    ensure!(remaining(&world.alice)? > 0);
    ensure!(remaining(&world.bob)? == 0);
    ensure!(world.get(&world.bob, "/queue")?.json()["queue_running"] == json!([]));
    world.await_idle(&world.alice)
}

#[test]
fn r17_what_one_saves_as_a_model_is_no_choice_of_others() -> Result<()> {
    let (_guard, world) = together()?;
    // Header of a model file whose metadata is a prompt, as ComfyUI writes it.
    let header = r#"{"__metadata__":{"prompt":"r17-prompt-of-alice"}}"#;
    let mut bytes = u64::try_from(header.len())?.to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let form = Form::default()
        .file("image", "r17_alice.safetensors", &bytes)
        .text("type", "output")
        .text("subfolder", "loras");
    let sent = world.ask(&form.post("/upload/image").bearer(&world.alice.token))?;
    ensure!(sent.status == 200, "{}", sent.text());
    let lists = [
        "/models/loras",
        "/api/models/loras",
        "/experiment/models/loras",
    ];
    let metadata = "/view_metadata/loras?filename=r17_alice.safetensors";
    ensure!(holds(&world.get(&world.alice, lists[0])?.body, "r17_alice"));
    ensure!(holds(
        &world.get(&world.alice, metadata)?.body,
        "r17-prompt"
    ));
    for by in [&world.bob, &world.owner] {
        let targets: Vec<String> = lists.iter().map(|list| (*list).to_owned()).collect();
        not_seen(world, by, &targets, &["r17_alice"])?;
        not_seen(world, by, &[metadata.to_owned()], &["r17-prompt"])?;
    }
    Ok(())
}

#[test]
fn r18_no_browser_and_no_proxy_keeps_what_is_personal() -> Result<()> {
    let (_guard, world) = together()?;
    let file = world.run(&world.alice, &picture("r18", 18))?.picture("2")?;
    let png = world.get(&world.alice, &file.target())?.body;
    let userdata = "/api/userdata/r18.png";
    let stored = Ask::post(userdata)
        .bearer(&world.alice.token)
        .body("application/octet-stream", png);
    ensure!(world.ask(&stored)?.status == 200);
    let targets = [
        file.target(),
        userdata.to_owned(),
        "/history".to_owned(),
        "/queue".to_owned(),
        "/object_info/LoadImage".to_owned(),
        "/api/settings".to_owned(),
        "/internal/files/output".to_owned(),
    ];
    for target in &targets {
        let answer = world.get(&world.alice, target)?;
        ensure!(answer.status == 200, "{target}: {}", answer.status);
        let said = answer.header("cache-control").unwrap_or_default();
        ensure!(said.contains("no-store"), "{target}: {said:?}");
        ensure!(!said.contains("public"), "{target}: {said:?}");
        let refused = world.get(&world.bob, &file.target())?;
        let said = refused.header("cache-control").unwrap_or_default();
        ensure!(said.contains("no-store"), "a refusal: {said:?}");
    }
    let bare = Ask::get(userdata).send(world.direct(&world.alice)?)?;
    let said = bare.header("cache-control").unwrap_or_default();
    ensure!(said.contains("public"), "before the gateway: {said:?}");
    Ok(())
}

#[test]
fn r19_c13_what_an_engine_tells_of_the_machine_names_no_other_user() -> Result<()> {
    let (_guard, world) = together()?;
    let targets = [
        "/system_stats",
        "/experiment/models",
        "/object_info/LoadImage",
        "/features",
    ];
    for target in targets {
        let answer = world.get(&world.bob, target)?;
        ensure!(answer.status == 200, "{target}: {}", answer.status);
        not_seen(
            world,
            &world.bob,
            &[target.to_owned()],
            &[&world.alice.id, &world.owner.id],
        )?;
    }
    let own = Ask::get("/internal/folder_paths").send(world.direct(&world.alice)?)?;
    ensure!(holds(&own.body, &world.alice.id), "{}", own.text());
    for target in ["/internal/folder_paths", "/%69nternal/folder_paths"] {
        let refused = world.get(&world.alice, target)?;
        ensure!(refused.status == 403, "{target}: {}", refused.status);
    }
    Ok(())
}

#[test]
fn s26_s27_u15_ones_own_queue_and_history_are_whole() -> Result<()> {
    let (_guard, world) = alone()?;
    for color in 0..6 {
        world.run(&world.bob, &picture("s27_bob", color))?;
    }
    let own = world.run(&world.alice, &picture("s27_alice", 27))?;
    ensure!(own.entry["status"]["completed"] == true, "{}", own.entry);
    let page = world.get(&world.alice, "/history?max_items=1")?.json();
    ensure!(page.get(&own.id).is_some(), "{page}");
    let offset = world
        .get(&world.alice, "/history?max_items=2&offset=0")?
        .json();
    ensure!(offset.as_object().is_some_and(|page| page.len() <= 2));
    world.queue(&world.alice, &json!({ "prompt": slow(1.0, "s26-first") }))?;
    let doomed = world.queue(&world.alice, &json!({ "prompt": slow(1.0, "s26-second") }))?;
    let deleted = world.post(&world.alice, "/queue", &json!({ "delete": [doomed] }))?;
    ensure!(deleted.status == 200, "{}", deleted.text());
    ensure!(!holds(&world.get(&world.alice, "/queue")?.body, &doomed));
    world.await_idle(&world.alice)?;
    ensure!(
        world
            .get(&world.alice, &format!("/history/{doomed}"))?
            .json()
            == json!({})
    );
    Ok(())
}

#[test]
fn u16_keys_of_the_comfy_account_are_nobody_elses() -> Result<()> {
    let (_guard, world) = together()?;
    let key = "u16-key-of-alice";
    let mut body = with_note(&picture("u16", 16), "u16");
    body["extra_data"]["api_key_comfy_org"] = json!(key);
    body["extra_data"]["auth_token_comfy_org"] = json!(key);
    let job = world.attempt(&world.alice, &body)?;
    ensure!(job.succeeded());
    let targets = LISTS.map(|target| target.replace("{id}", &job.id));
    not_seen(world, &world.bob, &targets, &[key])?;
    not_seen(world, &world.owner, &targets, &[key])?;
    let own = world.get(&world.alice, &format!("/history/{}", job.id))?;
    if holds(&own.body, key) {
        tell("u16: this version keeps alice's key in her own history, and shows it to nobody else");
    }
    let log = world.gateway.console();
    ensure!(!log.contains(key));
    for file in fs::read_dir(world.gateway.data.path().join("logs"))? {
        let path = file?.path();
        ensure!(!holds(&fs::read(&path)?, key), "{}", path.display());
    }
    Ok(())
}
