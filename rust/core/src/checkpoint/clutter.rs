//! Files and folders that are often beside a checkpoint but do not belong to it: secrets, and leftovers of training
//! runs, file systems and editors. They are recognised only by their names, so that the same rule holds for a local
//! folder, for a folder on the Hub, and for a list of files to upload.

/// Folders that belong to the file system and are not content.
const OF_THE_SYSTEM: [&str; 3] = ["lost+found", "system volume information", "$recycle.bin"];

/// Folders of training runs, by their whole names.
const FOLDERS: [&str; 14] = [
    "__pycache__",
    "checkpoints",
    "lightning_logs",
    "log",
    "logs",
    "mlartifacts",
    "mlruns",
    "runs",
    "swanlab",
    "swanlog",
    "tb_logs",
    "tensorboard",
    "tensorboard_logs",
    "wandb",
];

/// What comes before the number in the names of numbered folders into which a trainer saves.
const NUMBERED: [&str; 12] = [
    "checkpoint",
    "checkpoint_",
    "global_step",
    "global_step_",
    "global-step-",
    "step_",
    "step-",
    "iter_",
    "epoch_",
    "epoch-",
    // Accelerate's folders of a sharded state.
    "pytorch_model_fsdp_",
    "optimizer_",
];

/// Files of a training run, a file system or a desktop, by their whole names.
const FILES: [&str; 12] = [
    ".ds_store",
    // A link to the repository, as in a work tree.
    ".git",
    "desktop.ini",
    "latest",
    "latest_checkpointed_iteration.txt",
    "latest_universal",
    "nohup.out",
    "thumbs.db",
    "trainer_log.jsonl",
    "trainer_state.json",
    // Useful only beside a sharded optimiser state.
    "zero_to_bf16.py",
    "zero_to_fp32.py",
];
const FILE_FRONTS: [&str; 8] =
    ["._", ".fuse_hidden", ".nfs", "events.out.tfevents", "rng_state", "slurm-", "wandb-", "wandb_"];
const FILE_ENDS: [&str; 9] = [".aria2", ".crdownload", ".incomplete", ".log", ".pyc", ".swo", ".swp", ".tfevents", "~"];

/// Files that hold a password, token or key, by their whole names.
const SECRETS: [&str; 21] = [
    ".boto",
    ".comet.config",
    ".dockercfg",
    ".env",
    ".envrc",
    ".git-credentials",
    ".gitconfig",
    ".htpasswd",
    ".my.cnf",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".s3cfg",
    ".token",
    ".wgetrc",
    "_netrc",
    "kaggle.json",
    "rclone.conf",
    "token",
    "token.txt",
];
const SECRET_FRONTS: [&str; 8] =
    [".env.", "client_secret", "id_dsa", "id_ecdsa", "id_ed25519", "id_rsa", "service-account", "service_account"];
const SECRET_ENDS: [&str; 10] = [".env", ".jks", ".kdbx", ".key", ".keystore", ".ovpn", ".p12", ".pem", ".pfx", ".ppk"];
/// Names of secret files without a leading dot and without an ending; a file may have either, both or none of them.
const SECRET_STEMS: [&str; 13] = [
    "api_key",
    "apikey",
    "application_default_credentials",
    "credential",
    "credentials",
    "hf_token",
    "huggingface_token",
    "password",
    "passwords",
    "secret",
    "secrets",
    "stored_tokens",
    "wandb_api_key",
];
const SECRET_STEM_ENDINGS: [&str; 10] = ["", "cfg", "conf", "csv", "ini", "json", "toml", "txt", "yaml", "yml"];

/// Whether a folder of this name belongs to the file system, such as `lost+found`, and is not content.
pub fn is_of_the_system(own: &str) -> bool {
    OF_THE_SYSTEM.contains(&own.to_ascii_lowercase().as_str())
}

/// Whether a folder of this name holds what a training run left.
pub fn is_run_folder(own: &str) -> bool {
    let own = own.to_ascii_lowercase();
    let front = own.trim_end_matches(|char: char| char.is_ascii_digit());
    FOLDERS.contains(&own.as_str())
        || own.starts_with("checkpoint-")
        || front.len() < own.len() && NUMBERED.contains(&front)
}

/// Whether a file of this name holds a secret, or was left behind by a training run, a file system or an editor.
pub fn is_stray(own: &str) -> bool {
    let own = own.to_ascii_lowercase();
    let begins = |fronts: &[&str]| fronts.iter().any(|front| own.starts_with(front));
    let ends = |ends: &[&str]| ends.iter().any(|end| own.ends_with(end));
    let bare = own.strip_prefix('.').unwrap_or(&own);
    let (stem, ending) = bare.rsplit_once('.').unwrap_or((bare, ""));
    SECRETS.contains(&own.as_str())
        || SECRET_STEMS.contains(&stem) && SECRET_STEM_ENDINGS.contains(&ending)
        || begins(&SECRET_FRONTS)
        || ends(&SECRET_ENDS)
        // The histories of shells and interpreters.
        || own.starts_with('.') && own.ends_with("history")
        || FILES.contains(&own.as_str())
        || begins(&FILE_FRONTS)
        || ends(&FILE_ENDS)
}

/// As [`is_stray`], for a path with `/`: also true if one of the folders in the path is left over.
pub fn is_stray_path(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    parts.next().is_some_and(is_stray) || parts.any(|folder| is_run_folder(folder) || is_of_the_system(folder))
}
