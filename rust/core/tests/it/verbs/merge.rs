//! Merges as whole jobs: of inputs here, downloaded and streamed, which give the same bytes.

use std::fs;

use crate::support::elsewhere::{Family, places, same_output};
use serde_json::{Value, json};
use taskvec_core::control::Control;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::merge::Document;
use taskvec_core::plan::options::Options;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::write;
use taskvec_core::{Error, Result};

const NAMES: [&str; 4] = ["b.weight", "c.bias", "d.weight", "model.embed_tokens.weight"];

fn document(method: &str, each: &Value, shared: &Value) -> String {
    let tensor = |name: &&str| json!({"name": name, "from": [true, true, true], "settings": 0});
    let tensors: Vec<Value> = NAMES.iter().map(tensor).collect();
    json!({
        "method": method, "base": 0, "work_dtype": null, "out_dtype": "bfloat16", "seed": 5,
        "settings": [{"shared": shared, "each": [null, each, each]}],
        "tensors": tensors, "sidecars_from": 0, "config_edits": null,
    })
    .to_string()
}

fn plan(inputs: [Place; 3], document: &str, options: Options) -> Result<Plan> {
    let document = Document::parse(document, 3)?.into();
    Plan::new(Request::Merge { inputs: inputs.into(), document }, options, &Control::default())
}

/// Methods with each kind of measuring: none, sums, thresholds, and ranks within rows.
fn cases() -> Vec<String> {
    vec![
        document("task_arithmetic", &json!({"weight": 0.5}), &json!({})),
        document("model_stock", &json!(null), &json!({})),
        document("ties", &json!({"weight": 0.5, "density": 0.3}), &json!({"rescale": true})),
        document("della", &json!({"weight": 0.5, "density": 0.5}), &json!({})),
    ]
}

#[test]
fn inputs_from_elsewhere_give_the_same_bytes() {
    let family = Family::new();
    for (number, document) in cases().iter().enumerate() {
        let here = family.path(&format!("here{number}"));
        let local = plan(family.here(), document, Options::default()).unwrap();
        assert_eq!(local.counts.combined, 4);
        write::run(&local, &here, "card", &Control::default()).unwrap();
        for (kind, streams) in [[false; 3], [false, true, true]].into_iter().enumerate() {
            let remotes = family.remotes(streams);
            let plan = plan(places(&remotes), document, Options { threads: Some(3), ..Options::default() }).unwrap();
            let out = family.path(&format!("out{number}{kind}"));
            write::run(&plan, &out, "card", &Control::default()).unwrap();
            same_output(&out, &here);
            fs::remove_dir_all(out).unwrap();
        }
    }
}

#[test]
fn a_plan_tells_what_is_read() {
    let family = Family::new();
    let read = |document: &str| plan(family.here(), document, Options::default()).unwrap().read_bytes;
    let [once, sums, ranks, rows] = &cases()[..] else { panic!("four cases") };
    // A threshold and sums are read for separately; ranks within rows need whole rows, and those of `d.weight` are all of
    // it.
    assert!(read(sums) > 2 * read(once) - (1 << 20) && read(sums) <= 2 * read(once));
    assert!(read(ranks) > read(sums) && read(ranks) <= 3 * read(once));
    assert!(read(rows) > read(sums));
}

#[test]
fn types_and_options() {
    let family = Family::new();
    let document = &cases()[0];
    let refused = |options: Options| match plan(family.here(), document, options) {
        Err(Error::Usage(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(refused(Options { dtype: Some(Float::F32), ..Options::default() }).contains("a merge takes no --dtype"));
    assert!(refused(Options { base: Some("x".into()), ..Options::default() }).contains("a merge takes no --base"));
    assert!(refused(Options { memory: Some(1), ..Options::default() }).contains("is too little"));
    let streamed = plan(places(&family.remotes([true; 3])), document, Options::default());
    assert!(streamed.unwrap_err().to_string().contains("the base gives the merge its other files"));
    // Without a type for the output, mixed inputs give F32.
    let open = document.replace("\"bfloat16\"", "null");
    let plan = plan(family.here(), &open, Options::default()).unwrap();
    assert!(plan.layout.tensors.iter().all(|tensor| tensor.dtype == Float::F32.dtype()));
}
