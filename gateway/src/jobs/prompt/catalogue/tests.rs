use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::path::{Path, PathBuf};

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/contract/transcripts")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn parse(told: &Value) -> Catalogue {
    Catalogue::parse(told.to_string().as_bytes()).unwrap()
}

fn prompt(graph: &Value) -> Prompt<'static> {
    let body = json!({ "prompt": graph }).to_string();
    Prompt::parse(body.as_bytes()).unwrap().into_owned()
}

/// All that a version was recorded to tell about its nodes, and some that were not asked for.
fn recorded(version: &str) -> Catalogue {
    let is_new = version != "0.3.64";
    let mut told = serde_json::Map::new();
    for exchange in read(&transcripts().join(version).join("01-info-and-static.json"))["exchanges"]
        .as_array()
        .unwrap()
    {
        let path = exchange["request"]["path"].as_str().unwrap_or_default();
        if path.contains("/object_info") && exchange["response"]["status"] == 200 {
            for (name, class) in exchange["response"]["body"]
                .as_object()
                .into_iter()
                .flatten()
            {
                told.insert(name.clone(), class.clone());
            }
        }
    }
    assert!(told.len() > 5, "{version}");
    let mut add = |name: &str, input: Value, output: Value, is_output: bool, module: &str| {
        let mut class = json!({
            "input": input, "output": output, "output_node": is_output, "python_module": module,
        });
        if is_new {
            class["is_input_list"] = false.into();
        }
        told.entry(name).or_insert(class);
    };
    add(
        "EmptyImage",
        json!({"required": {
            "width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            "color": ["INT", {"default": 0, "min": 0, "max": 16_777_215, "step": 1, "display": "color"}],
        }}),
        json!(["IMAGE"]),
        false,
        "nodes",
    );
    add(
        "SlowProbe",
        json!({"required": {
            "seconds": ["FLOAT", {"default": 1.0, "min": 0.0}],
            "steps": ["INT", {"default": 1}],
            "preview": [["none", "jpeg"]],
            "tag": ["STRING", {"default": ""}],
            "fail": ["BOOLEAN", {"default": false}],
        }}),
        json!(["IMAGE"]),
        false,
        "custom_nodes.probe",
    );
    parse(&Value::Object(told))
}

/// The prompts of all recordings that a version answered to, with note, status and answer.
fn recorded_prompts(version: &str) -> Vec<(String, Prompt<'static>, u64, Value)> {
    let mut prompts = Vec::new();
    for file in std::fs::read_dir(transcripts().join(version)).unwrap() {
        let transcript = read(&file.unwrap().path());
        for exchange in transcript["exchanges"].as_array().into_iter().flatten() {
            let request = &exchange["request"];
            let is_prompt = request["method"] == "POST"
                && request["path"]
                    .as_str()
                    .is_some_and(|path| path.ends_with("/prompt"));
            if !is_prompt || request["body"].get("binary_len").is_some() {
                continue;
            }
            let body = request["body"].to_string();
            let Ok(prompt) = Prompt::parse(body.as_bytes()) else {
                continue;
            };
            prompts.push((
                exchange["note"].as_str().unwrap_or_default().to_owned(),
                prompt.into_owned(),
                exchange["response"]["status"].as_u64().unwrap(),
                exchange["response"]["body"].clone(),
            ));
        }
    }
    prompts
}

