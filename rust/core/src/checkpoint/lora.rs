//! A PEFT adapter, opened as a checkpoint: its tensors are the ΔW of the adapted weights, under the names of the base
//! model.
//!
//! A weight that the adapter does not adapt has a ΔW of zero. So both sides of a pair can get the same tensors, and all
//! later steps treat them like any other checkpoint.

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, Shape, Tensor};
use crate::codec::derived::Made;
use crate::codec::lora_product::{Factor, Product};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::adapter_config::{self, AdapterConfig, MERGE};
use crate::format::config::Config;
use crate::numeric::dtype::Dtype;
use crate::storage::place::Place;
use crate::text::{Name, quote};

/// The weights' file name without its ending.
const STEM: &str = "adapter_model";
/// The prefix that PEFT adds to the base model's names.
const PREFIX: &str = "base_model.model.";
/// The endings of the names of a module's tensors: A and B of a matrix, A and B of an embedding, and the base model's
/// weight, which PEFT also saves with an adapted embedding.
const ENDS: [&str; 5] =
    [".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".base_layer.weight"];

/// The models of transformers whose blocks are made of its `Conv1D`, as configs name them.
const CONV1D_MODELS: [&str; 6] = ["clvp", "clvp_decoder", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"];
/// The layers of those models that are `Conv1D`. Their other layers, such as the head, are linear.
const CONV1D_LAYERS: [&str; 4] = ["c_attn", "q_attn", "c_proj", "c_fc"];

/// Whether a module's weight is stored as `[in, out]`, as `Conv1D` does.
///
/// PEFT looks at the layer and not at the flag in the file. So the flag decides only if there is no model `like` to
/// look at. If there is one but it does not tell, a flag that is set is refused.
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
        // A shape that fits neither way is refused later.
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
    // A head that the adapter adapts is separate from the embedding, and a head that it does not adapt does not change.
    // So no head is tied. A config.json beside the adapter is ignored: it is a copy of the base model's.
    checkpoint.config = Config { tied: Some(false), ..Config::default() };
    checkpoint.unread = None;
    checkpoint.adapter = Some(AdapterConfig::read(place)?);
    Ok(checkpoint)
}

/// The tensors of one adapted module.
#[derive(Clone, Copy, Default)]
struct Module<'a> {
    matrix: Factors<'a>,
    embedding: Factors<'a>,
    /// The weight as the base has it, which PEFT saves along with an adapted embedding.
    whole: Option<&'a Tensor>,
}

#[derive(Clone, Copy, Default)]
struct Factors<'a> {
    a: Option<&'a Tensor>,
    b: Option<&'a Tensor>,
}

impl<'a> Module<'a> {
    /// The place of the tensor whose name ends with the entry of [`ENDS`] of this number.
    fn of_end(&mut self, number: usize) -> &mut Option<&'a Tensor> {
        match number {
            0 => &mut self.matrix.a,
            1 => &mut self.matrix.b,
            2 => &mut self.embedding.a,
            3 => &mut self.embedding.b,
            _ => &mut self.whole,
        }
    }
}

/// Opens an adapter as the ΔW of its factors. `like` is a model with the same layers as the base, if there is one.
pub fn open(place: &Place, like: Option<&Checkpoint>, control: &Control) -> Result<Checkpoint> {
    let mut checkpoint = open_factors(place, control)?;
    let Some(config) = checkpoint.adapter.clone() else { return Ok(checkpoint) };
    let modules = modules(&checkpoint)?;
    let names: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
    let scales = config.scales(place, &names, control)?;
    let (mut tensors, mut made, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for ((name, module), (rank, scale)) in modules.iter().zip(scales) {
        let product = product(&checkpoint, name, module, config.fan_in_fan_out, like, rank, scale)?;
        let tensor = tensor(format!("{name}.weight"), vec![product.rows, product.columns], 0);
        if let Some(weight) = module.whole {
            if weight.shape != tensor.shape {
                return Err(refused(
                    &checkpoint,
                    weight,
                    format!("its shape differs from that of ΔW, {:?}", tensor.shape),
                ));
            }
            kept.push(weight.name.as_str());
        }
        made.push(Made::Product(product.into()));
        tensors.push(tensor);
    }
    let mut notes = vec![format!(
        "{} is a LoRA adapter on {}: the ΔW of {} tensors is computed from its factors",
        checkpoint.label,
        config.base.as_deref().map_or("a base model that it does not name".into(), quote),
        tensors.len()
    )];
    if !kept.is_empty() {
        let named = kept.join(", ");
        notes
            .push(format!("base model weights that {} holds besides its factors, not used: {named}", checkpoint.label));
    }
    checkpoint.compute(tensors, made, notes);
    Ok(checkpoint)
}

/// The factors of every module, in the order of the file. Fails for a tensor that is not a factor.
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
        *modules[place].1.of_end(at) = Some(tensor);
    }
    if modules.is_empty() {
        let path = checkpoint.shards.first().map_or(&*checkpoint.place.root, |shard| &*shard.path);
        return Err(Error::corrupt(path, "holds no LoRA factors; save the adapter again"));
    }
    Ok(modules)
}

