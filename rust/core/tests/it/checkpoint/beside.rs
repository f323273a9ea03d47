//! What is beside the weights of a checkpoint and goes along with an output or not; and where a folder that is none leads.

use taskvec_core::Error;

use crate::support::folder::{Folder, open};

const SINGLE: &str = "model.safetensors";

#[test]
fn sidecars_and_what_is_left_out() {
    let folder = Folder::sharded();
    let sidecars = [
        ".gitattributes",
        "README.md",
        "code/modeling.py",
        "code/sub/util.py",
        "config.json",
        "onnx/config.json",
        "tokenizer.json",
        "tokenizer.model",
    ];
    let left_out = [
        ".ipynb_checkpoints",
        "consolidated.safetensors",
        "flax_model.msgpack",
        "model-q4.gguf",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "sft/model.safetensors",
        "sft/model.safetensors.index.json",
        "taskvec.json",
        "tf_model.H5",
    ];
    for name in sidecars.into_iter().chain(left_out) {
        if !name.starts_with(".ipynb") {
            folder.put(name, "{}");
        }
    }
    for name in [".ipynb_checkpoints/x", ".git/HEAD", ".cache/huggingface/x", "code/.git/x", ".taskvec-partial/journal"]
    {
        folder.put(name, "");
    }
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.sidecars, sidecars);
    assert_eq!(checkpoint.left_out, left_out);
}

#[test]
fn secrets_and_what_a_run_left_do_not_go_along() {
    let folder = Folder::sharded();
    let left_out = [
        ".DS_Store",
        ".Netrc",
        "._config.json",
        ".bash_history",
        ".env",
        ".env.local",
        ".git-credentials",
        "HF_TOKEN.txt",
        "checkpoint-500",
        "checkpoint-best",
        "code/.env",
        "code/__pycache__",
        "credentials.json",
        "deploy.pem",
        "epoch_3",
        "events.out.tfevents.17.host.1.0",
        "global_step200",
        "id_ed25519",
        "id_ed25519.pub",
        "latest",
        "mlruns",
        "optimizer.pt",
        "rng_state_0.pth",
        "runs",
        "scheduler.pt",
        "slurm-12.out",
        "train.log",
        "trainer_state.json",
        "training_args.bin",
        "wandb",
        "zero_to_fp32.py",
    ];
    let folders = [
        "checkpoint-500",
        "checkpoint-best",
        "code/__pycache__",
        "epoch_3",
        "global_step200",
        "mlruns",
        "runs",
        "wandb",
    ];
    for name in left_out {
        folder.put(&if folders.contains(&name) { format!("{name}/deep/config.json") } else { name.to_owned() }, "x");
    }
    folder.put("lost+found/x", "");
    let sidecars = [
        ".gitattributes",
        "added_tokens.json",
        "checkpoint_notes.md",
        "code/token.py",
        "environment.yaml",
        "runs.md",
        "special_tokens_map.json",
        "step/notes.txt",
        "tokenizer.json",
        "wandb.md",
    ];
    for name in sidecars {
        folder.put(name, "x");
    }
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.sidecars, sidecars);
    assert_eq!(checkpoint.left_out, left_out);
    assert!(checkpoint.notes.is_empty());
}

#[test]
fn descriptions_of_weights_that_are_left_out_do_not_go_along() {
    let folder = Folder::sharded();
    let put = |names: &[&str]| names.iter().for_each(|name| drop(folder.put(name, "{}")));
    // Alone, they describe nothing that is left out.
    put(&["params.json", "openvino_model.xml", ".metadata", "notes.xml"]);
    folder.put("Modelfile", "FROM ./m-q4.gguf\n");
    folder.put("modules.json", r#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]"#);
    put(&["1_Pooling/config.json", "2_Dense/config.json", "quantise.json"]);
    let kept = [
        ".metadata",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "Modelfile",
        "modules.json",
        "notes.xml",
        "openvino_model.xml",
        "params.json",
        "quantise.json",
    ];
    assert_eq!(folder.open().unwrap().sidecars, kept);
    let weights = [
        "2_Dense/model.safetensors",
        "__0_0.distcp",
        "consolidated.00.pth",
        "m-q4.gguf",
        "model.onnx.data",
        "openvino_model.bin",
        "speech-lora/adapter_model.safetensors",
    ];
    put(&weights);
    let descriptions = [
        "adapter_config.json",
        "hf_quant_config.json",
        "model.safetensors.index.fp16.json",
        "pytorch_model.bin.index.json",
        "quantize_config.json",
        "speech-lora/adapter_config.json",
    ];
    put(&descriptions);
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.sidecars, ["1_Pooling/config.json", "2_Dense/config.json", "notes.xml", "quantise.json"]);
    let alone = [".metadata", "Modelfile", "modules.json", "openvino_model.xml", "params.json"];
    let mut left_out: Vec<_> = weights.into_iter().chain(descriptions).chain(alone).collect();
    left_out.sort_unstable();
    assert_eq!(checkpoint.left_out, left_out);
    // A list too long to be one, and an Ollama file that speaks of this very folder.
    folder.put("modules.json", vec![b' '; 2 << 20]);
    folder.put("Modelfile", "FROM .\n");
    let sidecars = folder.open().unwrap().sidecars;
    assert!(["Modelfile", "modules.json"].iter().all(|name| sidecars.iter().any(|kept| kept == name)));
}