#[test]
fn recorded_prompts_are_judged_as_comfyui_judged_them() {
    for version in ["0.3.64", "0.12.1"] {
        let catalogue = recorded(version);
        let (mut taken, mut refused) = (0, 0);
        for (note, prompt, status, answer) in recorded_prompts(version) {
            let known = |node: &crate::jobs::prompt::Node<'_>| {
                let class = node.class_type.as_ref();
                catalogue.classes.contains_key(class) || class.is_empty() || class == "Nope"
            };
            if !prompt.nodes.iter().all(known) {
                continue;
            }
            let said = catalogue.check(&prompt, None);
            // What only ComfyUI sees.
            let is_own_check = answer.to_string().contains("custom_validation_failed");
            if status == 200 || is_own_check {
                assert!(said.is_ok(), "{version} {note}: {said:?}");
                taken += 1;
            } else if status == 400 {
                let refusal = said.expect_err(&note);
                assert_eq!(refusal.body(), answer, "{version} {note}");
                refused += 1;
            }
        }
        assert!(taken >= 8 && refused >= 6, "{version}: {taken} {refused}");
    }
}

/// A few classes of ComfyUI and one of somebody else.
fn small() -> Value {
    let class = |input: Value, output: Value, is_output: bool, module: &str| {
        json!({
            "input": input, "output": output, "output_node": is_output, "python_module": module,
            "is_input_list": false,
        })
    };
    json!({
        "Image": class(json!({"required": {
            "width": ["INT", {"default": 512, "min": 16, "max": 4096, "tooltip": "w"}],
            "scale": ["FLOAT", {"min": 0.0, "max": 10.5}],
        }, "optional": { "method": [["area", "it's"], {}], "model_name": [["a.safetensors"]] }}),
            json!(["IMAGE", "MASK"]), false, "nodes"),
        "Text": class(json!({}), json!(["STRING"]), false, "nodes"),
        "Any": class(json!({"required": {"value": ["*"]}}), json!(["*"]), false, "comfy_extras.nodes_any"),
        "New": class(json!({"required": {
            "image": ["IMAGE,MASK"],
            "mode": ["COMBO", {"options": ["one", "two"], "tooltip": "m"}],
            "grown": ["COMFY_AUTOGROW_V3", {}],
            "same": ["COMFY_MATCHTYPE_V3", {}],
        }}), json!(["IMAGE"]), true, "comfy_extras.nodes_new"),
        "Foreign": class(json!({"required": {
            "image": ["IMAGE"], "level": ["INT", {"min": 0, "max": 9}], "mode": [["a", "b"]],
        }}), json!(["THING"]), true, "custom_nodes.foreign"),
        "LoadImage": class(json!({"required": {"image": [["a.png"], {"image_upload": true}]}}),
            json!(["IMAGE", "MASK"]), false, "nodes"),
        "Save": class(json!({"required": {"images": ["IMAGE"]}, "hidden": {"prompt": "PROMPT"}}),
            json!([]), true, "nodes"),
    })
}

fn image(width: i32) -> Value {
    json!({"class_type": "Image", "inputs": {"width": width, "scale": 1}})
}

fn save(from: &Value) -> Value {
    json!({"class_type": "Save", "inputs": {"images": from}})
}