/// Checks the factors of one module, and describes their product.
fn product(
    checkpoint: &Checkpoint,
    name: &str,
    module: &Module,
    fan_in_fan_out: bool,
    like: Option<&Checkpoint>,
    rank: u64,
    scale: f64,
) -> Result<Product> {
    let Module { matrix: of_matrix, embedding: of_embedding, whole } = *module;
    let none = |factors: Factors| factors.a.or(factors.b).is_none();
    let (a, b, embedding) = match (of_matrix, of_embedding, whole) {
        (Factors { a: Some(a), b: Some(b) }, others, _) if none(others) => (a, b, false),
        (others, Factors { a: Some(a), b: Some(b) }, _) if none(others) => (a, b, true),
        (_, _, Some(only)) if none(of_matrix) && none(of_embedding) => {
            return Err(refused(checkpoint, only, "it is the full weight of a module that has no factors".into()));
        }
        _ => {
            let one = [of_matrix.a, of_matrix.b, of_embedding.a, of_embedding.b, whole].into_iter().flatten().next();
            let what = format!("module {} does not have exactly one A and one B", quote(name));
            let path = one.map_or(&*checkpoint.place.root, |tensor| &*checkpoint.shard(tensor).path);
            return Err(Error::corrupt(path, format!("{what}; save the adapter again")));
        }
    };
    let ([a_rank, columns], [rows, b_rank]) = (matrix(checkpoint, a)?, matrix(checkpoint, b)?);
    if a_rank != b_rank || a_rank != rank {
        let what = format!(
            "its shape is {:?} and that of `{}` is {:?}, but the rank in {} is {rank}; save the adapter again",
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

/// The two dimensions of a factor.
fn matrix(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<[u64; 2]> {
    match tensor.shape[..] {
        [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        [0] => Err(mismatch(
            checkpoint,
            tensor,
            "its shape is [0]: DeepSpeed ZeRO-3 saved this adapter without gathering its weights; save it again with stage3_gather_16bit_weights_on_model_save",
        )),
        _ => Err(refused(
            checkpoint,
            tensor,
            format!("its shape is {:?}, but only matrices are supported", tensor.shape),
        )),
    }
}

fn factor(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<Factor> {
    match tensor.dtype.float() {
        Some(float) => Ok(Factor { shard: tensor.shard, begin: tensor.begin, float }),
        None => {
            let what = format!("it is {}, but only BF16, F16 and F32 factors are supported", tensor.dtype);
            Err(refused(checkpoint, tensor, what))
        }
    }
}

/// The error for a tensor that is not a factor. Merging is suggested only if PEFT could read the adapter.
fn no_factor(checkpoint: &Checkpoint, tensor: &Tensor) -> Error {
    if tensor.name.starts_with(PREFIX) || !ENDS.iter().any(|end| tensor.name.ends_with(end)) {
        return refused(checkpoint, tensor, "it is not a factor of a LoRA adapter on a whole model".into());
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

/// A tensor that is computed and not stored. Its length is that of the computed f32 values.
pub(crate) fn tensor(name: impl Into<Name>, shape: impl Into<Shape>, shard: u32) -> Tensor {
    let (name, shape) = (name.into(), shape.into());
    let bytes = shape.iter().product::<u64>() * 4;
    Tensor { name, dtype: Dtype::F32, shape, shard, begin: 0, bytes }
}
