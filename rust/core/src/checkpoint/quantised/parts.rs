//! The names and types of a quantised weight's parts: which stored tensors are codes, which are their scales, and what
//! else lies beside them.

use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::scaled::{Codes, Global};
use crate::numeric::dtype::Dtype;

/// A stored tensor that holds codes.
#[derive(Debug)]
pub struct Coded<'a> {
    /// The name of the weight.
    pub weight: &'a str,
    /// The format of the codes.
    pub codes: Codes,
    /// Dimensions of the codes, one element for each code, as they are stored.
    pub shape: Vec<u64>,
    /// Whether they are blocks of 32 codes that belong to rows of the transposed weight.
    pub blocks: bool,
}

/// Formats that are recognised and not read, by the type of their codes.
const UNREAD: [(Dtype, &str); 5] = [
    (Dtype::F8_E5M2, "FP8 with E5M2 codes"),
    (Dtype::F8_E4M3FNUZ, "AMD's FP8 (E4M3FNUZ)"),
    (Dtype::F8_E5M2FNUZ, "AMD's FP8 (E5M2FNUZ)"),
    (Dtype::F6_E2M3, "FP6"),
    (Dtype::F6_E3M2, "FP6"),
];

/// Endings of tensors that change what the weights beside them mean.
const UNREAD_PARTS: [(&str, &str); 5] = [
    ("comfy_quant", "describes weights that ComfyUI has quantised"),
    ("pre_quant_scale", "has a factor for each column of a quantised weight"),
    ("svdquant_lora_a", "is a part of a product that is added to a quantised weight"),
    ("svdquant_lora_b", "is a part of a product that is added to a quantised weight"),
    (".blocks", "holds blocks as the files of OpenAI's own code have them"),
];

/// Endings of tensors that describe quantised activations or caches. Weights do not need them.
const ACTIVATIONS: [&str; 9] = [
    "input_scale",
    "input_scale_inv",
    "activation_scale",
    "output_scale",
    "input_global_scale",
    "input_zero_point",
    ".k_scale",
    ".v_scale",
    ".q_scale",
];

/// Endings of tensors that are scales, or tell how codes are read, whatever their type.
const COMPANIONS: [&str; 9] = [
    "weight_scale",
    "_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "qzeros",
    "g_idx",
];

/// The module of a tensor that only concerns its activations or caches; `None` for every other tensor.
pub fn of_activations(name: &str) -> Option<&str> {
    let stem = ACTIVATIONS.iter().find_map(|end| name.strip_suffix(end))?;
    Some(stem.trim_end_matches(['.', '_']))
}

/// Whether a tensor can only be a part of a quantised weight.
pub fn is_companion(tensor: &Tensor) -> bool {
    let bytes = matches!(tensor.dtype, Dtype::U8 | Dtype::F8_E8M0 | Dtype::F8_E4M3);
    tensor.dtype == Dtype::F8_E8M0
        || COMPANIONS.iter().any(|end| tensor.name.ends_with(end))
        || (bytes && ["_scale", "_scales", ".scale"].iter().any(|end| tensor.name.ends_with(end)))
}

/// The weights whose scales a tensor of this name would be.
pub fn scaled_names(name: &str) -> Vec<String> {
    let ends = ["_scale_inv", "_scale"].iter().filter_map(|end| name.strip_suffix(end)).map(str::to_owned);
    ends.chain(name.strip_suffix(".scale").map(|stem| format!("{stem}.weight"))).collect()
}

/// What a tensor's codes are, if it holds any. The error names a format that is not read.
pub fn coded(tensor: &Tensor) -> Result<Option<Coded<'_>>, String> {
    let name: &str = &tensor.name;
    if is_companion(tensor) || of_activations(name).is_some() {
        return Ok(None);
    }
    if let Some((_, format)) = UNREAD.iter().find(|(dtype, _)| *dtype == tensor.dtype) {
        return Err(format!("its values are {format}, a format that taskvec does not read"));
    }
    if let Some((_, what)) = UNREAD_PARTS.iter().find(|(end, _)| name.ends_with(end)) {
        return Err(format!("it {what}, which taskvec does not read"));
    }
    let shape = |codes_of_element: u64| {
        let mut shape = tensor.shape.to_vec();
        if let Some(last) = shape.last_mut() {
            *last *= codes_of_element;
        }
        shape
    };
    let matrix = tensor.shape.len() >= 2;
    let found = |weight, codes, shape| Ok(Some(Coded { weight, codes, shape, blocks: false }));
    match tensor.dtype {
        Dtype::F8_E4M3 => found(name, Codes::E4m3, shape(1)),
        Dtype::F4 if matrix => found(name, Codes::E2m1, shape(1)),
        Dtype::U8 if name.ends_with("_blocks") && tensor.shape.len() >= 3 => {
            let [above @ .., groups, bytes] = &tensor.shape[..] else { return Ok(None) };
            if *bytes != 16 {
                return Err(format!(
                    "its blocks have {bytes} bytes instead of 16, a format that taskvec does not read"
                ));
            }
            let (weight, shape) = (&name[..name.len() - "_blocks".len()], [above, &[groups * 32]].concat());
            Ok(Some(Coded { weight, codes: Codes::E2m1, shape, blocks: true }))
        }
        Dtype::I32 if name.ends_with("_packed") && matrix => {
            found(&name[..name.len() - "_packed".len()], Codes::Int4, shape(8))
        }
        Dtype::U8 if name.ends_with("_packed") && matrix => {
            found(&name[..name.len() - "_packed".len()], Codes::E2m1, shape(2))
        }
        Dtype::I8 | Dtype::U8 if name.ends_with("weight") && matrix => found(name, Codes::E2m1, shape(2)),
        Dtype::I8 | Dtype::U8 if name.ends_with("_proj") && tensor.shape.len() >= 3 => {
            found(name, Codes::E2m1, shape(2))
        }
        Dtype::I32 if name.ends_with("qweight") => {
            Err("its values are packed as GPTQ and AWQ do, a format that taskvec does not read".into())
        }
        _ => Ok(None),
    }
}

/// The companions of a weight: the tensor of the last of its names that exists, by what it is.
#[derive(Debug, Default)]
pub struct Companions {
    /// Its scales, under every name that they may have.
    pub scales: Vec<u32>,
    /// Its second scale, and how it is applied.
    pub global: Option<(u32, Global)>,
    /// Its dimensions.
    pub shape: Option<u32>,
    /// What makes codes asymmetric or reorders them, which is not read.
    pub unread: Option<u32>,
}

impl Companions {
    /// Looks for the companions of a weight.
    pub fn of(checkpoint: &Checkpoint, coded: &Coded) -> Self {
        let Coded { weight, .. } = *coded;
        let find = |end: &str| checkpoint.find(&format!("{weight}{end}"));
        let mut scales: Vec<u32> = if coded.blocks {
            find("_scales").into_iter().collect()
        } else {
            ["_scale_inv", "_scale"].into_iter().filter_map(find).collect()
        };
        let stem = weight.strip_suffix(".weight").filter(|_| !coded.blocks);
        scales.extend(stem.and_then(|stem| checkpoint.find(&format!("{stem}.scale"))));
        let multiplied = find("_scale_2").map(|at| (at, Global::Multiplied));
        let global = multiplied.or_else(|| find("_global_scale").map(|at| (at, Global::Divided)));
        let unread = find("_zero_point").or_else(|| find("_g_idx"));
        Self { scales, global, shape: find("_shape"), unread }
    }
}