#[test]
fn what_comfyui_would_refuse() {
    let catalogue = parse(&small());
    let size = json!(["INT", {"default": 512, "min": 16, "max": 4096, "tooltip": "w"}]);
    let wrong = |input: &str, value: Value| {
        let mut node = image(64);
        node["inputs"][input] = value;
        json!({"1": node, "2": save(&json!(["1", 0]))})
    };
    let table = [
        (
            wrong("width", json!(8)),
            "1",
            json!({"type": "value_smaller_than_min", "message": "Value 8 smaller than min of 16", "details": "width",
                "extra_info": {"input_name": "width", "input_config": size, "received_value": 8}}),
        ),
        (
            wrong("width", json!("5000")),
            "1",
            json!({"type": "value_bigger_than_max", "message": "Value 5000 bigger than max of 4096", "details": "width",
                "extra_info": {"input_name": "width", "input_config": size, "received_value": 5000}}),
        ),
        (
            wrong("scale", json!(11)),
            "1",
            json!({"type": "value_bigger_than_max", "message": "Value 11.0 bigger than max of 10.5", "details": "scale",
                "extra_info": {"input_name": "scale", "input_config": ["FLOAT", {"min": 0.0, "max": 10.5}], "received_value": 11.0}}),
        ),
        (
            wrong("width", json!("wide")),
            "1",
            json!({"type": "invalid_input_type", "message": "Failed to convert an input value to a INT value",
                "details": "width, wide, invalid literal for int() with base 10: 'wide'",
                "extra_info": {"input_name": "width", "input_config": size, "received_value": "wide",
                    "exception_message": "invalid literal for int() with base 10: 'wide'"}}),
        ),
        (
            wrong("method", json!("none")),
            "1",
            json!({"type": "value_not_in_list", "message": "Value not in list", "details": "method: 'none' not in ['area', \"it's\"]",
                "extra_info": {"input_name": "method", "input_config": [["area", "it's"], {}], "received_value": "none"}}),
        ),
        (
            wrong("width", json!(["1"])),
            "1",
            json!({"type": "bad_linked_input", "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]", "details": "width",
                "extra_info": {"input_name": "width", "input_config": size, "received_value": ["1"]}}),
        ),
        (
            json!({"1": {"class_type": "Text", "inputs": {}}, "2": save(&json!(["1", 0]))}),
            "2",
            json!({"type": "return_type_mismatch", "message": "Return type mismatch between linked nodes",
                "details": "images, received_type(STRING) mismatch input_type(IMAGE)",
                "extra_info": {"input_name": "images", "input_config": ["IMAGE", {}], "received_type": "STRING", "linked_node": ["1", 0]}}),
        ),
        (
            json!({"2": save(&json!(["7", 0]))}),
            "2",
            json!({"type": "exception_during_validation", "message": "Exception when validating node", "details": "'7'",
                "extra_info": {"exception_type": "KeyError", "traceback": []}}),
        ),
        (
            json!({"1": {"class_type": "Any", "inputs": {"value": ["7", 0]}}, "2": save(&json!(["1", 0]))}),
            "1",
            json!({"type": "exception_during_inner_validation", "message": "Exception when validating inner node", "details": "'7'",
                "extra_info": {"input_name": "images", "input_config": ["IMAGE", {}], "exception_message": "'7'",
                    "exception_type": "KeyError", "traceback": [], "linked_node": ["1", 0]}}),
        ),
        (
            json!({"1": image(64), "2": save(&json!(["1", 2]))}),
            "2",
            json!({"type": "exception_during_validation", "message": "Exception when validating node", "details": "tuple index out of range",
                "extra_info": {"exception_type": "IndexError", "traceback": []}}),
        ),
        (
            json!({"1": image(64), "2": {"class_type": "New", "inputs": {"image": ["1", 0], "mode": "three", "same": 1}}}),
            "2",
            json!({"type": "value_not_in_list", "message": "Value not in list", "details": "mode: 'three' not in ['one', 'two']",
                "extra_info": {"input_name": "mode", "input_config": ["COMBO", {"options": ["one", "two"], "tooltip": "m"}], "received_value": "three"}}),
        ),
    ];
    for (graph, node, expected) in table {
        let body = catalogue
            .check(&prompt(&graph), None)
            .expect_err(&graph.to_string())
            .body();
        assert_eq!(body["error"]["type"], "prompt_outputs_failed_validation");
        let entry = &body["node_errors"][node];
        assert_eq!(entry["errors"], json!([expected]), "{graph}");
        assert_eq!(entry["dependent_outputs"], json!(["2"]), "{graph}");
        assert_eq!(entry["class_type"], graph[node]["class_type"], "{graph}");
        assert_eq!(body["node_errors"].as_object().unwrap().len(), 1, "{graph}");
    }
}

