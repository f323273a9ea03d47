//! The index: shard names that lead out of the folder, ambiguous names, and what is legal though wrong.

use std::path::Path;

use taskvec_core::Error;
use taskvec_core::format::index::{Index, safe_shard_name};

fn parse(text: &[u8]) -> Result<Index<'_>, Error> {
    Index::parse(text, Path::new("model.safetensors.index.json"))
}

#[track_caller]
fn refused(text: impl Into<Vec<u8>>, parts: &[&str]) {
    let error = parse(&text.into()).expect_err("should be refused");
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let message = error.to_string();
    for part in [&["model.safetensors.index.json: "], parts].concat() {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn order_is_kept() {
    let text =
        r#"{"metadata":{"total_size":4},"weight_map":{"z":"m-2.safetensors","a":"m-1.safetensors"},"more":[{"a":1}]}"#;
    let index = parse(text.as_bytes()).unwrap();
    let [z, a] = [("z", "m-2.safetensors"), ("a", "m-1.safetensors")];
    assert_eq!(index.pairs().collect::<Vec<_>>(), [z, a]);
    assert_eq!(index.by_name().collect::<Vec<_>>(), [a, z]);
}

#[test]
fn total_size_is_not_believed() {
    for metadata in [
        "",
        r#""metadata":{},"#,
        r#""metadata":{"total_size":-1},"#,
        r#""metadata":{"total_size":1e999},"#,
        r#""metadata":{"total_size":99999999999999999999999999},"#,
        r#""metadata":{"total_size":"big"},"#,
    ] {
        parse(format!(r#"{{{metadata}"weight_map":{{"a":"m.safetensors"}}}}"#).as_bytes()).unwrap();
    }
}

#[test]
fn malformed() {
    refused("", &["is not a valid index", "download it again"]);
    refused("[]", &["is not a valid index"]);
    refused("<!DOCTYPE html>", &["is not a valid index"]);
    refused("version https://git-lfs.github.com/spec/v1\n", &["git lfs pull"]);
    refused(b"{\"weight_map\":{\"\xff\":\"m.safetensors\"}}", &["is not a valid index"]);
    refused(b"{\"more\":\"\xff\",\"weight_map\":{\"a\":\"m.safetensors\"}}", &["not UTF-8", "download it again"]);
    refused(b"{\"metadata\":{\"a\":\"\xc3\"},\"weight_map\":{\"a\":\"m.safetensors\"}}", &["not UTF-8"]);
    refused("{}", &["no `weight_map`"]);
    refused(r#"{"weight_map":null}"#, &["`weight_map`"]);
    refused(r#"{"weight_map":["m.safetensors"]}"#, &["`weight_map`"]);
    refused(r#"{"weight_map":{}}"#, &["lists no tensor"]);
    refused(r#"{"weight_map":{"a":3}}"#, &["`weight_map`: `a`"]);
    refused(r#"{"metadata":7,"weight_map":{"a":"m.safetensors"}}"#, &["`metadata`"]);
    refused(r#"{"weight_map":{"":"m.safetensors"}}"#, &["without a name"]);
    refused(r#"{"weight_map":{"a\u0007":"m.safetensors"}}"#, &["control characters"]);
    refused(vec![b' '; 100_000_001], &["at most 100000000 are allowed"]);
}

#[test]
fn equal_names() {
    refused(r#"{"weight_map":{"a":"m.safetensors","a":"m.safetensors"}}"#, &["`a` occurs twice"]);
    refused(r#"{"weight_map":{"a":"m.safetensors","\u0061":"n.safetensors"}}"#, &["`a` occurs twice"]);
    refused(
        r#"{"weight_map":{"a":"m.safetensors"},"weight_map":{"b":"m.safetensors"}}"#,
        &["`weight_map` occurs twice"],
    );
    refused(
        r#"{"metadata":{"total_size":1,"total_size":2},"weight_map":{"a":"m.safetensors"}}"#,
        &["`total_size` occurs twice"],
    );
    refused(r#"{"weight_map":{"a":"M.safetensors","b":"m.safetensors"}}"#, &["ignore case", "`M.", "`m."]);
}

#[test]
fn shard_names() {
    for good in [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "a b.safetensors",
        "模型.safetensors",
        "a..b.safetensors",
    ] {
        assert!(safe_shard_name(good), "{good}");
    }
    let long = format!("{}.safetensors", "x".repeat(300));
    for bad in [
        "",
        ".",
        "..",
        ".safetensors",
        ".hidden.safetensors",
        "../model.safetensors",
        "sub/model.safetensors",
        "./model.safetensors",
        "/etc/model.safetensors",
        "..\\model.safetensors",
        "sub\\model.safetensors",
        "\\\\server\\share\\model.safetensors",
        "C:model.safetensors",
        "C:\\model.safetensors",
        "file:model.safetensors",
        "https://example.com/model.safetensors",
        "%2e%2e%2fmodel.safetensors",
        "%2E%2E.safetensors",
        "model\0.safetensors",
        "model\n.safetensors",
        "model.safetensors\0",
        "model.safetensors/",
        "model.safetensors ",
        "model.bin",
        "model.SAFETENSORS",
        &long,
    ] {
        assert!(!safe_shard_name(bad), "{bad}");
        let name = serde_json::Value::from(bad);
        refused(format!(r#"{{"weight_map":{{"blk.0":{name}}}}}"#), &["tensor `blk.0`", "source you trust"]);
    }
}
