//! A PEFT adapter, opened as a checkpoint: its tensors are the ΔW of the adapted weights, under the names of their base.
//!
//! What an adapter leaves alone is zero in it. So the two sides of a pair get the same tensors, and everything that comes
//! later treats them like any others.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::checkpoint::tied;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::derived::{Factor, Made, Product};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::adapter_config::{self, AdapterConfig, MERGE};
use crate::format::config::Config;
use crate::format::json::quote;
use crate::numeric::dtype::Dtype;
use crate::plan::options::Options;
use crate::storage::place::Place;

/// The weights' file name without its ending.
const STEM: &str = "adapter_model";
/// What PEFT puts before the base model's own names.
const PREFIX: &str = "base_model.model.";
/// A module's tensors, by the ends of their names: A and B of a matrix, A and B of an embedding, and its weight as the
/// base has it, which PEFT saves along with an adapted embedding.
const ENDS: [&str; 5] =
    [".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".base_layer.weight"];

/// The models of transformers whose blocks are made of its `Conv1D`, as configs name them.
const CONV1D_MODELS: [&str; 6] = ["clvp", "clvp_decoder", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"];
/// The layers of those models that are `Conv1D`; their others, such as the head, are linear.
const CONV1D_LAYERS: [&str; 4] = ["c_attn", "q_attn", "c_proj", "c_fc"];

/// Opens a donor: a checkpoint, or an adapter. `like` is the model whose layers an adapter's ΔW is for, if there is one.
pub fn open_donor(place: &Place, like: Option<&Checkpoint>, control: &Control) -> Result<Checkpoint> {
    if adapter_config::is_adapter(place)? { open(place, like, control) } else { Checkpoint::open(place, control) }
}

/// Whether a module's weight is stored as `[in, out]`. PEFT asks the layer and not the file's flag, so the flag decides
/// only where no model is at hand to tell; where the model does not tell, a flag that is set is not believed.
fn is_conv1d(
    module: &str,
    [rows, columns]: [u64; 2],
    flag: bool,
    like: Option<&Checkpoint>,
) -> std::result::Result<bool, String> {
    let Some(like) = like else { return Ok(flag) };
    let stored = like.find(&format!("{module}.weight")).map(|at| &like.tensors[at as usize].shape);
    match stored {
        Some(shape) if rows != columns && *shape == [rows, columns] => return Ok(false),
        Some(shape) if rows != columns && *shape == [columns, rows] => return Ok(true),
        // What fits neither way is refused for its shape.
        Some(_) if rows != columns => return Ok(flag),
        _ => {}
    }
    let types = &like.config.model_types;
    if types.iter().any(|name| CONV1D_MODELS.contains(&name.as_str())) {
        return Ok(CONV1D_LAYERS.contains(&module.rsplit('.').next().unwrap_or(module)));
    }
    if flag && !types.is_empty() {
        return Err(format!(
            "`fan_in_fan_out` is true, but nothing shows that {} stores this weight as [in, out]; set the flag to false in {} if the layer is linear",
            quote(&types[0]),
            adapter_config::FILE
        ));
    }
    Ok(flag)
}

/// Opens the weights of an adapter as they are stored.
pub fn open_factors(place: &Place, control: &Control) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::open_weights(place, STEM, control)?;
    // A head that it adapts is not its embedding's; one that it does not adapt does not move. A config.json beside it,
    // which is a copy of its base's, says nothing of ΔW.
    checkpoint.config = Config { tied: Some(false), ..Config::default() };
    checkpoint.adapter = Some(AdapterConfig::read(place)?);
    Ok(checkpoint)
}

/// The tensors of one adapted module, by [`ENDS`].
type Module<'a> = [Option<&'a Tensor>; 5];