#[test]
fn what_is_not_certain_passes() {
    let mut told = small();
    told["Image"]["input"]["optional"]["odd"] = json!([{"a": 1}]);
    told["Image"]["input"]["optional"]["empty"] = json!([[]]);
    told["Image"]["input"]["optional"]["numbers"] = json!([[1, 2]]);
    let catalogue = parse(&told);
    let with = |input: &str, value: Value| {
        let mut node = image(64);
        node["inputs"][input] = value;
        json!({"1": node, "2": save(&json!(["1", 0]))})
    };
    let new = |inputs: Value| json!({"1": image(64), "2": {"class_type": "New", "inputs": inputs}});
    let foreign =
        |inputs: Value| json!({"1": image(64), "2": {"class_type": "Foreign", "inputs": inputs}});
    for graph in [
        with("width", json!(16)),
        with("width", json!(" 4096 ")),
        with("width", json!(4096.9)),
        with("width", json!("1_024")),
        with("width", json!({"__value__": 64})),
        with("scale", json!(true)),
        with("scale", json!("nan")),
        with("odd", json!(7)),
        with("empty", json!("whatever")),
        with("numbers", json!(1.0)),
        with("numbers", json!(true)),
        with("method", json!({"__value__": ["area"]})),
        with("model_name", json!("added-since.safetensors")),
        with("model_name", json!("directory")),
        with("unknown", json!([1, 2, 3])),
        json!({"1": {"class_type": "Any", "inputs": {"value": 1}}, "2": save(&json!(["1", 0]))}),
        json!({"1": {"class_type": "Foreign", "inputs": {"image": ["3", 0], "level": 1, "mode": "a"}},
            "2": save(&json!(["1", 5])), "3": image(64)}),
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "new.png"}}, "2": save(&json!(["1", 0]))}),
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "new.png"}}, "2": save(&json!(["1", -2]))}),
        new(json!({"image": ["1", 1], "mode": "two", "same": ["1", 0]})),
        new(
            json!({"image": ["1", 0], "mode": "one", "same": 5, "grown.1": ["9", 0], "grown": ["9", 9, 9]}),
        ),
        foreign(json!({"image": ["1", 1], "level": 10, "mode": "c"})),
    ] {
        let said = catalogue.check(&prompt(&graph), None);
        assert!(
            said.as_ref()
                .is_ok_and(|accepted| accepted.outputs.contains(&"2".to_owned())),
            "{graph}: {said:?}"
        );
    }
    let knows_nothing = Catalogue::default();
    assert_eq!(
        knows_nothing.check(&prompt(&json!({"1": {"class_type": "Nope"}})), None),
        Ok(Accepted::unchecked())
    );
}

#[test]
fn good_outputs_run_and_the_others_are_told() {
    let catalogue = parse(&small());
    let graph = prompt(&json!({
        "1": image(64), "2": save(&json!(["1", 0])), "3": image(1),
        "4": save(&json!(["3", 0])), "5": save(&json!(["3", 0])),
    }));
    let accepted = catalogue.check(&graph, None).unwrap();
    assert_eq!(accepted.outputs, ["2"]);
    assert_eq!(
        accepted.node_errors["3"]["dependent_outputs"],
        json!(["4", "5"])
    );
    let targets = ["2".to_owned(), "1".to_owned(), "nobody".to_owned()];
    let accepted = catalogue.check(&graph, Some(&targets)).unwrap();
    assert_eq!(
        accepted,
        Accepted {
            outputs: vec!["2".to_owned()],
            node_errors: json!({})
        }
    );
    let refusal = catalogue
        .check(&graph, Some(&["1".to_owned()]))
        .unwrap_err();
    assert_eq!(refusal.body()["error"]["type"], "prompt_no_outputs");
    assert!(catalogue.check(&graph, Some(&["4".to_owned()])).is_err());
}

