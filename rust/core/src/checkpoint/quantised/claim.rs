//! What a configuration claims about quantised weights. Headers decide; the claim offers block sizes to hold against
//! them, because a shape alone does not tell a block size.

use serde_json::{Map, Value};

/// Methods whose layouts are read. Which layout a tensor has is told by its header.
const KNOWN: [&str; 6] = ["fp8", "mxfp4", "mxfp8", "compressed-tensors", "modelopt", "modelopt_fp4"];

/// A claim.
#[derive(Debug, Default)]
pub struct Claim {
    /// The method, as `quant_method` names it.
    pub method: String,
    /// Sizes of blocks: rows and columns.
    pub blocks: Vec<[u64; 2]>,
    /// Sizes of groups within a row.
    pub groups: Vec<u64>,
    /// Whether weights have one scale for each row.
    pub rows: bool,
    /// What it claims that taskvec does not read.
    pub unread: Option<String>,
}

impl Claim {
    /// Reads a quantisation config, as `config.json` has it under `quantization_config`.
    pub fn parse(config: &Value) -> Self {
        let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let mut claim = Self { method: method.to_owned(), ..Self::default() };
        if let Some(object) = config.as_object() {
            claim.collect(object);
        }
        claim
    }

    /// Whether taskvec reads layouts of this method.
    pub fn is_known(&self) -> bool {
        KNOWN.contains(&self.method.as_str())
    }

    /// Takes the sizes of an object and of those inside it: there may be a group of tensors for each.
    fn collect(&mut self, object: &Map<String, Value>) {
        for (key, value) in object {
            match (key.as_str(), value) {
                ("weight_block_size" | "block_structure", Value::Array(sides)) => {
                    if let [Some(rows), Some(columns)] = [0, 1].map(|at| sides.get(at).and_then(Value::as_u64))
                        && rows > 0
                        && columns > 0
                    {
                        self.blocks.push([rows, columns]);
                    }
                }
                ("group_size", value) => self.groups.extend(value.as_u64().filter(|&size| size > 0)),
                // The weights are stored in a basis of their own.
                ("transform_config", Value::Object(inner)) if inner.values().any(holds_something) => {
                    self.unread = Some("a transform_config".into());
                }
                ("weights", Value::Object(weights)) => {
                    let bits = weights.get("num_bits").and_then(Value::as_u64);
                    if weights.get("symmetric") == Some(&Value::Bool(false)) {
                        self.unread = Some("zero points (symmetric is false)".into());
                    } else if weights.get("type").and_then(Value::as_str) == Some("int") && bits != Some(4) {
                        self.unread = Some(format!("{}-bit integers", bits.unwrap_or(0)));
                    }
                    self.collect(weights);
                }
                ("strategy", Value::String(strategy)) => self.rows |= strategy == "channel",
                ("quant_algo", Value::String(algorithm)) => self.rows |= algorithm.contains("PER_CHANNEL"),
                (_, Value::Object(inner)) => self.collect(inner),
                _ => {}
            }
        }
    }
}

/// Whether a value is more than an empty object or list.
fn holds_something(value: &Value) -> bool {
    match value {
        Value::Object(object) => !object.is_empty(),
        Value::Array(list) => !list.is_empty(),
        value => !value.is_null(),
    }
}