fn open(place: &Place, like: Option<&Checkpoint>, control: &Control) -> Result<Checkpoint> {
    let mut checkpoint = open_factors(place, control)?;
    let Some(config) = checkpoint.adapter.clone() else { return Ok(checkpoint) };
    let modules = modules(&checkpoint)?;
    let names: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
    let scales = config.scales(place, &names, control)?;
    let (mut tensors, mut made, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for ((name, module), (rank, scale)) in modules.iter().zip(scales) {
        let product = product(&checkpoint, name, module, config.fan_in_fan_out, like, rank, scale)?;
        let tensor = tensor(format!("{name}.weight"), vec![product.rows, product.columns], 0);
        if let Some(weight) = module[4] {
            if weight.shape != tensor.shape {
                return Err(refused(&checkpoint, weight, format!("its shape is not that of ΔW, {:?}", tensor.shape)));
            }
            kept.push(weight.name.as_str());
        }
        made.push(Made::Product(product));
        tensors.push(tensor);
    }
    let mut notes = vec![format!(
        "{} is a LoRA adapter on {}: the ΔW of {} tensors is multiplied out",
        checkpoint.label,
        config.base.as_deref().map_or("a model that it does not name".into(), quote),
        tensors.len()
    )];
    if !kept.is_empty() {
        let named = kept.join(", ");
        notes.push(format!("weights of the base that {} holds beside ΔW, not used: {named}", checkpoint.label));
    }
    checkpoint.compute(tensors, made, notes);
    Ok(checkpoint)
}

/// Gives both sides of a pair the same tensors where one of them is an adapter, or both are.
///
/// # Errors
/// A pair whose bases are not, or not visibly, the same model.
pub fn pair(minuend: &mut Checkpoint, subtrahend: &mut Checkpoint, options: &Options) -> Result<()> {
    match (minuend.adapter.is_some(), subtrahend.adapter.is_some()) {
        (false, false) => Ok(()),
        (true, true) => {
            // With --base the user says it of both.
            if options.base.is_none() {
                same_base(minuend, subtrahend)?;
            }
            complete(minuend, subtrahend, "subtrahend");
            complete(subtrahend, minuend, "minuend");
            Ok(())
        }
        (true, false) => against_base(minuend, subtrahend, options),
        (false, true) => against_base(subtrahend, minuend, options),
    }
}

/// The factors of every module, in the file's order, or an error for what is none.
fn modules(checkpoint: &Checkpoint) -> Result<Vec<(&str, Module<'_>)>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut modules: Vec<(&str, Module)> = Vec::new();
    for tensor in &checkpoint.tensors {
        let name = tensor.name.strip_prefix(PREFIX);
        let found = name.and_then(|name| (0..).zip(ENDS).find_map(|(at, end)| Some((name.strip_suffix(end)?, at))));
        let Some((module, at)) = found.filter(|(module, _)| !module.is_empty()) else {
            return Err(no_factor(checkpoint, tensor));
        };
        let place = *places.entry(module).or_insert_with(|| {
            modules.push((module, Module::default()));
            modules.len() - 1
        });
        modules[place].1[at] = Some(tensor);
    }
    if modules.is_empty() {
        let path = checkpoint.shards.first().map_or(&*checkpoint.place.root, |shard| &*shard.path);
        return Err(Error::corrupt(path, "holds no factors; save the adapter again"));
    }
    Ok(modules)
}

fn product(
    checkpoint: &Checkpoint,
    name: &str,
    module: &Module,
    fan_in_fan_out: bool,
    like: Option<&Checkpoint>,
    rank: u64,
    scale: f64,
) -> Result<Product> {
    let (a, b, embedding) = match *module {
        [Some(a), Some(b), None, None, _] => (a, b, false),
        [None, None, Some(a), Some(b), _] => (a, b, true),
        [_, _, None, None, Some(only)] if module[0].or(module[1]).is_none() => {
            return Err(refused(checkpoint, only, "it is a whole weight, of a module without factors".into()));
        }
        _ => {
            let one = module.iter().flatten().next().copied();
            let what = format!("module {} has not just one A and one B", quote(name));
            let path = one.map_or(&*checkpoint.place.root, |tensor| &*checkpoint.shard(tensor).path);
            return Err(Error::corrupt(path, format!("{what}; save the adapter again")));
        }
    };
    let ([a_rank, columns], [rows, b_rank]) = (matrix(checkpoint, a)?, matrix(checkpoint, b)?);
    if a_rank != b_rank || a_rank != rank {
        let what = format!(
            "its shape is {:?} and that of `{}` {:?}, but the rank in {} is {rank}; save the adapter again",
            a.shape,
            b.name,
            b.shape,
            adapter_config::FILE
        );
        return Err(Error::corrupt(&checkpoint.shard(a).path, format!("tensor {}: {what}", quote(&a.name))));
    }
    let conv1d =
        || is_conv1d(name, [rows, columns], fan_in_fan_out, like).map_err(|what| mismatch(checkpoint, a, &what));
    let transposed = embedding || conv1d()?;
    let (a, b) = (factor(checkpoint, a)?, factor(checkpoint, b)?);
    let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
    if rows.checked_mul(columns).and_then(|elements| elements.checked_mul(4)).is_none() {
        let what = format!("the ΔW of module {} is too large; save the adapter again", quote(name));
        return Err(Error::corrupt(&checkpoint.place.root, what));
    }
    Ok(Product { a, b, rank, rows, columns, scale, transposed })
}

/// Both dimensions of a factor.
fn matrix(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<[u64; 2]> {
    match tensor.shape[..] {
        [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        [0] => Err(mismatch(
            checkpoint,
            tensor,
            "its shape is [0]: DeepSpeed ZeRO-3 saved this adapter without gathering its weights; save it again with stage3_gather_16bit_weights_on_model_save",
        )),
        _ => Err(refused(checkpoint, tensor, format!("its shape is {:?}, and only matrices are taken", tensor.shape))),
    }
}

fn factor(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<Factor> {
    match tensor.dtype.float() {
        Some(float) => Ok(Factor { shard: tensor.shard, begin: tensor.begin, float }),
        None => {
            let what = format!("it is {}, and only BF16, F16 and F32 factors are taken", tensor.dtype);
            Err(refused(checkpoint, tensor, what))
        }
    }
}

/// What is wrong with a tensor that is not a factor: merging helps only where PEFT would read it.
fn no_factor(checkpoint: &Checkpoint, tensor: &Tensor) -> Error {
    if tensor.name.starts_with(PREFIX) || !ENDS.iter().any(|end| tensor.name.ends_with(end)) {
        return refused(checkpoint, tensor, "it is no factor of a LoRA adapter on a whole model".into());
    }
    let what = format!(
        "its name does not begin with `{PREFIX}`, as PEFT saves the adapter of a whole model; save the adapter with PEFT's `save_pretrained`"
    );
    mismatch(checkpoint, tensor, &what)
}

fn refused(checkpoint: &Checkpoint, tensor: &Tensor, what: String) -> Error {
    mismatch(checkpoint, tensor, &format!("{what}; {MERGE}"))
}

fn mismatch(checkpoint: &Checkpoint, tensor: &Tensor, what: &str) -> Error {
    Error::Mismatch(format!("{}: tensor {}: {what}", checkpoint.shard(tensor).path.display(), quote(&tensor.name)))
}

fn tensor(name: String, shape: Vec<u64>, shard: u32) -> Tensor {
    // It stands nowhere: its bytes are those that it takes once it is made.
    let bytes = shape.iter().product::<u64>() * 4;
    Tensor { name, dtype: Dtype::F32, shape, shard, begin: 0, bytes }
}

/// Adds what only `other` adapts to `this`, as zeros.
fn complete(other: &Checkpoint, this: &mut Checkpoint, role: &str) {
    let (mut tensors, mut made) = (this.tensors.clone(), this.made.clone().unwrap_or_default());
    let added: Vec<&Tensor> = other.tensors.iter().filter(|tensor| this.get(&tensor.name).is_none()).collect();
    if added.is_empty() {
        return;
    }
    let shown: Vec<&str> = added.iter().take(3).map(|tensor| tensor.name.as_str()).collect();
    let more = if added.len() > 3 { format!(" and {} more", added.len() - 3) } else { String::new() };
    let note =
        format!("{} tensor(s) that the {role} does not adapt, zero in it: {}{more}", added.len(), shown.join(", "));
    tensors.extend(added.iter().map(|added| tensor(added.name.clone(), added.shape.clone(), 0)));
    made.resize(tensors.len(), Made::Zero);
    this.compute(tensors, made, vec![note]);
}

fn same_base(minuend: &Checkpoint, subtrahend: &Checkpoint) -> Result<()> {
    let (Some(a), Some(b)) = (&minuend.adapter, &subtrahend.adapter) else { return Ok(()) };
    if let (Some(one), Some(two)) = (&a.base, &b.base)
        && (one == two || same_folder(Path::new(one), Path::new(two)))
        && a.revision == b.revision
    {
        return Ok(());
    }
    let named = |config: &AdapterConfig| match (&config.base, &config.revision) {
        (Some(base), Some(revision)) => quote(&format!("{base}@{revision}")),
        (Some(base), None) => quote(base),
        (None, _) => "not named in it".into(),
    };
    let (root, other) = (minuend.place.root.display(), subtrahend.place.root.display());
    let (a, b) = (named(a), named(b));
    Err(Error::Mismatch(format!(
        "{root}: this adapter's base is {a}, and that of {other} is {b}; use adapters that were trained on one base, or name it with --base if both names are of one model"
    )))
}

/// Makes zeros of a checkpoint that is the base of the other side: then the difference is ±ΔW, and none of its bytes
/// are needed.
fn against_base(adapted: &Checkpoint, base: &mut Checkpoint, options: &Options) -> Result<()> {
    let Some(config) = &adapted.adapter else { return Ok(()) };
    let (root, shown) = (adapted.place.root.display(), base.place.root.display());
    match &options.base {
        Some(named) if !is_named(named, &base.place) => {
            return Err(Error::Mismatch(format!(
                "--base {named}: the donor beside the adapter {root} is {shown}, which is not that model; give the base as a donor too"
            )));
        }
        None if !is_base(config, &base.place) => {
            let named = match &config.base {
                Some(base) => {
                    format!("this adapter's base is {}, and nothing shows that {shown} is that model", quote(base))
                }
                None => format!(
                    "{} does not name the base model (base_model_name_or_path), so nothing shows that {shown} is it",
                    adapter_config::FILE
                ),
            };
            return Err(Error::Mismatch(format!("{root}: {named}; give --base {shown} if it is")));
        }
        _ => {}
    }
    let stored: HashMap<Cow<'_, str>, u32> =
        (0..).zip(&base.tensors).map(|(at, tensor)| (options.strip(&tensor.name), at)).collect();
    let mut by_place = BTreeMap::new();
    for tensor in &adapted.tensors {
        let name = options.strip(&tensor.name);
        let found = stored.get(&name).copied().filter(|&at| base.tensors[at as usize].shape == tensor.shape);
        let Some(at) = found else {
            if !options.selects(&name) {
                continue;
            }
            return Err(Error::Mismatch(format!("{root}: {}", lacks(base, tensor))));
        };
        by_place.insert(at, tensor);
    }
    // In the base's own order: where it is the minuend, its files give a vector its layout.
    let zero = |(&at, other): (&u32, &&Tensor)| {
        let own = &base.tensors[at as usize];
        tensor(own.name.clone(), other.shape.clone(), own.shard)
    };
    let tensors: Vec<Tensor> = by_place.iter().map(zero).collect();
    let made = vec![Made::Zero; tensors.len()];
    let note =
        format!("{} is the adapter's base: the difference is ΔW itself, so its weights are not read", base.label);
    base.compute(tensors, made, vec![note]);
    // An adapted head is one of its own, as in the adapter.
    base.config.tied = Some(false);
    Ok(())
}

/// Why an adapter on a tensor that its base does not have is refused.
fn lacks(base: &Checkpoint, tensor: &Tensor) -> String {
    let (name, shape, shown) = (quote(&tensor.name), &tensor.shape, base.place.root.display());
    if tied::is_head(&tensor.name) && base.config.tied == Some(true) {
        return format!(
            "it adapts {name}, which {shown} ties to its embedding and does not store; leave it out with --exclude '{}', or train on an untied model",
            regex::escape(&tensor.name)
        );
    }
    match base.get(&tensor.name) {
        Some(stored) => format!(
            "it adapts {name} of shape {shape:?}, which is {:?} in {shown}; use the checkpoint that it was trained on",
            stored.shape
        ),
        None => format!(
            "it adapts {name}, which {shown} does not have; where names differ by a prefix give --strip-prefix, else use the checkpoint that it was trained on"
        ),
    }
}

/// Whether `--base` means this checkpoint: as it is written, as a folder, or as the Hub names it.
fn is_named(base: &str, place: &Place) -> bool {
    place.root.as_os_str().to_str() == Some(base)
        || place.origin.as_ref().is_some_and(|origin| origin.repo == base && origin.subfolder.is_none())
        || (place.remote.is_none() && same_folder(Path::new(base), &place.root))
}

/// Whether a checkpoint is visibly the one that an adapter names.
fn is_base(config: &AdapterConfig, place: &Place) -> bool {
    let Some(base) = &config.base else { return false };
    let on_hub = place.origin.as_ref().is_some_and(|origin| {
        let named = format!("{base}@{}", config.revision.as_deref().unwrap_or_default());
        let revision = config.revision.as_ref().is_none_or(|revision| {
            *revision == origin.commit || place.root.as_os_str().to_str() == Some(named.as_str())
        });
        origin.repo == *base && origin.subfolder.is_none() && revision
    });
    // A folder of this machine has no revisions.
    let here = place.remote.is_none() && config.revision.is_none() && same_folder(Path::new(base), &place.root);
    on_hub || here
}

/// Whether both are one folder of this machine.
fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