#[test]
fn circles_and_long_chains_end() {
    let catalogue = parse(&small());
    let any = |from: &str| json!({"class_type": "Any", "inputs": {"value": [from, 0]}});
    let circle = json!({"1": any("2"), "2": any("1"), "3": save(&json!(["1", 0]))});
    assert!(catalogue.check(&prompt(&circle), None).is_err());
    let mut chain = serde_json::Map::new();
    chain.insert("0".to_owned(), image(64));
    for place in 1..20_000 {
        chain.insert(place.to_string(), any(&(place - 1).to_string()));
    }
    chain.insert("save".to_owned(), save(&json!(["19999", 0])));
    assert!(
        catalogue
            .check(&prompt(&Value::Object(chain)), None)
            .is_ok()
    );
}

#[test]
fn a_refusal_is_no_larger_than_it_must_be() {
    let catalogue = parse(&small());
    let mut graph = serde_json::Map::new();
    for place in 0..20_000 {
        graph.insert(place.to_string(), save(&json!([place.to_string()])));
    }
    let refusal = catalogue
        .check(&prompt(&Value::Object(graph)), None)
        .unwrap_err();
    assert!(refusal.body().to_string().len() < 1024 * 1024);
}

#[test]
fn a_list_with_what_python_writes_is_read() {
    let told = r#"{"A": {"input": {"required": {"x": ["FLOAT", {"max": Infinity}], "y": [["b\udc80.png"]]}},
        "output": [], "output_node": true, "python_module": "nodes"}}"#;
    let catalogue = Catalogue::parse(told.as_bytes()).unwrap();
    let graph = json!({"1": {"class_type": "A", "inputs": {"x": 1e300, "y": "c.png"}}});
    assert!(catalogue.check(&prompt(&graph), None).is_ok());
    for broken in ["", "[]", "{", "{\"A\": }", "{\"A\": \"\\ud8"] {
        assert!(Catalogue::parse(broken.as_bytes()).is_err(), "{broken}");
    }
    for odd in [
        r#"{"A": 1}"#,
        r#"{"A": {"input": [], "output": {}}}"#,
        r#"{"A": {"input": {"required": {"x": 5, "y": [], "z": {}}}, "output": ["*", [1]]}}"#,
    ] {
        let catalogue = Catalogue::parse(odd.as_bytes()).unwrap();
        let graph = json!({"1": {"class_type": "A", "inputs": {"x": 1, "y": "a", "z": ["1", 0]}}});
        assert!(
            catalogue.check(&prompt(&graph), None).is_err(),
            "no output: {odd}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\\\\u|\\\\ud8|NaN|\"){0,40}") {
        let _ = Catalogue::parse(text.as_bytes());
    }

    #[test]
    fn no_graph_panics(inputs in prop::collection::vec(("(width|scale|method|odd)", arbitrary()), 0..5)) {
        let catalogue = parse(&small());
        let inputs: serde_json::Map<String, Value> = inputs.into_iter().collect();
        let graph = json!({
            "1": {"class_type": "Image", "inputs": inputs}, "2": save(&json!(["1", 0])),
        });
        let _ = catalogue.check(&prompt(&graph), None);
    }
}

fn arbitrary() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            inner.prop_map(|value| json!({ "__value__": value })),
        ]
    })
}