#[test]
fn how_codes_are_quantised_goes_along_with_codes() {
    let folder = Folder::new();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I32, vec![2, 1], &[0; 8]).unwrap();
    folder.put(SINGLE, safetensors::serialize([("w.qweight".to_owned(), view)], None).unwrap());
    folder.put("quantize_config.json", "{}");
    assert_eq!(folder.open().unwrap().sidecars, ["quantize_config.json"]);
}

#[test]
fn weights_with_an_adapter_beside_them() {
    let folder = Folder::sharded();
    folder.put("adapter_config.json", "{}");
    folder.shard("adapter_model.safetensors", &["x"]);
    let notes = folder.open().unwrap().notes;
    let says = "holds full weights and an adapter: the full weights are read, the adapter (adapter_config.json, adapter_model.safetensors) is not";
    assert!(notes.len() == 1 && notes[0].contains(says), "{notes:?}");
}

#[test]
fn checkpoints_and_adapters_below_are_named() {
    let folder = Folder::new();
    folder.put("lost+found/adapter_config.json", "{}");
    folder.put(".hidden/adapter_config.json", "{}");
    folder.put("a/b/c/d/adapter_config.json", "{}");
    folder.refused(&["name the folder of a checkpoint"]);
    folder.shard("runs/one/checkpoint-5/model.safetensors", &["a"]);
    folder.refused(&["its subfolders do", ": `runs/one/checkpoint-5`"]);
    folder.put("run/grpo/adapter_config.json", "{}");
    folder.put("run/sft/adapter_config.json", "{}");
    folder.refused(&["its subfolders hold adapters; as a donor, name one of them: `run/grpo`, `run/sft`"]);
    folder.shard("run/merged/model.safetensors", &["a"]);
    folder.refused(&["name one of them: `run/merged` (adapters: `run/grpo`, `run/sft`)"]);
}

#[test]
fn the_folder_of_a_repository_in_the_cache_leads_to_its_snapshot() {
    let folder = Folder::new();
    let named = |commit: &str| {
        let path = folder.path().join("hub/models--org--name/snapshots").join(commit);
        format!("name `{}`", path.display())
    };
    let refused = |below: &str, says: &str| {
        let error = open(&folder.path().join("hub").join(below)).unwrap_err();
        // Windows separates folders with another character, which quoted names show twice.
        let [shown, says] = [&error.to_string(), says].map(|text| text.replace("\\\\", "/").replace('\\', "/"));
        assert!(matches!(error, Error::Corrupt { .. }) && shown.contains(&says), "{shown} lacks {says}");
    };
    folder.put("hub/models--org--name/blobs/0", "");
    folder.shard("hub/models--org--name/snapshots/abc/model.safetensors", &["a"]);
    refused("models--org--name", &named("abc"));
    refused("models--org--name/snapshots", &named("abc"));
    refused(".", "name one of them: `models--org--name/snapshots/abc`");
    // Of several, the one that `main` is.
    folder.shard("hub/models--org--name/snapshots/def/model.safetensors", &["a"]);
    refused("models--org--name", "name one of them: `snapshots/abc`, `snapshots/def`");
    folder.put("hub/models--org--name/refs/main", "def\n");
    refused("models--org--name", &named("def"));
    folder.put("hub/models--org--name/refs/main", "gone");
    refused("models--org--name", "name one of them: `snapshots/abc`, `snapshots/def`");
}
