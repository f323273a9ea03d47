//! Several α in one read, through the public surface: against runs with one α, and against an oracle for streamed donors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::elsewhere::{Family, places};
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::write;
use taskvec_core::{Error, Result};

fn alpha(text: &str) -> Alpha {
    Alpha::new(text, text.parse().unwrap()).unwrap()
}

fn request([target, minuend, subtrahend]: [Place; 3]) -> Request {
    Request::Transfer { target, minuend, subtrahend, alpha: alpha("1") }
}

fn sweep(places: [Place; 3], alphas: &[&str], options: &Options) -> Result<Vec<Plan>> {
    let alphas: Vec<Alpha> = alphas.iter().map(|text| alpha(text)).collect();
    Plan::sweep(&request(places), &alphas, options, &Control::default())
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// What a run with this factor alone writes.
fn alone(family: &Family, text: &str, options: Options) -> BTreeMap<String, Vec<u8>> {
    let out = family.path(&format!("alone{text}"));
    let request = request(family.here()).with_alpha(&alpha(text));
    let plan = Plan::new(request, options, &Control::default()).unwrap();
    write::run(&plan, &out, "card", &Control::default()).unwrap();
    let found = content(&out);
    fs::remove_dir_all(out).unwrap();
    found
}

#[test]
fn every_way_of_working_gives_the_bytes_of_single_runs() {
    let family = Family::new();
    let alphas = ["0.25", "0", "-1.5"];
    for (number, (threads, memory)) in [(1, 24 << 20), (2, 64 << 20), (5, 256 << 20)].into_iter().enumerate() {
        let options = Options { threads: Some(threads), memory: Some(memory), ..Options::default() };
        let plans = sweep(family.here(), &alphas, &options).unwrap();
        assert!(plans.iter().all(|plan| plan.budget.planned <= memory && plan.budget.outputs == 3));
        assert!(plans.iter().all(|plan| plan.budget.window_blocks == plans[0].budget.window_blocks));
        let out = family.path(&format!("out{number}"));
        write::sweep(&plans, &["card".to_owned(), "card".to_owned(), "card".to_owned()], &out, &Control::default())
            .unwrap();
        for text in alphas {
            assert!(content(&out.join(format!("alpha-{text}"))) == alone(&family, text, Options::default()), "{text}");
        }
    }
}

#[test]
fn streamed_donors_are_fetched_once() {
    let family = Family::new();
    let cards = ["card", "card", "card"].map(String::from);
    let options = Options::default();
    let fetched = |alphas: &[&str], out: &str| {
        let remotes = family.remotes([false, true, true]);
        let plans = sweep(places(&remotes), alphas, &options).unwrap();
        remotes.iter().for_each(|remote| remote.forget());
        write::sweep(&plans, &cards, &family.path(out), &Control::default()).unwrap();
        remotes.map(|remote| remote.log().moved)
    };
    // The target's other files are copied once for each output; of donors only weights are read.
    let [_, one @ ..] = fetched(&["0.5"], "one");
    let [_, three @ ..] = fetched(&["0", "0.5", "1"], "three");
    assert_eq!(one, three);
    for (text, weights) in [("0.5", "model-00001-of-00002.safetensors"), ("0", "model-00002-of-00002.safetensors")] {
        let found = content(&family.path("three").join(format!("alpha-{text}")));
        assert!(found[weights] == alone(&family, text, Options::default())[weights], "{text}");
    }
}

#[test]
fn a_list_that_makes_no_sense_is_refused() {
    let family = Family::new();
    let refused = |alphas: &[&str]| match sweep(family.here(), alphas, &Options::default()) {
        Err(Error::Usage(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(refused(&[]).contains("empty"));
    assert!(refused(&["1", "0.5", "0.50"]).contains("alphas 0.5 and 0.50 are the same number"));
    assert!(sweep(family.here(), &["0.5", "-0.5"], &Options::default()).is_ok());
    let vectors = vec![(family.path("minuend").into(), alpha("1")), (family.path("subtrahend").into(), alpha("1"))];
    let several = Request::Apply { target: family.path("target").into(), vectors };
    let error = Plan::sweep(&several, &[alpha("1")], &Options::default(), &Control::default()).unwrap_err();
    assert!(matches!(error, Error::Usage(_)) && error.to_string().contains("one vector only"), "{error}");
}