/// Replacements of ComfyUI 0.33.0 and one of a pack.
fn replacing() -> Catalogue {
    let class = |input: Value, output: Value, is_output: bool| {
        json!({
            "input": input, "output": output, "output_node": is_output, "is_input_list": false,
            "python_module": "nodes", "api_node": false, "deprecated": false, "experimental": false,
        })
    };
    let list = json!({
        "Preview3D": class(json!({"required": {"model_file": ["STRING", {}]}}), json!([]), true),
        "ResizeImageMaskNode": class(
            json!({"required": {
                "input": ["IMAGE", {}],
                "resize_type.multiplier": ["FLOAT", {"min": 0.01, "max": 8.0}],
                "scale_method": [["area", "lanczos"], {}],
            }}),
            json!(["IMAGE"]),
            false,
        ),
        "TwoOutputs": class(json!({}), json!(["MASK", "IMAGE"]), false),
        "PreviewImage": class(json!({"required": {"images": ["IMAGE", {}]}}), json!([]), true),
    });
    let replacements = json!({
        "Preview3DAnimation": [{"new_node_id": "Preview3D", "old_node_id": "Preview3DAnimation",
            "old_widget_ids": null, "input_mapping": null, "output_mapping": null}],
        "ImageScaleBy": [{"new_node_id": "ResizeImageMaskNode", "input_mapping": [
            {"new_id": "input", "old_id": "image"},
            {"new_id": "resize_type", "set_value": "scale by multiplier"},
            {"new_id": "resize_type.multiplier", "old_id": "scale_by"},
            {"new_id": "scale_method", "old_id": "upscale_method"},
        ]}],
        "OneOutput": [{"new_node_id": "TwoOutputs", "output_mapping": [{"old_idx": 0, "new_idx": 1}]}],
        "Chained": [{"new_node_id": "OneOutput"}],
    });
    parse(&list)
        .with_replacements(Replacements::parse(replacements.to_string().as_bytes()).unwrap())
}

#[test]
fn b3_a_class_that_is_only_a_replacement_is_not_missing() {
    let catalogue = replacing();
    let preview =
        json!({"1": {"class_type": "Preview3DAnimation", "inputs": {"model_file": "a.glb"}}});
    let accepted = catalogue.check(&prompt(&preview), None).unwrap();
    assert_eq!(accepted.outputs, ["1"]);
    for class in ["Nowhere", "Chained"] {
        let graph = json!({"1": {"class_type": class, "inputs": {}}});
        let refusal = catalogue.check(&prompt(&graph), None).unwrap_err();
        assert_eq!(
            refusal.body()["error"]["type"],
            "missing_node_type",
            "{class}"
        );
        assert!(catalogue.lacks_any(&prompt(&graph)));
    }
    assert!(!catalogue.lacks_any(&prompt(&preview)));
    assert!(!Catalogue::default().lacks_any(&prompt(&preview)));
}

#[test]
fn b3_a_replaced_node_is_checked_as_what_it_becomes() {
    let graph = |scale: f64| {
        json!({
            "1": {"class_type": "OneOutput", "inputs": {}},
            "2": {"class_type": "ImageScaleBy", "inputs": {
                "image": ["1", 0], "scale_by": scale, "upscale_method": "area"}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        })
    };
    let catalogue = replacing();
    let accepted = catalogue.check(&prompt(&graph(2.0)), None).unwrap();
    assert_eq!(accepted.outputs, ["3"]);
    let body = catalogue
        .check(&prompt(&graph(9.0)), None)
        .unwrap_err()
        .body();
    let told = &body["node_errors"]["2"];
    assert_eq!(told["class_type"], "ResizeImageMaskNode");
    assert_eq!(told["errors"][0]["type"], "value_bigger_than_max");
}

#[test]
fn a4_replacements_that_cannot_be_read_refuse_nothing_here() {
    let catalogue = replacing().with_replacements(Replacements::Unknown);
    let graph = json!({"1": {"class_type": "Preview3DAnimation", "inputs": {}}});
    assert_eq!(
        catalogue.check(&prompt(&graph), None),
        Ok(Accepted::unchecked())
    );
    for broken in [
        "[]",
        "{",
        r#"{"A":{}}"#,
        r#"{"A":[{"old_node_id":"A"}]}"#,
        r#"{"A":[{"new_node_id":"B","input_mapping":[{"old_id":"x"}]}]}"#,
        r#"{"A":[{"new_node_id":7}]}"#,
    ] {
        assert!(Replacements::parse(broken.as_bytes()).is_err(), "{broken}");
    }
    let odd = br#"{"A":[{"new_node_id":"B","input_mapping":[{"new_id":"x","set_value":NaN}]}]}"#;
    assert!(Replacements::parse(odd).is_ok());
    assert!(Replacements::parse(b"{}").is_ok());
}
